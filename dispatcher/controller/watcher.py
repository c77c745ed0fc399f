"""The informer's loop: one list, then watch after watch, each from where the last one ended.

A watch is only a wake-up call. After a gap (410, or an API server that was away for long) everything is listed anew;
on a timer the names and versions alone are compared, and what differs is fetched. Watch events change only the cache
and the work queue, so one bad object cannot stop the stream.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from dispatcher.cluster import names
from dispatcher.cluster.errors import (
    ClusterError,
    ClusterUnavailable,
    Item,
    Listing,
    ObjectUnreadable,
    WatchExpired,
)
from dispatcher.cluster.objects import KubeObject
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.ports import Cluster
from dispatcher.telemetry.metrics import Metrics
from training_common import backoff

log = logging.getLogger(__name__)

# Seconds between two tries, at least and at most.
_BACK_OFF = (1.0, 30.0)
# Failures in a row after which everything is listed anew.
_GAP = 3
# Seconds that one watch lasts: so long a half-open connection may stay unnoticed.
_WATCH = 60.0
# A resync that finds more differences than this has missed too much to ask for each.
_MANY = 100
# No watch that works is over in less (seconds) without an event.
_AT_ONCE = 1.0
_SELECTORS = {"jobs": names.UNREPORTED_JOBS, "pods": names.SELECTOR}
_LIVING, _ENDED = "status.phase!=Succeeded,status.phase!=Failed", ("status.phase=Failed", "status.phase=Succeeded")
# A pod that has succeeded ends its Job. Nearly all of them are of reported Jobs: five times as many as of all others.
_COMPARED = {"jobs": "", "pods": "status.phase!=Succeeded"}


@dataclass(eq=False)
class Watcher:
    """Keeps the cache of one kind (`jobs` or `pods`) fresh. resync: seconds between two comparisons."""

    kind: str
    cluster: Cluster
    cache: ClusterCache
    resync: float
    stopping: threading.Event
    metrics: Metrics = field(default_factory=Metrics)
    monotonic: Callable[[], float] = time.monotonic

    _version: str = field(default="", init=False)  # to watch from; "": everything has to be listed
    _resync_due: float = field(default=0.0, init=False)

    def run(self, alive: Callable[[], None]) -> None:
        """Loop until `stopping`. alive: called whenever progress is made."""
        failures = empty = 0
        while not self.stopping.is_set():
            if empty:
                # Something on the way cuts each watch as it begins: nothing is missed, and asking on would never end.
                alive()
                self._pause(empty)
            try:
                empty = 0 if self.once(alive) else empty + 1
                failures = 0
                continue
            except WatchExpired:
                self._ended("expired")
                log.info("The watch of %s expired; listing anew", self.kind)
                self._version = ""
            except ClusterError as error:
                self._ended("error")
                log.warning("%s. Running Jobs go on; watching %s again soon", error, self.kind)
            failures += 1
            if failures >= _GAP:
                self._version = ""
            alive()  # an outage is the cluster's, not a hanging loop of ours
            self._pause(failures)

    def _pause(self, failures: int) -> None:
        self.stopping.wait(backoff.jittered(backoff.exponential(failures, *_BACK_OFF)))

    def once(self, alive: Callable[[], None]) -> bool:
        """The list or comparison that is due, and a watch after it. Returns False for one that ended at once without a
        word. Raises ClusterError.
        """
        if not self._version:
            self._list(alive)
        elif self.monotonic() >= self._resync_due:
            self._compare(alive)
        began, told = self.monotonic(), False
        for event in self.cluster.watch(self.kind, _SELECTORS[self.kind], self._version, min(_WATCH, self.resync)):
            told = True
            if self.stopping.is_set():
                return True
            if event.type in ("ADDED", "MODIFIED", "DELETED"):
                self.cache.apply(event.type, event.object)
            # A bookmark counts, too: it shows that the stream is alive, and where the next watch begins.
            self._version = event.object.metadata.resource_version or self._version
            self.metrics.last_event.labels(self.kind).set(time.time())
            alive()
        self._ended("resync")
        return told or self.monotonic() - began >= _AT_ONCE

    def _list(self, alive: Callable[[], None]) -> None:
        left_out: list[str] = []
        if self.kind == "jobs":
            listing = self.cluster.list_jobs(_SELECTORS["jobs"])
            jobs = _read(listing, alive, left_out)
            self.cache.replace("jobs", jobs, left_out)
            self._version = listing.resource_version
        else:
            self._version = self._list_pods(alive, left_out)
        self._listed()

    def _list_pods(self, alive: Callable[[], None], left_out: list[str]) -> str:
        """Returns the version to watch from: that of the first of several lists. What came since is told once more."""
        living = self.cluster.list_pods(names.SELECTOR, _LIVING)
        pods = _read(living, alive, left_out)
        if self.cache.wait_listed("pods", 0.0):
            # After a gap: what is not listed is taken for deleted, so all have to be.
            self.cache.replace("pods", itertools.chain(pods, self._ended_pods(_ENDED, alive, left_out)), left_out)
        else:
            # With this the dispatcher is ready. Those that have failed tell of earlier attempts; for those that have
            # succeeded before this process began it asks when the outcome of their Job is due.
            self.cache.replace("pods", pods, left_out)
            self.cache.add(self._ended_pods(_ENDED[:1], alive, left_out))
        return living.resource_version

    def _ended_pods(self, phases: Sequence[str], alive: Callable[[], None], left_out: list[str]) -> Iterator[Pod]:
        """The cache wants those of unreported Jobs alone: it has to know these first."""
        while not self.cache.wait_listed("jobs", 1.0):
            if self.stopping.is_set():
                raise ClusterUnavailable("Stopping before Jobs were listed")
            alive()
        for phase in phases:
            yield from _read(self.cluster.list_pods(names.SELECTOR, phase), alive, left_out)

    def _compare(self, alive: Callable[[], None]) -> None:
        """Fetch what the cache has otherwise than the API server. A watch that loses events is a defect of somebody."""
        listing = self.cluster.list_metadata(self.kind, _SELECTORS[self.kind], _COMPARED[self.kind])
        differing = self.cache.differing(self.kind, _read(listing, alive, []))
        if _is_older(listing.resource_version, self._version):
            # A watch from a version that is yet to come would be silent until then.
            raise WatchExpired(f"The {self.kind} of the API server are older than known: a backup was restored")
        if len(differing) > _MANY:
            log.warning("%d %s are not as the watch has told; listing them anew", len(differing), self.kind)
            self._list(alive)
            return
        for item in differing:
            self._fetch(item)
            alive()
        # From where the last watch ended, the next one would tell older states of what is known by now.
        self._version = listing.resource_version or self._version
        self._listed()

    def _fetch(self, item: KubeObject) -> None:
        with suppress(ObjectUnreadable):  # it stays as it is known, and the others are fetched
            self._fetch_one(item)

    def _fetch_one(self, item: KubeObject) -> None:
        live: KubeObject | None
        if self.kind == "jobs":
            live = self.cluster.get_job(item.name)
            gone = live is None or live.uid != item.uid or live.labels.reported is not None
        else:
            # By its name: somebody may have taken its label.
            named = self.cluster.list_pods(names.SELECTOR, f"metadata.name={item.name}")
            live = next((pod for pod in named if pod.uid == item.uid), None)
            if named.left_out:
                return
            gone = live is None
        self.cache.apply("DELETED" if gone else "MODIFIED", item if live is None or gone else live)

    def _listed(self) -> None:
        self._resync_due = self.monotonic() + backoff.jittered(self.resync, 0.75, 1.0)
        self.metrics.last_list.labels(self.kind).set(time.time())

    def _ended(self, reason: str) -> None:
        self.metrics.watch_restarts.labels(self.kind, reason).inc()


def _is_older(version: str, than: str) -> bool:
    """Versions may be compared as numbers (API conventions, since 1.35); what is none is not compared."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)


def _read(listing: Listing[Item], alive: Callable[[], None], left_out: list[str]) -> Iterator[Item]:
    """Its objects; left_out: to which the names of those are added that cannot be read."""
    for item in listing:
        alive()
        yield item
    left_out += listing.left_out
