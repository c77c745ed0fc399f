"""Kubernetes Events on the Job, so that `kubectl describe job model-123` tells its story.

They are written by one thread of their own: a launch does not wait for them, and none of them is worth an error. An
Event's name follows from what it says: the API server takes it once, whoever says it again (another replica, the next
try, the process after a restart).
"""

from __future__ import annotations

import hashlib
import logging
import queue
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

from common.times import rfc3339
from dispatcher.cluster import names, objects
from dispatcher.cluster.errors import ClusterError, ObjectConflict
from dispatcher.cluster.objects import KubeObject
from dispatcher.ports import Cluster

log = logging.getLogger(__name__)

Kind = Literal["Normal", "Warning"]

# Waiting Events; while the API server is slower than we launch, the story has gaps and the launches go on.
_MOST = 1000
# The latest Events that need not be sent again; the API server keeps them for an hour by default.
_REMEMBERED = 2000
# The API server's limit on an Event's message.
_MESSAGE_LIMIT = 1024


class EventRecorder(Protocol):
    """Who is told what happened to a Job; `JobEvents`."""

    def record(
        self, job: KubeObject, reason: str, message: str, kind: Kind = "Normal", *, once: str | None = None
    ) -> None:
        """Note that something happened to the Job. reason: one word in CamelCase. Never raises, never waits.

        once: what makes it the same Event as one before, where that is not its message: a text that changes a little
        with every look is told once.
        """


class _NullRecorder:
    def record(
        self, job: KubeObject, reason: str, message: str, kind: Kind = "Normal", *, once: str | None = None
    ) -> None:
        """Nobody listens."""


NULL_RECORDER: EventRecorder = _NullRecorder()


class JobEvents:
    """Thread-safe. `run` writes what `record` was told."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._clock = clock
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST)
        self._said: dict[str, None] = {}  # names, the latest last; the writing thread's own

    def record(
        self, job: KubeObject, reason: str, message: str, kind: Kind = "Normal", *, once: str | None = None
    ) -> None:
        """As `EventRecorder.record`."""
        try:
            self._waiting.put_nowait(make_event(job, reason, message, kind, now=self._clock(), once=once))
        except queue.Full:
            log.debug("The Event %s of Job %s is dropped: too many wait", reason, objects.name_of(job))

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
            if name in self._said:
                continue
            try:
                self._cluster.create_event(event)
            except ObjectConflict:
                log.debug("The Event %s was written before", name)
            except ClusterError as error:
                log.debug("%s; the Event is lost unless it is said again, the log has it", error)
                continue
            self._said[name] = None
            if len(self._said) > _REMEMBERED:
                del self._said[next(iter(self._said))]

    def close(self) -> None:
        """Let `run` end when what waits is written."""
        try:
            self._waiting.put(None, timeout=1.0)
        except queue.Full:
            return


def make_event(
    job: KubeObject, reason: str, message: str, kind: Kind = "Normal", *, now: float, once: str | None = None
) -> dict[str, Any]:
    """The Event as the API server takes it. now: epoch seconds; the others as for `EventRecorder.record`."""
    said = "\0".join((objects.uid_of(job), reason, message if once is None else once))
    when = rfc3339(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{objects.name_of(job)}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"},
        "involvedObject": {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": objects.name_of(job),
            "namespace": objects.meta(job).get("namespace"),
            "uid": objects.uid_of(job),
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
