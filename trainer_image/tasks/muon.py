"""Muon: steps that change every direction of a weight matrix alike, for layers whose scale a norm behind them undoes.

Of torch's own `torch.optim.Muon` it differs in what a convolution needs: it takes weights of four dimensions, computes
in float32 where the CPU does, and keeps each weight's length in place of a weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor, nn

# Of the polynomial that is applied so often: singular values between 0.01 and 1 come to between 0.5 and 1.3.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 3
MOMENTUM = 0.9


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is replaced by the nearest one with orthogonal rows or columns (Jordan et al., "Muon: an
    optimizer for hidden layers in neural networks", 2024). Rows are a layer's outputs; all other dimensions are one.

    learning_rate: the change of a row beside its length, which stays 1 in the mean
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        super().__init__(parameters, {"lr": learning_rate})

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
                    self._move(weight, weight.grad, group["lr"])
        return None

    def _move(self, weight: nn.Parameter, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"].mul_(MOMENTUM).add_(gradient)
        moved = orthogonal((gradient + MOMENTUM * momentum).flatten(1))
        outputs, inputs = moved.shape
        weight.mul_(math.sqrt(outputs) / weight.norm().clamp(min=1e-7))
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
