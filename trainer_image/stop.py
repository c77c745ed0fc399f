"""The request that a training end, from whoever makes it: a signal, the portal, or another pod that owns the run."""

from __future__ import annotations

import signal
import threading

# All that people, terminals, batch systems and container engines end a process with, and that a process can see.
ENDING = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)


class Stop:
    """Asks a training to end. The first reason stays.

    reasons: "terminated" (a signal), "cancelled" (the portal took the model away), "fenced" (another pod owns the run)
    requests: how many there were so far; signals: those of them that were signals
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason: str | None = None
        self.requests = 0
        self.signals = 0
        self._another = threading.Condition()

    def set(self, reason: str) -> None:
        with self._another:
            if self.reason is None:
                self.reason = reason
            self.requests += 1
            self.signals += reason == "terminated"
            self.event.set()
            self._another.notify_all()

    def is_set(self) -> bool:
        return self.event.is_set()

    def wait_for_another(self, seen: int, seconds: float) -> bool:
        """Whether there is a further request than the `seen` first ones within so many seconds."""
        with self._another:
            return self._another.wait_for(lambda: self.requests > seen, seconds)
