"""The gauges about Jobs and queues, set anew on a timer: nothing is counted up and down, so no number can drift.

Every replica measures the same cluster; whoever adds them up has to take the largest, not the sum.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.summaries import Summaries
from dispatcher.decisions.views.phases import ENDED, Phase
from dispatcher.queue.messages import QueueError, QueuePair
from dispatcher.telemetry.metrics import QUEUES, Metrics

log = logging.getLogger(__name__)

_EVERY = 15.0


class MeasuredQueue(Protocol):
    """`dispatcher.queue.azure.TrainingQueue`. oldest(): epoch seconds, None on an empty queue."""

    def oldest(self) -> float | None: ...
    def depth(self) -> int: ...


@dataclass(eq=False)
class JobGauges:
    """tracking: False with STATUS_TRACKING=off.

    queues: each with its poison queue; their methods raise QueueError.
    """

    cache: ClusterCache
    summaries: Summaries
    ended: EndedJobs
    metrics: Metrics
    _: KW_ONLY
    stopping: threading.Event
    tracking: bool = True
    queues: Sequence[QueuePair[MeasuredQueue]] = ()
    clock: Callable[[], float] = time.time

    def run(self, alive: Callable[[], None]) -> None:
        while not self.stopping.is_set():
            self.set_job_gauges()
            alive()
            self.set_queue_gauges(alive)
            alive()
            self.stopping.wait(_EVERY)

    def set_job_gauges(self) -> None:
        now, metrics = self.clock(), self.metrics
        count: Counter[Phase] = Counter(ended.phase for ended in self.ended.latest(now))
        longest = {phase: 0.0 for phase in Phase if phase not in ENDED}
        overdue, gpus = 0.0, 0
        unacknowledged: list[float] = []
        for summary in self.summaries.all().values():
            count[summary.phase] += 1
            longest[summary.phase] = max(longest[summary.phase], age(summary.since, now))
            overdue = max(overdue, age(summary.overdue_since, now))
            gpus += summary.gpus_in_use
            if self.tracking and summary.unacknowledged_since is not None:
                unacknowledged.append(age(summary.unacknowledged_since, now))
        for phase in Phase:
            metrics.jobs.labels(phase).set(count[phase])
        for phase, seconds in longest.items():
            metrics.longest_in_phase.labels(phase).set(seconds)
        metrics.active_jobs.set(self.cache.unfinished())
        # Jobs that somebody deleted by force are still to be reported, too.
        metrics.unreported_jobs.set(count[Phase.REPORTING] + self.cache.tombstones())
        metrics.longest_overdue.set(overdue)
        metrics.gpus_in_use.set(gpus)
        metrics.unacknowledged_jobs.set(len(unacknowledged))
        metrics.longest_unacknowledged.set(max(unacknowledged, default=0.0))

    def set_queue_gauges(self, alive: Callable[[], None] = lambda: None) -> None:
        """For people alone: a message that waits for days may expire (F42), and the counts are approximate (F5).

        alive: called after each call: while storage is silent each of them lasts a minute, and there may be many queues
        """
        ages: list[float] = []
        depths = dict.fromkeys(QUEUES, 0.0)
        for pair in self.queues:
            ages.append(_or_nan(functools.partial(self._oldest, pair.requests), "the age of the oldest message"))
            self.metrics.queue_oldest_message.labels(pair.name).set(ages[-1])
            alive()
            for kind, queue in zip(QUEUES, (pair.requests, pair.poison), strict=True):
                depth = _or_nan(queue.depth, "the number of messages")
                self.metrics.queue_depth.labels(pair.name, kind).set(depth)
                depths[kind] += depth
                alive()
        self.metrics.oldest_message.set(math.nan if any(map(math.isnan, ages)) else max(ages, default=0.0))
        for kind in QUEUES:
            self.metrics.queue_messages.labels(kind).set(depths[kind])

    def _oldest(self, queue: MeasuredQueue) -> float:
        return age(queue.oldest(), self.clock())


def age(since: float | None, now: float) -> float:
    return 0.0 if since is None else max(0.0, now - since)


def _or_nan(read: Callable[[], float], what: str) -> float:
    """NaN while the queue cannot be read: the last known value would be shown as if it were true."""
    try:
        return read()
    except QueueError as error:
        log.debug("%s; %s is not known", error, what)
        return math.nan
