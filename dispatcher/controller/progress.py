"""When the portal is told what a training waits for: what lasts, not too often, and nothing that is no longer true."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dispatcher.cluster import objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client import messages
from portal_client.errors import PortalError

log = logging.getLogger(__name__)

# A state that passes within these seconds (a pod about to start) is not worth a call to the portal.
_LASTING = 10.0


@dataclass
class _Said:
    """The progress of one Job: what is seen and since when, what the portal was told and when (monotonic seconds)."""

    seen: str = ""
    since: float = 0.0
    told: str = ""
    told_at: float = float("-inf")


class Progress:
    """The caller holds the model's lock. every: seconds between two progress messages of a model."""

    def __init__(
        self,
        work: WorkQueue,
        reporter: Reporter,
        every: float,
        monotonic: Callable[[], float],
        events: EventRecorder = NULL_RECORDER,
    ) -> None:
        self._work = work
        self._reporter = reporter
        self._every = every
        self._monotonic = monotonic
        self._events = events
        self._guard = threading.Lock()
        self._said: dict[str, _Said] = {}  # by the Job's uid

    def waits(self, name: str, job: KubeObject, message: str) -> None:
        """Only what has lasted, at most once in `every`, and only when it changed."""
        now = self._monotonic()
        with self._guard:
            said = self._said.setdefault(objects.uid_of(job), _Said())
            if message != said.seen:
                said.seen, said.since = message, now
            due = max(said.since + min(_LASTING, self._every), said.told_at + self._every)
        if message == said.told:
            return
        if now < due:
            self._work.add_after(name, due - now)
            return
        # A scheduler's or registry's own words change; what is waited for is told once.
        self._events.record(job, "Waiting", message, once=message.partition(":")[0])
        try:
            self._reporter.progress(job, message)
        except PortalError as error:
            log.info("Model %s: progress not told: %s", objects.model_id_of(job), error)
            self._work.add_after(name, self._every)
            return
        with self._guard:
            said.told, said.told_at = message, now

    def runs(self, name: str, job: KubeObject) -> None:
        """Its trainer runs: nothing of ours may go on saying what it waits for. Not every trainer speaks itself.

        It gets the time of two progress reports to speak first; what then stands there word for word is ours. Raises
        PortalError.
        """
        now = self._monotonic()
        with self._guard:
            said = self._said.get(objects.uid_of(job))
            if said is None or not said.told:
                return
            if said.seen:
                said.seen, said.since = "", now
            left = said.since + 2 * self._every - now
        if left > 0:
            self._work.add_after(name, left)
            return
        self._reporter.progress(job, messages.STARTED, instead_of=said.told)
        with self._guard:
            said.told = ""

    def seen(self) -> dict[str, str]:
        """By the Job's uid, what it was last seen to wait for."""
        with self._guard:
            return {uid: said.seen for uid, said in self._said.items()}

    def forget(self, job: KubeObject) -> None:
        """It has ended."""
        with self._guard:
            self._said.pop(objects.uid_of(job), None)
