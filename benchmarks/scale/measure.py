"""What one dispatcher process takes, from its start until it has been at rest for a while."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local_stack.http_json import OPENER
from local_stack.processes import Service, wait_until

_TICKS = os.sysconf("SC_CLK_TCK")
# Seconds, or as long as is measured if that is less. It is at rest when it has written nothing for so long: neither to
# the portal nor to the API server.
_QUIET = 20.0
_LONGEST_SETTLING = 1800.0
_CALLS = re.compile(r"^training_dispatcher_(portal|cluster)_calls_total\{(.*)\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Figures:
    """Memory in MiB, CPU in percent of a core, seconds from the start to ready and to rest, calls a minute at rest.

    first_*: calls until then, and the most that changed something in a second. page: path → (seconds, bytes).
    """

    peak: float
    memory: float
    cpu: float
    ready: float
    settled: float
    cluster_calls: float
    portal_calls: float
    first_cluster: float
    first_portal: float
    first_pace: float
    page: dict[str, tuple[float, int]]


def measure(start: Callable[[], Service], url: str, seconds: float, paths: tuple[str, ...]) -> Figures:
    """Start a dispatcher that serves its probes at `url`, watch it for `seconds` at rest, and stop it."""
    began = time.monotonic()
    service = start()
    try:
        service.wait_ready(lambda: _answers(f"{url}/readyz"), 600)
        ready = time.monotonic() - began
        settled, pace = _settle(url, began, min(_QUIET, seconds))
        calls, cpu, since = _calls(url), _cpu(service.pid), time.monotonic()
        time.sleep(seconds)
        length = time.monotonic() - since
        busy = (_cpu(service.pid) - cpu) / length
        memory, peak = (_memory(service.pid, name) for name in ("VmRSS", "VmHWM"))
        made = {what: number - calls[what] for what, number in _calls(url).items()}
        page = {path: _ask(f"{url}{path}") for path in paths}
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
    )


def _settle(url: str, began: float, length: float) -> tuple[float, float]:
    """Wait until nothing was written for a while; seconds from `began` to the last write, and the most a second."""
    last, seen, most = 0.0, began, 0.0
    since = time.monotonic()

    def quiet() -> bool:
        nonlocal last, seen, since, most
        written, now = _calls(url)["writes"], time.monotonic()
        if written != last:
            most = max(most, (written - last) / (now - seen))
            last, since = written, now
        seen = now
        if now - since >= length:
            return True
        time.sleep(min(2.0, length))
        return False

    wait_until(quiet, _LONGEST_SETTLING, what="the dispatcher to come to rest")
    return since - began, most


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
