"""What torch raises of a GPU ends a training with the exit code that tells whether another try can help."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.world.simulated_gpu import GPU, SimulatedGpu
from trainer_image import errors
from trainer_image.host import gpu_faults
from trainer_image.host.devices import choose_device, computes_bfloat16, unlike_asked


def wrapped(inner: Exception) -> Exception:
    """As a plug-in may do."""
    outer = ValueError("the batch failed")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore"), 203),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), 203),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), 203),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), 203),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), 203),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1, unhandled cuda error"), 203),
        (wrapped(torch.AcceleratorError("CUDA error: unspecified launch failure")), 203),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 81),
        (torch.AcceleratorError("CUDA error: out of memory"), 81),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), 81),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("CUDA error, says a user's own text"), None),
        (RuntimeError("Connection closed by peer [127.0.0.1]:4242"), None),
    ],
)
def test_a_failure_of_the_gpu_is_told_from_others(error: Exception, code: int | None) -> None:
    failure = gpu_faults.fault(error)
    assert (failure and failure.exit_code) == code
    assert failure is None or "\n" not in failure.sentence


def test_an_assert_on_the_device_says_where_to_look() -> None:
    failure = gpu_faults.fault(torch.AcceleratorError("CUDA error: device-side assert triggered"))
    assert failure is not None
    assert "CUDA_LAUNCH_BLOCKING=1" in failure.sentence


def test_a_failure_that_is_none_of_the_gpu_s_stays_what_it_is() -> None:
    with pytest.raises(KeyError), gpu_faults.as_gpu_failures():
        raise KeyError("price")
    with pytest.raises(errors.TrainingDiverged), gpu_faults.as_gpu_failures():
        raise errors.TrainingDiverged("Training diverged at step 3")


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("CUDA error: no kernel image is available for execution on the device", "sm_61, .* is built for sm_75, sm_90"),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", "busy or unavailable"),
    ],
)
def test_a_gpu_that_is_visible_and_no_use_is_found_out_at_the_start(
    monkeypatch: pytest.MonkeyPatch, why: str, told: str
) -> None:
    def refuses(*args: object, **options: object) -> torch.Tensor:
        raise torch.AcceleratorError(f"{why}\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1")

    with SimulatedGpu():
        monkeypatch.setattr(torch, "ones", refuses)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
        with pytest.raises(errors.GpuFault, match=f"cuda:0 is visible, but cannot be used: .*{told}"):
            choose_device("auto", promised=1)


class Gpu:
    def __init__(self, name: str, major: int) -> None:
        self.name, self.major = name, major


@pytest.mark.parametrize(
    ("kinds", "promised", "wanted", "notes", "bfloat16"),
    [
        (["A100", "A100"], 2, "auto", [], True),
        (["A100 MIG 1g.5gb"], 2, "auto", ["1 of 2 promised GPUs"], True),
        (["A100", "T4"], 2, "auto", ["different kinds (A100, T4)"], False),
        (["T4", "A100"], 2, "cuda:1", [], True),
    ],
)
def test_several_gpus_that_are_not_what_was_asked_for_are_told_of(
    monkeypatch: pytest.MonkeyPatch, kinds: list[str], promised: int, wanted: str, notes: list[str], bfloat16: bool
) -> None:
    gpus = [Gpu(kind, 7 if kind == "T4" else 8) for kind in kinds]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpus[number])
    told = unlike_asked(GPU, wanted, promised)
    assert len(told) == len(notes)
    assert all(part in note for part, note in zip(notes, told, strict=True))
    assert computes_bfloat16(wanted) is bfloat16


def test_a_worker_thread_opens_no_other_gpu_than_its_own() -> None:
    from trainer_image.engine.steps.batches import Ahead

    given: list[tuple[str, object]] = []
    with SimulatedGpu(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "set_device", lambda gpu: given.append((threading.current_thread().name, gpu)))
        ahead = Ahead(lambda key: {"n": torch.ones(1)}, torch.device("cuda", 1))
        ahead.get((0, 0, False), (0, 1, False))
        ahead.close()
    assert given == [("rows_0", torch.device("cuda", 1))]
