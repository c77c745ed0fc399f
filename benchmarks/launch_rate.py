"""How many waiting requests a second one dispatcher turns into resumed Jobs, beside the bare six calls.

Both run as processes of their own on the same local stack, in turn, several rounds; both are timed by what the portal
saw, from its first GET to its last PUT. The cluster has no GPU, so that no training competes for the processor.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dispatcher import factories
from dispatcher.config.settings import Settings
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.job_template import load_template
from dispatcher.launch.request import decode
from local_stack.processes import wait_until
from local_stack.stack import NAMESPACE, ROOT, Stack

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Rate:
    """launches: a second; cpu: milliseconds of the launching process's own CPU for each."""

    launches: float
    cpu: float


def run(requests: int, rounds: int) -> None:
    """Print each round, then the medians and the ratio of the rates, pair by pair."""
    pairs = []
    for number in range(1, rounds + 1):
        bare = _measure(requests, _bare)
        ours = _measure(requests, _dispatcher)
        pairs.append((bare, ours))
        print(
            f"round {number}: bare loop {bare.launches:6.1f} launches/s, {bare.cpu:5.2f} ms CPU each;"
            f" dispatcher {ours.launches:6.1f} launches/s, {ours.cpu:5.2f} ms CPU each;"
            f" ratio {ours.launches / bare.launches:.2f}",
            flush=True,
        )
    ratios = sorted(ours.launches / bare.launches for bare, ours in pairs)
    print(
        f"{requests} requests a round, median of {rounds}:"
        f" bare loop {statistics.median(bare.launches for bare, _ in pairs):.1f} launches/s,"
        f" dispatcher {statistics.median(ours.launches for _, ours in pairs):.1f} launches/s,"
        f" ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def _measure(requests: int, launcher: Callable[[Stack, int], float]) -> Rate:
    """One round on a stack of its own: nothing is left over from the round before."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), gpus=0) as stack:
        queue = stack.queue()
        for number in range(requests):
            stack.portal.set_model(str(number), "Created")
            queue.send_message(json.dumps({"task": "train", "model_container_name": f"model-{number}"}))
        stack.portal.clear_calls()
        cpu = launcher(stack, requests)
        times = [call.monotonic for call in stack.portal.calls()]
        return Rate(requests / (max(times) - min(times)), cpu * 1000 / requests)


def _bare(stack: Stack, requests: int) -> float:
    settings = Settings.read(stack.settings)
    template = load_template(settings.job_template.read_text(encoding="utf-8"), settings.trainer_image)
    request = decode('{"task": "train", "model_container_name": "model-0"}', factories.bounds_of(settings))
    job = build_job(
        template, request, message_id="bench", queued_at=time.time(), defaults=factories.defaults_of(settings)
    )
    env = {**os.environ, **stack.settings, "BENCH_JOB": json.dumps(job), "BENCH_REQUESTS": str(requests)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare_loop"], env=env, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout)["cpu_seconds"])


def _dispatcher(stack: Stack, requests: int) -> float:
    # An operator's settings: the demo's are quicker to list and to tell.
    service = stack.start_dispatcher(
        RESYNC_SECONDS="60", STATUS_PROGRESS_SECONDS="30", POLL_MAX_SECONDS="5", LOG_LEVEL="info"
    )
    before = _cpu(service.pid)
    wait_until(lambda: _launched(stack) == requests, 300)
    return _cpu(service.pid) - before


def _launched(stack: Stack) -> int:
    time.sleep(0.5)  # counting costs the cluster as much as some launches
    return sum(not job["spec"]["suspend"] for job in stack.cluster.jobs(NAMESPACE))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
