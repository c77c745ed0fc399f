"""Kubernetes Events on the Job, so that `kubectl describe job model-123` shows what happened to it.

One thread writes them: a launch does not wait for them, and a failure to write one is no error. An Event's name is a
hash of its content, which makes recording idempotent: the API server takes it once, whoever records it again (another
replica, the next try, the process after a restart).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import time
from collections.abc import Callable
from typing import Any, Literal

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, ObjectConflict
from dispatcher.cluster.objects import Job
from dispatcher.ports import Cluster
from training_common.times import rfc3339

log = logging.getLogger(__name__)

Kind = Literal["Normal", "Warning"]

# Waiting Events at most; while the API server is slower than we launch, further ones are dropped.
_MOST = 1000
# The number of latest Events that are not sent again; the API server keeps Events for an hour by default.
_REMEMBERED = 2000
# The API server's limit on an Event's message.
_MESSAGE_LIMIT = 1024


class EventRecorder:
    """Records what happens to a Job. This one keeps nothing; `JobEvents` writes Kubernetes Events."""

    def record(self, job: Job, reason: str, message: str, kind: Kind = "Normal", *, once: str | None = None) -> None:
        """Record an Event of the Job. reason: one word in CamelCase. Never raises, never waits.

        once: what identifies the Event in place of its message, where the text changes a little each time.
        """


NULL_RECORDER = EventRecorder()


class JobEvents(EventRecorder):
    """Thread-safe. `run` writes what `record` has queued."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._clock = clock
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST)
        self._written: dict[str, None] = {}  # names, the latest last; only the writing thread uses it

    def record(self, job: Job, reason: str, message: str, kind: Kind = "Normal", *, once: str | None = None) -> None:
        try:
            self._waiting.put_nowait(make_event(job, reason, message, kind, now=self._clock(), once=once))
        except queue.Full:
            log.debug("The Event %s of Job %s is dropped: too many wait", reason, job.name)

    def run(self, alive: Callable[[], None]) -> None:
        """Write Events until `close`."""
        while True:
            alive()
            try:
                event = self._waiting.get(timeout=5.0)
            except queue.Empty:
                continue
            if event is None:
                return
            name = event["metadata"]["name"]
            if name in self._written:
                continue
            try:
                self._cluster.create_event(event)
            except ObjectConflict:
                log.debug("The Event %s was written before", name)
            except ClusterError as error:
                log.debug("%s; the Event is lost unless it is recorded again, the log has it", error)
                continue
            self._written[name] = None
            if len(self._written) > _REMEMBERED:
                del self._written[next(iter(self._written))]

    def close(self) -> None:
        """Let `run` end when what waits is written."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=1.0)


def make_event(
    job: Job, reason: str, message: str, kind: Kind = "Normal", *, now: float, once: str | None = None
) -> dict[str, Any]:
    """The Event as the API server takes it. now: epoch seconds; the others as for `EventRecorder.record`."""
    identity = "\0".join((job.uid, reason, message if once is None else once))
    when = rfc3339(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{job.name}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"},
        "involvedObject": {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job.name,
            "namespace": job.metadata.namespace,
            "uid": job.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message[:_MESSAGE_LIMIT],
        "source": {"component": names.MANAGER},
        "reportingComponent": names.MANAGER,
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
    }
