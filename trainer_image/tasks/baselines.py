"""What a model has to beat: a constant answer and a linear model, fitted by scikit-learn on the same rows.

Each takes plain arrays: inputs (rows, features), targets (rows,); the inputs of the test in parts, one at a time.
Fitting stops being worth its time on large data: of more than MOST_ROWS rows callers pass MOST_ROWS evenly spaced ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer_image.tasks import metrics
from trainer_image.tasks.base import Figures

MOST_ROWS = 20_000
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Weights:
    """How much rows count, if not alike: those to fit on, and those of the test, (rows,) each."""

    fit: Array | None = None
    test: Tensor | None = None

    def of(self, *steps: str) -> dict[str, Array]:
        """What `fit` of a pipeline with these steps takes."""
        # As if all were alike in the mean: penalties are for so many rows.
        return {} if self.fit is None else {f"{step}__sample_weight": self.fit / self.fit.mean() for step in steps}


EQUAL = Weights()


def classification(
    x: Array, y: Array, test_parts: Iterable[Array], test_y: Array, classes: int, weights: Weights = EQUAL
) -> dict[str, Figures]:
    """Most frequent class and logistic regression."""
    from sklearn.linear_model import LogisticRegression

    model = _scaled(LogisticRegression(max_iter=200))
    return {
        "trivial": most_frequent(y, test_y, classes, weights),
        "linear": linear_classes(model, x, y, test_parts, test_y, classes, weights),
    }


def most_frequent(y: Array, test_y: Array, classes: int, weights: Weights = EQUAL) -> Figures:
    """Figures of the most frequent class, with all classes' frequencies as probabilities."""
    counts = np.bincount(y, weights.fit, minlength=classes)
    frequencies = torch.from_numpy(counts / counts.sum()).expand(len(test_y), classes)
    return metrics.classification(frequencies, torch.from_numpy(test_y), weights=weights.test)


def linear_classes(
    model: Any, x: Any, y: Array, test_parts: Iterable[Any], test_y: Array, classes: int, weights: Weights = EQUAL
) -> Figures:
    """Figures of a scikit-learn classifier, once it is fitted; a class that it has not seen gets no probability.

    weights: those to fit with are for what `_scaled` makes
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not having converged is part of being a baseline
        model.fit(x, y, **weights.of("standardscaler", "logisticregression"))
    probabilities = np.zeros((len(test_y), classes))
    probabilities[:, model.classes_] = np.concatenate([model.predict_proba(part) for part in test_parts])
    return metrics.classification(torch.from_numpy(probabilities), torch.from_numpy(test_y), weights=weights.test)


def regression(
    x: Array,
    y: Array,
    test_parts: Iterable[Array],
    test_y: Array,
    possible: Callable[[Tensor], Tensor],
    weights: Weights = EQUAL,
) -> dict[str, Figures]:
    """The mean and ridge regression with a small penalty (so that collinear columns do no harm). possible: keeps
    predictions within what the target can be, as the model's are."""
    from sklearn.linear_model import Ridge

    targets = torch.from_numpy(test_y).double()
    model = _scaled(Ridge(alpha=1.0)).fit(x, y, **weights.of("standardscaler", "ridge"))
    predicted = np.concatenate([model.predict(part) for part in test_parts])
    mean = torch.full_like(targets, float(np.average(y, weights=weights.fit)))
    return {
        "trivial": metrics.regression(mean, targets, weights.test),
        "linear": metrics.regression(possible(torch.from_numpy(predicted)), targets, weights.test),
    }


def _scaled(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)
