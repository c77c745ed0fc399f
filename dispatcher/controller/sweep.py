"""A resync for what no watch event announces: on a timer, every Job that is not yet reported is queued once more.

Half-launched Jobs whose message is gone, a Processing that the portal did not take, limits that passed: the reconciler
handles each of them; the sweep only makes sure that it looks.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field

from dispatcher.cluster import objects
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.job_gauges import age, set_job_gauges
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.queue.messages import QueueError
from dispatcher.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Sweep:
    """every: seconds between two sweeps. tracking: False with STATUS_TRACKING=off.

    oldest_message(): epoch seconds, None on an empty queue. depths: the number of messages, by metrics.QUEUES. Both
    raise QueueError.
    """

    cache: ClusterCache
    work: WorkQueue
    metrics: Metrics
    _: KW_ONLY
    every: float
    stopping: threading.Event
    tracking: bool = True
    oldest_message: Callable[[], float | None] = lambda: None
    depths: Mapping[str, Callable[[], int]] = field(default_factory=dict)
    clock: Callable[[], float] = time.time

    def run(self, alive: Callable[[], None]) -> None:
        self.cache.wait_ready(self.every)
        while not self.stopping.is_set():
            self.once()
            alive()
            self.set_queue_gauges()
            alive()
            self.stopping.wait(self.every)

    def once(self) -> None:
        set_job_gauges(self.cache, self.metrics, self.clock(), tracking=self.tracking)
        for name in self.cache.names():
            job = self.cache.job(name)
            if job is None or not objects.is_reported(job):
                self.work.add(name)

    def set_queue_gauges(self) -> None:
        """For people alone: a message that waits for days may expire (F42), and the counts are approximate (F5)."""
        self.metrics.oldest_message.set(
            _or_nan(lambda: age(self.oldest_message(), self.clock()), "the age of the oldest message")
        )
        for queue, depth in self.depths.items():
            self.metrics.queue_messages.labels(queue).set(_or_nan(depth, "the number of messages"))


def _or_nan(read: Callable[[], float], what: str) -> float:
    """NaN while the queue cannot be read: the last known value would be shown as if it were true."""
    try:
        return read()
    except QueueError as error:
        log.debug("%s; %s is not known", error, what)
        return math.nan
