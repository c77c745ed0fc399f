"""Columns that give the answer away: each one alone, how well does it predict the target?

A column that is nearly the target itself (its translation, a sum with tax, a date that is filled in afterwards) makes a
model that shines in the test and fails in use, because the column is not known yet when a prediction is needed. No
program can tell such a column from an honest one, so the report warns of it and it is never dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer_image.tasks.tabular.columns import SHOWN, Preprocessing
from trainer_image.tasks.tabular.findings import TOGETHER
from trainer_image.tasks.tabular.target import ClassTarget, Target

SAMPLE_ROWS = 20_000
LEAST_ROWS = 50
BINS = 256
# Of what a constant answer gets wrong, the share that the column alone gets right; of the variance, explained.
SUSPICIOUS_CLASSES = 0.98
SUSPICIOUS_VALUES = 0.995

Array = np.ndarray[Any, Any]


def warnings(preprocessing: Preprocessing, dense: Array, codes: Array, labels: Array, target: Target) -> list[str]:
    """A sentence for each column that predicts the labels (rows,) of the training rows nearly perfectly by itself."""
    rows = np.linspace(0, len(labels) - 1, min(len(labels), SAMPLE_ROWS)).astype(np.int64)
    if len(rows) < LEAST_ROWS:
        return []
    dense, codes, labels = dense[rows], codes[rows], labels[rows]
    suspicious = {}
    for name, groups, numbers in _grouped(preprocessing, dense, codes):
        if isinstance(target, ClassTarget):
            score, least = _classes(groups, labels, ordered=numbers is not None), SUSPICIOUS_CLASSES
        else:
            score, least = _values(groups, labels.astype(np.float64), numbers), SUSPICIOUS_VALUES
        if score >= least:
            suspicious[name] = score
    if len(suspicious) >= TOGETHER:
        shown = ", ".join(list(suspicious)[:SHOWN]) + (", …" if len(suspicious) > SHOWN else "")
        return [
            f"{len(suspicious)} columns predict '{target.column}' nearly perfectly, each by itself: {shown}. Are they"
            " known before the answer is? If not, list them under data.drop; the test figures promise too much with"
            " them."
        ]
    return [
        f"Column '{name}' predicts '{target.column}' nearly perfectly by itself ({score:.1%}): is it known before the "
        "answer is? If not, list it under data.drop; the test figures promise too much with it."
        for name, score in suspicious.items()
    ]


def _grouped(preprocessing: Preprocessing, dense: Array, codes: Array) -> Iterator[tuple[str, Array, Array | None]]:
    """Each column as one small integer a row, its bin or category, and the numbers or days that were binned."""
    at = code_at = 0
    for column in preprocessing.measured:
        values = dense[:, at].astype(np.float64)
        yield column.name, _bins(np.where(dense[:, at + 1] > 0, np.inf, values) if column.indicator else values), values
        at += column.width
    for category in preprocessing.categories:
        if category.embedded:
            yield category.name, codes[:, code_at], None
            code_at += 1
        else:
            hot = dense[:, at : at + len(category.categories)]
            yield category.name, np.where(hot.any(1), hot.argmax(1) + 1, 0), None
            at += len(category.categories)


def _bins(values: Array) -> Array:
    distinct = np.unique(values)
    most = max(2, min(BINS, len(values) // 2))
    if len(distinct) > most:
        distinct = np.unique(np.quantile(values[np.isfinite(values)], np.linspace(0, 1, most)))
    return np.searchsorted(distinct, values)


def _folds(rows: int) -> list[tuple[Array, Array]]:
    """Each half judged by what the other one teaches: a group of one row explains itself and nothing else."""
    even = np.arange(rows) % 2 == 0
    return [(even, ~even), (~even, even)]


def _classes(groups: Array, labels: Array, *, ordered: bool) -> float:
    """The share of a constant answer's mistakes that the most frequent class of each group avoids.

    ordered: a group that the other half has not seen answers as the nearest one that it has
    """
    classes = int(labels.max()) + 1
    right = 0
    for learn, judge in _folds(len(labels)):
        counts = np.zeros((int(groups.max()) + 1, classes), np.int64)
        np.add.at(counts, (groups[learn], labels[learn]), 1)
        seen = np.flatnonzero(counts.any(1))
        answer = np.full(len(counts), counts.sum(0).argmax())
        answer[seen] = counts[seen].argmax(1)
        if ordered:
            answer = answer[_nearest(seen, len(counts))]
        right += int((answer[groups[judge]] == labels[judge]).sum())
    constant = int(np.bincount(labels).max())
    return (right - constant) / max(1, len(labels) - constant)


def _nearest(seen: Array, count: int) -> Array:
    """For each of the numbers below `count`, the nearest one that is in `seen` (ascending)."""
    every = np.arange(count)
    after = seen[np.minimum(np.searchsorted(seen, every), len(seen) - 1)]
    before = seen[np.maximum(np.searchsorted(seen, every, "right") - 1, 0)]
    return np.where(np.abs(after - every) < np.abs(every - before), after, before)


def _values(groups: Array, labels: Array, numbers: Array | None) -> float:
    """R² of each group's mean, or of a straight line through the numbers where that is better."""
    if numbers is not None and numbers.std() > 0 and labels.std() > 0:
        line = float(np.corrcoef(numbers, labels)[0, 1]) ** 2
        return max(line, _values(groups, labels, None))
    error = 0.0
    for learn, judge in _folds(len(labels)):
        count = np.bincount(groups[learn], minlength=int(groups.max()) + 1)
        total = np.bincount(groups[learn], labels[learn], minlength=len(count))
        mean = np.where(count > 0, total / np.maximum(count, 1), labels[learn].mean())
        error += float(((labels[judge] - mean[groups[judge]]) ** 2).sum())
    spread = float(((labels - labels.mean()) ** 2).sum())
    return 1 - error / spread if spread else 0.0
