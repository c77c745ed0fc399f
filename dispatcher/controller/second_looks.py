"""A second look at each reported Job: a Processing that reached the portal late may have overwritten its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject, timestamp
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.launch.model_locks import ModelLocks
from portal_client.errors import ModelUnknown
from training_common import backoff

# Seconds after a report by which a Processing that was on its way to the portal has landed: twice the time that the
# client waits for an answer.
_LATE_WRITE = 60.0
# Seconds after a report for which a process that was started since looks at it: whoever reported it did so before.
_SETTLED = 1800.0


@dataclass
class _Look:
    """job: as it was reported; due: monotonic seconds; left: the number of looks still to come."""

    job: Job
    due: float
    left: int


@dataclass(eq=False)
class SecondLooks:
    """Thread-safe; one worker at a time has a Job."""

    work: WorkQueue
    reporter: Reporter
    locks: ModelLocks
    clock: Callable[[], float]
    monotonic: Callable[[], float]

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _looks: dict[str, _Look] = field(default_factory=dict, init=False)  # by the Job's name

    def expect(self, job: Job) -> None:
        """Have the Job looked at a while after its report, unless this process began long after that.

        A launch that stood still and wakes up resumes a reported Job once more: its Processing has landed already.
        """
        now, name = self.monotonic(), job.name
        # Spread: a restarted dispatcher sees all of them at once.
        later = now + backoff.jittered(_LATE_WRITE, 1.0, 1.5)
        look = _Look(job, now, 2) if _is_late(job) else _Look(job, later, 1)
        with self._guard:
            known = self._looks.get(name)
            if known is not None and _launch(known.job) == _launch(job):
                return
            if known is None and is_settled(job, self.clock()):
                return
            self._looks[name] = look
        self.work.add_after(name, look.due - now)

    def look(self, name: str) -> bool:
        """Look at the Job if that is expected and due; returns whether no more looks are to come.

        Raises PortalError and ClusterError.
        """
        now = self.monotonic()
        with self._guard:
            look = self._looks.get(name)
        if look is None:
            return True
        if now >= look.due:
            # A model that the portal has no more shows no Processing, and is not asked for until somebody restarts us.
            with self.locks.hold(look.job.model_id), suppress(ModelUnknown):
                self.reporter.repair(look.job)
            look.left -= 1
            look.due = now + backoff.jittered(_LATE_WRITE, 1.0, 1.5)
        if look.left:
            self.work.add_after(name, look.due - now)
            return False
        with self._guard:
            del self._looks[name]
        return True


def is_settled(job: KubeObject, now: float) -> bool:
    """Whether the Job was reported so long before `now` (epoch seconds) that no Processing can be on its way."""
    reported_at = timestamp(job.annotations.reported_at) or 0.0
    return job.is_reported and not _is_late(job) and now - reported_at > _SETTLED


def _is_late(job: KubeObject) -> bool:
    """Whether it was launched once more after its report."""
    return (job.annotations.launched_at or "") > (job.annotations.reported_at or "")


def _launch(job: Job) -> tuple[str, str | None]:
    return job.uid, job.annotations.launched_at
