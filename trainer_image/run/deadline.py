"""After SIGTERM a training has its grace period and not a moment more; after a second signal it has no time at all.

Most phases look at the stop themselves. What does not (reading a large dataset, a baseline, a call of storage or portal
that hangs) would be killed at the period's end: exit code 137, which reads as out of memory, and no termination
message.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer_image.stop import Stop

LOOK_SECONDS = 0.2
# Of the grace period. A program of the user's and its last checkpoint have 0.9 of it (command).
SHARE = 0.95


@contextmanager
def deadline(stop: Stop, seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Calls `end`, from a thread, when this is still entered SHARE of `seconds` after a signal, or at a second one.

    end: writes the termination message and ends the process; seconds: the grace period
    """
    over = threading.Event()

    def watch() -> None:
        latest = math.inf
        # Only signals have a deadline: nobody kills a training that was cancelled or fenced.
        while not over.wait(LOOK_SECONDS):
            if latest == math.inf and stop.signals:
                latest = time.monotonic() + SHARE * seconds - LOOK_SECONDS
            if stop.signals > 1 or time.monotonic() >= latest:
                end()
                return

    threading.Thread(target=watch, name="deadline", daemon=True).start()
    try:
        yield
    finally:
        over.set()
