"""Kubernetes Events on the Job, so that `kubectl describe job model-123` tells its story.

They are written by one thread of their own: a launch does not wait for them, and none of them is worth an error.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from typing import Any, Literal

from dispatcher import names, objects
from dispatcher.kubernetes_jobs import ClusterError
from dispatcher.objects import KubeObject
from dispatcher.ports import Cluster

log = logging.getLogger(__name__)

Kind = Literal["Normal", "Warning"]

# Waiting Events; while the API server is slower than we launch, the story has gaps and the launches go on.
_MOST = 1000
# The API server's limit on an Event's message.
_MESSAGE_LIMIT = 1024


class JobEvents:
    """Thread-safe. `run` writes what `record` was told."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._clock = clock
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST)

    def record(self, job: KubeObject, reason: str, message: str, kind: Kind = "Normal") -> None:
        """Note that something happened to the Job. reason: one word in CamelCase. Never raises, never waits."""
        try:
            self._waiting.put_nowait(self._event(job, reason, message, kind))
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
            try:
                self._cluster.create_event(event)
            except ClusterError as error:
                log.debug("%s; the Event is lost, the log has it", error)

    def close(self) -> None:
        """Let `run` end when what waits is written."""
        try:
            self._waiting.put(None, timeout=1.0)
        except queue.Full:
            return

    def _event(self, job: KubeObject, reason: str, message: str, kind: Kind) -> dict[str, Any]:
        now = objects.rfc3339(self._clock())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{objects.name_of(job)}-"},
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
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
