"""SIGTERM: end the step, save, exit 143. A second one: exit at once."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trainer_image.errors import EXIT_TERMINATED
from trainer_image.stop import Stop

log = logging.getLogger(__name__)


@contextmanager
def stops_on_signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and Ctrl-C set `stop` to "terminated" while this lasts; main thread only."""
    received = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received:
            # Without clean-up: whoever asks twice wants it gone. Exit 0 would make the Job complete.
            os._exit(EXIT_TERMINATED)
        received = True
        log.warning("%s: the training stops and saves its state", signal.Signals(number).name)
        stop.set("terminated")

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
