"""What no event will announce: on a timer every Job that is not yet reported is looked at once more.

Half-launched Jobs whose message is gone, Processing that the portal did not take, limits that passed while nobody
looked: the reconciler sees to each of them; the sweep only makes sure that it looks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dispatcher import names, objects
from dispatcher.azure_queue import QueueError
from dispatcher.metrics import Metrics
from dispatcher.objects import KubeObject
from dispatcher.reconciler import unreported
from dispatcher.view import ClusterView
from dispatcher.workqueue import WorkQueue

log = logging.getLogger(__name__)


class Sweep:
    """every: seconds between two sweeps. oldest_message(): epoch seconds, None on an empty queue; raises QueueError."""

    def __init__(
        self,
        view: ClusterView,
        work: WorkQueue,
        metrics: Metrics,
        *,
        every: float,
        stopping: threading.Event,
        oldest_message: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._view = view
        self._work = work
        self._metrics = metrics
        self._every = every
        self._stopping = stopping
        self._oldest_message = oldest_message
        self._clock = clock

    def run(self, alive: Callable[[], None]) -> None:
        """Sweep until `stopping`."""
        self._view.wait_ready(self._every)
        while not self._stopping.is_set():
            self.once()
            alive()
            self.measure_queue()
            alive()
            self._stopping.wait(self._every)

    def once(self) -> None:
        jobs = self._view.jobs()
        self._metrics.active_jobs.set(sum(not objects.is_finished(job) for job in jobs))
        self._metrics.unreported_jobs.set(sum(map(unreported, jobs)))
        self._metrics.longest_suspended.set(max(map(self._suspended_for, jobs), default=0.0))
        for name in self._view.names():
            job = self._view.job(name)
            if job is None or not objects.is_reported(job):
                self._work.nudge(name)

    def measure_queue(self) -> None:
        """For people alone: a message that waits for days may expire (F42)."""
        try:
            queued_at = self._oldest_message()
        except QueueError as error:
            log.debug("%s; the age of the oldest message is not known", error)
            return
        self._metrics.oldest_message.set(0.0 if queued_at is None else max(0.0, self._clock() - queued_at))

    def _suspended_for(self, job: KubeObject) -> float:
        """Seconds since a Job that somebody else has to resume (Kueue, a person) was launched; 0 for others."""
        launched = objects.timestamp(objects.annotation(job, names.LAUNCHED_AT))
        if launched is None or not objects.is_suspended(job) or objects.is_finished(job):
            return 0.0
        return max(0.0, self._clock() - launched)
