"""The figures that models are judged by, and what else a report shows of a test split.

Our own few lines instead of scikit-learn's: `predict` then needs neither it nor the second that importing it takes.
Definitions are scikit-learn's; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def confusion_matrix(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts (classes, classes): true class down, predicted class across."""
    counts: Ints = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return counts


def classification(probabilities: Tensor, labels: Tensor, said: Tensor | None = None) -> Figures:
    """Figures of class probabilities (rows, classes) against labels (rows,) int64. said: the answers, (rows,) int64,
    where they are others than the likeliest classes. ROC AUC of more than two classes is the mean of each one against
    the rest; there is none where all rows are of one class."""
    p = probabilities.double().numpy()
    y = labels.numpy().astype(np.int64)
    predicted = p.argmax(1) if said is None else said.numpy()
    counts = confusion_matrix(y, predicted, p.shape[1])
    hits, true, said = np.diag(counts), counts.sum(1), counts.sum(0)
    present = true > 0
    seen = (true + said) > 0
    figures = {
        "accuracy": float(hits.sum() / max(1, len(y))),
        "balanced_accuracy": float((hits[present] / true[present]).mean()),
        "macro_f1": float((2 * hits[seen] / (true[seen] + said[seen])).mean()),
        "log_loss": float(-np.log(np.clip(p[np.arange(len(y)), y], np.finfo(np.float32).eps, 1)).mean()),
    }
    if present.sum() > 1:
        judged = np.array([1]) if p.shape[1] == 2 else np.flatnonzero(present)
        figures["roc_auc"] = float(_roc_auc(p[:, judged], y[:, None] == judged).mean())
    return figures


def _roc_auc(scores: Floats, true: Bools) -> Floats:
    """For each column of both (rows, columns), the share of (true, other) pairs of rows in the right order, ties
    counted half (Mann-Whitney)."""
    rows, columns = scores.shape
    order = np.argsort(scores, axis=0)
    ascending = np.take_along_axis(scores, order, 0).T
    # Equal scores share the mean of their ranks.
    new = np.ones((columns, rows), bool)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    tie = np.cumsum(new) - 1
    count = np.bincount(tie)
    mean = np.cumsum(count) - (count - 1) / 2
    ranks = mean[tie].reshape(columns, rows) - rows * np.arange(columns)[:, None]
    hits = np.take_along_axis(true, order, 0).T
    positives = hits.sum(1)
    found: Floats = ((ranks * hits).sum(1) - positives * (positives + 1) / 2) / (positives * (rows - positives))
    return found


def regression(values: Tensor, targets: Tensor) -> Figures:
    """Figures of predictions (rows,) against targets (rows,), both in the target's unit. There is no R² where all
    targets are the same, of one row above all."""
    v, t = values.double().numpy(), targets.double().numpy()
    residual = v - t
    spread = float(((t - t.mean()) ** 2).sum())
    explained = {"r2": 1 - float((residual**2).sum()) / spread} if t.min() < t.max() and spread > 0 else {}
    return explained | {"rmse": float(np.sqrt((residual**2).mean())), "mae": float(np.abs(residual).mean())}


def classification_findings(
    probabilities: Tensor,
    labels: Tensor,
    names: Sequence[str],
    test_groups: RowGroups | None = None,
    calibrated: Calibration = UNCALIBRATED,
) -> Json:
    """What the report shows of class probabilities (rows, classes) against labels (rows,): confusions, figures of each
    class, calibration, the worst mistakes. Intervals are `share_interval`'s, 95 %. calibrated: how the probabilities
    were scaled, and how the answers are decided."""
    p = probabilities.double().numpy()
    y = labels.numpy().astype(np.int64)
    said, likeliest = calibrated.decide(probabilities).numpy(), p.argmax(1)
    counts = confusion_matrix(y, said, len(names))
    groups = numbers_of(test_groups)
    return {
        "kind": "classification",
        "labels": list(names),
        "confusion_matrix": counts.tolist() if len(names) <= LARGEST_MATRIX else None,
        "confusions": _confusions(counts),
        "per_class": [_of_class(counts, index, name, y, said, groups) for index, name in enumerate(names)],
        "intervals": {"accuracy": share_interval(said == y, groups)},
        "calibration": calibration(p.max(1), likeliest == y, groups) | {"temperature": calibrated.temperature},
        "offsets": dict(zip(names, calibrated.offsets, strict=False)),
        "worst": _surest_mistakes(p, y, said, names),
    }


