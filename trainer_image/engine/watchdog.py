"""Ends a training that hangs (a GPU that no longer answers, a deadlock) before it holds its GPU for days."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from trainer_image.errors import GpuFault, TrainerError

log = logging.getLogger(__name__)

# A step may take this many times what steps took so far: one that writes to a slow disk, say.
PATIENCE = 100


class Watchdog:
    """Watches while it is entered. `beat` says that a step is done.

    seconds: without a step for this long, and for PATIENCE times the usual step, it is a hang; 0: never.
    end:     writes the termination message and ends the process, from any thread: the main one may be stuck in a call
             that never returns, so no exception could reach it.
    """

    def __init__(
        self, seconds: float, end: Callable[[TrainerError], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._end, self._clock = seconds, end, clock
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._watched = False
        self._last = 0.0
        self._beats, self._spent = 0, 0.0
        self._step = 0

    def __enter__(self) -> Self:
        if self._seconds:
            self._over.clear()
            self._resume()
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watched = False

    def beat(self, step: int | None = None) -> None:
        """Something was finished; step: it was this optimizer step, whose time counts for what is usual."""
        with self._lock:
            now = self._clock()
            if step is not None:
                self._step = step
                if self._watched:
                    self._beats += 1
                    self._spent += now - self._last
            self._last = now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is a hang meanwhile: compiling, copying a checkpoint."""
        before, self._watched = self._watched, False
        try:
            yield
        finally:
            if before:
                self._resume()

    @property
    def limit(self) -> float:
        """Seconds without a step that are a hang now."""
        with self._lock:
            return max(self._seconds, PATIENCE * self._spent / self._beats if self._beats else 0.0)

    def _resume(self) -> None:
        with self._lock:
            self._last = self._clock()
            self._watched = True

    def _watch(self) -> None:
        look = self._clock()
        while not self._over.wait(min(1.0, self._seconds / 4)):
            before, look = look, self._clock()
            if look - before > self._seconds / 2:
                # This thread stood still, too: the whole process was stopped (Ctrl-Z, a frozen container).
                with self._lock:
                    self._last = min(self._last + look - before, look)
            limit = self.limit
            if self._watched and self._clock() - self._last > limit:
                self._bark(limit)
                return

    def _bark(self, limit: float) -> None:
        log.error(
            "No step was finished for %.0f s after step %d: what every thread was doing follows", limit, self._step
        )
        # Python's own stream may be held by the thread that hangs.
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        self._end(
            GpuFault(f"Training hangs: no step was finished for {limit:.0f} s after step {self._step}", step=self._step)
        )
        # `end` ends the process; if it could not even do that, this does.
        os._exit(GpuFault.exit_code)
