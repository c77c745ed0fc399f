"""The request that a training end, from whoever makes it: a signal, the portal, or another pod that owns the run."""

from __future__ import annotations

import threading


class Stop:
    """Asks a training to end. The first reason stays.

    reasons: "terminated" (SIGTERM), "cancelled" (the portal took the model away), "fenced" (another pod owns the run)
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason: str | None = None
        self._lock = threading.Lock()

    def set(self, reason: str) -> None:
        with self._lock:
            if self.reason is None:
                self.reason = reason
            self.event.set()

    def is_set(self) -> bool:
        return self.event.is_set()
