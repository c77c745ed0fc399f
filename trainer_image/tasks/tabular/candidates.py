"""What competes with a table's network: their common part, and the linear model. trees/ has the others."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer_image.tasks.base import WEIGHT, Batch, Json, Outputs, Predictor, joined, restored, spaced, take
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.tabular import linear
from trainer_image.tasks.tabular.columns import Preprocessing
from trainer_image.tasks.tabular.linear import LinearModel
from trainer_image.tasks.tabular.target import ClassTarget, Target, ValueTarget
from trainer_image.tasks.tensors import collected

Array = np.ndarray[Any, Any]
# Inputs, labels, and how much each row counts, 1 in the mean; None: all alike.
Sample = tuple[Array, Array, Array | None]

# Penalties of the logistic regression that are tried, from a strong one to nearly none (scikit-learn's C).
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
MOST_COEFFICIENTS = 40_000_000
# Of a model of logarithms in what is predicted. By halves: far out it predicts too much where it is wrong.
LOG_SHARES = (0.0, 0.5, 1.0)
# Folds by which models of few rows are told apart.
FOLDS = 4
# Rows are copies where so many times as many pairs are alike as columns that know nothing of each other would make.
COPIED = 10.0
# Inputs times rows below which threads wait for each other longer than they work: on a busy machine the linear model of
# 150 rows took 40 times as long on two threads.
FEW_CELLS = 500_000


def threads_for(cells: int, allowance: Allowance) -> int:
    """How many threads to fit on so many inputs times rows with."""
    return allowance.threads if cells >= FEW_CELLS else 1


def row_weights(batch: Batch) -> Array | None:
    """How much each of these rows counts, float64 (rows,), 1 in their mean; None: all alike."""
    if WEIGHT not in batch or not len(batch[WEIGHT]):
        return None
    found: Array = batch[WEIGHT].double().numpy()
    return np.asarray(found / found.mean())


def fold_of(rows: Batch, seed: int) -> Tensor:
    """Of each row a number below FOLDS, int64 (rows,): copies of a row are in its fold, rows that are alike by chance,
    because a few columns have a few categories, are not."""
    content = np.concatenate([rows["dense"].numpy(), rows["codes"].numpy()], axis=1)
    _, alike, counts = np.unique(content, axis=0, return_inverse=True, return_counts=True)
    by_chance = 1.0
    for column in content.T:
        by_chance *= float(((np.unique(column, return_counts=True)[1] / len(content)) ** 2).sum())
    if float(((counts / len(content)) ** 2).sum()) - 1 / len(content) <= COPIED * by_chance:
        alike = np.arange(len(content))
    return torch.from_numpy(np.random.default_rng(seed).permutation(alike.max() + 1)[alike.ravel()] % FOLDS)


class TableCandidate(Candidate):
    """splits, columns and target: the problem's"""

    def __init__(self, splits: Mapping[str, Batch], columns: Preprocessing, target: Target) -> None:
        self.splits, self.columns, self.target = splits, columns, target

    def fit(self, fit_on: Sequence[str], allowance: Allowance, chosen: Json | None) -> tuple[nn.Module, Json] | None:
        self.note = ""
        return self._fit(fit_on, allowance, chosen)

    @abstractmethod
    def _fit(self, fit_on: Sequence[str], allowance: Allowance, chosen: Json | None) -> tuple[nn.Module, Json] | None:
        """As `fit`; `note` is empty."""

    def unseen(self, predictor: Predictor, allowance: Allowance, chosen: Json, fold_of: Tensor) -> Outputs | None:
        rows = joined(self.splits["train"], self.splits["validation"])
        deadline = time.monotonic() + allowance.seconds
        places, parts = list[Tensor](), list[Outputs]()
        for fold in range(FOLDS):
            outside, inside = (torch.nonzero(each).squeeze(1) for each in (fold_of == fold, fold_of != fold))
            left = replace(allowance, seconds=max(0.0, deadline - time.monotonic()))
            alone = type(self)({"train": take(rows, inside)}, self.columns, self.target)
            fitted = alone.fit(("train",), left, chosen)
            if fitted is None:
                return None
            with torch.no_grad():
                parts.append(predictor.outputs(fitted[0].eval(), take(rows, outside)))
            places.append(outside)
            allowance.beat()
        return take(collected(parts), torch.cat(places).argsort())

    def scaled(self, labels: Tensor) -> Array:
        """Classes as they are, values as the network learns them."""
        if isinstance(self.target, ClassTarget):
            return labels.numpy()
        return (labels.double().numpy() - self.target.centre) / self.target.spread


@dataclass(frozen=True)
class ChosenLinear:
    """strength: of a logistic regression; log: the share of a model of values' logarithms"""

    strength: Annotated[float, Field(gt=0)] | None = None
    log: Annotated[float, Field(ge=0, le=1)] = 0.0


