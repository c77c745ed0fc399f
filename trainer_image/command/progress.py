"""PROGRESS_FILE: what the program appends to it, line by line, for people and for metrics.jsonl.

A line is text, which becomes the message, or a JSON object: `message` (text), `step` (a whole number), `fraction`
(0 to 1), and figures under any other name, e.g. {"step": 120, "loss": 0.31}. Of a program that does not know the file
what it prints is read instead.
"""

from __future__ import annotations

import json
import logging
import math
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from trainer_image.command import printed
from trainer_image.command.course import Course
from trainer_image.command.process import plain_line
from trainer_image.contract import Progress
from trainer_image.host import beneath
from trainer_image.host.exhaustion import DISK_FULL

log = logging.getLogger(__name__)

READ_BYTES = 1024 * 1024
MESSAGE_CHARACTERS = 300
FIGURES = 50
# A program that writes a line for each of millions of steps fills neither the disk nor the model's container.
HISTORY_BYTES = 64 * 1024 * 1024
# What is printed is read for so many seconds at a time: a line may be made to be slow to read. When the program has
# ended there is no other time.
READ_SECONDS, READ_AT_THE_END = 0.05, 2.0
# Of a bar that writes over itself the figures are kept so often, and at its end.
BAR_SECONDS = 1.0


class ProgressFile:
    """Follows the file at `path` and reports each new line; objects with figures are kept in `history`.

    step: the newest one that was reported; used: the program has written to it
    """

    def __init__(self, path: Path, history: Path, report: Callable[[Progress], None]) -> None:
        self.path = path
        self.history = history
        self.step = 0
        self.used = False
        self._report = report
        self._offset = 0
        self._rest = b""
        self._full = False
        path.touch()

    def drain(self) -> None:
        """All that is left; the program has ended."""
        while self.poll():
            pass

    def poll(self) -> bool:
        """Reads some of what is new, and says whether there was any. A line counts when its end is written.

        Nothing that stands there is an error.
        """
        content = self._new()
        *lines, self._rest = (self._rest + content).split(b"\n")
        if len(self._rest) > READ_BYTES:
            self._rest = b""
        for line in lines:
            text = line.decode("utf-8", "replace").strip()
            if text:
                self.used = True
                self._line(text)
        return bool(content)

    def tell(self, message: str, step: int) -> None:
        self.step = step
        self._report(Progress(_short(message), step))

    def _new(self) -> bytes:
        try:
            # A pipe in its place would make the trainer wait.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return b""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return b""
        with os.fdopen(descriptor, "rb") as file:
            if status.st_size < self._offset:
                self._offset, self._rest = 0, b""  # begun anew
            file.seek(self._offset)
            content = file.read(READ_BYTES)
        self._offset += len(content)
        return content

    def _line(self, text: str) -> None:
        record = _parsed(text)
        if record is None:
            self._report(Progress(_short(text), self.step))
            return
        step = record.pop("step", None)
        if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 10**18:
            self.step = step
        message = record.pop("message", None)
        record.pop("fraction", None)  # steps and figures say as much
        figures = dict(list(_figures(record).items())[:FIGURES])
        if figures:
            self.keep({"step": self.step, **figures})
        shown = message if isinstance(message, str) and message.strip() else _sentence(self.step, figures)
        self._report(Progress(_short(shown), self.step))

    def keep(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""
        if self._full:
            return
        try:
            with beneath.open_to_append(self.history) as file:
                file.write(json.dumps(record).encode() + b"\n")
                self._full = file.tell() > HISTORY_BYTES
            why = "is full"
        except FileNotFoundError:  # many a program begins by making its folder anew
            return
        except OSError as error:
            if error.errno in DISK_FULL:
                raise
            self._full, why = True, "was replaced by the program"
        if self._full:
            log.warning("metrics.jsonl %s: what the program reports from now on is not kept in it", why)


class PrintedProgress:
    """What a program prints, as progress in its file's place; nothing, once it writes to that file itself."""

    def __init__(self, progress: ProgressFile) -> None:
        self._progress = progress
        self._course = Course(progress.step)
        self._kept: tuple[int, dict[str, float]] | None = None
        self._kept_at = 0.0

    def figures(self) -> dict[str, float]:
        """The newest of each name that was printed."""
        return {plain_line(name)[:64]: value for name, value in list(self._course.figures.items())[:FIGURES]}

    def take(self, lines: Iterable[tuple[str, bool]], within: float = READ_SECONDS) -> None:
        """lines: what is new, and whether it was written over; within: seconds, after which the others are left"""
        latest, told = time.monotonic() + within, False
        for text, overwritten in lines:
            if self._progress.used:
                break
            reading = self._course.read(text)
            if reading is not None:
                self._course.go_on(reading)
                self._keep(reading, passing=overwritten and reading.step != reading.steps)
                told = True
            if time.monotonic() > latest:
                break
        if told:
            self._progress.tell(str(self._course), self._course.step)

    def _keep(self, reading: printed.Reading, *, passing: bool) -> None:
        """passing: the line says what the next one will say of the same epoch, too"""
        now, kept = time.monotonic(), (self._course.step, dict(reading.figures))
        if not reading.figures or kept == self._kept or (passing and now - self._kept_at < BAR_SECONDS):
            return
        self._kept, self._kept_at = kept, now
        self._progress.keep({"step": self._course.step, **{plain_line(name)[:64]: v for name, v in kept[1].items()}})


def _parsed(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _figures(record: dict[str, Any]) -> dict[str, float]:
    return {plain_line(name)[:64]: float(value) for name, value in record.items() if is_figure(value)}


def is_figure(value: object) -> bool:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _sentence(step: int, figures: dict[str, float]) -> str:
    return ", ".join([f"Step {step}", *(f"{name} {value:.4g}" for name, value in list(figures.items())[:3])])


def _short(text: str) -> str:
    clean = plain_line(text)
    return clean if len(clean) <= MESSAGE_CHARACTERS else clean[: MESSAGE_CHARACTERS - 1] + "…"
