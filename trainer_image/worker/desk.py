"""The worker's end of the pipe: what it is asked to do, what it says, and the store of checkpoints beyond it."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from trainer_image.contract import Progress
from trainer_image.errors import TrainerError
from trainer_image.worker import messages
from trainer_image.worker.messages import FromWorker, Order

# A sign of life comes so often. Lines of progress do at most so often: a small model's epochs take milliseconds.
BEAT_SECONDS, PROGRESS_SECONDS = 1.0, 0.05
_PIECE = 64 * 1024

_Answer = messages.Stored | messages.Found | messages.Freed


class Desk:
    """orders: what is to be done, one after the other; stop: set when it is to end"""

    def __init__(self, pipe: socket.socket) -> None:
        self.orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._pipe = pipe
        self._speaking = threading.Lock()
        self._news = threading.Event()
        self._latest: Progress | None = None
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[_Answer | messages.Failed] = queue.SimpleQueue()
        for work, name in ((self._listen, "supervisor"), (self._keep_speaking, "progress")):
            threading.Thread(target=work, name=name, daemon=True).start()

    def progress(self, progress: Progress) -> None:
        """Cheap and non-blocking, from any thread; of several in a moment the last one counts."""
        self._latest = progress
        self._news.set()

    def end(self, message: messages.End) -> None:
        """The answer to an order, after the last line of progress."""
        self._say_progress()
        self._say(message)

    def last_resort(self, error: TrainerError) -> NoReturn:
        """The end of this process, from any thread: the main one may be stuck in a call that never returns."""
        self.end(messages.failed(error))
        os._exit(error.exit_code)

    def ask(self, question: messages.Keep | messages.Newest | messages.MakeRoom) -> _Answer:
        """Raises what went wrong there."""
        with self._asking:
            self._say(question)
            answer = self._answers.get()
        if isinstance(answer, messages.Failed):
            raise messages.raised(answer)
        return answer

    def _keep_speaking(self) -> None:
        while True:
            self._news.wait(BEAT_SECONDS)
            self._news.clear()
            if not self._say_progress():
                self._say(messages.Beat())
            time.sleep(PROGRESS_SECONDS)

    def _say_progress(self) -> bool:
        with self._speaking:
            progress, self._latest = self._latest, None
            if progress is not None:
                self._send(messages.progress_of(progress))
            return progress is not None

    def _say(self, message: FromWorker) -> None:
        with self._speaking:
            self._send(message)

    def _send(self, message: FromWorker) -> None:
        try:
            self._pipe.sendall(messages.packed(message))
        except OSError:
            _leave()

    def _listen(self) -> None:
        frames = messages.Frames.to_worker()
        with contextlib.suppress(OSError):
            while content := self._pipe.recv(_PIECE):
                for message in frames.read(content):
                    match message:
                        case messages.Stop():
                            self.stop.set()
                        case messages.Stored() | messages.Found() | messages.Freed() | messages.Failed():
                            self._answers.put(message)
                        case _:
                            self.orders.put(message)
        _leave()


class RemoteCheckpoints:
    """See `contract.CheckpointStore`. work: the folder that the run works in"""

    def __init__(self, desk: Desk, work: Path) -> None:
        self._desk, self._work = desk, work

    def newest_first(self) -> list[Path]:
        found = self._desk.ask(messages.Newest())
        assert isinstance(found, messages.Found)
        return [messages.path_of(folder) for folder in found.folders]

    def keep(self, folder: Path) -> None:
        self._desk.ask(messages.Keep(folder.absolute().relative_to(self._work).as_posix()))

    def make_room(self) -> bool:
        freed = self._desk.ask(messages.MakeRoom())
        assert isinstance(freed, messages.Freed)
        return freed.any


def _leave() -> NoReturn:
    """There is nobody to work for any more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)
