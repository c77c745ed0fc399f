"""What no event will announce: on a timer every Job that is not yet reported is looked at once more.

Half-launched Jobs whose message is gone, Processing that the portal did not take, limits that passed while nobody
looked: the reconciler sees to each of them; the sweep only makes sure that it looks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from dispatcher import objects
from dispatcher.metrics import Metrics
from dispatcher.reconciler import unreported
from dispatcher.view import ClusterView
from dispatcher.workqueue import WorkQueue


class Sweep:
    """every: seconds between two sweeps."""

    def __init__(
        self, view: ClusterView, work: WorkQueue, metrics: Metrics, *, every: float, stopping: threading.Event
    ) -> None:
        self._view = view
        self._work = work
        self._metrics = metrics
        self._every = every
        self._stopping = stopping

    def run(self, alive: Callable[[], None]) -> None:
        """Sweep until `stopping`."""
        self._view.wait_ready(self._every)
        while not self._stopping.is_set():
            self.once()
            alive()
            self._stopping.wait(self._every)

    def once(self) -> None:
        jobs = self._view.jobs()
        self._metrics.active_jobs.set(sum(not objects.is_finished(job) for job in jobs))
        self._metrics.unreported_jobs.set(sum(map(unreported, jobs)))
        for name in self._view.names():
            job = self._view.job(name)
            if job is None or not objects.is_reported(job):
                self._work.nudge(name)
