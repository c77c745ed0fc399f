"""What the engine is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainer_image.tasks.base import Recipe

if TYPE_CHECKING:
    from trainer_image.engine.published import Published
    from trainer_image.engine.steps.position import Entry


@dataclass(frozen=True)
class Plan:
    """A recipe with the configuration's overrides applied, and where it runs. time_budget: seconds of training.

    compile: None: where measured step times say that it pays; probe: find out how many rows fit into memory at a time
    more: whether epochs may be added to the recipe's, where the best is the last and time is left
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
    more: bool = False


@dataclass(frozen=True)
class Fitted:
    """What is published, and how it came about. fit_on: the splits that its members have seen

    candidates: how each fared; stopped: why the network's search ended
    """

    published: Published
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
    candidates: list[Entry]
    stopped: str
