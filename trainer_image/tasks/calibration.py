"""Probabilities that mean what they say, and decisions for the figure that a model is judged by.

What a blend of models says of the validation rows shows how sure it may be: one temperature scales all probabilities,
p^(1/T) / Z (Guo et al. 2017, arXiv 1706.04599), which changes no order within a row. Where classes are unequal and a
figure counts them alike, the likeliest class is not the best answer: a constant for each class is added to its log
probability before the largest is taken. The best one for the balanced accuracy is minus the log of the class's share;
for F1 a part of it. So that a few rows cannot be fitted, this part is the one number that is chosen.

Pure: tensors in, numbers out, the same ones for the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

Array = np.ndarray[Any, Any]

# Below it a probability counts as this one, as it does for the log loss.
LEAST = float(np.finfo(np.float32).eps)
LOWEST, HIGHEST = 0.1, 20.0
# How far above and below 1 a temperature is expected before a row is seen: the standard deviation of its logarithm. It
# decides on some ten rows and is not noticed on thousands. Making surer what a few rows were right about costs most.
ABOVE, BELOW = 0.3, 0.15
PARTS = tuple(np.linspace(0, 1, 21).tolist())
# Rows of the rarest class up to which the probabilities themselves say more of it than its labels do.
FEW_ROWS = 10
# Figures that another answer than the likeliest class may serve better.
DECIDED = ("balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class Calibration:
    """temperature: above 1 the models were too sure; offsets: what is added to each class's log probability before the
    largest is the answer, () for nothing. As JSON in model.json: a stranger's may hold no other values than these."""

    temperature: Annotated[float, Field(ge=LOWEST, le=HIGHEST)] = 1.0
    offsets: tuple[Annotated[float, Field(ge=-50, le=50)], ...] = ()

    def of(self, classes: int) -> Calibration:
        """The same, if it is one for so many classes: raises ValueError otherwise."""
        if len(self.offsets) not in (0, classes):
            raise ValueError(f"Calibration: {len(self.offsets)} offsets for {classes} classes")
        return self

    def apply(self, probabilities: Any) -> Any:
        """Scaled probabilities, (rows, classes), of each row by itself; the very same ones, or outputs of another kind,
        where there is no scale."""
        if self.temperature == 1:
            return probabilities
        logs = probabilities.double().clamp_min(LEAST).log() / self.temperature
        return torch.softmax(logs, dim=-1).to(probabilities.dtype)

    def decide(self, probabilities: Tensor) -> Tensor:
        """The class of each row, int64 (rows,), from scaled probabilities (rows, classes)."""
        if not self.offsets:
            return probabilities.argmax(-1)
        offsets = torch.tensor(self.offsets, dtype=torch.float64, device=probabilities.device)
        return (probabilities.double().clamp_min(LEAST).log() + offsets).argmax(-1)


UNCALIBRATED = Calibration()


def fit(probabilities: Tensor, labels: Tensor, metric: str, weights: Tensor | None = None) -> Calibration:
    """What the probabilities (rows, classes) of rows that no model was fitted on say beside their labels (rows,) int64.

    metric: the figure that the answers are for; weights: how much each row counts, (rows,)
    """
    p, y = probabilities.detach().cpu().double(), labels.cpu().long()
    if not len(y) or p.shape[1] < 2:
        return Calibration()
    w = torch.ones(len(y), dtype=torch.float64) if weights is None else weights.cpu().double()
    # In all as much as the rows are worth (`intervals.worth_of`): unequal ones show less than as many equal ones.
    w = w * (w.sum() / w.square().sum())
    scaled = Calibration(_temperature(p, y, w))
    if metric not in DECIDED:
        return scaled
    return Calibration(scaled.temperature, _offsets(scaled.apply(p), y, w, metric))


def _temperature(p: Tensor, y: Tensor, w: Tensor) -> float:
    """The likeliest temperature, given the rows and what is expected of it: golden section on its logarithm."""
    logs = p.clamp_min(LEAST).log()

    def loss(log_temperature: float) -> float:
        scaled = torch.log_softmax(logs * float(np.exp(-log_temperature)), dim=-1)
        expected = ABOVE if log_temperature > 0 else BELOW
        return float(-(w * scaled[torch.arange(len(y)), y]).sum()) + 0.5 * (log_temperature / expected) ** 2

    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    golden = (5**0.5 - 1) / 2
    inner = [high - golden * (high - low), low + golden * (high - low)]
    losses = [loss(at) for at in inner]
    while high - low > 1e-4:
        if losses[0] <= losses[1]:
            high, inner[1], losses[1] = inner[1], inner[0], losses[0]
            inner[0] = high - golden * (high - low)
            losses[0] = loss(inner[0])
        else:
            low, inner[0], losses[0] = inner[0], inner[1], losses[1]
            inner[1] = low + golden * (high - low)
            losses[1] = loss(inner[1])
    return round(float(np.exp((low + high) / 2)), 4)


def _offsets(p: Tensor, y: Tensor, w: Tensor, metric: str) -> tuple[float, ...]:
    """Minus a part of the log of each class's share, the part that serves the figure best; () where none helps.

    Of a class with few rows the labels alone would be fitted: there what the probabilities promise counts as well.
    """
    classes = p.shape[1]
    counts = torch.bincount(y, w, minlength=classes)
    trusted = float(counts[counts > 0].min()) / (float(counts[counts > 0].min()) + FEW_ROWS)
    labels = torch.nn.functional.one_hot(y, classes).double()
    believed = trusted * labels + (1 - trusted) * p
    # Half a row for each class: one that no row here has must not be drawn in by a share of nothing.
    whole = -((counts + 0.5) / (counts + 0.5).sum()).log()
    whole -= whole.min()
    logs, best, found = p.clamp_min(LEAST).log(), -1.0, 0.0
    plain = _figure(labels, logs.argmax(-1), w, metric)
    for part in PARTS:
        said = (logs + part * whole).argmax(-1)
        figure = _figure(believed, said, w, metric)
        if figure > best + 1e-9 and _figure(labels, said, w, metric) >= plain:
            best, found = figure, part
    return tuple(round(found * float(value), 4) for value in whole) if found else ()


def _figure(true: Tensor, said: Tensor, w: Tensor, metric: str) -> float:
    """The figure of decisions (rows,) where the true class is known as far as `true` (rows, classes) says."""
    decided = torch.nn.functional.one_hot(said, true.shape[1]).double() * w[:, None]
    hits, rows, called = (true * decided).sum(0), (true * w[:, None]).sum(0), decided.sum(0)
    if metric == "balanced_accuracy":
        return float((hits[rows > 0] / rows[rows > 0]).mean())
    seen = rows + called > 0
    return float((2 * hits[seen] / (rows[seen] + called[seen])).mean())
