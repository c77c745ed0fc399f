"""Which models are published together, and with what weights: decided on the validation split.

A greedy ensemble (Caruana et al. 2004, doi:10.1145/1015330.1015432) fits the validation rows better than they deserve
where they are few. So its weights are drawn towards an average of those models that these rows cannot tell from the
best one, the more so the fewer rows there are; and it is taken only where it is also better on rows that took no part
in choosing: weights are chosen on one half and compared with the single best on the other, several times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer_image.tasks.base import Batch, Metric, Predictor, rows_in, scored, take

# Rows that are looked at, evenly spaced: beyond, a figure hardly changes.
MOST_ROWS = 20_000
# Fewer do not choose weights: the best alone is taken.
FEWEST_ROWS = 8
ROUNDS, HALVINGS = 12, 3
# So many rows for each model weigh as much as the average does.
SHRINKAGE_ROWS = 50
# Less than this is not worth evaluating a model for.
LEAST_WEIGHT = 0.04

Weights = dict[str, float]


def choose(predictor: Predictor, outputs: Mapping[str, Tensor], split: Batch, metric: Metric) -> Weights:
    """Weights by name, positive and adding up to 1, for models with these `outputs` of the split's rows.

    The same outputs give the same weights. The order of names decides between equals: cheaper ones first.
    """
    rows = rows_in(split)
    if rows > MOST_ROWS:
        index = torch.linspace(0, rows - 1, MOST_ROWS, dtype=torch.float64).long()
        outputs = {name: each[index] for name, each in outputs.items()}
        split = take(split, index)
        rows = MOST_ROWS
    judge = _Judge(predictor, outputs, split, metric)
    everything = torch.arange(rows)
    best = {judge.best(everything): 1.0}
    if len(outputs) == 1 or rows < FEWEST_ROWS:
        return best
    alone = together = 0.0
    for number in range(HALVINGS):
        half, other = _halves(everything, number)
        for chosen_on, seen in ((half, other), (other, half)):
            alone += judge({judge.best(chosen_on): 1.0}, seen)
            together += judge(judge.blend(chosen_on), seen)
    return judge.blend(everything) if together > alone else best


class _Judge:
    """How good weighted models are on some of the rows: a number, the higher the better."""

    def __init__(self, predictor: Predictor, outputs: Mapping[str, Tensor], split: Batch, metric: Metric) -> None:
        self._predictor, self._outputs, self._split, self._metric = predictor, outputs, split, metric

    def __call__(self, weights: Weights, rows: Tensor) -> float:
        parts = [self._outputs[name][rows] for name in weights]
        mixed = self._predictor.blend(parts, list(weights.values())) if len(parts) > 1 else parts[0]
        value = scored(self._predictor, mixed, take(self._split, rows)).get(self._metric.name, math.nan)
        if math.isnan(value):
            return -math.inf
        return value if self._metric.higher_is_better else -value

    def best(self, rows: Tensor) -> str:
        return max(self._outputs, key=lambda name: self({name: 1.0}, rows))

    def blend(self, rows: Tensor) -> Weights:
        best = self.best(rows)
        greedy = self._greedy(best, rows)
        alike = self._alike(best, rows)
        trust = len(rows) / (len(rows) + SHRINKAGE_ROWS * len(self._outputs))
        mixed = {
            name: trust * greedy.get(name, 0.0) + (1 - trust) * (name in alike) / len(alike) for name in self._outputs
        }
        kept = {name: weight for name, weight in mixed.items() if weight >= LEAST_WEIGHT}
        total = sum(kept.values())
        return {name: round(weight / total, 4) for name, weight in kept.items()}

    def _greedy(self, best: str, rows: Tensor) -> Weights:
        """Whichever model makes the blend better is added once more, until none does."""
        counts, reached = {best: 1}, self({best: 1.0}, rows)
        for size in range(2, ROUNDS + 1):
            tried = {
                name: self({each: (counts.get(each, 0) + (each == name)) / size for each in {**counts, name: 0}}, rows)
                for name in self._outputs
            }
            added = max(tried, key=lambda name: tried[name])
            if not tried[added] > reached:
                break
            counts[added] = counts.get(added, 0) + 1
            reached = tried[added]
        return {name: count / sum(counts.values()) for name, count in counts.items()}

    def _alike(self, best: str, rows: Tensor) -> set[str]:
        """The best model, and those that are better on some half of the rows."""
        found = {best}
        for number in range(HALVINGS):
            for half in _halves(rows, number):
                reached = self({best: 1.0}, half)
                found |= {name for name in self._outputs if self({name: 1.0}, half) > reached}
        return found


def _halves(rows: Tensor, number: int) -> tuple[Tensor, Tensor]:
    order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(number))]
    middle = len(rows) // 2
    return order[:middle], order[middle:]
