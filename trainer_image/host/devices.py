"""Which device trains, how many threads help, and what the report says about the hardware."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trainer_image.errors import ConfigInvalid, GpuFault, UsageError


def choose_device(wanted: str, promised: int = 0) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:N". promised: GPUs that the pod was given by its limits.

    Raises GpuFault when a GPU was asked for or promised and none is visible: a training that fell back to the CPU
    unasked would take days and look healthy. ConfigInvalid where the image could not see any, on whatever node.
    """
    # The device plugin names the GPUs that it gave to this container; an image's own default is "all" or "none".
    given = os.environ.get("NVIDIA_VISIBLE_DEVICES", "").startswith(("GPU-", "MIG-"))
    expected = promised > 0 or given
    if wanted == "cpu" or (wanted == "auto" and not expected and not torch.cuda.is_available()):
        return torch.device("cpu")
    match = re.fullmatch(r"(?:auto|cuda(?::(\d+))?)", wanted)
    if not match:
        raise UsageError(f"Unknown device '{wanted}': auto, cpu, cuda or cuda:N would be right")
    if not torch.cuda.is_available():
        asked = f"Device '{wanted}' was asked for"
        if promised and wanted == "auto":
            asked = f"The pod was promised {promised} GPU{'s' if promised > 1 else ''}"
        kind = GpuFault if torch.backends.cuda.is_built() else ConfigInvalid  # type: ignore[no-untyped-call]
        raise kind(f"{asked}, but none is visible in this container: {why_no_gpu()}")
    number = int(match[1] or 0)
    if number >= torch.cuda.device_count():
        raise GpuFault(f"Device '{wanted}' was asked for, but {torch.cuda.device_count()} GPU(s) are visible")
    device = torch.device("cuda", number)
    _prove(device)
    return device


def _prove(device: torch.device) -> None:
    """Computes something. Raises GpuFault for a GPU that is visible and no use: taken by another process, broken, or of
    a kind that this PyTorch was not built for."""
    torch.cuda.set_device(device)  # also for what names no device: it must not open a second GPU
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        why = str(error).splitlines()[0].rstrip(".")
        if "no kernel image" in why:
            built = ", ".join(torch.cuda.get_arch_list())
            major, minor = torch.cuda.get_device_capability(device)
            why += f": it is a sm_{major}{minor}, and the image's PyTorch is built for {built}"
        raise GpuFault(f"The GPU {device} is visible, but cannot be used: {why}") from error


def unlike_asked(device: torch.device, wanted: str, promised: int) -> list[str]:
    """What is odd about the GPUs that are visible, as notes for the report."""
    if device.type != "cuda" or ":" in wanted:
        return []
    notes, visible = [], torch.cuda.device_count()
    if visible < promised:
        notes.append(
            f"{visible} of {promised} promised GPUs can be used: of divided GPUs (MIG) CUDA shows a process one part"
            " only, and shares of one GPU are one GPU."
        )
    kinds = sorted({torch.cuda.get_device_properties(number).name for number in range(visible)})
    if len(kinds) > 1:
        notes.append(f"The GPUs are of different kinds ({', '.join(kinds)}): the slowest sets the pace.")
    return notes


def computes_bfloat16(wanted: str) -> bool:
    """Whether the GPUs do so by themselves: emulated it is slower than fp32. All that may train together are asked, so
    that each process of a team decides alike; `wanted` may name one ("cuda:1")."""
    if torch.version.hip:
        return True
    asked = [int(wanted.partition(":")[2])] if ":" in wanted else range(torch.cuda.device_count())
    return all(torch.cuda.get_device_properties(number).major >= 8 for number in asked)


def why_no_gpu() -> str:
    """Why torch sees no GPU, and what would help, as the rest of a sentence."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return "the image's PyTorch is built without CUDA; use an image with a CUDA build"
    if not list(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/kfd").exists():
        return "there is no GPU device in /dev; check the pod's GPU limit and the node's device plugin"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"{str(error).splitlines()[0].rstrip('.')}; check the node's driver"
    return "PyTorch finds no usable device; check the node's driver and CUDA_VISIBLE_DEVICES"


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions in fp32 on a GPU, which by default takes TF32's 10 bits of mantissa for them: what is tested on a
    GPU then agrees with what a CPU predicts, up to rounding."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this process may use: its affinity, the container's quota, which torch does not know of, and what a user has
    set as OMP_NUM_THREADS. torchrun sets that to 1 for each of its processes, whoever asked for what."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no such control group, or "max"
    wanted = re.match(r"\s*([0-9]{1,6})\b", os.environ.get("OMP_NUM_THREADS", ""), re.ASCII)  # "4,2": nested ones
    if wanted and int(wanted[1]) and not torch.distributed.is_torchelastic_launched():
        count = min(count, int(wanted[1]))
    return max(1, count)


def accelerator(device: torch.device) -> dict[str, str]:
    """For environment.json: the GPU and the version of CUDA; nothing for the CPU."""
    if device.type != "cuda":
        return {}
    return {"name": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}


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
