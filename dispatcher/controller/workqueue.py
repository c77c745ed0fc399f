"""A queue of keys for level-triggered work: one worker a key, later adds coalesce, failures back off.

The semantics are those of client-go's workqueue: a key that is added while a worker has it is processed once more
afterwards, never twice at the same time. What is urgent comes first: after a restart ten thousand keys are ready at
once, and few of them have ended.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from training_common import backoff

# The number of void timers in the heap, beside as many as there are due ones, at which it is rebuilt.
_VOID_TIMERS = 64
# Seconds between the first two tries of a key that fails.
_BACK_OFF_MIN = 1.0
# One turn in so many is another key's: while the portal is away, outcomes alone would take all.
_SHARE = 4


class WorkQueue:
    """Thread-safe. back_off_max: seconds between two tries of a key that keeps failing, at most.

    urgent(key): asked when a key becomes ready, and whenever it is added once more. It must not call the queue.
    """

    def __init__(
        self,
        back_off_max: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        urgent: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self._condition = threading.Condition()
        self._clock = clock
        self._back_off_max = back_off_max
        self._is_urgent = urgent
        # Ready, the oldest first. A plain dict would step over all that were taken before, each time.
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._ready: OrderedDict[str, None] = OrderedDict()  # the other ones
        self._turns = 0
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._timers: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}  # the earliest timer of a key; later ones in the heap are void
        self._failures: dict[str, int] = {}
        self.closed = False

    def add(self, key: str) -> None:
        """Work on `key` as soon as a worker is free; a key that is in back-off stays there."""
        with self._condition:
            if key not in self._failures or key not in self._due:
                self._add(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Work on `key` in `seconds`, or earlier if it is added meanwhile."""
        with self._condition:
            due = self._clock() + max(0.0, seconds)
            if key not in self._due or due < self._due[key]:
                self._due[key] = due
                heapq.heappush(self._timers, (due, key))
                if len(self._timers) > 2 * len(self._due) + _VOID_TIMERS:
                    # A limit that is days away and set anew at every look would leave a void timer each time.
                    self._timers = [(due, key) for key, due in self._due.items()]
                    heapq.heapify(self._timers)
                self._condition.notify()

    def failed(self, key: str, at_least: float = 0.0) -> float:
        """Work on `key` again after an exponential back-off with jitter; returns the seconds."""
        with self._condition:
            count = self._failures[key] = self._failures.get(key, 0) + 1
        wait = max(at_least, backoff.jittered(backoff.exponential(count, _BACK_OFF_MIN, self._back_off_max)))
        self.add_after(key, wait)
        return wait

    def succeeded(self, key: str) -> None:
        with self._condition:
            self._failures.pop(key, None)

    def get(self, timeout: float | None = None) -> str | None:
        """The next key, for this worker alone until `done`. None: closed, or nothing within `timeout` seconds."""
        deadline = None if timeout is None else self._clock() + timeout
        with self._condition:
            while not self.closed:
                self._promote()
                if self._urgent or self._ready:
                    return self._take()
                now = self._clock()
                if deadline is not None and now >= deadline:
                    return None
                ends = [due for due, _ in self._timers[:1]] + ([] if deadline is None else [deadline])
                self._condition.wait(min(ends) - now if ends else None)
            return None

    def done(self, key: str) -> None:
        with self._condition:
            self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._add(key)

    def close(self) -> None:
        """Make every waiting `get` return None."""
        with self._condition:
            self.closed = True
            self._condition.notify_all()

    def __len__(self) -> int:
        with self._condition:
            return len(self._urgent) + len(self._ready) + len(self._working)

    def _take(self) -> str:
        self._turns += 1
        first, then = (self._urgent, self._ready) if self._turns % _SHARE else (self._ready, self._urgent)
        key, _ = (first or then).popitem(last=False)
        self._working.add(key)
        return key

    def _add(self, key: str) -> None:
        if key in self._working:
            self._again.add(key)
        elif self._is_urgent(key):
            self._ready.pop(key, None)
            self._urgent[key] = None
            self._condition.notify()
        elif key not in self._urgent:
            self._ready[key] = None
            self._condition.notify()

    def _promote(self) -> None:
        now = self._clock()
        while self._timers and self._timers[0][0] <= now:
            due, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key)
