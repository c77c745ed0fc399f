"""Signals that end a process: end the step, save, report, exit 143. Whoever asks again need not wait for the saving."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer_image.errors import EXIT_TERMINATED
from trainer_image.stop import ENDING, Stop

log = logging.getLogger(__name__)


def _at_once() -> None:
    os._exit(EXIT_TERMINATED)


@contextmanager
def stops_on_signals(stop: Stop, insisted: Callable[[], None] = _at_once, *, last: bool = False) -> Iterator[None]:
    """Each of them sets `stop` to "terminated" while this lasts; main thread only. insisted: called for a second one.

    last: the process ends with it, and no signal that comes now is to change its exit code

    A thread of its own does it, as soon as the signal comes: a handler has to wait until the main thread comes back to
    Python, and must take no lock that the main thread may hold.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # One that is ignored stays so: `nohup` asks for that.
    numbers = [number for number in ENDING if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, frame: None) for number in numbers}
    notified = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def follow() -> None:
        while received := os.read(reading, 64):
            for number in received:
                if number in before:
                    _received(signal.Signals(number), stop, insisted)
        os.close(reading)

    threading.Thread(target=follow, name="signals", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last else handler)
        signal.set_wakeup_fd(notified)
        os.close(writing)


def _received(number: signal.Signals, stop: Stop, insisted: Callable[[], None]) -> None:
    again = stop.signals > 0
    stop.set("terminated")
    if again:
        log.warning("%s again: the training ends at once", number.name)
        insisted()
    else:
        log.warning("%s: the training stops and saves its state", number.name)
