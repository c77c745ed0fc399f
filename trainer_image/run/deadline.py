"""After SIGTERM a training has its grace period and not a moment more.

Most phases look at the stop themselves. What does not (reading a large dataset, a baseline, a call of storage or portal
that hangs) would be killed at the period's end: exit code 137, which reads as out of memory, and no termination
message.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer_image.stop import Stop

LOOK_SECONDS = 0.2
# Of the grace period. A program of the user's and its last checkpoint have 0.9 of it (command).
SHARE = 0.95


@contextmanager
def deadline(stop: Stop, seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Calls `end`, from a thread of its own, when this is still entered SHARE of `seconds` after SIGTERM.

    end: writes the termination message and ends the process; seconds: the grace period
    """
    over = threading.Event()

    def watch() -> None:
        # No other reason has a deadline: nobody kills a training that was cancelled or fenced.
        while stop.reason != "terminated":
            if over.wait(LOOK_SECONDS):
                return
        if not over.wait(SHARE * seconds):
            end()

    threading.Thread(target=watch, name="deadline", daemon=True).start()
    try:
        yield
    finally:
        over.set()
