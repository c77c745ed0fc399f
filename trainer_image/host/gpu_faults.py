"""What torch raises of a GPU, as the failures that the contract knows.

The allocator's own error is torch.OutOfMemoryError, a failed CUDA call torch.AcceleratorError; the libraries on top of
CUDA (cuBLAS, cuDNN, NCCL) raise a RuntimeError whose text alone says what it is about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer_image.errors import GpuFault, GpuOutOfMemory, TrainerError, causes

# A library that finds no memory for its workspace: the allocator holds all, and a smaller batch leaves some.
_STARVED = re.compile(r"CUDA error: out of memory|CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED|CUFFT_ALLOC_FAILED")
_FAULT = re.compile(
    r"CUDA error|CUDA driver|HIP error|cuDNN error|CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_|NCCL (error|Error)"
)
# An index that is out of range in a kernel, most often: the data or the task's code, though a GPU can be broken, too.
# What NCCL says where another process, or the network, is at fault.
_OF_OTHERS = re.compile(r"nccl(Remote|System)Error")
_ASSERTED = "device-side assert"
_HINT = "; an index out of range in a task's code is the usual cause, and CUDA_LAUNCH_BLOCKING=1 shows where"


def out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's memory did not suffice: a smaller batch may fit."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _STARVED.search(str(error)) is not None
    )


def fault(error: BaseException) -> TrainerError | None:
    """The failure as one of the GPU, None where nothing says so."""
    for seen in causes(error):
        if out_of_memory(seen):
            # Where the batch was too large it has been halved already: what did not fit here is the network itself.
            return GpuOutOfMemory("Out of GPU memory: the network and its optimizer do not fit")
        text = str(seen)
        if isinstance(seen, torch.AcceleratorError) or (isinstance(seen, RuntimeError) and _FAULT.search(text)):
            line = next(iter(text.splitlines()), "") or type(seen).__name__
            return GpuFault(f"The GPU failed: {line}{_HINT if _ASSERTED in text else ''}")
    return None


def of_this_process(error: RuntimeError) -> bool:
    """Whether what was raised by speaking with other processes is a failure of this one's GPU all the same."""
    return fault(error) is not None and not _OF_OTHERS.search(str(error))


@contextmanager
def as_gpu_failures() -> Iterator[None]:
    """Raises what is a GPU's failure as GpuFault or GpuOutOfMemory."""
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:
        failure = fault(error)
        if failure is None:
            raise
        raise failure from error
