"""When to send the portal what a training waits for: only what lasts, not too often, and nothing that is outdated."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.cluster import objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client import messages
from portal_client.errors import PortalError

log = logging.getLogger(__name__)

# Seconds. A state that passes sooner (a pod about to start) is not worth a call to the portal.
_LASTING = 10.0


@dataclass
class _Shown:
    """One Job: what it waits for and since when, what the portal shows and since when (monotonic seconds)."""

    seen: str = ""
    since: float = 0.0
    sent: str = ""
    sent_at: float = float("-inf")


@dataclass(eq=False)
class Progress:
    """The caller holds the model's lock. every: seconds between two progress messages of a model."""

    work: WorkQueue
    reporter: Reporter
    every: float
    monotonic: Callable[[], float]
    events: EventRecorder = NULL_RECORDER

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _shown: dict[str, _Shown] = field(default_factory=dict, init=False)  # by the Job's uid

    def waits(self, name: str, job: KubeObject, message: str) -> None:
        """Send the message if it has lasted and has changed, at most once in `every` seconds."""
        now = self.monotonic()
        with self._guard:
            shown = self._shown.setdefault(objects.uid_of(job), _Shown())
            if message != shown.seen:
                shown.seen, shown.since = message, now
            due = max(shown.since + min(_LASTING, self.every), shown.sent_at + self.every)
        if message == shown.sent:
            return
        if now < due:
            self.work.add_after(name, due - now)
            return
        # One Event for each thing that is waited for: the scheduler's or registry's own words keep changing.
        self.events.record(job, "Waiting", message, once=message.partition(":")[0])
        try:
            self.reporter.progress(job, message)
        except PortalError as error:
            log.info("Model %s: progress not sent: %s", objects.model_id_of(job), error)
            self.work.add_after(name, self.every)
            return
        with self._guard:
            shown.sent, shown.sent_at = message, now

    def runs(self, name: str, job: KubeObject) -> None:
        """The trainer runs: replace what we last wrote about its waiting. Not every trainer sends progress itself.

        The trainer has the time of two progress messages to send its own first; only our own message is replaced, if it
        is still there word for word. Raises PortalError.
        """
        now = self.monotonic()
        with self._guard:
            shown = self._shown.get(objects.uid_of(job))
            if shown is None or not shown.sent:
                return
            if shown.seen:
                shown.seen, shown.since = "", now
            left = shown.since + 2 * self.every - now
        if left > 0:
            self.work.add_after(name, left)
            return
        self.reporter.progress(job, messages.STARTED, instead_of=shown.sent)
        with self._guard:
            shown.sent = ""

    def seen(self) -> dict[str, str]:
        """By the Job's uid, what it was last seen to wait for, including what only its Events or Kueue show."""
        with self._guard:
            return {uid: shown.seen for uid, shown in self._shown.items()}

    def forget(self, job: KubeObject) -> None:
        """The Job has ended."""
        with self._guard:
            self._shown.pop(objects.uid_of(job), None)
