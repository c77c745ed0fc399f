"""What a network predicts for every row of a split: in portions, so that memory holds them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainer_image.errors import GpuOutOfMemory
from trainer_image.host import gpu_faults
from trainer_image.host.devices import full_precision
from trainer_image.tasks import hooks
from trainer_image.tasks.base import Batch, Outputs, Predictor, rows_in, take
from trainer_image.tasks.tensors import collected

# Rows at a time at most, and bytes of the largest tensor that they may make: what is alive at once is a few times that.
EVALUATION_ROWS, EVALUATION_BYTES = 512, 64 * 1024**2


@torch.no_grad()
@full_precision()
def evaluate(
    predictor: Predictor,
    model: nn.Module,
    split: Batch,
    device: torch.device,
    beat: Callable[[], None] = lambda: None,
) -> Outputs:
    """Outputs for every row of a split, on the CPU: see `collected`. In fp32 and in portions that the model and shape
    of the rows alone decide, so that `predict` agrees.

    beat: called after each portion
    """
    was_training = model.training
    model.eval()
    total, start = rows_in(split), 0
    size = _portion(predictor, model, split, device)
    parts: list[Outputs] = []
    while start < total or not parts:  # of no rows, too, the outputs have their shape
        batch = {n: t.to(device) for n, t in take(split, slice(start, start + size)).items()}
        try:
            parts.append(hooks.outputs_of(predictor, model, batch))
        except RuntimeError as error:
            if not gpu_faults.out_of_memory(error):
                raise
            if size == 1:
                raise GpuOutOfMemory("Out of GPU memory at batch size 1") from None
            size //= 2
            continue
        start += size
        beat()
    model.train(was_training)
    return collected(parts)


class _Sizes(TorchFunctionMode):
    """Notes the bytes of what each torch function returns."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.bytes.append(made.numel() * made.element_size())
        return made


def _portion(predictor: Predictor, model: nn.Module, split: Batch, device: torch.device) -> int:
    """How many rows to evaluate at a time, a power of two: by the tensor that grows most from one row to two."""
    known = _PORTIONS.setdefault(model, {})
    first = take(split, slice(0, 1))
    shape = (type(predictor), rows_in(split) > 1, *((name, t.shape, t.dtype) for name, t in first.items()))
    if shape not in known:
        known[shape] = _tried(predictor, model, split, device)
    return known[shape]


# Of a network that is evaluated again and again, after each epoch say.
_PORTIONS: WeakKeyDictionary[nn.Module, dict[Hashable, int]] = WeakKeyDictionary()


def _tried(predictor: Predictor, model: nn.Module, split: Batch, device: torch.device) -> int:
    sizes = []
    for rows in (1, 2)[: rows_in(split)]:
        batch = {n: t.to(device) for n, t in take(split, slice(0, rows)).items()}
        try:
            with _Sizes() as made:
                predictor.outputs(model, batch)
        except Exception:  # a plug-in's that wants more rows; what is really wrong is raised with all of them
            return EVALUATION_ROWS
        sizes.append(made.bytes)
    if len(sizes) < 2 or len(sizes[0]) != len(sizes[1]):
        return EVALUATION_ROWS
    growth = max((two - one for one, two in zip(*sizes, strict=True)), default=0)
    fitting = EVALUATION_BYTES // max(1, growth)
    return min(EVALUATION_ROWS, 1 << max(0, fitting.bit_length() - 1))
