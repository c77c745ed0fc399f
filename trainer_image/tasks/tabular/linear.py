"""Linear models of tables, fitted in closed form or nearly so: a candidate, and what the network begins as.

On small or noisy tables a linear model is hard to beat; beginning as a well regularised one, the network has only what
is not linear left to learn, and early stopping may leave it at that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.tasks import optimizers
from trainer_image.tasks.tabular.columns import FURTHEST, Preprocessing
from trainer_image.tasks.tabular.target import ValueTarget

# The rows that are worth fitting on: of more, callers pass so many evenly spaced ones.
MOST_ROWS = 20_000
# Categories of a column, the most frequent ones, that have a weight of their own where the network has an embedding.
MOST_SHOWN = 30
# Rows times inputs squared up to which a log-linear model is tried, a second of one core; steps of Newton's method,
# the least that is worth taking, logarithms beyond which nothing is told apart, and a penalty that is none.
MOST_LOG_WORK = 200_000_000
MOST_STEPS, LEAST_STEP, MOST_LOG, LEAST_PENALTY = 20, 1e-7, 30.0, 1e-9
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


class Fit(NamedTuple):
    """weight (1, features), bias (1,), and what is predicted for each row by a fit without it, (rows,)"""

    weight: Array
    bias: Array
    unseen: Array


def ridge(x: Array, y: Array, weights: Array | None = None) -> Fit:
    """Ridge regression, its penalty chosen by leave-one-out error.

    weights: how much each row counts, (rows,), 1 in the mean; as many rows alike, but for the penalty that is chosen
    """
    scaled, mean, spread = _standardised(x, weights)
    centre = float(np.average(y, weights=weights))
    y = y - centre
    roots = np.ones(len(y)) if weights is None else np.sqrt(weights)
    scaled, y = roots[:, None] * scaled, roots * y
    u, s, vt = np.linalg.svd(scaled, full_matrices=False)
    projected = u.T @ y
    best_error, best, unseen = np.inf, np.zeros(x.shape[1]), y
    for penalty in len(y) * np.logspace(-5, 2, 29):
        shrink = s**2 / (s**2 + penalty)
        residual = y - u @ (shrink * projected)
        leverage = (u**2) @ shrink + roots**2 / len(y)
        residual = residual / np.maximum(1 - leverage, 1e-6)
        error = float((residual**2).mean())
        if error < best_error:
            best_error, best, unseen = error, vt.T @ (shrink / np.maximum(s, 1e-12) * projected), y - residual
    weight = best / spread
    return Fit(weight[None], np.array([centre - weight @ mean]), unseen / np.maximum(roots, 1e-12) + centre)


def log_linear(x: Array, y: Array, weights: Array | None = None) -> Fit | None:
    """As `ridge`, of the logarithm of the mean of values none of which is below zero: Poisson's likelihood, so that no
    mean has to be guessed from logarithms. None: of other values, or it takes too long. unseen: nearly, by one step"""
    width = x.shape[1] + 1
    if y.min() < 0 or not y.max() > 0 or len(y) * width**2 > MOST_LOG_WORK:
        return None
    unit = float(np.average(y, weights=weights))
    scaled, mean, spread = _standardised(x, weights)
    inputs, values = np.concatenate([np.ones((len(y), 1)), scaled], axis=1), y / unit
    masses = np.ones(len(y)) if weights is None else weights
    fitted, best_error, best, unseen = np.zeros(width), np.inf, np.zeros(width), values
    for strength in np.logspace(1, -5, 7):
        penalty = np.full(width, strength * len(y))
        penalty[0] = LEAST_PENALTY
        fitted, curvature = _poisson(inputs, values, masses, penalty, fitted)
        logs = inputs @ fitted
        rates = masses * np.exp(logs.clip(-MOST_LOG, MOST_LOG))
        leverage = np.einsum("ij,jk,ik->i", inputs, np.linalg.inv(curvature), inputs, optimize=True)
        step = leverage * (rates - masses * values) / np.maximum(1 - leverage * rates, 1e-3)
        left_out = np.exp((logs + step).clip(-MOST_LOG, MOST_LOG))
        error = float(np.average((left_out - values) ** 2, weights=masses))
        if error < best_error:
            best_error, best, unseen = error, fitted, left_out
    weight = best[1:] / spread
    return Fit(weight[None], np.array([best[0] + np.log(unit) - weight @ mean]), unseen * unit)


def _poisson(x: Array, y: Array, masses: Array, penalty: Array, begin: Array) -> tuple[Array, Array]:
    """Coefficients (inputs,) by Newton's method from `begin` on, and the curvature there."""

    def loss(at: Array) -> float:
        logs = (x @ at).clip(-MOST_LOG, MOST_LOG)
        return float(masses @ (np.exp(logs) - y * logs) + penalty @ at**2 / 2)

    at, reached = begin, loss(begin)
    for _ in range(MOST_STEPS):
        rates = masses * np.exp((x @ at).clip(-MOST_LOG, MOST_LOG))
        curvature = (x * rates[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, x.T @ (rates - masses * y) + penalty * at)
        while (found := loss(at - step)) > reached and np.abs(step).max() > LEAST_STEP:
            step = step / 2
        if not found < reached:
            break
        at, gained, reached = at - step, reached - found, found
        if gained < LEAST_STEP * abs(reached):
            break
    return at, curvature


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
    optimizer = optimizers.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

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
    """dense and codes → (rows, 1, outputs). Of a column with many categories the most frequent ones have a weight.

    log: of what target it predicts values by their logarithm, too; share: that these have of what is predicted
    """

    def __init__(
        self, columns: Preprocessing, outputs: int, log: ValueTarget | None = None, share: float = 0.0
    ) -> None:
        super().__init__()
        self.shown = [min(count, MOST_SHOWN) for count in columns.cardinalities]
        self.log, self.share = log, share
        width = columns.dense_width + sum(self.shown)
        # In double precision, as they were fitted: a narrow column far from zero has a large weight and a large bias.
        self.weight, self.bias = _zeros(outputs, width), _zeros(outputs)
        if log is not None:
            self.log_weight, self.log_bias = _zeros(outputs, width), _zeros(outputs)

    def inputs(self, dense: Tensor, codes: Tensor) -> Tensor:
        """(rows, width), float64"""
        parts = [dense.double().clamp(-FURTHEST, FURTHEST)]
        for number, shown in enumerate(self.shown):
            hot = functional.one_hot(codes[:, number].clamp(max=shown), shown + 1)
            parts.append(hot[:, :shown].double())
        return torch.cat(parts, dim=1)

    def fill(self, weight: Array, bias: Array, log: Fit | None = None) -> None:
        filled = {"weight": weight, "bias": bias}
        if log:
            filled |= {"log_weight": log.weight, "log_bias": log.bias}
        self.load_state_dict({name: torch.from_numpy(array) for name, array in filled.items()})

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        inputs = self.inputs(dense, codes)
        found = functional.linear(inputs, self.weight, self.bias)
        if self.log is not None:
            values = self.log.possible(functional.linear(inputs, self.log_weight, self.log_bias).exp())
            found = found + self.share * ((values - self.log.centre) / self.log.spread - found)
        return found.unsqueeze(1)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False)
