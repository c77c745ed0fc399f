"""Host memory: whether a failure was one of memory.

The kernel may kill a child of ours, a data-loading process say, and leave the container alive: then no OOMKilled stands
in the pod's status, and the trainer has to say it itself (F26).
"""

from __future__ import annotations

import math
import re
import resource
from pathlib import Path

from trainer_image.errors import OutOfMemory, causes

CGROUP = Path("/sys/fs/cgroup")
# torch.utils.data: "DataLoader worker (pid 7) is killed by signal: Killed. "; c10: "DefaultCPUAllocator: can't allocate
# memory"; concurrent.futures and joblib report a worker that ended abruptly.
_KILLED = re.compile(r"DataLoader worker .*(killed by signal: Killed|exited unexpectedly)")
_REFUSED = re.compile(r"can't allocate memory|Cannot allocate memory")


def kills(cgroup: Path = CGROUP) -> int:
    """How many processes of this container the kernel has killed for its memory limit; 0 where that is not known."""
    try:
        lines = (cgroup / "memory.events").read_text().splitlines()
        return int(dict(line.split() for line in lines).get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


def out_of_memory(error: BaseException, kills_before: int, cgroup: Path = CGROUP) -> OutOfMemory | None:
    """The failure as one of memory, None where nothing says so. kills_before: `kills` when the training began."""
    for seen in causes(error):
        text = str(seen)
        if isinstance(seen, MemoryError) or _REFUSED.search(text):
            return OutOfMemory(f"Out of memory: the training asked for more than {_limit(cgroup)}. {_HELP}")
        if _KILLED.search(text) or kills(cgroup) > kills_before:
            return OutOfMemory(f"Out of memory: a process of the training was killed at {_limit(cgroup)}. {_HELP}")
    return None


_HELP = "Use a smaller batch size or fewer data-loading processes, or ask the operator for a larger memory limit"


def _limit(cgroup: Path) -> str:
    try:
        limit = int((cgroup / "memory.max").read_text())
    except (OSError, ValueError):
        return "the memory that there is"
    return f"its memory limit of {limit / 2**20:.0f} MiB"


def available(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that this process may still take: the machine's, the container's limit less what is in use, `ulimit -d`.

    Cached files do not count as used: the kernel drops them when memory is asked for.
    """
    try:
        lines = meminfo.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = 4 * 2**30  # a system without /proc
    else:
        free = max(0, int(min(free, _below_ulimit())))
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return free  # no such control group, or "max"
    return max(0, min(free, limit - used + cached))


def _below_ulimit() -> float:
    """What `ulimit -d` leaves to this process; infinite without one."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    return limit - in_use()


def in_use() -> int:
    """Bytes of this process that `ulimit -d` counts."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)