def numbers_of(groups: RowGroups | None) -> Ints | None:
    """The number of each row's group (rows,), None where rows stand for themselves."""
    return None if groups is None else groups.of.numpy().astype(np.int64)


def _confusions(counts: Ints) -> list[list[int]]:
    """[true class, predicted class, rows] of the most frequent mistakes."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    true, said = np.nonzero(wrong)
    order = np.argsort(-wrong[true, said], kind="stable")[:SHOWN_CONFUSIONS]
    return [[int(true[k]), int(said[k]), int(wrong[true[k], said[k]])] for k in order]


def _of_class(counts: Ints, index: int, name: str, y: Ints, chosen: Ints, groups: Ints | None) -> Json:
    hits, true, said = int(counts[index, index]), int(counts[index].sum()), int(counts[:, index].sum())
    return {
        "label": name,
        "rows": true,
        "recall": hits / true if true else None,
        "recall_interval": _interval_among(y == index, chosen == index, groups),
        "precision": hits / said if said else None,
        "precision_interval": _interval_among(chosen == index, y == index, groups),
        "f1": 2 * hits / (true + said) if true + said else None,
    }


def _interval_among(rows: Bools, hits: Bools, groups: Ints | None) -> Interval | None:
    """The interval of the share of hits among these rows."""
    return share_interval(hits[rows], None if groups is None else groups[rows])


def calibration(confidence: Floats, right: Bools, groups: Ints | None = None) -> Json:
    """Whether a model that says 80 % is right in 80 of 100 rows: both (rows,), of the predicted class.

    Ten bins of equal width; the expected calibration error is the mean distance of confidence and accuracy, weighted
    by rows (Guo et al. 2017, arXiv 1706.04599, equation 3). What chance makes of it is known of independent rows only.
    """
    bins = np.clip((confidence * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    rows = np.bincount(bins, minlength=CALIBRATION_BINS)
    sure = np.bincount(bins, confidence, CALIBRATION_BINS)
    hits = np.bincount(bins, right, CALIBRATION_BINS)
    return {
        "bins": [
            {
                "from": b / CALIBRATION_BINS,
                "to": (b + 1) / CALIBRATION_BINS,
                "rows": int(rows[b]),
                "confidence": float(sure[b] / rows[b]),
                "accuracy": float(hits[b] / rows[b]),
                "interval": _interval_among(bins == b, right, groups),
            }
            for b in range(CALIBRATION_BINS)
            if rows[b]
        ],
        "expected_calibration_error": float(np.abs(sure - hits).sum() / max(1, len(confidence))),
        "error_by_chance": calibration_by_chance(confidence, bins, CALIBRATION_BINS)
        if len(confidence) and groups is None
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


def regression_findings(values: Tensor, targets: Tensor, test_groups: RowGroups | None = None) -> Json:
    """What the report shows of predictions (rows,) against targets (rows,), both in the target's unit: an even sample
    of the rows, residuals (predicted - true), predictions against truth by tenths, the worst mistakes."""
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
        "calibration": {"bins": _by_tenths(v, t, numbers_of(test_groups))},
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


def _by_tenths(v: Floats, t: Floats, groups: Ints | None) -> list[Json]:
    """Rows in order of their prediction, in at most ten equal parts of at least five: means of both, and the 95 %
    interval of the true values' mean (mean ± 1.96 standard errors)."""
    order = np.argsort(v, kind="stable")
    parts = np.array_split(order, max(1, min(10, len(v) // 5)))
    return [
        {
            "rows": len(part),
            "predicted": float(v[part].mean()),
            "true": float(t[part].mean()),
            "interval": mean_interval(t[part], None if groups is None else groups[part]),
        }
        for part in parts
        if len(part)
    ]
