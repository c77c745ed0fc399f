"""A second look at each reported Job: a Processing that reached the portal late may have overwritten its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.cluster import names, objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.launch.model_locks import ModelLocks
from training_common import backoff

# Seconds after a report by which a Processing that was on its way to the portal has landed: twice the time that the
# client waits for an answer.
_LATE_WRITE = 60.0


@dataclass
class _Look:
    """seen: uid and launch of the Job; due: monotonic seconds; left: the number of looks still to come."""

    seen: tuple[str, str]
    due: float
    left: int


@dataclass(eq=False)
class SecondLooks:
    """Thread-safe; one worker at a time has a Job."""

    work: WorkQueue
    reporter: Reporter
    locks: ModelLocks
    monotonic: Callable[[], float]

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _looks: dict[str, _Look] = field(default_factory=dict, init=False)  # by the Job's name

    def look(self, name: str, job: KubeObject) -> None:
        """Look once, a while after the report. Raises PortalError and ClusterError.

        A launch that stood still and wakes up resumes the Job once more; that is seen here, too.
        """
        now = self.monotonic()
        launched, reported = (objects.annotation(job, key) or "" for key in (names.LAUNCHED_AT, names.REPORTED_AT))
        seen = (objects.uid_of(job), launched)
        # Spread: a restarted dispatcher sees all of them at once.
        late = backoff.jittered(_LATE_WRITE, 1.0, 1.5)
        with self._guard:
            look = self._looks.get(name)
            if look is None or look.seen != seen:
                # Launched after it was reported: that launch's Processing has landed already.
                look = _Look(seen, now, 2) if launched > reported else _Look(seen, now + late, 1)
                self._looks[name] = look
        if look.left and now >= look.due:
            with self.locks.hold(objects.model_id_of(job)):
                self.reporter.repair(job)
            look.left -= 1
            look.due = now + late
        if look.left:
            self.work.add_after(name, look.due - now)

    def forget(self, name: str) -> None:
        """There is no Job of this name."""
        with self._guard:
            self._looks.pop(name, None)
