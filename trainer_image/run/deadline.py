"""After SIGTERM a training has its grace period and not a moment more.

Most phases look at the stop themselves. What does not (reading a large dataset, a baseline, a call of storage or portal
that hangs) would be killed at the period's end: exit code 137, which reads as out of memory, and no last words.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from trainer_image.stop import Stop

LOOK_SECONDS = 0.2
# Of the grace period. A program of the user's and its last checkpoint have 0.9 of it (command).
SHARE = 0.95


class Deadline:
    """Calls `end`, from a thread of its own, when the training is still entered so long after it was told to stop.

    end: speaks the last words and ends the process; seconds: the grace period
    """

    def __init__(self, stop: Stop, seconds: float, end: Callable[[], None]) -> None:
        self._stop, self._seconds, self._end = stop, SHARE * seconds, end
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def _watch(self) -> None:
        # No other reason has a deadline: nobody kills a training that was cancelled or fenced.
        while self._stop.reason != "terminated":
            if self._over.wait(LOOK_SECONDS):
                return
        if not self._over.wait(self._seconds):
            self._end()
