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
from trainer_image.tasks.base import Figures, Json, Metric

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

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


def choose(metric: str, known: dict[str, Metric], headline: str, selection: str) -> tuple[Metric, Metric]:
    """(headline, selection) for the configuration's `train.metric`; ConfigInvalid names the figures there are."""
    if metric == "auto":
        return known[headline], known[selection]
    if metric not in known:
        raise ConfigInvalid(
            f"Invalid configuration: train.metric: '{metric}' is no figure of this task; "
            f"one of {', '.join(known)} or auto would be right"
        )
    return known[metric], known[metric]


def first(name: str, figures: Figures) -> Figures:
    """The same figures with `name` leading."""
    return {name: figures[name], **{k: v for k, v in figures.items() if k != name}}


def confusion_matrix(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts (classes, classes): true class down, predicted class across."""
    counts: Ints = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return counts


def classification(probabilities: Tensor, labels: Tensor) -> Figures:
    """Figures of class probabilities (rows, classes) against labels (rows,) int64."""
    p = probabilities.double().numpy()
    y = labels.numpy().astype(np.int64)
    predicted = p.argmax(1)
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
    if p.shape[1] == 2 and present.all():
        figures["roc_auc"] = _roc_auc(p[:, 1], y)
    return figures


def _roc_auc(score: Floats, y: Ints) -> float:
    """The share of (positive, negative) pairs in the right order, ties counted half (Mann-Whitney)."""
    _, rank_of, count = np.unique(score, return_inverse=True, return_counts=True)
    average = np.cumsum(count) - (count - 1) / 2
    ranks = average[rank_of]
    positives = int(y.sum())
    negatives = len(y) - positives
    return float((ranks[y == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def regression(values: Tensor, targets: Tensor) -> Figures:
    """Figures of predictions (rows,) against targets (rows,), both in the target's unit."""
    v, t = values.double().numpy(), targets.double().numpy()
    residual = v - t
    spread = float(((t - t.mean()) ** 2).sum())
    return {
        "r2": 1 - float((residual**2).sum()) / spread if spread > 0 else 0.0,
        "rmse": float(np.sqrt((residual**2).mean())),
        "mae": float(np.abs(residual).mean()),
    }


def classification_findings(probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> Json:
    """Confusion matrix and per-class figures, for the report."""
    y = labels.numpy().astype(np.int64)
    counts = confusion_matrix(y, probabilities.argmax(1).numpy(), len(names))
    per_class = []
    for index, name in enumerate(names):
        hits, true, said = counts[index, index], counts[index].sum(), counts[:, index].sum()
        per_class.append(
            {
                "label": name,
                "rows": int(true),
                "recall": float(hits / true) if true else None,
                "precision": float(hits / said) if said else None,
            }
        )
    return {
        "kind": "classification",
        "labels": list(names),
        "confusion_matrix": counts.tolist(),
        "per_class": per_class,
    }


def regression_findings(values: Tensor, targets: Tensor) -> Json:
    """Predicted against true (an even sample of at most SHOWN_POINTS) and the residuals' quantiles, for the report."""
    v, t = values.double().numpy(), targets.double().numpy()
    step = max(1, -(-len(v) // SHOWN_POINTS))
    quantiles = np.quantile(v - t, [0.05, 0.25, 0.5, 0.75, 0.95])
    return {
        "kind": "regression",
        "points": [[float(a), float(b)] for a, b in zip(t[::step], v[::step], strict=True)],
        "residual_quantiles": dict(zip(["5%", "25%", "50%", "75%", "95%"], map(float, quantiles), strict=True)),
    }
