"""Other processes of this machine, as /proc shows them."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """The pids of what any thread of a process has started."""
    return [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]


def state(pid: int) -> str:
    """As ps(1) has it: T is stopped, Z a zombie.

    Raises FileNotFoundError where there is no such process, and ProcessLookupError where it ends just now.
    """
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    """Whether it still runs: an orphan stays a zombie until whoever inherited it waits for it."""
    try:
        return state(pid) not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
