"""Which models are published together, and with what weights: decided on the validation split.

A greedy ensemble (Caruana et al. 2004, doi:10.1145/1015330.1015432) fits the validation rows better than they deserve
where they are few. So it is chosen for many samples of these rows, drawn with replacement, and the mean of its weights
is taken: models that the rows cannot tell apart share the weight, and one that is always the best has all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainer_image.tasks.base import Batch, Metric, Outputs, Predictor, rows_in, scored, take

# Rows that are looked at, evenly spaced: beyond, a figure hardly changes.
MOST_ROWS = 20_000
# Fewer do not choose weights: the best alone is taken.
FEWEST_ROWS = 8
# Models that a greedy ensemble has at most, counting those twice that are there twice.
ROUNDS = 12
# Samples; fewer of many rows, which differ less from sample to sample and take longer.
MOST_SAMPLES, LEAST_SAMPLES, SAMPLED_ROWS = 24, 4, 60_000
# Less than this is not worth evaluating a model for.
LEAST_WEIGHT = 0.04
# What a model may have that is judged by the few rows that have chosen its best epoch: there it is better than it is,
# but not by so much that nearly all samples of them give it all of the weight.
MOST_FLATTERED, SURE = 0.5, 0.9

Weights = dict[str, float]


def choose(predictor: Predictor, outputs: Mapping[str, Outputs], split: Batch, metric: Metric) -> Weights:
    """Weights by name, positive and adding up to 1, for models with these `outputs` of the split's rows.

    The same outputs give the same weights. The order of names decides between equals: cheaper ones first.
    """
    rows = rows_in(split)
    if rows > MOST_ROWS:
        index = torch.linspace(0, rows - 1, MOST_ROWS, dtype=torch.float64).long()
        outputs = {name: take(each, index) for name, each in outputs.items()}
        split = take(split, index)
        rows = MOST_ROWS
    judge = _Judge(predictor, outputs, split, metric)
    if len(outputs) == 1 or rows < FEWEST_ROWS:
        return {judge.best(torch.arange(rows)): 1.0}
    samples = min(MOST_SAMPLES, max(LEAST_SAMPLES, SAMPLED_ROWS // rows))
    generator = torch.Generator().manual_seed(0)
    mean = dict.fromkeys(outputs, 0.0)
    for _ in range(samples):
        try:
            ensemble = judge.greedy(torch.randint(0, rows, (rows,), generator=generator))
        except NotImplementedError:  # of outputs that the task cannot blend
            return {judge.best(torch.arange(rows)): 1.0}
        for name, weight in ensemble.items():
            mean[name] += weight / samples
    return _kept(mean)


def with_more_rows(
    predictor: Predictor,
    outputs: Mapping[str, Outputs],
    split: Batch,
    unseen: Mapping[str, Outputs],
    rows: Batch,
    metric: Metric,
    *,
    flattered: bool = False,
) -> Weights:
    """As `choose`, where more rows than those of the split can tell some models apart.

    unseen: their outputs for all `rows`; the models beside them are compared with the blend of these on the split.
    flattered: whether the split has chosen their best epochs
    """
    inner = choose(predictor, unseen, rows, metric)
    others = {name: each for name, each in outputs.items() if name not in unseen}
    if not others:
        return inner
    outer = choose(predictor, {"": blended(predictor, outputs, inner), **others}, split, metric)
    theirs = 1.0 - outer.get("", 0.0)
    most = MOST_FLATTERED if flattered and theirs < SURE else 1.0
    shrunk = min(most, theirs) / max(theirs, LEAST_WEIGHT)
    both = {name: weight * shrunk for name, weight in outer.items()}
    both |= {name: weight * (1.0 - theirs * shrunk) for name, weight in inner.items()}
    return _kept({name: both[name] for name in outputs if name in both})


def blended(predictor: Predictor, outputs: Mapping[str, Outputs], weights: Weights) -> Outputs:
    """What the models that have a weight predict together; of one alone its own outputs, which no task has to blend."""
    parts = [outputs[name] for name in weights]
    return predictor.blend(parts, list(weights.values())) if len(parts) > 1 else parts[0]


def _kept(weights: Weights) -> Weights:
    """Without those that are not worth evaluating, adding up to 1."""
    kept = {name: weight for name, weight in weights.items() if weight >= LEAST_WEIGHT}
    total = sum(kept.values())
    return {name: round(weight / total, 4) for name, weight in kept.items()}


class _Judge:
    """How good weighted models are on some of the rows: a number, the higher the better."""

    def __init__(self, predictor: Predictor, outputs: Mapping[str, Outputs], split: Batch, metric: Metric) -> None:
        self._predictor, self._outputs, self._split, self._metric = predictor, outputs, split, metric

    def best(self, rows: Tensor) -> str:
        """The best model alone."""
        judged = self._of(rows)
        return max(self._outputs, key=lambda name: judged({name: 1.0}))

    def greedy(self, rows: Tensor) -> Weights:
        """Whichever model makes the ensemble better is added once more, until none does."""
        judged, best = self._of(rows), self.best(rows)
        counts, reached = {best: 1}, judged({best: 1.0})
        for size in range(2, ROUNDS + 1):
            tried = {
                name: judged({each: (counts.get(each, 0) + (each == name)) / size for each in {**counts, name: 0}})
                for name in self._outputs
            }
            added = max(tried, key=lambda name: tried[name])
            if not tried[added] > reached:
                break
            counts[added] = counts.get(added, 0) + 1
            reached = tried[added]
        return {name: count / sum(counts.values()) for name, count in counts.items()}

    def _of(self, rows: Tensor) -> Callable[[Weights], float]:
        outputs, split = {name: take(each, rows) for name, each in self._outputs.items()}, take(self._split, rows)

        def judged(weights: Weights) -> float:
            mixed = blended(self._predictor, outputs, weights)
            value = scored(self._predictor, mixed, split).get(self._metric.name, math.nan)
            if math.isnan(value):
                return -math.inf
            return value if self._metric.higher_is_better else -value

        return judged
