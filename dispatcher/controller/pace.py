"""A bounded pace for what may wait: so many turns a second, first come, first served, and few at the same time."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Turns taken at the same time: the workers that are left report outcomes, however slow the portal is.
_AT_ONCE = 2


class Pace:
    """Thread-safe. rate: turns a second. A key keeps its place while others come, so that none is passed over."""

    def __init__(self, rate: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._turns: dict[str, float] = {}
        self._free: list[float] = []  # turns that were given back, as a heap
        self._next = float("-inf")
        self._taken = 0

    def wait(self, key: str) -> float:
        """Seconds until the turn of `key`, which gets one if it has none."""
        with self._lock:
            now = self._monotonic()
            if key not in self._turns:
                self._turns[key] = self._first_free(now)
            return max(0.0, self._turns[key] - now)

    def _first_free(self, now: float) -> float:
        while self._free:
            if (turn := heapq.heappop(self._free)) >= now:
                return turn
        turn = max(now, self._next)
        self._next = turn + 1 / self.rate
        return turn

    @contextmanager
    def turn(self, key: str) -> Iterator[bool]:
        """Take the turn, for the block; False where too many are taken just now.

        It is over then, too: ten thousand whose turn has come would ask again and again while the portal is slow.
        """
        with self._lock:
            mine = self._taken < _AT_ONCE
            self._taken += mine
            self._turns.pop(key, None)
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._taken -= 1

    def forget(self, key: str) -> None:
        """Give the turn back, for the next that comes."""
        with self._lock:
            if (turn := self._turns.pop(key, None)) is not None:
                heapq.heappush(self._free, turn)


def of_training(uid: str) -> str:
    """The key of what a Job's training itself tells, beside what we tell of its waiting by the Job's `uid`."""
    return f"training {uid}"
