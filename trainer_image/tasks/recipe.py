"""How a network is trained: the recipe, what its loss sees and says, the usual optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer_image.tasks import optimizers
from trainer_image.tasks.tensors import Batch


@dataclass(frozen=True)
class Recipe:
    """How a problem of this size is trained unless the configuration says otherwise.

    epochs:        passes over the training split, at most
    batch_size:    rows a step
    learning_rate: the peak, by the usual schedule after `warmup` (a share of all steps); falls to zero along a cosine
    patience:      epochs without a better validation figure after which training ends
    ema_decay:     the published weights are a moving average of the trained ones; None: the trained ones
    refit:         train again on training and validation rows for as many epochs as validation chose
    small:         so little work a step that threads cost more than they give
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    warmup: float = 0.05
    patience: int = 16
    ema_decay: float | None = None
    gradient_clip: float | None = 1.0
    refit: bool = False
    small: bool = False


@dataclass(frozen=True)
class Moment:
    """When in a fit a step is taken; a refit is another fit.

    step:  optimizer steps before it
    epoch: passes over the rows before it
    done:  share of the schedule that lies behind, from 0 to 1: the schedule is fitted to the time budget as steps are
           measured, and begins anew where epochs are added
    """

    step: int = 0
    epoch: int = 0
    done: float = 0.0


@dataclass(frozen=True)
class Loss:
    """total: what is minimised, a scalar tensor; parts: other scalars of the same rows, of which metrics.jsonl and the
    report show the mean of each epoch. Their names may depend on the moment, but not on the rows."""

    total: Tensor
    parts: Mapping[str, Tensor | float]


# (rows of the training split, where random numbers come from) → a batch; see `Problem.augmentation`.
Augment = Callable[[Batch, torch.Generator], Batch]


@dataclass(frozen=True)
class NetworkSize:
    """How large a network may be, for a problem that lets measured steps decide it (`Problem.sizes`).

    name:   as the report says it, e.g. "small"
    enough: passes over the training split with which this size is better than the one before it; with fewer it is not
    """

    name: str
    recipe: Recipe
    enough: float


def matrices_decay(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two of AdamW's groups, of these parameters: matrices with weight decay, and the others without."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(groups: Iterable[Mapping[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    """AdamW as the built-in tasks use it. groups: as `Problem.parameter_groups` has them, each with a `lr_factor` or
    none, by which the learning rate is multiplied."""
    scaled = [{**group, "lr": learning_rate * group.get("lr_factor", 1.0)} for group in groups]
    for group in scaled:
        group.pop("lr_factor", None)
    return optimizers.AdamW(scaled, betas=(0.9, 0.99), fused=True)


def cosine(done: float, warmup: float) -> float:
    """Factor of the learning rate when this share of the schedule is done: linear warm-up, then a cosine to zero."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
