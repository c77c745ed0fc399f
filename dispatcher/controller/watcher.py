"""List, then watch, then list again: on every gap, and on a timer even when nothing seems wrong.

A watch is only a wake-up call. However it ends (410, a cut or half-open connection, the timer) a fresh list repairs
what was missed. Watch events change nothing but the cache and the work queue, so one bad object cannot stop the stream.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, WatchExpired
from dispatcher.controller.cache import ClusterCache
from dispatcher.ports import Cluster
from dispatcher.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Watcher:
    """Keeps the cache of one kind (`jobs` or `pods`) fresh. resync: seconds between two lists at the most."""

    def __init__(
        self,
        kind: str,
        cluster: Cluster,
        cache: ClusterCache,
        resync: float,
        stopping: threading.Event,
        metrics: Metrics | None = None,
    ) -> None:
        self._kind = kind
        self._cluster = cluster
        self._cache = cache
        self._resync = resync
        self._stopping = stopping
        self._metrics = metrics or Metrics()

    def run(self, alive: Callable[[], None]) -> None:
        """Loop until `stopping`. alive: called whenever progress is made."""
        failures = 0
        while not self._stopping.is_set():
            try:
                self.once(alive)
                self._ended("resync")
                failures = 0
            except WatchExpired:
                self._ended("expired")
                log.info("The watch of %s expired; listing anew", self._kind)
            except ClusterError as error:
                self._ended("error")
                failures += 1
                wait = min(30.0, 0.5 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
                log.warning("%s. What runs goes on; listing %s anew in %.1f s", error, self._kind, wait)
                alive()  # an outage is the cluster's, not a hanging loop of ours
                self._stopping.wait(wait)

    def once(self, alive: Callable[[], None]) -> None:
        """One list and the watch after it. Raises ClusterError."""
        listing = (
            self._cluster.list_jobs(names.SELECTOR) if self._kind == "jobs" else self._cluster.list_pods(names.SELECTOR)
        )
        self._cache.replace(self._kind, listing.items)
        self._metrics.last_list.labels(self._kind).set(time.time())
        alive()
        for event in self._cluster.watch(self._kind, names.SELECTOR, listing.resource_version, self._resync):
            if self._stopping.is_set():
                return
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED") and isinstance(event.get("object"), dict):
                self._cache.apply(self._kind, event["type"], event["object"])
            # A bookmark, too: it shows that the stream is alive.
            self._metrics.last_event.labels(self._kind).set(time.time())
            alive()

    def _ended(self, reason: str) -> None:
        self._metrics.watch_restarts.labels(self._kind, reason).inc()
