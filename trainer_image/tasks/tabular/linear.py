"""The linear model that a table's network begins as, fitted in closed form or nearly so.

On small or noisy tables a linear model is hard to beat; beginning as a well regularised one, the network has only what
is not linear left to learn, and early stopping may leave it at that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# The rows that are worth fitting on: of more, callers pass so many evenly spaced ones.
MOST_ROWS = 20_000
Array = np.ndarray[Any, np.dtype[np.float64]]


def _standardised(x: Array) -> tuple[Array, Array, Array]:
    mean, spread = x.mean(0), x.std(0)
    spread[spread == 0] = np.inf  # a constant column gets no weight
    return (x - mean) / spread, mean, spread


def ridge(x: Array, y: Array) -> tuple[Array, Array]:
    """Ridge regression, its penalty chosen by leave-one-out error: weights (1, features) and bias (1,)."""
    scaled, mean, spread = _standardised(x)
    centre = float(y.mean())
    u, s, vt = np.linalg.svd(scaled, full_matrices=False)
    projected = u.T @ (y - centre)
    best_error, best = np.inf, np.zeros(x.shape[1])
    for penalty in len(y) * np.logspace(-5, 2, 29):
        shrink = s**2 / (s**2 + penalty)
        residual = (y - centre) - u @ (shrink * projected)
        leverage = (u**2) @ shrink + 1 / len(y)
        error = float(((residual / np.maximum(1 - leverage, 1e-6)) ** 2).mean())
        if error < best_error:
            best_error, best = error, vt.T @ (shrink / np.maximum(s, 1e-12) * projected)
    weight = best / spread
    return weight[None], np.array([centre - weight @ mean])


def logistic(x: Array, y: np.ndarray[Any, np.dtype[np.int64]], classes: int) -> tuple[Array, Array]:
    """Multinomial logistic regression with the usual penalty (C = 1): weights (classes, features), bias (classes,)."""
    scaled, mean, spread = _standardised(x)
    inputs, targets = torch.from_numpy(scaled), torch.from_numpy(y)
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        fit = functional.cross_entropy(inputs @ weight.T + bias, targets)
        total = fit + weight.square().sum() / (2 * len(y))
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    slopes = weight.detach().numpy() / spread
    return slopes, bias.detach().numpy() - slopes @ mean
