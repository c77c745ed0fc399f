"""What a process and all below it use over time: CPUs, memory, GPUs. Sampled in a thread, in bounded space."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")
# Seconds between two samples at first; with MOST of them every second one goes, and the time between them doubles.
FIRST_INTERVAL, MOST = 1.0, 240
# Asking for the GPUs starts a program of the driver's.
GPU_INTERVAL, GPU_PATIENCE = 5.0, 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage:
    """Samples until it is closed. `series`: name → a value for each time in "seconds"; all of one length."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._began = self._before = time.monotonic()
        self._cpu, _ = _tree(process)
        self._samples: list[dict[str, float]] = []
        self._interval = FIRST_INTERVAL
        self._ended = threading.Event()
        self._smi = shutil.which("nvidia-smi")
        self._gpus: dict[str, float] = {}
        self._gpus_at = -GPU_INTERVAL
        threading.Thread(target=self._run, name="usage", daemon=True).start()

    def close(self) -> None:
        """No more samples. Waits for none: the driver may hang, and a grace period run."""
        self._ended.set()

    def series(self) -> dict[str, list[float]]:
        """seconds: since it began; cpus: busy since the sample before; memory_bytes: resident, of all processes, shared
        pages counted in each; where there are GPUs gpu_percent: how long they were busy, their mean, gpu_memory_bytes:
        of all together, whoever uses it. Empty before the first sample."""
        samples = self._samples[:]
        names = dict.fromkeys(name for sample in samples for name in sample)
        return {name: [round(sample.get(name, 0.0), 3) for sample in samples] for name in names}

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            # A process that ends while it is looked at costs a sample, not the thread.
            with contextlib.suppress(OSError, ValueError, IndexError):
                self._sample(time.monotonic())

    def _sample(self, now: float) -> None:
        cpu, memory = _tree(self._process)
        if not memory:
            return
        # What has ended and was not waited for yet is missing for a moment.
        busy = max(0.0, cpu - self._cpu) / max(1e-3, now - self._before)
        self._cpu, self._before = max(cpu, self._cpu), now
        self._samples.append(
            {"seconds": now - self._began, "cpus": busy, "memory_bytes": float(memory), **self._of_gpus(now)}
        )
        if len(self._samples) >= MOST:
            self._samples, self._interval = self._samples[1::2], 2 * self._interval

    def _of_gpus(self, now: float) -> Mapping[str, float]:
        if self._smi is not None and now - self._gpus_at >= GPU_INTERVAL:
            self._gpus_at = now
            self._gpus = gpus(self._smi)
            if not self._gpus:
                self._smi = None  # no driver, no GPU of ours: it will say nothing later either
        return self._gpus


def gpus(program: str) -> dict[str, float]:
    """What nvidia-smi says of the GPUs that this container sees; empty where it says nothing that can be read."""
    ask = [program, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(  # noqa: S603 (the driver's own program)
            ask, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GPU_PATIENCE, check=True
        ).stdout
        found = [line.split(",") for line in said.splitlines() if line.strip()]
        percents = [float(busy) for busy, _ in found if busy.strip().isdigit()]  # [N/A] on a part of a GPU
        used = sum(float(memory) for _, memory in found if memory.strip().isdigit())
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    shown = {"gpu_percent": sum(percents) / len(percents)} if percents else {}
    return shown | ({"gpu_memory_bytes": used * 2**20} if found else {})


def _tree(root: int) -> tuple[float, int]:
    """(CPU seconds, those of ended children included, resident bytes) of a process and all below it."""
    parents: dict[int, tuple[int, float, int]] = {}
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                ticks = sum(map(int, fields[11:15]))
                parents[int(entry.name)] = int(fields[1]), ticks / _TICKS, int(fields[21]) * _PAGE
    below, found = {root}, [root]
    children: dict[int, list[int]] = {}
    for process, (parent, _, _) in parents.items():
        children.setdefault(parent, []).append(process)
    while found:
        for child in children.get(found.pop(), ()):
            if child not in below:
                below.add(child)
                found.append(child)
    known = [parents[process] for process in below if process in parents]
    return sum(cpu for _, cpu, _ in known), sum(memory for _, _, memory in known)
