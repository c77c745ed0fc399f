"""The threads of a running dispatcher: one that dies ends the process, since half a dispatcher is worse than none."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.telemetry.metrics import Metrics
from dispatcher.web.health import Heartbeats, loop_of

log = logging.getLogger(__name__)

Loop = Callable[[Callable[[], None]], None]
"""Runs until `stopping` is set, and calls what it is given whenever it makes progress."""


@dataclass(eq=False)
class Loops:
    """died: the name of the loop that ended the process, None while none has."""

    stopping: threading.Event
    heartbeats: Heartbeats
    metrics: Metrics
    died: str | None = field(default=None, init=False)

    def start(self, name: str, loop: Loop) -> threading.Thread:
        """Run it in a thread of this name; `reconcile-3` is one of the loop `reconcile`."""

        def supervised() -> None:
            try:
                loop(self.heartbeats.beat(name))
                if self.stopping.is_set():
                    return
                log.critical("The loop %s returned unexpectedly; ending the process", name)
            except BaseException:
                log.critical("The loop %s died; ending the process", name, exc_info=True)
            self.died = name
            self.stopping.set()

        silence = self.metrics.loop_silent.labels(loop_of(name))
        silence.set_function(lambda: self.heartbeats.silence(loop_of(name)))
        thread = threading.Thread(target=supervised, name=name, daemon=True)
        thread.start()
        return thread
