"""The figures that models are judged by, and what else a report shows of a test split.

Our own few lines instead of scikit-learn's: `predict` then needs neither it nor the second that importing it takes.
Definitions are scikit-learn's; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from trainer_image.errors import ConfigInvalid
from trainer_image.tasks.base import Figures, Json, Metric, RowGroups
from trainer_image.tasks.calibration import UNCALIBRATED, Calibration
from trainer_image.tasks.intervals import Interval, calibration_by_chance, mean_interval, share_interval

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

CLASSIFICATION = {
    "accuracy": Metric("accuracy"),
    "balanced_accuracy": Metric("balanced_accuracy"),
    "macro_f1": Metric("macro_f1"),
    "log_loss": Metric("log_loss", higher_is_better=False),
    "roc_auc": Metric("roc_auc"),
}
REGRESSION = {
    "r2": Metric("r2"),
    "rmse": Metric("rmse", higher_is_better=False),
    "mae": Metric("mae", higher_is_better=False),
}
SHOWN_POINTS = 500
SHOWN_MISTAKES = 20
SHOWN_CONFUSIONS = 100
# Classes up to which report.json has the whole matrix: beyond, it would be most of the file.
LARGEST_MATRIX = 100
CALIBRATION_BINS = 10
HISTOGRAM_BINS = 24


class Counted(NamedTuple):
    """How rows count towards an interval. groups: the number of each one's group; weights: (rows,)"""

    groups: Ints | None = None
    weights: Floats | None = None

    def among(self, rows: Ints | Bools) -> Counted:
        groups, weights = self
        return Counted(None if groups is None else groups[rows], None if weights is None else weights[rows])


ALL_ALIKE = Counted()


def choose(metric: str, known: dict[str, Metric], headline: str, selection: str) -> tuple[Metric, Metric]:
    """(headline, selection) for the configuration's `train.metric`; ConfigInvalid names the figures there are."""
    if metric == "auto":
        return known[headline], known[selection]
    if metric not in known:
        raise ConfigInvalid(
            f"Invalid configuration: train.metric: '{metric}' is no figure of this task; "
            f"one of {', '.join(known)} or auto would be right"
        )
    # R² and RMSE put models of the same rows in the same order, and only RMSE is defined on any of them.
    return known[metric], known["rmse" if metric == "r2" else metric]


def first(name: str, figures: Figures) -> Figures:
    """The same figures with `name` leading, if it is among them: some are not defined on every row."""
    leading = {name: figures[name]} if name in figures else {}
    return leading | figures


def confusion_matrix(labels: Ints, predicted: Ints, classes: int, weights: Floats | None = None) -> Ints | Floats:
    """Counts, or sums of weights, (classes, classes): true class down, predicted class across."""
    counts = np.bincount(labels * classes + predicted, weights, minlength=classes * classes)
    return counts.reshape(classes, classes)


def classification(
    probabilities: Tensor, labels: Tensor, said: Tensor | None = None, weights: Tensor | None = None
) -> Figures:
    """Figures of class probabilities (rows, classes) against labels (rows,) int64. said: the answers, (rows,) int64,
    where they are others than the likeliest classes; weights: how much each row counts, (rows,). ROC AUC of more than
    two classes is the mean of each one against the rest; there is none where all rows are of one class."""
    p = probabilities.double().numpy()
    y = labels.numpy().astype(np.int64)
    heavy = doubles(weights)
    predicted = p.argmax(1) if said is None else said.numpy()
    counts = confusion_matrix(y, predicted, p.shape[1], heavy)
    hits, true, said = np.diag(counts), counts.sum(1), counts.sum(0)
    present = true > 0
    seen = (true + said) > 0
    surprise = -np.log(np.clip(p[np.arange(len(y)), y], np.finfo(np.float32).eps, 1))
    figures = {
        "accuracy": float(hits.sum() / (counts.sum() or 1)),
        "balanced_accuracy": float((hits[present] / true[present]).mean()),
        "macro_f1": float((2 * hits[seen] / (true[seen] + said[seen])).mean()),
        "log_loss": weighted_mean(surprise, heavy),
    }
    if present.sum() > 1:
        judged = np.array([1]) if p.shape[1] == 2 else np.flatnonzero(present)
        figures["roc_auc"] = float(_roc_auc(p[:, judged], y[:, None] == judged, heavy).mean())
    return figures


def doubles(weights: Tensor | None) -> Floats | None:
    return None if weights is None else weights.double().numpy()


def weighted_mean(values: Floats, weights: Floats | None) -> float:
    """Of (rows,)."""
    return float(values.mean() if weights is None else np.average(values, weights=weights))


