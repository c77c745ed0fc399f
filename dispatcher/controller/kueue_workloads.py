"""Kueue's Workloads as the reconciler asks for them: one list for all Jobs that wait, and no error of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dispatcher.cluster import objects
from dispatcher.cluster.errors import ClusterError
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions import kueue
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder

log = logging.getLogger(__name__)


class KueueWorkloads:
    """The Workloads of the namespace, listed only when a Job waits, at most once in `every` seconds.

    list_workloads: raises ClusterError. What cannot be read is not told; the log says so once.
    """

    def __init__(
        self,
        list_workloads: Callable[[], list[KubeObject]],
        every: float,
        events: EventRecorder = NULL_RECORDER,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._list = list_workloads
        self._every = every
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._listed_at = float("-inf")
        self._known: list[KubeObject] | None = None
        self._complained = False
        self._stuck: set[str] = set()  # uids of Workloads that were complained of

    def progress(self, job: KubeObject) -> str | None:
        """What the user of a Job reads that waits for Kueue; None where that is not known, or it is another Job."""
        if not kueue.waits_in_queue(job):
            return None
        workloads = self._workloads()
        own = None if workloads is None else kueue.workload_of(job, workloads)
        if workloads is None or own is None:
            return None
        now = self._clock()
        if kueue.stuck_since(own, now) is not None:
            self._complain(job, own)
        return kueue.sentence(own, workloads, now)

    def _workloads(self) -> list[KubeObject] | None:
        """One thread lists, the others take what is known meanwhile."""
        with self._guard:
            now = self._monotonic()
            if now - self._listed_at < self._every:
                return self._known
            self._listed_at = now
        try:
            known: list[KubeObject] | None = self._list()
        except ClusterError as error:
            level = logging.DEBUG if self._complained else logging.WARNING
            log.log(level, "%s. Users are not told how many trainings are before theirs in Kueue's queue", error)
            known, self._complained = None, True
        else:
            self._complained = False
        with self._guard:
            self._known = known
            self._stuck &= {objects.uid_of(workload) for workload in known or ()}
        return known

    def _complain(self, job: KubeObject, workload: KubeObject) -> None:
        with self._guard:
            if objects.uid_of(workload) in self._stuck:
                return
            self._stuck.add(objects.uid_of(workload))
        text = (
            f"Kueue has admitted Workload {objects.name_of(workload)} more than {kueue.STUCK_AFTER:.0f} seconds ago, "
            "and has not resumed its Job"
        )
        log.warning("Model %s: %s; look at Kueue's log", objects.model_id_of(job), text)
        self._events.record(job, "AdmittedButSuspended", text, "Warning")
