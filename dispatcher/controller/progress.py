"""When to send the portal what a training waits for: only what lasts, not too often, and nothing that is outdated.

All models share one pace: ten thousand that wait cost the portal no more than a hundred, and outcomes come first.
What was sent last stands on the Job: a restart sends none of it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.cluster.errors import ClusterError
from dispatcher.cluster.jobs import Job
from dispatcher.controller.pace import Pace, of_training
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client import messages
from portal_client.errors import PortalError

log = logging.getLogger(__name__)

# Seconds. A state that passes sooner (a pod about to start) is not worth a call to the portal.
_LASTING = 10.0
# Seconds until a Processing that the portal did not take is sent again: until then it shows what was before the launch.
_BEGIN_AGAIN = 30.0


@dataclass
class _Shown:
    """One Job: what it waits for and since when, what the portal shows and since when (monotonic seconds)."""

    seen: str = ""
    since: float = 0.0
    sent: str = ""
    sent_at: float = float("-inf")


@dataclass(eq=False)
class Progress:
    """The caller holds the model's lock. every: seconds between two progress messages of a model; pace: of all."""

    work: WorkQueue
    reporter: Reporter
    every: float
    pace: Pace
    monotonic: Callable[[], float]
    events: EventRecorder = NULL_RECORDER

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _shown: dict[str, _Shown] = field(default_factory=dict, init=False)  # by the Job's uid

    def begins(self, name: str, job: Job) -> None:
        """Send the Processing that the portal did not take at the launch, in its turn."""
        if self.reporter.portal is not None:
            self._in_turn(name, job, lambda: self.reporter.acknowledge(job), min(self.every, _BEGIN_AGAIN))

    def waits(self, name: str, job: Job, message: str) -> None:
        """Send the message if it has lasted and has changed, at most once in `every` seconds, in its turn."""
        now = self.monotonic()
        with self._guard:
            shown = self._shown.setdefault(job.uid, _Shown())
            if message != shown.seen:
                shown.seen, shown.since = message, now
            due = max(shown.since + min(_LASTING, self.every), shown.sent_at + self.every)
            # What stands on the Job may be another replica's, and newer than our own memory unless the watch is behind.
            behind = now < shown.sent_at + self.every
            told = shown.sent if behind else job.annotations.told or shown.sent
        if message == told:
            self.pace.forget(job.uid)
        elif now < due:
            self.work.add_after(name, due - now)
        elif self._tell(name, job, message):
            with self._guard:
                shown.sent, shown.sent_at = message, now

    def runs(self, name: str, job: Job) -> None:
        """The trainer runs: replace what we last wrote about its waiting. Not every trainer sends progress itself.

        The trainer has the time of two progress messages to send its own first; only our own message is replaced, if it
        is still there word for word.
        """
        now = self.monotonic()
        with self._guard:
            shown = self._shown.get(job.uid)
            sent = (shown and shown.sent) or job.annotations.told
            if not sent:
                self.pace.forget(job.uid)
                return
            if shown is None:
                shown = self._shown[job.uid] = _Shown(seen="?")
            if shown.seen:
                shown.seen, shown.since = "", now
            left = shown.since + 2 * self.every - now
        if left > 0:
            self.work.add_after(name, left)
        elif self._tell(name, job, messages.STARTED, instead_of=sent):
            with self._guard:
                shown.sent = ""

    def _tell(self, name: str, job: Job, message: str, instead_of: str | None = None) -> bool:
        """Send it if it is the Job's turn; else, or where it could not be told, look again later."""

        def tell() -> None:
            if instead_of is None:
                # One Event for each thing that is waited for: the scheduler's or registry's own words keep changing.
                self.events.record(job, "Waiting", message, once=message.partition(":")[0])
            self.reporter.progress(job, message, instead_of=instead_of)

        return self._in_turn(name, job, tell, self.every)

    def _in_turn(self, name: str, job: Job, tell: Callable[[], None], again: float) -> bool:
        """Whether it was told. again: seconds until it is tried again where the portal or the cluster did not take it.

        An error does not become the Job's: it would keep its outcome waiting as well.
        """
        if (wait := self.pace.wait(job.uid)) > 0:
            self.work.add_after(name, wait)
            return False
        with self.pace.turn(job.uid) as mine:
            if not mine:
                self.work.add_after(name, self.pace.wait(job.uid))
                return False
            try:
                tell()
            except (PortalError, ClusterError) as error:
                log.info("Model %s: progress not sent: %s", job.model_id, error)
                self.work.add_after(name, again)
                return False
        return True

    def round(self) -> float:
        """Seconds in which every model that waits has had a turn."""
        return max(self.every, len(self._shown) / self.pace.rate)

    def forget(self, job: Job) -> None:
        """The Job has ended."""
        for key in (job.uid, of_training(job.uid)):
            self.pace.forget(key)
        with self._guard:
            self._shown.pop(job.uid, None)
