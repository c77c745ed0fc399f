"""Which models are published together: near equals share the weight, one that is clearly better has it alone."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from trainer_image.engine import blend
from trainer_image.tasks import metrics
from trainer_image.tasks.base import Batch, Figures, Metric, Predictor

RMSE = Metric("rmse", higher_is_better=False)


class Values(Predictor):
    def score(self, outputs: Tensor, batch: Batch) -> Figures:
        return metrics.regression(outputs, batch["target"])

    build_model = outputs = read = predictions = cast("Any", None)


def drawn(rows: int, errors: dict[str, float], noise: float = 0.0) -> tuple[dict[str, Tensor], Batch]:
    """Predictions that are off by so much, each in its own way, of targets with noise of their own."""
    generator = torch.Generator().manual_seed(rows)
    truth = torch.randn(rows, generator=generator)
    outputs = {name: truth + error * torch.randn(rows, generator=generator) for name, error in errors.items()}
    return outputs, {"target": truth + noise * torch.randn(rows, generator=generator)}


def chosen(rows: int, errors: dict[str, float], noise: float = 0.0, metric: Metric = RMSE) -> blend.Weights:
    return blend.choose(Values(), *drawn(rows, errors, noise), metric)


@pytest.mark.parametrize("rows", [30, 1000, 30_000])
def test_a_model_that_is_clearly_better_is_published_alone(rows: int) -> None:
    assert chosen(rows, {"far": 2.0, "near": 0.1}) == {"near": 1.0}


@pytest.mark.parametrize("rows", [60, 1000])
def test_near_equals_share_the_weight(rows: int) -> None:
    weights = chosen(rows, {"a": 0.5, "b": 0.5, "c": 0.52}, noise=0.5)
    assert set(weights) == {"a", "b", "c"}
    assert min(weights.values()) > 0.15
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3)


def test_few_noisy_rows_do_not_give_one_of_several_models_everything() -> None:
    weights = chosen(40, {"a": 0.4, "b": 0.5, "c": 0.6}, noise=3.0)
    assert max(weights.values()) < 0.9


def test_the_same_outputs_give_the_same_weights() -> None:
    assert chosen(100, {"a": 0.5, "b": 0.6}) == chosen(100, {"a": 0.5, "b": 0.6})


def test_of_equals_and_of_too_few_rows_the_first_and_the_best_is_taken() -> None:
    outputs, split = drawn(40, {"cheap": 0.3})
    assert blend.choose(Values(), {**outputs, "dear": outputs["cheap"].clone()}, split, RMSE) == {"cheap": 1.0}
    assert chosen(5, {"far": 3.0, "near": 0.1}) == {"near": 1.0}


def test_a_figure_without_a_meaning_for_these_rows_decides_nothing() -> None:
    outputs, split = drawn(20, {"a": 0.3, "b": 0.1})
    constant = {"target": torch.zeros_like(split["target"])}
    assert blend.choose(Values(), outputs, constant, Metric("r2")) == {"a": 1.0}


def test_what_few_validation_rows_mistake_more_rows_put_right_and_the_network_is_compared_on_those_few() -> None:
    known, rows = drawn(600, {"good": 0.3, "bad": 1.5})
    few, split = {name: each[:20] for name, each in known.items()}, {"target": rows["target"][:20]}
    few |= {"good": few["good"] + 3.0, "network": split["target"] + 10.0}
    assert blend.choose(Values(), few, split, RMSE)["bad"] > 0.5
    assert blend.with_more_rows(Values(), few, split, known, rows, RMSE) == {"good": 1.0}
    few |= {"network": split["target"].clone()}
    assert blend.with_more_rows(Values(), few, split, known, rows, RMSE) == {"network": 1.0}


def test_a_model_that_chose_its_best_epoch_by_these_rows_has_half_of_the_weight_unless_they_are_sure() -> None:
    outputs, rows = drawn(100, {"linear": 0.5, "better": 0.4, "far_better": 0.1})
    known = {"linear": outputs["linear"]}

    def network(name: str, *, flattered: bool) -> float:
        found = known | {"network": outputs[name]}
        return blend.with_more_rows(Values(), found, rows, known, rows, RMSE, flattered=flattered)["network"]

    assert 0.5 < network("better", flattered=False) < 0.9
    assert network("better", flattered=True) == 0.5
    assert network("far_better", flattered=True) > 0.9


def test_weights_of_both_comparisons_add_up_to_one() -> None:
    outputs, rows = drawn(300, {"a": 0.5, "b": 0.5, "network": 0.5}, noise=0.5)
    known = {name: outputs[name] for name in ("a", "b")}
    weights = blend.with_more_rows(Values(), outputs, rows, known, rows, RMSE)
    assert list(weights) == ["a", "b", "network"]
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
