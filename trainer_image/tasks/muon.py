"""Muon: steps that change every direction of a weight matrix alike, for the layers within a network.

It differs from `torch.optim.Muon` in three ways: it takes a convolution's weights of four dimensions, computes in
float32 on a CPU, which may know no bfloat16, and can keep a weight's length in place of a weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor, nn

from trainer_image.tasks.optimizers import Uncompiled
from trainer_image.tasks.recipe import Recipe, adamw

# Of the polynomial that is applied so often: singular values between 0.01 and 1 come to between 0.5 and 1.3.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 3
MOMENTUM = 0.9


def within(
    layers: nn.Module,
    groups: Iterable[Mapping[str, Any]],
    recipe: Recipe,
    rate: float,
    weight_decay: float | None = None,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of these layers, AdamW for all else of its groups.

    rate: of Muon, beside the recipe's; weight_decay: as `Muon` takes it
    """
    matrices = [p for p in layers.parameters() if p.ndim >= 2 and p.requires_grad]
    taken = set(map(id, matrices))
    others = [{**group, "params": [p for p in group["params"] if id(p) not in taken]} for group in groups]
    return [Muon(matrices, rate * recipe.learning_rate, weight_decay), adamw(others, recipe.learning_rate)]


class Muon(Uncompiled):
    """Momentum whose matrix is replaced by the nearest one with orthogonal rows or columns (Jordan et al., "Muon: an
    optimizer for hidden layers in neural networks", 2024). Rows are a layer's outputs; all other dimensions are one.

    learning_rate: the length of a row's change
    weight_decay: as AdamW's; None: each weight is scaled to rows of length 1 in the mean before each step, for layers
        whose scale a norm behind them undoes
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float | None = None
    ) -> None:
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """On the gradients that are there. There is no closure."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"], group["weight_decay"])
        return None

    def _move(self, weight: nn.Parameter, gradient: Tensor, rate: float, weight_decay: float | None) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"].mul_(MOMENTUM).add_(gradient)
        moved = orthogonal((gradient + MOMENTUM * momentum).flatten(1))
        outputs, inputs = moved.shape
        if weight_decay is None:
            weight.mul_(math.sqrt(outputs) / weight.norm().clamp(min=1e-7))
        else:
            weight.mul_(1 - rate * weight_decay)
        weight.add_(moved.view_as(weight), alpha=-rate * math.sqrt(max(1.0, outputs / inputs)))


def orthogonal(matrix: Tensor) -> Tensor:
    """(rows, columns) → the same directions with singular values of about 1, by Newton and Schulz's iteration: products
    of matrices only. On a GPU in bfloat16, which is exact enough for it."""
    a, b, c = COEFFICIENTS
    x = matrix / matrix.norm().clamp(min=1e-7)
    if matrix.is_cuda:
        x = x.bfloat16()
    tall = len(matrix) > matrix.shape[1]
    x = x.T if tall else x
    for _ in range(ITERATIONS):
        among = x @ x.T
        x = a * x + torch.addmm(among, among, among, beta=b, alpha=c) @ x
    found: Tensor = (x.T if tall else x).to(matrix.dtype)
    return found
