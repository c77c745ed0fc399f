"""First weights of a small text classifier: a linear support vector machine by scikit-learn (liblinear), one class
against the rest, on the rows' own features."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# Its margins are -1 and 1; as logits they would be unsure of everything. Not tuned: training goes on from here.
SCALE = 4.0
NEVER = -20.0


def support_vectors(
    values: Array, indices: Array, ends: Array, targets: Array, features: int, classes: int
) -> tuple[Array, Array]:
    """Sparse rows (values and indices, row i from ends[i] to ends[i + 1]) and targets (rows,) → weights (classes,
    features) and biases (classes,) float32. A class without a row is never chosen."""
    from scipy.sparse import csr_matrix
    from sklearn.svm import LinearSVC

    rows = csr_matrix((values, indices, ends), shape=(len(targets), features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what has not converged is trained on anyway
        model = LinearSVC(random_state=0).fit(rows, targets)
    found, offsets = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one plane between two classes: half for the one, half against the other
        found, offsets = np.concatenate([-found, found]) / 2, np.concatenate([-offsets, offsets]) / 2
    weight, bias = np.zeros((classes, features), np.float32), np.full(classes, NEVER, np.float32)
    weight[model.classes_], bias[model.classes_] = SCALE * found, SCALE * offsets
    return weight, bias