def unfitted(chosen: Json, columns: Preprocessing, target: Target) -> LinearModel:
    """Raises ValueError for what no fit returns."""
    share = restored(ChosenLinear, chosen).log
    log = target if share and isinstance(target, ValueTarget) else None
    return LinearModel(columns, target.outputs, log, share)


class Linear(TableCandidate):
    """Ridge or logistic regression, its penalty chosen by leave-one-out error or on the validation rows. Of values none
    of which is below zero their logarithms have a share, where left-out rows are predicted better so beyond chance."""

    name = "linear"

    def _fit(self, fit_on: Sequence[str], allowance: Allowance, chosen: Json | None) -> tuple[nn.Module, Json] | None:
        model = LinearModel(self.columns, self.target.outputs)
        width = model.weight.shape[1]
        if width > linear.MOST_ROWS // 4:
            self.note = f"A linear model of {width} inputs takes too long to fit."
            return None
        x, y, w = self._rows(model, fit_on, min(linear.MOST_ROWS, MOST_COEFFICIENTS // max(1, width)))
        torch.set_num_threads(threads_for(x.size, allowance))  # whoever has a candidate fitted sets it back
        if isinstance(self.target, ValueTarget):
            return self._values((x, y, w), self.target, chosen)
        classes = self.target.outputs
        if chosen is not None:
            strength = float(chosen["strength"])
            fitted = linear.logistic(x, y, classes, strength, weights=w)
        else:
            held = self._rows(model, ["validation"], linear.MOST_ROWS)
            strength, fitted = _strongest((x, y, w), held, classes, allowance)
            if allowance.stop.is_set():
                return None  # not all strengths were tried: a resumed training would have another model
        model.fill(*fitted)
        return model, {"strength": strength}

    def _values(self, rows: Sample, target: ValueTarget, chosen: Json | None) -> tuple[nn.Module, Json]:
        x, y, w = rows
        flat = linear.ridge(x, y, w)
        share = 0.0 if chosen is None else restored(ChosenLinear, chosen).log
        values = y * target.spread + target.centre
        log = linear.log_linear(x, values.clip(0.0), w) if share or (chosen is None and values.min() >= 0) else None
        if log is None:
            share = 0.0
        elif chosen is None:
            share = _log_share(flat.unseen * target.spread + target.centre, log.unseen, values, w, target)
        found = {"log": share} if share else {}
        model = unfitted(found, self.columns, target)
        model.fill(flat.weight, flat.bias, log if share else None)
        return model, found

    def _rows(self, model: LinearModel, names: Sequence[str], most: int) -> Sample:
        some = spaced(self.splits, names, most)
        x = model.inputs(some["dense"], some["codes"]).numpy()
        return x, self.scaled(some["target"]), row_weights(some)


def _strongest(fit_on: Sample, held: Sample, classes: int, allowance: Allowance) -> tuple[float, tuple[Array, Array]]:
    """The strength with the least log loss of the held-out rows, and its fit; each begins where the last ended."""
    (x, y, weights), (held_x, held_y, held_weights) = fit_on, held
    began = time.monotonic()
    best: tuple[float, float, tuple[Array, Array]] | None = None
    fitted, worse = None, 0
    for strength in STRENGTHS:
        fitted = linear.logistic(x, y, classes, strength, fitted, weights)
        logits = held_x @ fitted[0].T + fitted[1]
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(held_y)), held_y]
        loss = float(np.average(losses, weights=held_weights))
        allowance.beat()
        if best is None or loss < best[0]:
            best, worse = (loss, strength, fitted), 0
        else:
            worse += 1
        if worse == 2 or allowance.stop.is_set() or 2 * (time.monotonic() - began) > allowance.seconds:
            break
    assert best is not None
    return best[1], best[2]


def _log_share(flat: Array, log: Array, y: Array, weights: Array | None, target: ValueTarget) -> float:
    """The share of `log` in what is predicted for rows that a fit has not seen: each larger one that is better than the
    one before beyond chance. All (rows,), in the target's unit"""
    flat, log = (target.possible(torch.from_numpy(each)).numpy() for each in (flat, log))
    losses = [(flat + share * (log - flat) - y) ** 2 * (1.0 if weights is None else weights) for share in LOG_SHARES]
    chosen = 0
    while chosen + 1 < len(losses) and not within_chance(losses[chosen] - losses[chosen + 1]):
        chosen += 1
    return LOG_SHARES[chosen]


def within_chance(worse: Array) -> bool:
    """Whether the mean of these differences (rows,) from the best is not above its standard error."""
    return bool(worse.mean() <= worse.std() / max(1, len(worse)) ** 0.5)
