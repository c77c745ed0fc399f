"""The latest Jobs whose outcome was reported: they have left the cache, and wait for their users and their TTL.

Bounded, however many there are in the cluster: the status page shows these, and the newest are looked at once more.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject, timestamp
from dispatcher.cluster.pods import Pod
from dispatcher.controller.summaries import Summary, summarise
from dispatcher.controller.trends import Trend, Trends

# The number that is kept: a few MiB.
_MOST = 1000


class EndedJobs:
    """Thread-safe. ttl: seconds after its report for which a Job exists; clock: epoch seconds."""

    def __init__(self, ttl: float, clock: Callable[[], float] = time.time) -> None:
        self._ttl = ttl
        self._clock = clock
        self._trends = Trends()
        self._counted_since = clock()
        self._lock = threading.Lock()
        self._ended: dict[str, Summary] = {}  # by name
        self._cut = False

    def add(self, job: Job, pods: Sequence[Pod] = ()) -> None:
        """A Job with the record of its report; pods: where they are known."""
        with self._lock:
            if not self._knows(job):
                self._trends.add(job, self._clock())
            self._ended[job.name] = summarise(job, pods)
            self._keep_the_newest()

    def fill(self, found: Iterable[KubeObject]) -> list[str]:
        """Take the newest of all that the cluster has, which are known by their metadata alone; returns their names."""
        all_of_them, now = Trends(), self._clock()

        def counted() -> Iterator[KubeObject]:
            for job in found:
                all_of_them.add(job, now)
                yield job

        newest = heapq.nlargest(_MOST + 1, counted(), key=_reported_at)
        if len(newest) > _MOST:
            newest.pop()
            self._cut = True
        with self._lock:
            for item in newest:
                if self._knows(item):  # reported while the list was read, or just before: it is in both
                    all_of_them.add(item, now, -1)
                elif item.name not in self._ended:
                    self._ended[item.name] = summarise(Job(metadata=item.metadata), ())
            self._keep_the_newest()
            self._trends.merge(all_of_them)
            self._counted_since = min(self._counted_since, now - self._ttl)
        return [item.name for item in newest]

    def add_gone(self, job: Job, code: str) -> None:
        """A Job that was gone before it was reported: it is in the trends alone."""
        self._trends.add_gone(job, code, self._clock())

    def trends(self, unreported: Iterable[KubeObject], now: float) -> tuple[float, list[Trend]]:
        """Since when they tell of all (epoch seconds), and the last 24 hours. unreported: the Jobs that go on."""
        return self._counted_since, self._trends.latest(unreported, now)

    def _keep_the_newest(self) -> None:
        if len(self._ended) > _MOST + _MOST // 10:
            newest = heapq.nlargest(_MOST, self._ended.values(), key=lambda ended: ended.at)
            self._ended = {ended.job.name: ended for ended in newest}
            self._cut = True

    def _knows(self, job: KubeObject) -> bool:
        known = self._ended.get(job.name)
        return known is not None and known.job.uid == job.uid

    def get(self, name: str) -> Job | None:
        with self._lock:
            return self._ended[name].job if name in self._ended else None

    def find(self, name: str, now: float) -> Summary | None:
        """The Job, where it still exists. now: epoch seconds."""
        with self._lock:
            found = self._ended.get(name)
        return found if found is not None and now < found.at + self._ttl else None

    @property
    def is_cut(self) -> bool:
        """Whether the cluster has older ones that are not known here."""
        return self._cut

    def drop(self, name: str) -> None:
        """The next training of its model has taken its place."""
        with self._lock:
            self._ended.pop(name, None)

    def latest(self, now: float) -> list[Summary]:
        """Those that still exist. now: epoch seconds."""
        with self._lock:
            kept = {name: ended for name, ended in self._ended.items() if now < ended.at + self._ttl}
            if len(kept) < len(self._ended):
                self._cut = False  # those left out were older, and are gone as well
            self._ended = kept
            return list(kept.values())


def _reported_at(job: KubeObject) -> float:
    return timestamp(job.annotations.reported_at) or job.created_at or 0.0
