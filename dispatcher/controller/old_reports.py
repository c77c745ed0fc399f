"""Labels the reported Jobs that lack the label by which they leave lists and watches: an older version reported them.

There may be fifty thousand. None of them becomes known: they are found by a list of metadata, of which nothing is kept,
and each is labelled as it comes by.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, ObjectConflict, ObjectNotFound
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.second_looks import is_settled
from dispatcher.ports import Cluster

log = logging.getLogger(__name__)

# Seconds between two of them: the API server has other work.
_PACE = 0.05
# Seconds after which a pass begins anew: a list can be continued for about five minutes.
_PASS = 240.0


@dataclass(eq=False)
class OldReports:
    """Thread-safe. ended: learns of each."""

    cluster: Cluster
    ended: EndedJobs
    stopping: threading.Event
    clock: Callable[[], float]
    monotonic: Callable[[], float]

    _found: threading.Event = field(default_factory=threading.Event, init=False)

    def leaves_out(self, job: KubeObject) -> bool:
        """Whether this is such a Job, and needs nothing but its label."""
        found = self._is_one(job)
        if found:
            self._found.set()
        return found

    def label(self, alive: Callable[[], None] = lambda: None) -> bool:
        """Label what there is, for a few minutes at most; returns whether nothing is left."""
        if not self._found.is_set():
            return True
        self._found.clear()
        end, count = self.monotonic() + _PASS, 0
        try:
            for job in self.cluster.list_metadata("jobs", names.UNREPORTED_JOBS):
                alive()
                if not self._is_one(job):
                    continue
                if self.stopping.wait(_PACE) or self.monotonic() > end:
                    self._found.set()
                    break
                self._label(job)
                count += 1
        except ClusterError as error:
            self._found.set()
            log.warning("%s. Jobs that an older version has reported are labelled later", error)
        log.info("%d Jobs that an older version has reported got the label %s", count, names.REPORTED)
        return not self._found.is_set()

    def _is_one(self, job: KubeObject) -> bool:
        # With our finalizer it was not reported by us: somebody wrote the annotation.
        return job.labels.reported is None and not job.has_finalizer and is_settled(job, self.clock())

    def _label(self, job: KubeObject) -> None:
        # A crash between two of them: the next process finds the others.
        with suppress(ObjectNotFound, ObjectConflict):
            self.cluster.patch_job(job.name, {"metadata": {"uid": job.uid, "labels": {names.REPORTED: "true"}}})
            self.ended.add(Job(metadata=job.metadata))
