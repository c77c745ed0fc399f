"""Since when this process has waited for something about a Job. In memory: a restart begins each of these anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import waiting
from training_common import backoff

# Seconds for which the end of a Job is left to the replica that launched it: otherwise every replica would report it.
_DEFERENCE = 2.0


@dataclass(eq=False)
class Patience:
    """Thread-safe. identity: of this process, as its Jobs note it."""

    identity: str
    monotonic: Callable[[], float] = time.monotonic

    # All by the Job's uid.
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _failing: dict[str, float] = field(default_factory=dict, init=False)
    _deferred: dict[str, float] = field(default_factory=dict, init=False)
    _vanished: dict[str, float] = field(default_factory=dict, init=False)

    def failing_since(self, job: Job, pods: Sequence[Pod], now: float) -> float | None:
        """When its container began to fail to start, None where it does not. now: epoch seconds."""
        with self._guard:
            if not any(waiting.is_failing(pod) for pod in pods):
                self._failing.pop(job.uid, None)
                return None
            return self._failing.setdefault(job.uid, now)

    def deference(self, job: Job) -> float:
        """Seconds still to wait for the launching replica to report the Job; few, since it may be gone."""
        if job.annotations.launched_by in (None, self.identity):
            return 0.0
        now = self.monotonic()
        with self._guard:
            due = self._deferred.setdefault(job.uid, now + backoff.jittered(_DEFERENCE, 1.0, 1.5))
        return due - now

    def disbelief(self, job: Job, lag: float) -> float:
        """Seconds still to wait, `lag` in all, for a sign that another replica has reported a Job that is gone."""
        now = self.monotonic()
        with self._guard:
            due = self._vanished.setdefault(job.uid, now + lag)
        return due - now

    def forget(self, job: Job) -> None:
        with self._guard:
            self._failing.pop(job.uid, None)
            self._deferred.pop(job.uid, None)

    def believe(self, job: Job) -> None:
        """What has become of a Job that is gone is known."""
        with self._guard:
            self._vanished.pop(job.uid, None)
