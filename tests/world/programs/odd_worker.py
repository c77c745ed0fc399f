"""A worker that does what HOW in its environment says, once it is asked to train; else as trainer_image.worker.child.

python -m tests.world.programs.odd_worker START
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from trainer_image.data import reading
from trainer_image.worker import messages

Pipe = socket.socket


def say(pipe: Pipe, message: messages.FromWorker) -> None:
    pipe.sendall(messages.packed(message))


def rest() -> None:
    time.sleep(600)


def close_the_pipe(pipe: Pipe) -> None:
    pipe.close()
    rest()


def send(content: bytes) -> Callable[[Pipe], None]:
    def act(pipe: Pipe) -> None:
        pipe.sendall(content)
        rest()

    return act


def flood(pipe: Pipe) -> None:
    line = messages.packed(messages.Progress("Epoch 8 of 20", 8))
    pipe.setblocking(False)
    latest = time.monotonic() + 0.5
    while time.monotonic() < latest:
        with contextlib.suppress(BlockingIOError):
            pipe.send(line * 100)
    os._exit(3)


def leave_a_talker(pipe: Pipe) -> None:
    if os.fork() == 0:
        os.setsid()
        while True:
            say(pipe, messages.Beat())
            time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGSEGV)


def leave_processes(pipe: Pipe) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            print("left", os.getpid(), flush=True)
            rest()
        os._exit(0)
    os.wait()
    say(pipe, messages.Trained("tabular", {"accuracy": 0.5}, {}, 7, 1.0, {}))
    rest()


def keep_behind(pipe: Pipe) -> None:
    place = Path(os.environ["PLACE"])
    (place / "elsewhere" / "step-1").mkdir(parents=True)
    (place / "kept").symlink_to("elsewhere")
    say(pipe, messages.Keep("kept/step-1"))
    rest()


def signalled(number: int) -> Callable[[Pipe], None]:
    return lambda pipe: os.kill(os.getpid(), number)


def crash_over(count: int) -> Callable[[Pipe], None]:
    def act(pipe: Pipe) -> None:
        reading.keep_in(json.loads(sys.argv[1])["notes"])
        with reading.of("read.csv"):
            pass
        with contextlib.ExitStack() as files:
            for number in range(count):
                files.enter_context(reading.of(f"train/{number}.png"))
            os.kill(os.getpid(), signal.SIGSEGV)

    return act


# A message with one field more, which holds list in list.
DEEP = b"\x82\xa4type\xa4Beat\xa4more" + b"\x91" * 100_000 + b"\xc0"

DEEDS: dict[str, Callable[[Pipe], None]] = {
    "segfault": signalled(signal.SIGSEGV),
    "crashes over a file": crash_over(1),
    "crashes over files": crash_over(3),
    "abort": lambda pipe: os.abort(),
    "killed": signalled(signal.SIGKILL),
    "stops itself": signalled(signal.SIGSTOP),
    "exits": lambda pipe: os._exit(3),
    "says nothing": lambda pipe: rest(),
    "closes the pipe": close_the_pipe,
    "garbage": send(b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1"),
    "keeps behind a link": keep_behind,
    "nests": send(struct.pack(">I", len(DEEP)) + DEEP),
    "a long message": send(struct.pack(">I", 2**32 - 1) + b"x" * 1024),
    "another's error": send(messages.packed(messages.Failed("Fenced", "Another pod owns this run"))),
    "another folder": send(messages.packed(messages.Keep("../../credentials/step-1"))),
    "floods": flood,
    "leaves a talker": leave_a_talker,
    "leaves processes": leave_processes,
}

if __name__ == "__main__":
    theirs = socket.socket(fileno=json.loads(sys.argv[1])["pipe"])
    theirs.recv(1024**2)
    say(theirs, messages.Progress("Epoch 7 of 20", 7))
    DEEDS[os.environ["HOW"]](theirs)
