"""What one dispatcher process takes, from its start until it has been at rest for a while."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from local_stack.http_json import OPENER
from local_stack.processes import Service

_TICKS = os.sysconf("SC_CLK_TCK")
# Seconds, or as long as is measured if that is less. It is at rest when it has written nothing for so long: neither to
# the portal nor to the API server.
_QUIET = 15.0
_CALLS = re.compile(r"^training_dispatcher_(portal|cluster)_calls_total\{(.*)\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Figures:
    """Memory in MiB, CPU in percent of a core, seconds from the start to ready and to rest, calls a minute at rest.

    settled: None where it did not come to rest in time; the others are then those of its work.
    first_*: calls until then, and the most that changed something in a second. page: path → (seconds, bytes),
    page_peak: the peak after that.
    """

    peak: float
    memory: float
    cpu: float
    ready: float
    settled: float | None
    cluster_calls: float
    portal_calls: float
    first_cluster: float
    first_portal: float
    first_pace: float
    page: dict[str, tuple[float, int]]
    page_peak: float


def command(arguments: tuple[str, ...], settings: Mapping[str, str], folder: Path) -> str:
    """Run `dispatcher` with these arguments; how long it took, how much of that its CPU, and its peak of memory."""
    began = time.monotonic()
    with (folder / "command.out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dispatcher", *arguments], env=settings, cwd=folder, stdout=out
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    took, size = time.monotonic() - began, (folder / "command.out").stat().st_size
    figures = (
        f"{took:.1f} s, CPU {used.ru_utime + used.ru_stime:.1f} s, {used.ru_maxrss / 1024:.0f} MiB, {size:,} bytes"
    )
    return f"dispatcher {' '.join(arguments)}: {figures}, exit code {process.returncode}"


def measure(
    start: Callable[[], Service], url: str, *, seconds: float, patience: float, paths: tuple[str, ...]
) -> Figures:
    """Start a dispatcher that serves its probes at `url`, watch it for `seconds` at rest, and stop it.

    patience: seconds for which it is waited until it comes to rest.
    """
    began = time.monotonic()
    service = start()
    try:
        service.wait_ready(lambda: _answers(f"{url}/readyz"), 600)
        ready = time.monotonic() - began
        settled, pace = _settle(url, began, min(_QUIET, seconds), patience)
        calls, cpu, since = _calls(url), _cpu(service.pid), time.monotonic()
        time.sleep(seconds)
        length = time.monotonic() - since
        busy = (_cpu(service.pid) - cpu) / length
        memory, peak = (_memory(service.pid, name) for name in ("VmRSS", "VmHWM"))
        made = {what: number - calls[what] for what, number in _calls(url).items()}
        page = {path: _ask(f"{url}{path}") for path in paths}
        page_peak = _memory(service.pid, "VmHWM")
    finally:
        service.stop()
    minutes = length / 60
    return Figures(
        peak=peak,
        memory=memory,
        cpu=busy * 100,
        ready=ready,
        settled=settled,
        cluster_calls=made["cluster"] / minutes,
        portal_calls=made["portal"] / minutes,
        first_cluster=calls["cluster"],
        first_portal=calls["portal"],
        first_pace=pace,
        page=page,
        page_peak=page_peak,
    )


def _settle(url: str, began: float, length: float, patience: float) -> tuple[float | None, float]:
    """Wait until nothing was written for `length` seconds.

    Seconds from `began` to the last write, None when that took longer than `patience`; and the most writes a second.
    """
    written, most = _calls(url)["writes"], 0.0
    seen = last = time.monotonic()
    while seen - last < length:
        if seen - began > patience:
            return None, most
        time.sleep(min(2.0, length))
        before, at = written, seen
        written, seen = _calls(url)["writes"], time.monotonic()
        if written != before:
            last = seen
            most = max(most, (written - before) / (seen - at))
    return last - began, most


def _calls(url: str) -> dict[str, float]:
    """The dispatcher's own count of its calls: cluster, portal, and those of both that change something."""
    with OPENER.open(f"{url}/metrics", timeout=60) as reply:
        text = reply.read().decode()
    found = {"cluster": 0.0, "portal": 0.0, "writes": 0.0}
    for whom, labels, number in _CALLS.findall(text):
        found[whom] += float(number)
        if re.search(r'(method="PUT"|verb="(create|patch|delete)")', labels):
            found["writes"] += float(number)
    return found


def _ask(url: str) -> tuple[float, int]:
    began = time.monotonic()
    with OPENER.open(url, timeout=120) as reply:
        size = len(reply.read())
    return time.monotonic() - began, size


def _answers(url: str) -> bool:
    try:
        with OPENER.open(url, timeout=5):
            return True
    except OSError:
        return False


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