def _roc_auc(scores: Floats, true: Bools, weights: Floats | None = None) -> Floats:
    """For each column of both (rows, columns), the share of (true, other) pairs of rows in the right order, ties
    counted half (Mann-Whitney). A pair counts as much as the product of its rows' weights."""
    rows, columns = scores.shape
    order = np.argsort(scores, axis=0)
    ascending = np.take_along_axis(scores, order, 0).T
    new = np.ones((columns, rows), bool)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    tie = np.cumsum(new) - 1
    hits = np.take_along_axis(true, order, 0).T
    weight = (np.ones(rows) if weights is None else weights)[order].T
    positive, other = weight * hits, weight * ~hits
    tied = np.bincount(tie, other.ravel())
    # The others with a lower score, and half of those with the same; sums run on from column to column.
    below = (np.cumsum(tied) - tied / 2)[tie].reshape(columns, rows)
    below -= (np.cumsum(other.sum(1)) - other.sum(1))[:, None]
    found: Floats = (below * positive).sum(1) / (positive.sum(1) * other.sum(1))
    return found


def regression(values: Tensor, targets: Tensor, weights: Tensor | None = None) -> Figures:
    """Figures of predictions (rows,) against targets (rows,), both in the target's unit. There is no R² where all
    targets are the same, of one row above all. weights: how much each row counts, (rows,)"""
    v, t, heavy = values.double().numpy(), targets.double().numpy(), doubles(weights)
    residual = v - t
    error = weighted_mean(residual**2, heavy)
    spread = weighted_mean((t - weighted_mean(t, heavy)) ** 2, heavy)
    explained = {"r2": 1 - error / spread} if t.min() < t.max() and spread > 0 else {}
    return explained | {"rmse": error**0.5, "mae": weighted_mean(np.abs(residual), heavy)}


def classification_findings(
    probabilities: Tensor,
    labels: Tensor,
    names: Sequence[str],
    test_groups: RowGroups | None = None,
    calibrated: Calibration = UNCALIBRATED,
    weights: Tensor | None = None,
) -> Json:
    """What the report shows of class probabilities (rows, classes) against labels (rows,): confusions, figures of each
    class, calibration, the worst mistakes. Intervals are `share_interval`'s, 95 %. calibrated: how the probabilities
    were scaled, and how the answers are decided; weights: how much each row counts in shares, not where rows are
    counted, (rows,)"""
    p = probabilities.double().numpy()
    y = labels.numpy().astype(np.int64)
    said, likeliest = calibrated.decide(probabilities).numpy(), p.argmax(1)
    counts, heavy = confusion_matrix(y, said, len(names)), doubles(weights)
    masses = confusion_matrix(y, said, len(names), heavy)
    counted = Counted(numbers_of(test_groups), heavy)
    return {
        "kind": "classification",
        "labels": list(names),
        "confusion_matrix": counts.tolist() if len(names) <= LARGEST_MATRIX else None,
        "confusions": _confusions(counts),
        "per_class": [
            {"label": name, "rows": int(counts[index].sum())} | _of_class(masses, index, y, said, counted)
            for index, name in enumerate(names)
        ],
        "intervals": {"accuracy": share_interval(said == y, *counted)},
        "calibration": calibration(p.max(1), likeliest == y, counted) | {"temperature": calibrated.temperature},
        "offsets": dict(zip(names, calibrated.offsets, strict=False)),
        "worst": _surest_mistakes(p, y, said, names),
    }


def numbers_of(groups: RowGroups | None) -> Ints | None:
    """The number of each row's group (rows,), None where rows stand for themselves."""
    return None if groups is None else groups.of.numpy().astype(np.int64)


