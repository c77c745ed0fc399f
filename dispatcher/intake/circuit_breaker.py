"""A circuit breaker around the portal, the cluster and the queue: whether, and how many, messages are received.

closed      working: as many messages as there is room for
open        something is out of reach: no message, so that an outage costs each message at most one delivery
half-open   the pause is over: one message at a time, until a launch succeeds
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from training_common.backoff import exponential, jittered

log = logging.getLogger(__name__)


class CircuitBreaker:
    """Thread-safe. pause_max: seconds; the pause doubles from a hundredth of it, with jitter."""

    def __init__(self, pause_max: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._pause_max = pause_max
        self._failures = 0  # 0: closed
        self._open_until = 0.0
        self.reason = ""  # why it is open or half-open; "" while closed
        self.cause = ""  # the reason in one word, one of `codes.CAUSES`: who is out of reach
        self._probe: Callable[[], object] | None = None

    def trip(
        self,
        reason: str,
        *,
        cause: str = "",
        probe: Callable[[], object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Open. reason: a sentence; cause: a word for metrics, "" to keep the one before.

        probe: raises while the outage lasts; retry_after: the seconds that the failing service asked for.
        """
        with self._lock:
            now = self._clock()
            if now < self._open_until:
                return  # several launches in flight met the same outage
            self._failures += 1
            pause = jittered(exponential(self._failures, self._pause_max / 100, self._pause_max), 0.75, 1.0)
            wait = max(pause, min(retry_after or 0.0, self._pause_max))
            self._open_until = now + wait
            self._probe = probe or self._probe
            self.cause = cause or self.cause
            if reason != self.reason:
                log.warning("Intake pauses: %s. Messages stay on the queue; next try in %.1f s", reason, wait)
            else:
                log.debug("Intake still pauses: %s. Next try in %.1f s", reason, wait)
            self.reason = reason

    def limit(self, most: int) -> int:
        """How many messages may be received: 0 while open, 1 while half-open, else `most`. Runs the probe when due."""
        with self._lock:
            if self._clock() < self._open_until:
                return 0
            probe = self._probe
        if probe is not None:
            try:
                probe()
            except Exception as error:  # whatever it is, the outage goes on
                self.trip(str(error) or type(error).__name__, retry_after=getattr(error, "retry_after", None))
                return 0
            with self._lock:
                self._probe = None
        return min(most, 1) if self._failures else most

    def record_success(self) -> None:
        """A launch went through: close, unless it was in flight when the breaker opened and so proves nothing."""
        with self._lock:
            if not self._failures or self._clock() < self._open_until:
                return
            self._failures = 0
            self._probe = None
            log.info("Intake continues; it had paused: %s", self.reason)
            self.reason = self.cause = ""

    def record_idle(self) -> None:
        """The queue is empty: close if the probe has answered, as there is no message that could prove more."""
        if self._probe is None:
            self.record_success()

    def wait_hint(self) -> float:
        """Seconds until the next probe; 0 unless open."""
        with self._lock:
            return max(0.0, self._open_until - self._clock())
