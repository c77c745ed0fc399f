"""What the engine is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer_image.tasks.base import Recipe


@dataclass(frozen=True)
class Plan:
    """A recipe with the configuration's overrides applied, and where it runs. time_budget: seconds of training.

    compile: None: where measured step times say that it pays; probe: find out how many rows fit into memory at a time
    """

    recipe: Recipe
    seed: int
    time_budget: float
    device: torch.device
    bfloat16: bool = False
    compile: bool | None = False
    probe: bool = False
    checkpoint_every: float = 300.0
    checkpoint_share: float = 0.02


@dataclass(frozen=True)
class Fitted:
    """The trained network (evaluation mode, on the device) and how it came about. fit_on: the splits it has seen."""

    model: nn.Module
    fit_on: tuple[str, ...]
    steps: int
    epochs: int
    best_epoch: int
    best: float | None
    seconds: float
    resumed_from: int | None
    micro_batch: int
    history: list[dict[str, Any]]
    notes: list[str]