def _confusions(counts: Ints | Floats) -> list[list[int]]:
    """[true class, predicted class, rows] of the most frequent mistakes."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    true, said = np.nonzero(wrong)
    order = np.argsort(-wrong[true, said], kind="stable")[:SHOWN_CONFUSIONS]
    return [[int(true[k]), int(said[k]), int(wrong[true[k], said[k]])] for k in order]


def _of_class(masses: Ints | Floats, index: int, y: Ints, chosen: Ints, counted: Counted) -> Json:
    hits, true, said = float(masses[index, index]), float(masses[index].sum()), float(masses[:, index].sum())
    return {
        "recall": hits / true if true else None,
        "recall_interval": _interval_among(y == index, chosen == index, counted),
        "precision": hits / said if said else None,
        "precision_interval": _interval_among(chosen == index, y == index, counted),
        "f1": 2 * hits / (true + said) if true + said else None,
    }


def _interval_among(rows: Bools, hits: Bools, counted: Counted) -> Interval | None:
    """The interval of the share of hits among these rows."""
    return share_interval(hits[rows], *counted.among(rows))


def calibration(confidence: Floats, right: Bools, counted: Counted = ALL_ALIKE) -> Json:
    """Whether a model that says 80 % is right in 80 of 100 rows: both (rows,), of the predicted class.

    Ten bins of equal width; the expected calibration error is the mean distance of confidence and accuracy, weighted
    by rows (Guo et al. 2017, arXiv 1706.04599, equation 3). What chance makes of it is known of independent rows only.
    """
    bins = np.clip((confidence * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    rows = np.bincount(bins, minlength=CALIBRATION_BINS)
    weights = np.ones(len(bins)) if counted.weights is None else counted.weights
    mass, sure, hits = (
        np.bincount(bins, weights * each, CALIBRATION_BINS) for each in (np.ones(len(bins)), confidence, right)
    )
    return {
        "bins": [
            {
                "from": b / CALIBRATION_BINS,
                "to": (b + 1) / CALIBRATION_BINS,
                "rows": int(rows[b]),
                "confidence": float(sure[b] / mass[b]),
                "accuracy": float(hits[b] / mass[b]),
                "interval": _interval_among(bins == b, right, counted),
            }
            for b in range(CALIBRATION_BINS)
            if rows[b]
        ],
        "expected_calibration_error": float(np.abs(sure - hits).sum() / (mass.sum() or 1)),
        "error_by_chance": calibration_by_chance(confidence, bins, CALIBRATION_BINS, weights)
        if len(confidence) and counted.groups is None
        else None,
    }


def _surest_mistakes(p: Floats, y: Ints, said: Ints, names: Sequence[str]) -> list[Json]:
    """The mistakes that the model was surest of."""
    wrong = np.flatnonzero(said != y)
    order = wrong[np.argsort(-p[wrong, said[wrong]], kind="stable")][:SHOWN_MISTAKES]
    return [
        {
            "row": int(row),
            "true": names[y[row]],
            "predicted": names[said[row]],
            "probability": float(p[row, said[row]]),
            "probability_of_true": float(p[row, y[row]]),
        }
        for row in order
    ]


def regression_findings(
    values: Tensor, targets: Tensor, test_groups: RowGroups | None = None, weights: Tensor | None = None
) -> Json:
    """What the report shows of predictions (rows,) against targets (rows,), both in the target's unit: an even sample
    of the rows, residuals (predicted - true), predictions against truth by tenths, the worst mistakes. weights: how
    much each row counts in the tenths' means, (rows,); all else is of rows"""
    v, t = values.double().numpy(), targets.double().numpy()
    residual = v - t
    step = max(1, -(-len(v) // SHOWN_POINTS))
    quantiles = np.quantile(residual, [0.05, 0.25, 0.5, 0.75, 0.95])
    counts, edges = np.histogram(residual, bins=HISTOGRAM_BINS)
    worst = np.argsort(-np.abs(residual), kind="stable")[:SHOWN_MISTAKES]
    return {
        "kind": "regression",
        "points": [[float(a), float(b)] for a, b in zip(t[::step], v[::step], strict=True)],
        "residual_quantiles": dict(zip(["5%", "25%", "50%", "75%", "95%"], map(float, quantiles), strict=True)),
        "absolute_error_quantiles": {
            f"{share}%": float(np.quantile(np.abs(residual), share / 100)) for share in (50, 80, 90, 95)
        },
        "residual_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "calibration": {"bins": _by_tenths(v, t, Counted(numbers_of(test_groups), doubles(weights)))},
        "worst": [
            {
                "row": int(row),
                "true": float(t[row]),
                "predicted": float(v[row]),
                "residual": float(residual[row]),
            }
            for row in worst
        ],
    }


def _by_tenths(v: Floats, t: Floats, counted: Counted) -> list[Json]:
    """Rows in order of their prediction, in at most ten equal parts of at least five: means of both, and the 95 %
    interval of the true values' mean (mean ± 1.96 standard errors)."""
    order = np.argsort(v, kind="stable")
    parts = np.array_split(order, max(1, min(10, len(v) // 5)))
    return [
        {
            "rows": len(part),
            "predicted": weighted_mean(v[part], counted.among(part).weights),
            "true": weighted_mean(t[part], counted.among(part).weights),
            "interval": mean_interval(t[part], *counted.among(part)),
        }
        for part in parts
        if len(part)
    ]
