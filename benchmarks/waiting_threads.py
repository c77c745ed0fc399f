"""Threads that spin while they wait, or sleep: optimizer steps a second of a small image network on the CPU.

python -m benchmarks.waiting_threads             alone and beside one busy process for each CPU, in turn

OpenMP's threads spin for a while after each operation, in case another follows. Where the CPUs are shared, with other
pods or under a quota, that time is taken from whoever had work to do. OMP_WAIT_POLICY=passive lets them sleep at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import torch

from trainer_image.host.devices import usable_cpus
from trainer_image.tasks.image.network import ImageNetwork
from trainer_image.tasks.image.presets import preset

POLICIES = {"spin": "", "sleep": "passive"}


def steps(seconds: float) -> tuple[float, float]:
    """(steps a second, processor seconds a step)"""
    torch.set_num_threads(usable_cpus())
    sizes, _, _ = preset("fast", (48, 48, 3), 1000)
    model = ImageNetwork(sizes, 10, [128.0] * 3, [64.0] * 3)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    pixels = torch.rand(32, 3, 48, 48) * 255
    count, began, used = -3, time.monotonic(), time.process_time()
    while count < 1 or time.monotonic() - began < seconds:
        if count == 0:
            began, used = time.monotonic(), time.process_time()
        optimizer.zero_grad()
        model(pixels).square().mean().backward()
        optimizer.step()
        count += 1
    return count / (time.monotonic() - began), (time.process_time() - used) / count


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """That number of processes that compute for nothing."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measured(policy: str, seconds: float) -> tuple[float, float]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    if value := POLICIES[policy]:
        environment["OMP_WAIT_POLICY"] = value
    command = [sys.executable, "-m", "benchmarks.waiting_threads", "--inside", str(seconds)]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    rate, cost = map(float, out.split())
    return rate, cost


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="pairs (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (5)")
    parser.add_argument("--beside", type=int, action="append", help="busy processes; may be repeated (0 and the CPUs)")
    parser.add_argument("--inside", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        print(*steps(options.inside))
        return 0
    for others in options.beside or [0, usable_cpus()]:
        with busy(others):
            pairs = [[measured(policy, options.seconds) for policy in POLICIES] for _ in range(options.rounds)]
        faster = statistics.median(sleep[0] / spin[0] for spin, sleep in pairs)
        cheaper = statistics.median(sleep[1] / spin[1] for spin, sleep in pairs)
        print(
            f"beside {others} busy processes: sleeping threads make {faster:.2f} times the steps a second of"
            f" spinning ones, for {cheaper:.2f} times the processor time a step",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
