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
    scores = p[:, 1] if classes == 2 else p
    assert ours["roc_auc"] == pytest.approx(reference.roc_auc_score(y, scores, multi_class="ovr"))


def test_regression_figures_equal_scikit_learns() -> None:
    random = np.random.default_rng(0)
    t = random.normal(size=100)
    v = t + random.normal(size=100)
    ours = metrics.regression(torch.from_numpy(v), torch.from_numpy(t))
    assert ours["r2"] == pytest.approx(reference.r2_score(t, v))
    assert ours["rmse"] == pytest.approx(reference.root_mean_squared_error(t, v))
    assert ours["mae"] == pytest.approx(reference.mean_absolute_error(t, v))


def test_what_is_not_defined_on_the_rows_is_left_out_and_no_nan() -> None:
    one, same = torch.tensor([3.0]), torch.full((5,), 0.1)
    assert set(metrics.regression(one + 1, one)) == {"rmse", "mae"}
    assert set(metrics.regression(same + 1, same)) == {"rmse", "mae"}
    p, y = torch.tensor([[0.2, 0.3, 0.5]] * 4), torch.zeros(4, dtype=torch.int64)
    assert "roc_auc" not in metrics.classification(p, y)
    # A class that no test row has takes no part.
    some = metrics.classification(torch.eye(3)[[0, 1, 0]], torch.tensor([0, 1, 0]))
    assert some["roc_auc"] == 1.0
    assert metrics.first("r2", {"rmse": 1.0}) == {"rmse": 1.0}
    assert metrics.choose("r2", metrics.REGRESSION, "r2", "rmse")[1].name == "rmse"
