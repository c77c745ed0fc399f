"""Kueue's Workloads for the reconciler: one list for all waiting Jobs, and no error that could hold up a report."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.cluster.errors import ClusterError
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Workload
from dispatcher.decisions import kueue
from dispatcher.decisions.kueue import Workloads
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder

log = logging.getLogger(__name__)


@dataclass(eq=False)
class KueueWorkloads:
    """The Workloads of the namespace, listed only while a Job waits, at most once in `every` seconds.

    list_workloads: raises ClusterError; the log then says once that no place in the queue is reported.
    """

    list_workloads: Callable[[], list[Workload]]
    every: float
    events: EventRecorder = NULL_RECORDER
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _listed_at: float = field(default=float("-inf"), init=False)
    _known: Workloads | None = field(default=None, init=False)
    _failing: bool = field(default=False, init=False)
    _stuck: set[str] = field(default_factory=set, init=False)  # uids of Workloads that a warning was logged for

    def progress(self, job: Job) -> str | None:
        """The progress message of a Job that waits for Kueue; None where nothing is known, or for any other Job."""
        workloads = self._workloads() if kueue.waits_in_queue(job) else None
        own = workloads.of(job) if workloads else None
        if not workloads or own is None:
            return None
        now = self.clock()
        if kueue.stuck_since(own, now) is not None:
            self._warn(job, own)
        return kueue.sentence(own, workloads, now)

    def _workloads(self) -> Workloads | None:
        """One thread lists; the others use what is known meanwhile."""
        with self._guard:
            now = self.monotonic()
            if now - self._listed_at < self.every:
                return self._known
            self._listed_at = now
        try:
            known: Workloads | None = Workloads(self.list_workloads())
        except ClusterError as error:
            level = logging.DEBUG if self._failing else logging.WARNING
            log.log(level, "%s. Users are not told how many trainings are before theirs in Kueue's queue", error)
            known, self._failing = None, True
        else:
            self._failing = False
        with self._guard:
            self._known = known
            self._stuck &= known.uids if known else set()
        return known

    def _warn(self, job: Job, workload: Workload) -> None:
        with self._guard:
            if workload.uid in self._stuck:
                return
            self._stuck.add(workload.uid)
        text = (
            f"Kueue has admitted Workload {workload.name} more than {kueue.STUCK_AFTER:.0f} seconds ago, "
            "and has not resumed its Job"
        )
        log.warning("Model %s: %s; look at Kueue's log", job.model_id, text)
        self.events.record(job, "AdmittedButSuspended", text, "Warning")
