"""Parsers of strangers' bytes in processes of their own: what a damaged file crashes is its reader, not the training.

Some libraries abort the process (SIGSEGV, SIGABRT) on damage that no check beforehand can see. A child runs the module
that it was started with, has no credentials and a bound on its memory, and answers over a pipe in frames: one byte for
the kind, eight for the length, then the content.

    stdin   one request a line, JSON
    stdout  H  it has started     A  a part of the answer     D  that was all     E  {"code", "sentence"}: TrainerError
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from trainer_image.errors import DatasetInvalid, LimitExceeded, OutOfMemory, TrainerError, invalid
from trainer_image.host import memory
from trainer_image.host.child_environment import without_credentials
from trainer_image.units import format_bytes

Json = dict[str, Any]

# Beyond what the libraries take, at most. Of honest files none needs more: a page of a column may have 2 GiB, the same
# packed, and what becomes of it.
MEMORY_BYTES = 6 * 1024**3
# Without a part of the answer for so long it is not going to come.
SILENT_SECONDS = 600.0
# The next file of a dataset comes at once; a training that computes needs no reader beside it.
IDLE_SECONDS = 5.0
_FRAME = struct.Struct(">cQ")
_SAID = {kind.code: kind for kind in (DatasetInvalid, LimitExceeded)}

_lock = threading.Lock()
_idle: dict[str, list[_Child]] = {}
# A forked process would talk into the same pipes.
os.register_at_fork(after_in_child=_idle.clear)


def asked(module: str, name: str, request: Json) -> Iterator[memoryview]:
    """The parts of what a child that runs `module` answers, see `serve`. name: of the file, for sentences.

    Raises what it raised; DatasetInvalid where it died or fell silent, OutOfMemory where the kernel killed it or starts
    no process, RuntimeError where it does not start by its own fault.
    """
    child, used = _ready(module)
    try:
        child.ask(request)
        try:
            part = child.answer()
        except _Lost as lost:
            if not used or lost.status:
                raise
            child = _Child(module)  # the other one ended for want of requests just when this one came
            child.ask(request)
            part = child.answer()
        while part is not None:
            yield part
            part = child.answer()
    except _Lost as lost:
        if not child.started and lost.status > 0:
            raise RuntimeError(f"{module} does not start (exit code {lost.status})") from None
        raise _why(name, lost) from None
    except TrainerError:
        _waits(child)
        raise
    except BaseException:
        child.end()
        raise
    _waits(child)


def serve(answer: Callable[[Json], Iterable[bytes | memoryview]]) -> None:
    """A child's main loop: answers requests until none has come for a while, or nobody reads the answers.

    answer: may raise DatasetInvalid and LimitExceeded; whatever else it raises ends the child
    """
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    room = min(MEMORY_BYTES, memory.available())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory.in_use() + room, hard))
    with contextlib.suppress(BrokenPipeError):
        _send(answers, b"H", b"")
        while select.select([0], [], [], IDLE_SECONDS)[0] and (line := sys.stdin.buffer.readline()):
            request = json.loads(line)
            try:
                for part in answer(request):
                    _send(answers, b"A", part)
                _send(answers, b"D", b"")
            except (DatasetInvalid, LimitExceeded) as error:
                _send(answers, b"E", json.dumps({"code": error.code, "sentence": error.sentence}).encode())
            except MemoryError:
                why = f"{request['name']} takes more than {format_bytes(room)} of memory to read"
                _send(answers, b"E", json.dumps({"code": LimitExceeded.code, "sentence": why}).encode())


def _send(answers: BinaryIO, kind: bytes, content: bytes | memoryview) -> None:
    view = memoryview(content)
    answers.write(_FRAME.pack(kind, view.nbytes))
    while view.nbytes:
        view = view[answers.write(view) :]


class _Lost(Exception):
    """The child is gone. status: its exit status, negative a signal; silent: it had to be ended"""

    def __init__(self, status: int, *, silent: bool = False) -> None:
        super().__init__(status)
        self.status, self.silent = status, silent


def _why(name: str, lost: _Lost) -> TrainerError:
    if lost.silent:
        return invalid(name, f"cannot be read: nothing comes of it within {SILENT_SECONDS:.0f} s; write it anew")
    if lost.status == -signal.SIGKILL:
        return OutOfMemory(f"Out of memory: the process that reads {name} was killed")
    how = signal.Signals(-lost.status).name if lost.status < 0 else f"exit code {lost.status}"
    return invalid(name, f"cannot be read: it is so damaged that it crashes its reader ({how}); write it anew")


class _Child:
    """The process, from this side."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.started = False
        # Away from the terminal's signals: an interrupt is the training's to answer.
        try:
            self._process = subprocess.Popen(  # noqa: S603 (ourselves)
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=without_credentials() | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            why = f"no process can be started to read the dataset ({error.strerror})"
            raise OutOfMemory(f"Out of memory: {why}") from None
        fcntl.fcntl(self._from, fcntl.F_SETPIPE_SZ, 1024**2)
        self._waiting = select.poll()
        self._waiting.register(self._from, select.POLLIN)

    @property
    def _to(self) -> Any:
        return self._process.stdin

    @property
    def _from(self) -> Any:
        return self._process.stdout

    def ask(self, request: Json) -> None:
        with contextlib.suppress(BrokenPipeError):  # then no answer comes either
            self._to.write(json.dumps(request).encode() + b"\n")

    def answer(self) -> memoryview | None:
        """The next part, None after the last. Raises _Lost, and what the child raised."""
        kind, length = _FRAME.unpack(self._exactly(_FRAME.size))
        if kind == b"H":
            self.started = True
            return self.answer()
        # A damaged file may have damaged its reader before it answers.
        if kind not in (b"A", b"D", b"E") or length > MEMORY_BYTES:
            self.end()
            raise _Lost(-signal.SIGSEGV)
        content = self._exactly(length)
        if kind == b"E":
            said = json.loads(bytes(content))
            raise _SAID[said["code"]](said["sentence"])
        return content if kind == b"A" else None

    def _exactly(self, length: int) -> memoryview:
        buffer = memoryview(bytearray(length))
        rest = buffer
        while rest.nbytes:
            if not self._waiting.poll(SILENT_SECONDS * 1000):
                self.end()
                raise _Lost(-signal.SIGKILL, silent=True)
            count = self._from.readinto(rest)
            if not count:
                raise _Lost(self.end(kill=False))
            rest = rest[count:]
        return buffer

    def end(self, *, kill: bool = True) -> int:
        """Its exit status."""
        if kill:
            self._process.kill()
        self._to.close()
        self._from.close()
        return self._process.wait()

    def has_ended(self) -> bool:
        return self._process.poll() is not None


def _ready(module: str) -> tuple[_Child, bool]:
    """A child that waits for a request, and whether it had one before."""
    with _lock:
        found = _idle.setdefault(module, [])
        while found:
            child = found.pop()
            if not child.has_ended():
                return child, True
            child.end()
    return _Child(module), False


def _waits(child: _Child) -> None:
    with _lock:
        _idle.setdefault(child.module, []).append(child)
