"""Probabilities are made to mean what they say, and answers to serve the figure, without fitting a few rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer_image.tasks import metrics
from trainer_image.tasks.base import restored
from trainer_image.tasks.calibration import UNCALIBRATED, Calibration, fit


def honest(rows: int, shares: tuple[float, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities of classes with these shares, and labels that are drawn as they say."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.array(shares) * 3, rows)
    return torch.from_numpy(p), torch.from_numpy(
        (random.random((rows, 1)) > p.cumsum(1)).sum(1).clip(max=len(shares) - 1)
    )


def sharpened(p: Tensor, power: float) -> Tensor:
    return p**power / (p**power).sum(1, keepdim=True)


@pytest.mark.parametrize("power", [4.0, 0.5])
def test_a_model_that_is_too_sure_or_too_modest_is_brought_back_to_what_it_knows(power: float) -> None:
    p, y = honest(3000, (0.4, 0.3, 0.3))
    found = fit(sharpened(p, power), y, "accuracy")
    assert found.temperature == pytest.approx(power, rel=0.12)
    assert found.offsets == ()
    scaled = found.apply(sharpened(p, power))
    before, after = (metrics.classification(q, y)["log_loss"] for q in (sharpened(p, power), scaled))
    assert after < before - 0.01
    assert torch.equal(scaled.argmax(1), p.argmax(1))


def test_ten_rows_that_are_all_right_make_no_model_certain() -> None:
    found = fit(torch.tensor([[0.9, 0.1]] * 10), torch.zeros(10, dtype=torch.int64), "accuracy")
    assert 0.85 < found.temperature <= 1
    assert fit(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), "macro_f1") == UNCALIBRATED


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_answers_under_imbalance_are_better_by_the_figure_that_is_asked_for(metric: str) -> None:
    p, y = honest(4000, (0.9, 0.07, 0.03))
    found = fit(p[:1000], y[:1000], metric)
    rest, truth = found.apply(p[1000:]), y[1000:]
    decided = metrics.classification(rest, truth, found.decide(rest))[metric]
    assert decided > metrics.classification(rest, truth)[metric] + 0.03
    # The same probabilities: what does not depend on the answers is as before.
    assert (
        metrics.classification(rest, truth, found.decide(rest))["log_loss"]
        == (metrics.classification(rest, truth)["log_loss"])
    )


def test_a_tiny_split_moves_no_answer_to_where_other_rows_lose_by_it() -> None:
    worst = 0.0
    for seed in range(20):
        p, y = honest(2030, (0.85, 0.15), seed)
        found = fit(p[:30], y[:30], "macro_f1")
        rest, truth = p[30:], y[30:]
        plain, decided = (
            metrics.classification(rest, truth, said)["macro_f1"] for said in (None, found.decide(found.apply(rest)))
        )
        worst = min(worst, decided - plain)
    assert worst > -0.03


def test_probabilities_of_nought_and_one_stay_probabilities() -> None:
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = fit(p, torch.tensor([0, 1, 1]), "balanced_accuracy")
    assert found.temperature > 1
    scaled = found.apply(p)
    assert torch.isfinite(scaled).all()
    assert scaled.sum(1).tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_what_a_strangers_model_says_of_its_calibration_is_checked() -> None:
    found = Calibration(1.5, (0.0, 0.7))
    assert restored(Calibration, {"temperature": 1.5, "offsets": [0.0, 0.7]}) == found
    assert found.of(2) is found
    with pytest.raises(ValueError, match="2 offsets for 3 classes"):
        found.of(3)
    for wrong in ({"temperature": 0.0}, {"temperature": 1e9}, {"offsets": [1e9]}, {"scale": 1.0}):
        with pytest.raises(ValueError, match="Calibration"):
            restored(Calibration, wrong)


def test_rows_are_scaled_and_decided_each_by_itself() -> None:
    p, _ = honest(100, (0.6, 0.4))
    found = Calibration(1.7, (0.0, 0.5))
    parts = [found.apply(part.float()) for part in p.split(7)]
    assert torch.equal(torch.cat(parts), found.apply(p.float()))
