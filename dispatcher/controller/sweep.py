"""What no event will announce: on a timer every Job that is not yet reported is looked at once more.

Half-launched Jobs whose message is gone, Processing that the portal did not take, limits that passed while nobody
looked: the reconciler sees to each of them; the sweep only makes sure that it looks.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping

from dispatcher.cluster import objects
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.job_gauges import set_job_gauges
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.queue.messages import QueueError
from dispatcher.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Sweep:
    """every: seconds between two sweeps. tracking: whether the portal is told anything.

    oldest_message(): epoch seconds, None on an empty queue. depths: how many messages there are, by metrics.QUEUES.
    Both raise QueueError.
    """

    def __init__(
        self,
        cache: ClusterCache,
        work: WorkQueue,
        metrics: Metrics,
        *,
        every: float,
        stopping: threading.Event,
        tracking: bool = True,
        oldest_message: Callable[[], float | None] = lambda: None,
        depths: Mapping[str, Callable[[], int]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._work = work
        self._metrics = metrics
        self._every = every
        self._stopping = stopping
        self._tracking = tracking
        self._oldest_message = oldest_message
        self._depths = depths or {}
        self._clock = clock

    def run(self, alive: Callable[[], None]) -> None:
        """Sweep until `stopping`."""
        self._cache.wait_ready(self._every)
        while not self._stopping.is_set():
            self.once()
            alive()
            self.set_queue_gauges()
            alive()
            self._stopping.wait(self._every)

    def once(self) -> None:
        set_job_gauges(self._cache, self._metrics, self._clock(), tracking=self._tracking)
        for name in self._cache.names():
            job = self._cache.job(name)
            if job is None or not objects.is_reported(job):
                self._work.nudge(name)

    def set_queue_gauges(self) -> None:
        """For people alone: a message that waits for days may expire (F42), and a count is approximate (F5)."""
        try:
            queued_at = self._oldest_message()
            age = 0.0 if queued_at is None else max(0.0, self._clock() - queued_at)
        except QueueError as error:
            log.debug("%s; the age of the oldest message is not known", error)
            age = math.nan  # the last one that was known would be told as if it were true
        self._metrics.oldest_message.set(age)
        for queue, depth in self._depths.items():
            try:
                count: float = depth()
            except QueueError as error:
                log.debug("%s; the number of messages is not known", error)
                count = math.nan
            self._metrics.queue_messages.labels(queue).set(count)
