"""The rows that trees are fitted on: inputs as trees see them, with statistics of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer_image.tasks.base import Batch, rows_in, spaced
from trainer_image.tasks.tabular.candidates import Sample, row_weights
from trainer_image.tasks.tabular.columns import Preprocessing
from trainer_image.tasks.tabular.target import ClassTarget, Target, ValueTarget
from trainer_image.tasks.tabular.trees.ensemble import TreeInputs

Array = np.ndarray[Any, Any]

# Inputs times rows: 80 MB, of which there are four copies for a moment. Of more rows evenly spaced ones are fitted on.
MOST_CELLS = 20_000_000
MOST_ROWS = 500_000
FOLDS = 5
# Of more classes statistics of categories would be more inputs than they are worth.
MOST_STATISTICS = 10
# So many rows at the overall mean are counted with those of a category.
SMOOTHING = 10.0
# The third moment of values, from which on it is tried whether trees of their logarithms are better.
SKEWED = 2.0


def margins(classes: int) -> int:
    """Outputs of the trees; two classes have one, the log odds of the second."""
    return 1 if classes <= 2 else classes


def statistics(classes: int) -> int:
    """Figures of each category: the mean, or how frequent each class is."""
    return margins(classes) if classes <= MOST_STATISTICS else 0


class TreeRows:
    """The rows to fit on as trees see them.

    x:      float32 (rows, inputs)
    y:      classes, or values as the network learns them, (rows,)
    weights: how much each row counts, (rows,), 1 in the mean; None: all alike
    mean:   of values that are not below zero, in the target's unit, and above zero itself
    skewed: whether none is below zero and they are far from evenly spread
    folds:  (rows,), of each row a number below FOLDS
    tables: statistics of the categories of each column that has them (count, statistics), from all rows; `x` of a row
            has those from the rows of other folds: its own label must not be seen in its input
    """

    def __init__(
        self, splits: Mapping[str, Batch], fit_on: Sequence[str], columns: Preprocessing, target: Target, seed: int
    ) -> None:
        self.classes, self._splits, self._target = target.outputs, splits, target
        self._inputs = TreeInputs(columns, statistics(self.classes))
        self._most = min(MOST_ROWS, MOST_CELLS // max(1, self._inputs.width))
        some = spaced(splits, fit_on, self._most)
        self.y, self.weights = self._labels(some), row_weights(some)
        self.mean, self.skewed = self._mean_and_skew(some["target"])
        self.left_out = sum(rows_in(splits[name]) for name in fit_on) - len(self.y)
        self.folds = np.random.default_rng(seed).permutation(len(self.y)) % FOLDS
        codes, counts = self._inputs.categories(some["dense"], some["codes"]).numpy(), self._inputs.counts
        every = np.ones(len(self.y), np.bool_)
        self.tables = [self._table(codes[:, n], count, every) for n, count in enumerate(counts)]
        means = [table[codes[:, n]] for n, table in enumerate(self.tables)]
        for fold in range(FOLDS):
            inside = self.folds == fold
            for n, count in enumerate(counts):
                means[n][inside] = self._table(codes[:, n], count, ~inside)[codes[inside, n]]
        self.x = self._inputs.of(some["dense"], some["codes"], [torch.from_numpy(each) for each in means]).numpy()

    def held(self) -> Sample:
        """The validation rows."""
        some = spaced(self._splits, ["validation"], self._most)
        codes = self._inputs.categories(some["dense"], some["codes"]).numpy()
        means = [torch.from_numpy(table[codes[:, n]]) for n, table in enumerate(self.tables)]
        return self._inputs.of(some["dense"], some["codes"], means).numpy(), self._labels(some), row_weights(some)

    def _labels(self, batch: Batch) -> Array:
        labels = batch["target"].numpy()
        if isinstance(self._target, ClassTarget):
            return labels
        return (labels.astype(np.float64) - self._target.centre) / self._target.spread

    def _mean_and_skew(self, labels: Tensor) -> tuple[float, bool]:
        if isinstance(self._target, ClassTarget) or not len(labels):
            return 1.0, False
        values = labels.double()
        mean = float(values.clamp_min(0).mean()) or 1.0
        if values.min() < 0:
            return mean, False
        skew = float(((values - values.mean()) ** 3).mean() / values.std(correction=0).clamp_min(1e-300) ** 3)
        return mean, skew > SKEWED

    @property
    def mean_in_spreads(self) -> float:
        """The mean in the unit that the network learns."""
        assert isinstance(self._target, ValueTarget)
        return self.mean / self._target.spread

    def positive(self, y: Array) -> Array:
        """Values (rows,) as shares of their mean, where there is one."""
        assert isinstance(self._target, ValueTarget)
        return np.asarray(np.maximum(0.0, y * self._target.spread + self._target.centre) / self.mean)

    def _table(self, codes: Array, count: int, among: Array) -> Array:
        """Statistics of each category among these rows, drawn to those of all: float32 (count, statistics)."""
        y = self.y[among].astype(np.float64)
        weights = np.ones(len(y)) if self.weights is None else self.weights[among]
        columns = [y] if self.classes <= 2 else [(y == label).astype(float) for label in range(self.classes)]
        columns = columns if statistics(self.classes) else []
        rows = np.bincount(codes[among], weights, minlength=count) + SMOOTHING
        sums = [
            np.bincount(codes[among], weights * column, count)
            + SMOOTHING * (np.average(column, weights=weights) if len(column) else 0.0)
            for column in columns
        ]
        found = np.stack([each / rows for each in sums], axis=1) if sums else np.zeros((count, 0))
        return found.astype(np.float32)
