"""The informer's loop: list, then watch, then list again, on every gap and on a timer even when nothing seems wrong.

A watch is only a wake-up call. However it ends (410, a cut or half-open connection, the timer), a fresh list repairs
what was missed. Watch events change only the cache and the work queue, so one bad object cannot stop the stream.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, WatchExpired
from dispatcher.controller.cache import ClusterCache
from dispatcher.ports import Cluster
from dispatcher.telemetry.metrics import Metrics
from training_common import backoff

log = logging.getLogger(__name__)

# Seconds between two tries to list, at least and at most.
_BACK_OFF = (1.0, 30.0)


@dataclass(eq=False)
class Watcher:
    """Keeps the cache of one kind (`jobs` or `pods`) fresh. resync: seconds between two lists at most."""

    kind: str
    cluster: Cluster
    cache: ClusterCache
    resync: float
    stopping: threading.Event
    metrics: Metrics = field(default_factory=Metrics)

    def run(self, alive: Callable[[], None]) -> None:
        """Loop until `stopping`. alive: called whenever progress is made."""
        failures = 0
        while not self.stopping.is_set():
            try:
                self.once(alive)
                self._ended("resync")
                failures = 0
            except WatchExpired:
                self._ended("expired")
                log.info("The watch of %s expired; listing anew", self.kind)
            except ClusterError as error:
                self._ended("error")
                failures += 1
                wait = backoff.jittered(backoff.exponential(failures, *_BACK_OFF))
                log.warning("%s. Running Jobs go on; listing %s anew in %.1f s", error, self.kind, wait)
                alive()  # an outage is the cluster's, not a hanging loop of ours
                self.stopping.wait(wait)

    def once(self, alive: Callable[[], None]) -> None:
        """One list and the watch after it. Raises ClusterError."""
        list_kind = self.cluster.list_jobs if self.kind == "jobs" else self.cluster.list_pods
        listing = list_kind(names.SELECTOR)
        self.cache.replace(self.kind, listing.items)
        self.metrics.last_list.labels(self.kind).set(time.time())
        alive()
        for event in self.cluster.watch(self.kind, names.SELECTOR, listing.resource_version, self.resync):
            if self.stopping.is_set():
                return
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED") and isinstance(event.get("object"), dict):
                self.cache.apply(self.kind, event["type"], event["object"])
            # A bookmark counts, too: it shows that the stream is alive.
            self.metrics.last_event.labels(self.kind).set(time.time())
            alive()

    def _ended(self, reason: str) -> None:
        self.metrics.watch_restarts.labels(self.kind, reason).inc()
