"""A container as a local process group: start, signals, exit code, memory, and no survivors.

A small helper process reads which groups live from a pipe; when the stand-in dies, however it dies, the pipe closes
and the helper kills what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_UNDERTAKER = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    group = int(line[1:])
    groups.add(group) if line[0] == "+" else groups.discard(group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Undertaker:
    """Kills the registered process groups once this process is gone."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _UNDERTAKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def note(self, group: int, alive: bool) -> None:
        """A group began or ended."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.write(f"{'+' if alive else '-'}{group}\n")
            pipe.flush()

    def close(self) -> None:
        """Everything registered dies now; returns when that is done."""
        pipe = self._process.stdin
        assert pipe is not None
        pipe.close()
        self._process.wait()


class ContainerProcess:
    """One running container. `exit_code` is what a container runtime reports: 128 + n after signal n."""

    def __init__(
        self, undertaker: Undertaker, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path
    ) -> None:
        """Start it; FileNotFoundError or PermissionError when argv[0] cannot be run."""
        self._undertaker = undertaker
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.out_of_memory = False
        undertaker.note(self.pid, alive=True)
        self.exit_code: int | None = None
        self._ended = asyncio.Event()
        self._descriptor = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        code = self._process.wait()
        self.exit_code = 128 - code if code < 0 else code
        # A container ends with its first process: whatever that one left behind goes with it.
        _signal_group(self.pid, signal.SIGKILL)
        self._undertaker.note(self.pid, alive=False)
        self._ended.set()

    async def wait(self) -> int:
        """The exit code, once it has one."""
        await self._ended.wait()
        assert self.exit_code is not None
        return self.exit_code

    def terminate(self) -> None:
        """SIGTERM to the first process, if it handles it: the first process of a container has no default action."""
        if self.exit_code is None and _catches_sigterm(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self, *, out_of_memory: bool = False) -> None:
        """SIGKILL to the whole group."""
        if self.exit_code is None:
            self.out_of_memory = self.out_of_memory or out_of_memory
            _signal_group(self.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _catches_sigterm(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return True


def group_memory(groups: set[int]) -> dict[int, int]:
    """Resident bytes of each process group, by the kernel's own count of pages."""
    used = dict.fromkeys(groups, 0)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat", "rb") as file:  # noqa: PTH123 (hundreds of times a second)
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        group = int(fields[2])
        if group in used:
            used[group] += int(fields[21]) * _PAGE
    return used


def proportional_memory(group: int) -> int:
    """Resident bytes of a group with shared pages counted once (smaps_rollup's Pss); slower than group_memory."""
    total = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry.name}/stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[2]) != group:
                continue
            rollup = Path(f"/proc/{entry.name}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in rollup.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
