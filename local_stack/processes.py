"""Processes that the local stack starts, waits for and ends, each by its own pid."""

from __future__ import annotations

import abc
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self, TypeVar

T = TypeVar("T")


class ServiceFailed(Exception):
    """A process of the local stack ended or did not become ready; the message quotes the end of its log."""


class WaitedTooLong(AssertionError):
    """A condition did not become true in time. An AssertionError, so that a test that waits fails."""


def wait_until(
    condition: Callable[[], T | None],
    timeout: float = 10.0,
    *,
    what: str | Callable[[], str] = "the condition",
    interval: float = 0.02,
) -> T:
    """Poll `condition` until it returns something true, and return that.

    timeout, interval: seconds; the interval doubles up to 0.25 s, so that long waits cost little.
    what: what is waited for, or a function that describes what was seen instead, for the error's message.
    Raises WaitedTooLong. Exceptions of `condition` pass through.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            text = what() if callable(what) else what
            raise WaitedTooLong(f"waited {timeout:g} s for {text}")
        time.sleep(interval)
        interval = min(interval * 2, 0.25)


def log_tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log file, or a note that there are none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


class Stoppable(abc.ABC):
    """A context manager: the end of the block calls `stop`."""

    @abc.abstractmethod
    def stop(self) -> object:
        """End what runs. Harmless twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class Service(Stoppable):
    """One child process in its own process group, its output in a log file."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """env: the whole environment of the child; None hands ours on."""
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log = log
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        if self._process is not None and self._process.poll() is None:
            raise ServiceFailed(f"{self.name} is running already, pid {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                # Ctrl-C in the terminal is for us alone: we end the parts, in order.
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServiceFailed(f"{self.name} was never started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return None if self._process is None else self._process.poll()

    def wait_ready(self, ready: Callable[[], T | None], timeout: float = 30.0) -> T:
        """Poll `ready` until it returns something true; ServiceFailed when the process ends or time is up."""

        def alive_and_ready() -> T | None:
            if self.returncode is not None:
                raise ServiceFailed(f"{self.name} ended with code {self.returncode} while starting; {self._log_end()}")
            return ready()

        try:
            return wait_until(alive_and_ready, timeout, what=f"{self.name} to be ready")
        except WaitedTooLong as error:
            self.stop()
            raise ServiceFailed(f"{error}; {self._log_end()}") from error
        except BaseException:
            self.stop()
            raise

    def send_signal(self, signum: int) -> None:
        """To the process alone, not to its group: as a kubelet or an operator would."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)

    def wait(self, timeout: float) -> int:
        """The exit code; ServiceFailed after `timeout` seconds."""
        if self._process is None:
            raise ServiceFailed(f"{self.name} was never started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ServiceFailed(f"{self.name} still runs after {timeout:g} s; {self._log_end()}") from None

    def _log_end(self) -> str:
        return f"its log ({self.log}) ends:\n{log_tail(self.log)}"

    def stop(self, grace: float = 10.0) -> int | None:
        """SIGTERM, then SIGKILL for the whole group after `grace` seconds. The exit code; harmless twice."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        # Also after a clean end: what the process left in its own group is ours to end.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt as Ctrl-C does; a second signal does not cut the cleaning up short."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def started_at(pid: int) -> str | None:
    """A mark that tells this process from a later one with the same pid; None: there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # After the command's closing parenthesis: state is the 3rd field of the file, starttime the 22nd.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def end_by_pid(pid: int, started: str, grace: float = 10.0) -> bool:
    """End a process that another run of ours started, and its group. False: gone, or not that one."""
    if started_at(pid) != started:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(WaitedTooLong):
        wait_until(lambda: started_at(pid) != started, grace)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    return True


def bare_environment() -> dict[str, str]:
    """What a container has before its settings: nothing of the caller's shell that changes how we behave."""
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
