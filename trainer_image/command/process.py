"""The program as a process: what it is given, what it says, how it ends."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from trainer_image.host import child_environment
from training_common.redaction import redact
from training_common.text import plain

log = logging.getLogger(__name__)

LINE_CHARACTERS = 2000
TAIL_LINES, TAIL_CHARACTERS = 3, 500
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
# Runs before the program, in its process. The program dies with a trainer that is killed: an orphan would go on
# writing, and hold a GPU. Python ignores SIGPIPE, and what is ignored stays so in a program that is executed.
_LAUNCH = f"""
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(137)
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    print(f"{{sys.argv[2]}} cannot be started: {{error.strerror}}")
    sys.stdout.flush()
    os._exit(126)
"""


def environment(given: Mapping[str, str], inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The program's environment: the trainer's own without credentials, and `given`."""
    kept = child_environment.without_credentials(inherited)
    # A script imports what lies beside it; the image says so only to keep the trainer's own imports out of reach.
    kept.pop("PYTHONSAFEPATH", None)
    return {**kept, "PYTHONUNBUFFERED": "1", **given}


def hide_own_memory() -> None:
    """Keeps processes of the same user out of this one's environment and memory (/proc/PID/environ, ptrace)."""
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("The trainer's environment cannot be hidden from the program: this kernel does not do it")


class Program:
    """A running program in a process group of its own. Its output becomes lines of the log.

    Made and closed in the main thread: Linux ties the program's life to the thread that started it.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
        self._process = subprocess.Popen(  # noqa: S603 (what may run was checked, and no shell reads it)
            [*launcher, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader = threading.Thread(target=self._read, name="program", daemon=True)
        self._reader.start()

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None when it still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """SIGTERM to the program alone: what it started is its own to end, data-loading processes for instance."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to the program and all that it started in its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Ends what is left of its group, and reads what it printed last."""
        self.kill()
        # A process that left the group may hold the pipe open: its output is not waited for.
        self._reader.join(timeout=5)

    def tail(self) -> str:
        """The last lines that it printed, as one, without credentials; for a sentence."""
        text = redact(" / ".join(self._tail))
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
                self._tail.append(clean)


def plain_line(text: str) -> str:
    """What a program prints must not rewrite the log, nor break its lines."""
    return plain(text).replace("\n", " ")
