"""The program as a process: what it is given, what it says, how it ends."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from trainer_image.errors import UserCodeKilled
from trainer_image.host import child_environment, hidden, keeper
from training_common.text import plain

log = logging.getLogger(__name__)

LINE_CHARACTERS = 2000
TAIL_LINES, TAIL_CHARACTERS = 3, 500
KEPT_LINES = 200
# Where torchrun begins to tell in many lines that a process of it has failed: why stands before.
_TORCHRUN_TELLS = re.compile(r"torch/distributed/elastic/multiprocessing/api\.py.*failed \(exitcode")
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
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
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
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
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

    def tail(self) -> str:
        """The last lines that it printed, as one, without credentials; for a sentence."""
        text = hidden.text(" / ".join(last_words(self.lines())))
        return text if len(text) <= TAIL_CHARACTERS else "…" + text[1 - TAIL_CHARACTERS :]

    def _read(self) -> None:
        assert self._process.stdout is not None
        text = io.TextIOWrapper(self._process.stdout, encoding="utf-8", errors="replace", newline="")
        while line := text.readline(LINE_CHARACTERS):
            overwritten = line.endswith("\r")
            clean = plain_line(line).rstrip()
            # A progress bar writes over itself many times a second.
            log.log(logging.DEBUG if overwritten else logging.INFO, "program: %s", clean)
            if clean and not overwritten:
                self._lines.append(clean)


def last_words(lines: Sequence[str]) -> Sequence[str]:
    """The last TAIL_LINES that say why it ended."""
    end = next((number for number, line in enumerate(lines, 1) if _TORCHRUN_TELLS.search(line)), len(lines))
    return lines[max(0, end - TAIL_LINES) : end]


def plain_line(text: str) -> str:
    """What a program prints must not rewrite the log, nor break its lines."""
    return plain(text).replace("\n", " ")
