"""May we receive? Closed while the portal, the cluster or the queue is out of reach; ajar until one launch succeeds.

What is in hand when it closes goes back to the queue; nothing new is taken, so an outage costs each message at most
one delivery.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

# How many messages are received at a time while ajar: one probe, not a batch.
_AJAR = 1


class Gate:
    """Thread-safe. pause_max: seconds; the pause doubles from a hundredth of it, with jitter."""

    def __init__(self, pause_max: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._pause_max = pause_max
        self._pause = 0.0
        self._until = 0.0
        self._ajar = False
        self._reason = ""
        self._cause = ""
        self._probe: Callable[[], object] | None = None

    def trip(
        self,
        reason: str,
        *,
        cause: str = "",
        probe: Callable[[], object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Close. reason: a sentence; cause: a word for metrics, "" where it goes on to be the one before.

        probe: raises while the outage lasts; retry_after: seconds asked for.
        """
        with self._lock:
            now = self._clock()
            if now < self._until:
                return  # several launches in hand met the same outage
            self._pause = min(self._pause_max, max(2 * self._pause, self._pause_max / 100))
            wait = max(self._pause * random.uniform(0.75, 1.0), min(retry_after or 0.0, self._pause_max))  # noqa: S311
            self._until = now + wait
            self._ajar = True
            self._probe = probe or self._probe
            self._cause = cause or self._cause
            if reason != self._reason:
                log.warning("Intake pauses: %s. Messages stay on the queue; tried again in %.1f s", reason, wait)
            else:
                log.debug("Intake still pauses: %s. Tried again in %.1f s", reason, wait)
            self._reason = reason

    def limit(self, most: int) -> int:
        """How many messages may be received now: 0 while closed, 1 while ajar, else `most`. Runs the probe when due."""
        with self._lock:
            if self._clock() < self._until:
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
        return min(most, _AJAR) if self._ajar else most

    def opened(self) -> None:
        """A launch went through: work as before. One that was in hand when it closed proves nothing about now."""
        with self._lock:
            if not self._ajar or self._clock() < self._until:
                return
            self._ajar = False
            self._pause = 0.0
            self._probe = None
            log.info("Intake goes on; it had paused: %s", self._reason)
            self._reason = self._cause = ""

    def idle(self) -> None:
        """The outage's probe answered and the queue is empty: there is nothing left to prove."""
        with self._lock:
            ready = self._ajar and self._clock() >= self._until and self._probe is None
        if ready:
            self.opened()

    def wait_hint(self) -> float:
        """Seconds until the next probe; 0 when not closed."""
        with self._lock:
            return max(0.0, self._until - self._clock())

    @property
    def reason(self) -> str:
        """Why it is not open, "" when it is."""
        return self._reason

    @property
    def cause(self) -> str:
        """The reason in one word: who is out of reach."""
        return self._cause
