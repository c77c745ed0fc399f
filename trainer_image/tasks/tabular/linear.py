"""Linear models of tables, fitted in closed form or nearly so: a candidate, and what the network begins as.

On small or noisy tables a linear model is hard to beat; beginning as a well regularised one, the network has only what
is not linear left to learn, and early stopping may leave it at that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.tasks.tabular.columns import FURTHEST, Preprocessing

# The rows that are worth fitting on: of more, callers pass so many evenly spaced ones.
MOST_ROWS = 20_000
# Categories of a column, the most frequent ones, that have a weight of their own where the network has an embedding.
MOST_SHOWN = 30
Array = np.ndarray[Any, np.dtype[np.float64]]


def _standardised(x: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    mean, spread = x.mean(0), x.std(0)
    spread[spread == 0] = np.inf  # a constant column gets no weight
    if weights is not None:
        constant = np.isinf(spread)
        mean = np.average(x, axis=0, weights=weights)
        spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
        spread[constant] = np.inf
    return (x - mean) / spread, mean, spread


def ridge(x: Array, y: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Ridge regression, its penalty chosen by leave-one-out error: weights (1, features) and bias (1,).

    weights: how much each row counts, (rows,), 1 in the mean; as many rows alike, but for the penalty that is chosen
    """
    scaled, mean, spread = _standardised(x, weights)
    centre = float(np.average(y, weights=weights))
    y = y - centre
    if weights is not None:
        scaled, y = np.sqrt(weights)[:, None] * scaled, np.sqrt(weights) * y
    u, s, vt = np.linalg.svd(scaled, full_matrices=False)
    projected = u.T @ y
    best_error, best = np.inf, np.zeros(x.shape[1])
    for penalty in len(y) * np.logspace(-5, 2, 29):
        shrink = s**2 / (s**2 + penalty)
        residual = y - u @ (shrink * projected)
        leverage = (u**2) @ shrink + (1 if weights is None else weights) / len(y)
        error = float(((residual / np.maximum(1 - leverage, 1e-6)) ** 2).mean())
        if error < best_error:
            best_error, best = error, vt.T @ (shrink / np.maximum(s, 1e-12) * projected)
    weight = best / spread
    return weight[None], np.array([centre - weight @ mean])


def logistic(
    x: Array,
    y: np.ndarray[Any, np.dtype[np.int64]],
    classes: int,
    strength: float = 1.0,
    begin: tuple[Array, Array] | None = None,
    weights: Array | None = None,
) -> tuple[Array, Array]:
    """Multinomial logistic regression with the usual penalty: weights (classes, features), bias (classes,).

    strength: how strong it may become, scikit-learn's C; begin: weights and bias to begin with, e.g. of a weaker one;
    weights: how much each row counts, (rows,), 1 in the mean
    """
    scaled, mean, spread = _standardised(x, weights)
    inputs, targets = torch.from_numpy(scaled), torch.from_numpy(y)
    first = np.zeros((classes, x.shape[1])), np.zeros(classes)
    if begin is not None:
        known = np.where(np.isfinite(spread), spread, 0.0)
        first = begin[0] * known, begin[1] + begin[0] @ mean
    weight, bias = (torch.from_numpy(each.copy()).requires_grad_() for each in first)
    masses = None if weights is None else torch.from_numpy(weights)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        fit = weighed(functional.cross_entropy(inputs @ weight.T + bias, targets, reduction="none"), masses)
        total = fit + weight.square().sum() / (2 * len(y) * strength)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    slopes = weight.detach().numpy() / spread
    return slopes, bias.detach().numpy() - slopes @ mean


def weighed(losses: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of rows' losses (rows,). weights: how much each row counts, (rows,), 1 in the mean of all training rows

    By the rows of a batch, not by its own weights: then it is a mean over all rows, however they are divided into
    batches, and these among devices.
    """
    return losses.mean() if weights is None else (losses * weights).mean()


class LinearModel(nn.Module):
    """dense and codes → (rows, 1, outputs). Of a column with many categories the most frequent ones have a weight."""

    def __init__(self, columns: Preprocessing, outputs: int) -> None:
        super().__init__()
        self.shown = [min(count, MOST_SHOWN) for count in columns.cardinalities]
        width = columns.dense_width + sum(self.shown)
        # In double precision, as they were fitted: a narrow column far from zero has a large weight and a large bias.
        self.weight = nn.Parameter(torch.zeros(outputs, width, dtype=torch.float64), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float64), requires_grad=False)

    def inputs(self, dense: Tensor, codes: Tensor) -> Tensor:
        """(rows, width), float64"""
        parts = [dense.double().clamp(-FURTHEST, FURTHEST)]
        for number, shown in enumerate(self.shown):
            hot = functional.one_hot(codes[:, number].clamp(max=shown), shown + 1)
            parts.append(hot[:, :shown].double())
        return torch.cat(parts, dim=1)

    def fill(self, weight: Array, bias: Array) -> None:
        self.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        return functional.linear(self.inputs(dense, codes), self.weight, self.bias).unsqueeze(1)
