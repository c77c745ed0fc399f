"""Our figures are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from trainer_image.tasks import metrics


@pytest.mark.parametrize("classes", [2, 4])
def test_classification_figures_equal_scikit_learns(classes: int) -> None:
    random = np.random.default_rng(classes)
    p = random.dirichlet(np.ones(classes), 200).round(2)
    p /= p.sum(1, keepdims=True)
    y = random.integers(0, classes, 200)
    ours = metrics.classification(torch.from_numpy(p), torch.from_numpy(y))
    assert ours["accuracy"] == pytest.approx(reference.accuracy_score(y, p.argmax(1)))
    assert ours["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(y, p.argmax(1)))
    assert ours["macro_f1"] == pytest.approx(reference.f1_score(y, p.argmax(1), average="macro"))
    clipped = np.clip(p, np.finfo(np.float32).eps, 1)
    assert ours["log_loss"] == pytest.approx(-np.log(clipped[np.arange(200), y]).mean())
    if classes == 2:
        assert ours["roc_auc"] == pytest.approx(reference.roc_auc_score(y, p[:, 1]))


def test_regression_figures_equal_scikit_learns() -> None:
    random = np.random.default_rng(0)
    t = random.normal(size=100)
    v = t + random.normal(size=100)
    ours = metrics.regression(torch.from_numpy(v), torch.from_numpy(t))
    assert ours["r2"] == pytest.approx(reference.r2_score(t, v))
    assert ours["rmse"] == pytest.approx(reference.root_mean_squared_error(t, v))
    assert ours["mae"] == pytest.approx(reference.mean_absolute_error(t, v))
