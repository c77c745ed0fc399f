"""The controllers' work queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from local_stack.cluster.registry.objects import Key

log = logging.getLogger(__name__)


class WorkQueue:
    """Keys to handle, each once however often it was asked for, now or later; errors are logged, the rest goes on."""

    def __init__(self, handle: Callable[[Key], None]) -> None:
        self._handle = handle
        self._due: dict[Key, tuple[float, asyncio.TimerHandle]] = {}

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Handle `key` in `delay` seconds, or sooner if that was asked for before."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, delay)
        waiting = self._due.get(key)
        if waiting:
            if waiting[0] <= when:
                return
            waiting[1].cancel()
        self._due[key] = (when, loop.call_at(when, self._run, key))

    def _run(self, key: Key) -> None:
        self._due.pop(key, None)
        try:
            self._handle(key)
        except Exception:
            log.exception("controller failed on %s/%s", *key)
            self.add(key, 1.0)

    def stop(self) -> None:
        """Forget everything that waits."""
        for _, timer in self._due.values():
            timer.cancel()
        self._due.clear()
