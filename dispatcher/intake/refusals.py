"""The last requests that this process rejected: for the status page, and lost with the process.

The lasting record is the poison queue; a request that its model's status forbids leaves only a line in the log.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """A request that was rejected. code: stable; at: epoch seconds; model: the container that the message names;
    queue: the one that it was on.
    """

    model: str
    code: str
    sentence: str
    message_id: str
    at: float
    queue: str = ""


class Refusals:
    """Thread-safe; the last 200."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._kept: deque[Refusal] = deque(maxlen=200)

    def note(self, model: str, code: str, sentence: str, message_id: str, queue: str = "") -> None:
        """model: the container's name, "" where the message names none."""
        with self._lock:
            self._kept.append(Refusal(model, code, sentence, message_id, self._clock(), queue))

    def latest(self) -> list[Refusal]:
        """The oldest first."""
        with self._lock:
            return list(self._kept)
