"""Kubernetes Events on the Job, so that `kubectl describe job model-123` shows what happened to it.

One thread writes them at a bounded pace, outcomes and warnings first: a launch does not wait for them, and a failure to
write one is no error. An Event's name is a hash of its content, which makes recording idempotent: the API server takes
it once, whoever records it again (another replica, the next try, the process after a restart).
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, ObjectConflict
from dispatcher.cluster.jobs import Job
from dispatcher.ports import Cluster
from training_common.text import plain
from training_common.times import rfc3339

log = logging.getLogger(__name__)

Kind = Literal["Normal", "Warning"]

# Most Events written in a second; more than launches, each of which has one.
_PER_SECOND = 50.0
# Waiting Events at most, and ten times as many of those that come first: further ones are dropped.
_MOST = 1000
_END = 2
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
        # (0 for what comes first, 2 for the end; the number that keeps the order; the Event)
        self._waiting: queue.PriorityQueue[tuple[int, int, dict[str, Any]]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._closing = threading.Event()
        self._written: dict[str, None] = {}  # names, the latest last; only the writing thread uses it

    def record(self, job: Job, reason: str, message: str, kind: Kind = "Normal", *, once: str | None = None) -> None:
        first = kind == "Warning" or reason == "Completed"
        if self._waiting.qsize() >= (10 * _MOST if first else _MOST):
            log.debug("The Event %s of Job %s is dropped: too many wait", reason, job.name)
            return
        event = make_event(job, reason, message, kind, now=self._clock(), once=once)
        self._waiting.put((0 if first else 1, next(self._numbers), event))

    def run(self, alive: Callable[[], None]) -> None:
        """Write Events until `close`."""
        due = 0.0
        while True:
            alive()
            try:
                rank, _, event = self._waiting.get(timeout=5.0)
            except queue.Empty:
                continue
            if rank == _END:
                return
            name = event["metadata"]["name"]
            if name in self._written:
                continue
            self._closing.wait(due - time.monotonic())
            due = time.monotonic() + 1 / _PER_SECOND
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
        self._closing.set()
        self._waiting.put((_END, next(self._numbers), {}))


def make_event(
    job: Job, reason: str, message: str, kind: Kind = "Normal", *, now: float, once: str | None = None
) -> dict[str, Any]:
    """The Event as the API server takes it. now: epoch seconds; the others as for `EventRecorder.record`."""
    message = plain(message)
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
