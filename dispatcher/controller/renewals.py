"""Renews the Secrets of trainings with credentials of their own, at half of their validity."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from dispatcher.cluster.jobs import Job
from dispatcher.controller.pace import Pace
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.launch.credentials import ScopedCredentials

log = logging.getLogger(__name__)

# Secrets renewed in a second: after a key was changed all are due at once, before trainings have lost their patience.
_RENEWALS = 20.0


@dataclass(eq=False)
class Renewals:
    """Thread-safe; one worker at a time has a Job. credentials: None where trainings share them."""

    work: WorkQueue
    credentials: ScopedCredentials | None
    _: KW_ONLY
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._pace = Pace(_RENEWALS, self.monotonic)

    def renew(self, job: Job, now: float, doubted: float | None) -> None:
        """Renew the Job's Secret when it is time to; after an outage that may be at once. now: epoch seconds.

        doubted: when it was last seen to be no good. Raises StorageError and ClusterError. A crash before the patch
        that notes it: it is renewed once more.
        """
        if self.credentials is None or not job.is_launched or job.is_deleting:
            return
        left = self.credentials.due_at(job, doubted) - now
        wait = left if left > 0 else self._pace.wait(job.name)
        if wait <= 0:
            with self._pace.turn(job.name) as mine:
                if mine:
                    self.credentials.renew(job, doubted=doubted is not None)
                    log.info("Job %s: its credentials are renewed", job.name)
            wait = 0.0 if mine else 1.0
        if wait > 0:
            self.work.add_after(job.name, wait)

    def forget(self, job: Job) -> None:
        self._pace.forget(job.name)
