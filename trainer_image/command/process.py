"""The program as a process: what it is given, what it says, how it ends."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from trainer_image.errors import UserCodeKilled
from trainer_image.host import child_environment, hidden, keeper
from trainer_image.units import format_bytes
from training_common.text import plain

log = logging.getLogger(__name__)

LINE_CHARACTERS = 2000
# The exceptions of eight ranks, and torchrun's account of them.
KEPT_LINES = 1000
# Lines that are kept to be read for progress until somebody takes them.
NEWS = 200
# How much of its output the log takes at once, and a second after that: it goes to the node's disk.
LOG_BYTES, LOG_BYTES_PER_SECOND = 16 * 1024 * 1024, 4 * 1024
# Of a program whose last lines were left out, so many are in the log all the same.
LAST_LINES = 20
# Longer than the keeper takes to give up what cannot be ended.
_PATIENCE = keeper.PATIENCE + 10.0


def environment(given: Mapping[str, str], inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The program's environment: the trainer's own without credentials, and `given`."""
    kept = child_environment.without_credentials(inherited)
    # A script imports what lies beside it; the image says so only to keep the trainer's own imports out of reach.
    kept.pop("PYTHONSAFEPATH", None)
    return {**kept, "PYTHONUNBUFFERED": "1", **given}


class Program:
    """A running program with a keeper between it and this process: see keeper.py. Its output becomes lines of the log.

    Made and closed in the main thread: Linux ties the keeper's life to the thread that started it.
    log_bytes: see LOG_BYTES; secret: what of its arguments none may see, whatever it prints of them
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log_bytes: int = LOG_BYTES,
        secret: Sequence[str] = (),
    ) -> None:
        self._status, status = os.pipe()
        script = [sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), str(status)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 (what may run was checked, and no shell reads it)
                [*script, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                pass_fds=(status,),
                start_new_session=True,
            )
        finally:
            os.close(status)
        self._ended: int | None = None
        self.pid = self._process.pid
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._news: deque[tuple[str, bool]] = deque(maxlen=NEWS)
        self._log = _Log(log_bytes)
        self._secret = tuple(secret)
        self._reader = threading.Thread(target=self._read, name="program", daemon=True)
        self._reader.start()

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal, once nothing of it is left; None when it still runs after `seconds`.

        Raises UserCodeKilled where something of it cannot be ended.
        """
        if self._ended is None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            self._ended = self._how_it_ended()
        return self._ended

    def terminate(self) -> None:
        """SIGTERM to the program alone: what it started is its own to end, data-loading processes for instance."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends the program and all that it started. Raises UserCodeKilled where something of it cannot be ended."""
        if self._ended is None and self._process.poll() is None:
            self._process.send_signal(keeper.END)
            self._process.send_signal(signal.SIGCONT)  # the program may have stopped it
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
            self._process.kill()
        self._process.wait()
        self.wait(0)

    def _how_it_ended(self) -> int:
        said = os.read(self._status, 64).decode().split()
        os.close(self._status)
        if not said:  # the keeper was killed, by the program or for memory: what it leaves ends with this process
            return -signal.SIGKILL
        if len(said) > 1:
            raise UserCodeKilled("The program left a process behind that the kernel cannot end: nothing is published")
        return int(said[0])

    def close(self) -> None:
        """Ends what is left of it, and reads what it printed last."""
        self.kill()
        self._reader.join(timeout=5)

    def lines(self) -> list[str]:
        """The last KEPT_LINES that it printed."""
        return list(self._lines)

    def news(self) -> Iterator[tuple[str, bool]]:
        """What it has printed, at most the last NEWS lines: (line, it was written over), each given once."""
        while self._news:
            yield self._news.popleft()

    def left_out(self) -> str:
        """A sentence about what is not in the log; empty where all is."""
        return self._log.left_out()

    def _read(self) -> None:
        assert self._process.stdout is not None
        text = io.TextIOWrapper(self._process.stdout, encoding="utf-8", errors="replace", newline="")
        while line := text.readline(LINE_CHARACTERS):
            ending, beyond = line[-1], 0
            while ending not in "\r\n" and (rest := text.readline(LINE_CHARACTERS)):
                ending, beyond = rest[-1], beyond + len(rest.rstrip("\r\n"))
            overwritten = ending == "\r"
            clean = plain_line(hidden.text(line, self._secret) if self._secret else line).rstrip()
            if beyond:
                clean += f"… ({beyond} more characters)"
            self._log.line(clean, overwritten=overwritten)
            if clean:
                self._news.append((clean, overwritten))
                if not overwritten:
                    self._lines.append(clean)
        self._log.close(list(self._lines)[-LAST_LINES:])


class _Log:
    """The program's lines in the trainer's log, as many as it takes. allowance: bytes, which grow again with time"""

    def __init__(self, allowance: int) -> None:
        self._most = self._allowance = float(allowance)
        self._at = time.monotonic()
        self._cut = self._all = self._bytes = self._all_bytes = 0

    def line(self, line: str, *, overwritten: bool) -> None:
        # A progress bar writes over itself many times a second.
        level = logging.DEBUG if overwritten else logging.INFO
        if not log.isEnabledFor(level):
            return
        now = time.monotonic()
        self._allowance = min(self._most, self._allowance + (now - self._at) * LOG_BYTES_PER_SECOND)
        self._at = now
        size = len(line) + 1
        # Once lines are left out, some more are, so that they are not told of one by one.
        if size > self._allowance or (self._cut and self._allowance < self._most / 256):
            self._cut, self._bytes = self._cut + 1, self._bytes + size
            return
        self._allowance -= size
        self._tell()
        log.log(level, "program: %s", line)

    def close(self, last: Sequence[str]) -> None:
        """It has ended. last: its last lines"""
        cut = self._cut
        self._tell()
        for line in last[-cut:] if cut else ():
            log.info("program: %s", line)

    def _tell(self) -> None:
        if self._cut:
            log.warning("program: [%d lines, %s, left out: it prints too much]", self._cut, format_bytes(self._bytes))
            self._all, self._all_bytes = self._all + self._cut, self._all_bytes + self._bytes
            self._cut = self._bytes = 0

    def left_out(self) -> str:
        if not self._all:
            return ""
        return f"{self._all} lines ({format_bytes(self._all_bytes)}) that the program printed are not in the log."


def plain_line(text: str) -> str:
    """What a program prints must not rewrite the log, nor break its lines."""
    return plain(text).replace("\n", " ")
