"""Which device trains, how many threads help, and what the report says about the hardware."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

from trainer_image.errors import GpuFault, UsageError


def choose_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:N"; GpuFault when a GPU was asked for and none is visible."""
    # The device plugin names the GPUs that it gave to this container; an image's own default is "all" or "none".
    given = os.environ.get("NVIDIA_VISIBLE_DEVICES", "").startswith(("GPU-", "MIG-"))
    if wanted == "cpu" or (wanted == "auto" and not given and not torch.cuda.is_available()):
        return torch.device("cpu")
    match = re.fullmatch(r"(?:auto|cuda(?::(\d+))?)", wanted)
    if not match:
        raise UsageError(f"Unknown device '{wanted}': auto, cpu, cuda or cuda:N would be right")
    if not torch.cuda.is_available():
        raise GpuFault(
            f"Device '{wanted}' was asked for, but no GPU is visible in this container: check the pod's GPU limit, the "
            "node's driver, and that the image's PyTorch is built for CUDA"
        )
    number = int(match[1] or 0)
    if number >= torch.cuda.device_count():
        raise GpuFault(f"Device '{wanted}' was asked for, but {torch.cuda.device_count()} GPU(s) are visible")
    return torch.device("cuda", number)


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this process may use: its affinity, and the container's quota, which torch does not know of."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no such control group, or "max"
    return max(1, count)


def hardware(device: torch.device) -> dict[str, Any]:
    """For the report: device, its memory, CPUs, threads, versions."""
    facts: dict[str, Any] = {
        "device": str(device),
        "processor": platform.machine(),
        "cpus": usable_cpus(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device),
            "cuda": torch.version.cuda,
        }
    return facts
