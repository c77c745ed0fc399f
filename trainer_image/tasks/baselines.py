"""What a model has to beat: a constant answer and a linear model, fitted by scikit-learn on the same rows.

Each takes plain arrays: inputs (rows, features), targets (rows,); the inputs of the test in parts, one at a time.
Fitting stops being worth its time on large data, so that at most MOST_ROWS rows, evenly spaced, are fitted on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from trainer_image.tasks import metrics
from trainer_image.tasks.base import Figures

MOST_ROWS = 20_000
Array = np.ndarray[Any, Any]


def classification(x: Array, y: Array, test_parts: Iterable[Array], test_y: Array, classes: int) -> dict[str, Figures]:
    """Most frequent class (with its frequencies as probabilities) and logistic regression."""
    labels = torch.from_numpy(test_y)
    frequencies = torch.from_numpy(np.bincount(y, minlength=classes) / len(y)).expand(len(test_y), classes)
    linear = np.zeros((len(test_y), classes))
    x, y = _thinned(x, y)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not having converged is part of being a baseline
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x, y)
    linear[:, model.classes_] = np.concatenate([model.predict_proba(part) for part in test_parts])
    return {
        "trivial": metrics.classification(frequencies, labels),
        "linear": metrics.classification(torch.from_numpy(linear), labels),
    }


def regression(x: Array, y: Array, test_parts: Iterable[Array], test_y: Array) -> dict[str, Figures]:
    """The mean and ridge regression with a small penalty (so that collinear columns do no harm)."""
    targets = torch.from_numpy(test_y).double()
    mean = torch.full_like(targets, float(y.mean()))
    x, y = _thinned(x, y)
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(x, y)
    predicted = np.concatenate([model.predict(part) for part in test_parts])
    return {
        "trivial": metrics.regression(mean, targets),
        "linear": metrics.regression(torch.from_numpy(predicted), targets),
    }


def _thinned(x: Array, y: Array) -> tuple[Array, Array]:
    if len(y) <= MOST_ROWS:
        return x, y
    index = np.linspace(0, len(y) - 1, MOST_ROWS).astype(np.int64)
    return x[index], y[index]
