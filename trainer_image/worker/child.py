"""The worker, from the supervisor's side: started, asked, listened to, ended."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from trainer_image.config.model_config import Config
from trainer_image.contract import CheckpointStore, Progress, RunInputs, RunResult
from trainer_image.data import reading
from trainer_image.errors import OutOfMemory, StorageUnavailable, Terminated, TrainerError, UserCodeKilled
from trainer_image.host import confinement, exhaustion, hidden, keeper, memory
from trainer_image.host.child_environment import without_credentials
from trainer_image.host.orphans import Orphans
from trainer_image.limits import Limits
from trainer_image.worker import deaths, messages
from trainer_image.worker.messages import ToWorker

log = logging.getLogger(__name__)

Kind = Literal["engine", "command", "predict"]
_End = TypeVar("_End", bound=messages.End)

LOOK_SECONDS = 0.1
# A machine short of CPUs and memory may hold a sound worker up for so long, whatever HANG_SECONDS is. Before its
# first word a slow disk may, too.
LEAST_SILENCE, STARTING_SECONDS = 60.0, 300.0
# To leave by itself, with its streams flushed and the GPU given back.
LEAVE_SECONDS = 2.0
_PIECE = 64 * 1024


class _Lost(Exception):
    """The worker can be asked nothing more. why: what it did, as the end of a sentence; empty where it is gone"""

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class _Hangs(_Lost):
    """It is there, and gives no sign of life."""


class Worker:
    """A `run.backend.Backend` in a process of its own, without credentials; ended with all that it started on leaving.

    Made in the main thread: Linux ties the child's life to the thread that started it. At once it begins to import what
    its kind needs. entry_point: of the plug-in that will run in it
    hang_seconds: without a sign of life for so long it hangs (and for LEAST_SILENCE); 0: never. module: what it runs
    """

    def __init__(
        self,
        kind: Kind,
        *,
        entry_point: str | None = None,
        hang_seconds: float = 0.0,
        module: str = "trainer_image.worker",
    ) -> None:
        self._entry_point = entry_point
        self._silence = max(hang_seconds, LEAST_SILENCE) if hang_seconds else math.inf
        self._kills_before = memory.kills()
        self._at = ""
        self._frames = messages.Frames.from_worker()
        self._unsent = bytearray()
        self._on_an_errand = self._abandoned = False
        self._gone_since: float | None = None
        self._socket, theirs = socket.socketpair()
        self._woken, self._wake = socket.socketpair()
        self._notes = tempfile.TemporaryFile()  # noqa: SIM115 (it goes with this object)
        self._notes.truncate(reading.BYTES)
        start = {
            "pipe": theirs.fileno(),
            "notes": self._notes.fileno(),
            "parent": os.getpid(),
            "kind": kind,
            "hidden": [str(path) for path in confinement.credentials()],
            "log_level": logging.getLogger().level,
        }
        with theirs:
            self._orphans = Orphans()
            try:
                self._process = subprocess.Popen(  # noqa: S603 (ourselves)
                    [sys.executable, "-m", module, json.dumps(start)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    # Threads that wait sleep, unless somebody wants otherwise: spinning takes a shared CPU from others.
                    env={"OMP_WAIT_POLICY": "passive"} | without_credentials() | {"PYTHONUNBUFFERED": "1"},
                    pass_fds=(theirs.fileno(), self._notes.fileno()),
                    start_new_session=True,
                )
            except OSError as error:
                self._orphans.release()
                why = f"no process can be started for the training ({error.strerror})"
                raise OutOfMemory(f"Out of memory: {why}") from None
        self._socket.setblocking(False)
        self._words = [self._passing_on("stdout"), self._passing_on("stderr")]
        self._heard = time.monotonic() + STARTING_SECONDS

    def _passing_on(self, name: Literal["stdout", "stderr"]) -> threading.Thread:
        source = getattr(self._process, name)
        thread = threading.Thread(target=hidden.pass_on, args=(source.fileno(), name), name=name, daemon=True)
        thread.start()
        return thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(LEAVE_SECONDS if kind is None else 0.0)

    def _end(self, patience: float) -> bool:
        """It leaves by itself within that time, or is killed; its last words are passed on. Whether nothing is left."""
        self._socket.close()  # which it takes for the end
        latest = time.monotonic() + patience
        while not self._has_ended() and time.monotonic() < latest:
            time.sleep(0.005)
        gone = self._kill()
        for thread in self._words:
            thread.join(LEAVE_SECONDS)  # what cannot be ended may hold a stream open
        return gone

    def abandon(self) -> None:
        """Ends it at once, from any thread, and waits for nothing: whoever waits for its answer gets Terminated."""
        self._abandoned = True
        self._signal_all()

    def _signal_all(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _kill(self) -> bool:
        """Ends it, and all that it has started. Whether nothing is left: a driver that hangs may hold a process."""
        self._signal_all()
        try:
            self._process.wait(keeper.PATIENCE)
        except subprocess.TimeoutExpired:
            log.error("The process of the training cannot be ended: the kernel waits for a device or a disk")
            return False
        gone = self._orphans.end()
        self._orphans.release()
        return gone

    # As a Backend.

    def check_config(self, config: Config, limits: Limits) -> None:
        self._asked(messages.Check(messages.config_bytes(config), vars(limits)), messages.Done)

    def validate_dataset(self, inputs: RunInputs) -> str:
        return self._asked(messages.Validate(messages.inputs_for(inputs)), messages.Described, inputs).text

    def train(self, inputs: RunInputs) -> RunResult:
        """Nothing of the worker is left when this returns: what lies in the output folder changes no more."""
        said = self._asked(messages.Train(messages.inputs_for(inputs)), messages.Trained, inputs)
        if not self._end(LEAVE_SECONDS):
            raise UserCodeKilled("The training left a process behind that the kernel cannot end: nothing is published")
        return messages.result_of(said)

    def follow(self, inputs: RunInputs) -> None:
        """Trains along as a further node, until node 0 has trained or has no use for this one. Raises PeerLost, too.

        Once all train together `inputs.stop` changes nothing: node 0 decides, and else `abandon` or `with` ends it.
        """
        self._asked(messages.Follow(messages.inputs_for(inputs)), messages.Done, inputs)

    # For `predict`.

    def predict(self, model: Path, data: Path, out: Path | None) -> None:
        paths = [None if path is None else bytes(path.absolute()) for path in (model, data, out)]
        self._asked(messages.Predict(*paths), messages.Done)  # type: ignore[arg-type]

    def write(self, model: Path, prompt: str, length: int, temperature: float, seed: int) -> None:
        order = messages.Continue(bytes(model.absolute()), prompt, length, temperature, seed)
        self._asked(order, messages.Done)

    def _asked(self, order: messages.Order, end: type[_End], inputs: RunInputs | None = None) -> _End:
        """The answer. Raises what the worker raised, and what its death means."""
        try:
            self._say(order)
            told = False
            while True:
                for message in self._listen():
                    if isinstance(message, end):
                        return message
                    self._take(message, inputs)
                if inputs is not None and inputs.stop.is_set() and not told:
                    self._say(messages.Stop())
                    told = True
        except _Lost as lost:
            raise self._explained(lost) from None

    def _take(self, message: Any, inputs: RunInputs | None) -> None:
        match message:
            case messages.Beat():
                pass
            case messages.Progress(text, step):
                self._at = text
                if inputs is not None:
                    inputs.progress(Progress(text, step))
            case messages.Failed():
                raise messages.raised(message)
            case messages.Keep(folder) if inputs is not None and inputs.checkpoints is not None:
                place = inputs.output.parent.resolve() / folder
                if place.resolve() != place:
                    raise _Lost("sent for a checkpoint behind a link")
                self._run_errand(_keeping(inputs.checkpoints, place))
            case messages.Newest() if inputs is not None and inputs.checkpoints is not None:
                self._run_errand(_newest(inputs.checkpoints))
            case messages.MakeRoom() if inputs is not None and inputs.checkpoints is not None:
                self._run_errand(_making_room(inputs.checkpoints))
            case _:
                raise _Lost(f"sent {type(message).__name__} where that means nothing")

    def _run_errand(self, errand: Callable[[], ToWorker]) -> None:
        """Storage takes its time, and the worker is listened to meanwhile."""
        if self._on_an_errand:
            raise _Lost("asked for a checkpoint while another one is on its way")
        self._on_an_errand = True

        def run() -> None:
            answer = messages.packed(errand())
            self._on_an_errand = False
            self._unsent += answer
            self._wake.send(b"!")

        threading.Thread(target=run, name="checkpoint", daemon=True).start()

    def _say(self, message: ToWorker) -> None:
        """It is sent while we listen: a worker that reads nothing holds nobody up."""
        self._unsent += messages.packed(message)

    def _listen(self) -> Iterator[Any]:
        """What has come, after LOOK_SECONDS at most. Raises _Lost."""
        began = time.monotonic()
        waiting = select.poll()
        waiting.register(self._woken, select.POLLIN)
        waiting.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        ready = dict(waiting.poll(LOOK_SECONDS * 1000))
        if self._woken.fileno() in ready:
            self._woken.recv(_PIECE)
        self._send()
        gone = self._gone_for()  # looked at before what it left is read
        content = self._received()
        if content and gone < LEAVE_SECONDS:  # later it is a child of its own that goes on talking
            self._heard = time.monotonic()
            yield from self._messages(content)
            if len(content) == _PIECE:
                time.sleep(0.01)  # whoever floods us waits
        elif gone:
            raise _Lost
        elif content == b"":
            self._leaves_the_pipe()
        self._look_for_a_hang(began)

    def _messages(self, content: bytes) -> Iterator[Any]:
        try:
            yield from self._frames.read(content)
        except messages.NoMessage as error:
            raise _Lost(f"sent what is no message ({error})") from None

    def _received(self) -> bytes | None:
        """None: nothing yet. b"": its end is closed."""
        try:
            return self._socket.recv(_PIECE)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionError):
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent[:_PIECE])]

    def _leaves_the_pipe(self) -> None:
        """As it does when it ends; else it can be neither heard nor told anything."""
        latest = time.monotonic() + LEAVE_SECONDS
        while not self._has_ended():
            if time.monotonic() > latest:
                raise _Lost("closed its connection to the trainer")
            time.sleep(0.005)
        raise _Lost

    def _look_for_a_hang(self, began: float) -> None:
        now = time.monotonic()
        if now - began > max(1.0, 10 * LOOK_SECONDS):
            self._heard += now - began  # this process stood still, too (Ctrl-Z, a frozen container)
        if now - self._heard > self._silence:
            raise _Hangs(f"has given no sign of life for {self._silence:g} s")

    def _gone_for(self) -> float:
        """Seconds since its end was seen, and at least a moment; 0 while it lives."""
        if not self._has_ended():
            return 0.0
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        return now - self._gone_since + 1e-9

    def _has_ended(self) -> bool:
        """It stays a zombie, so that its number and its group's are nobody else's."""
        if self._process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True  # another thread has ended it

    def _explained(self, lost: _Lost) -> TrainerError:
        if self._abandoned:
            return Terminated("Stopped on request; what trained was ended")
        if lost.why:
            self._kill()
            return deaths.ended_by_us(lost.why, self._at, self._entry_point, hangs=isinstance(lost, _Hangs))
        status = self._process.wait()
        files = reading.noted(os.pread(self._notes.fileno(), reading.BYTES, 0))
        return deaths.explained(status, self._at, files, self._entry_point, self._kills_before)


def _keeping(store: CheckpointStore, folder: Path) -> Callable[[], ToWorker]:
    def keep() -> ToWorker:
        try:
            store.keep(folder)
        except Exception as error:
            return _refused(error)
        return messages.Stored()

    return keep


def _newest(store: CheckpointStore) -> Callable[[], ToWorker]:
    def newest() -> ToWorker:
        try:
            return messages.Found([bytes(folder.absolute()) for folder in store.newest_first()])
        except Exception as error:
            return _refused(error)

    return newest


def _making_room(store: CheckpointStore) -> Callable[[], ToWorker]:
    def make_room() -> ToWorker:
        try:
            return messages.Freed(store.make_room())
        except Exception as error:
            return _refused(error)

    return make_room


def _refused(error: Exception) -> messages.Failed:
    if lack := exhaustion.found(error, memory.kills()):
        error = lack
    elif not isinstance(error, TrainerError):
        error = StorageUnavailable(f"A checkpoint could not be moved: {type(error).__name__}: {error}")
    return messages.failed(error)
