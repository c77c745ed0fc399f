"""Dispatcher processes forked off one that has read the libraries: reading them takes longer than most tests of stages.

Whether `python -m dispatcher` starts as it should is shown by the tests of the command line and end to end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Self
from unittest import mock

from local_stack.processes import Service

_CONTEXT = multiprocessing.get_context("forkserver")
# multiprocessing has one for all, and that one has the libraries of `tests.world.nodes`.
_SERVER = forkserver.ForkServer()
_SERVER.set_forkserver_preload(["dispatcher.cli.main"])


class ForkedDispatcher(Service):
    """A `Service` like `python -m dispatcher run`: a process in a group of its own, with the environment `env`."""

    def __init__(self, name: str, log: Path, *, env: Mapping[str, str], cwd: Path) -> None:
        super().__init__(name, ["dispatcher", "run"], log, env=env, cwd=cwd)

    def start(self) -> Self:
        child = _CONTEXT.Process(target=_become, args=(self.argv, self.log, self._env, self._cwd), name=self.name)
        with mock.patch.object(forkserver, "connect_to_new_process", _SERVER.connect_to_new_process):
            child.start()
        self._process = _Child(child)
        return self


class _Child:
    """What a `Service` needs of a subprocess.Popen."""

    def __init__(self, child: multiprocessing.process.BaseProcess) -> None:
        self._child = child
        self.pid = child.pid

    def poll(self) -> int | None:
        return self._child.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._child.join(timeout)
        if (code := self._child.exitcode) is None:
            raise subprocess.TimeoutExpired(self._child.name, timeout)
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _become(argv: list[str], log: Path, env: dict[str, str], cwd: Path) -> None:
    os.setsid()
    os.chdir(cwd)
    with log.open("ab") as out, Path(os.devnull).open("rb") as nothing:
        for mine, number in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(mine.fileno(), number)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    from dispatcher.__main__ import main

    main()
