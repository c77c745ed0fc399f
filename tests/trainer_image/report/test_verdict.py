"""The verdict says the truth about a model beside its baselines, and where its figures promise too much."""

from __future__ import annotations

from typing import Any

import pytest

from trainer_image.report.verdict import verdict
from trainer_image.tasks.metrics import CLASSIFICATION, REGRESSION

ACCURACY, R2, RMSE = CLASSIFICATION["accuracy"], REGRESSION["r2"], REGRESSION["rmse"]


def of(
    own: float, linear: float, interval: tuple[float, float] | None = None, members: tuple[str, ...] = ("network",)
) -> dict[str, Any]:
    return verdict(
        ACCURACY,
        {"accuracy": own},
        {"trivial": {"accuracy": 0.5}, "linear": {"accuracy": linear}},
        interval,
        members=members,
    )


def test_a_model_no_better_than_a_baseline_says_so_loudly() -> None:
    found = of(0.9, 0.9, (0.85, 0.94))
    assert not found["better_than_baselines"]
    assert found["level"] == "bad"
    assert found["sentence"].startswith(
        "THIS MODEL IS NOT BETTER THAN THE LINEAR BASELINE (0.9): its test accuracy 0.9."
    )
    assert found["sentence"].endswith("the difference may be chance.")
    assert "chance" not in of(0.8, 0.9, (0.75, 0.85))["sentence"]


def test_better_by_more_than_chance_and_by_less() -> None:
    assert (of(0.9, 0.7, (0.85, 0.94))["level"], of(0.9, 0.86, (0.85, 0.94))["level"]) == ("good", "close")
    assert "it may be by chance" in of(0.9, 0.86, (0.85, 0.94))["sentence"]


def test_a_tie_with_a_perfect_baseline_is_no_failure() -> None:
    found = of(1.0, 1.0, (0.9, 1.0))
    assert found["level"] == "good"
    assert "NOT BETTER" not in found["sentence"]
    assert "no model can be better, and the linear baseline is as good" in found["sentence"]
    exact = verdict(RMSE, {"rmse": 0.0}, {"linear": {"rmse": 0.0}}, None)
    assert exact["level"] == "good"


@pytest.mark.parametrize(("own", "level"), [(0.9, "good"), (0.88, "good"), (0.6, "bad")])
def test_a_published_linear_model_is_said_to_be_the_model_unless_its_baseline_is_truly_better(
    own: float, level: str
) -> None:
    found = of(own, 0.9, (own - 0.05, own + 0.05), ("linear",))
    assert found["level"] == level
    assert ("The linear model is the model that is published" in found["sentence"]) == (level == "good")
    assert of(0.88, 0.9, (0.83, 0.93), ("linear", "network"))["level"] == "bad"


def test_a_figure_that_is_not_defined_is_said_not_to_be_and_is_no_nan() -> None:
    found = verdict(R2, {"rmse": 3.0, "mae": 3.0}, {"trivial": {"rmse": 4.0}}, None)
    assert found["sentence"] == ("Test R² is not defined: all test rows have the same target. Test RMSE 3, MAE 3.")
    assert found["level"] == "close"


def test_probabilities_that_nobody_should_rely_on_are_named() -> None:
    def sentence(log_loss: float, error: float, chance: float | None) -> str:
        found = {"expected_calibration_error": error, "error_by_chance": chance}
        figures = {"accuracy": 0.9, "log_loss": log_loss}
        baselines = {"trivial": {"accuracy": 0.5, "log_loss": 1.05}}
        return str(verdict(ACCURACY, figures, baselines, None, calibration=found)["sentence"])

    assert "a constant answer's are nearer the truth (log loss 1.05 against 1.63)" in sentence(1.63, 0.01, 0.02)
    assert "not to be relied on: on average they are 24% off" in sentence(0.5, 0.24, 0.02)
    # By chance, too little to matter, or not known: nothing is said.
    assert all("relied" not in sentence(0.5, *each) for each in ((0.24, 0.3), (0.03, 0.01), (0.24, None)))


def test_figures_too_good_to_be_true_name_the_column_that_makes_them() -> None:
    def said(own: float, loss: float) -> dict[str, Any]:
        columns = [{"column": "price_with_tax", "loss": loss, "lowest": loss, "highest": loss}]
        importance = {"figure": "r2", "whole": own, "rows": 100, "repeats": 5, "columns": columns}
        return verdict(R2, {"r2": own}, {"trivial": {"r2": -0.01}}, None, importance=importance)

    found = said(0.998, 1.2)
    assert "too good to be true, unless column 'price_with_tax' is known before the answer is" in found["sentence"]
    assert found["level"] == "close"
    assert "too good" not in said(0.998, 0.2)["sentence"] + said(0.9, 1.2)["sentence"]


@pytest.mark.parametrize(
    ("before", "own", "level", "said"),
    [
        ({"known": True, "rows": 0, "of": 9, "tested": 9}, 0.9, "good", "better than the baselines"),
        ({"known": True, "rows": 4, "of": 9, "tested": 5}, 0.9, "good", "Left out are 4 of 9 test rows, on which"),
        ({"known": True, "rows": 9, "of": 9, "tested": 0}, 0.9, "bad", "trained on all 9 test rows. What it is worth"),
        ({"known": False}, 0.9, "close", "It is not known which rows the model was trained on that this one begins"),
        ({"known": False}, 0.6, "bad", "THIS MODEL IS NOT BETTER THAN THE LINEAR BASELINE"),
    ],
)  # fmt: skip
def test_a_model_that_began_with_another_one_is_not_praised_for_what_that_knew(
    before: dict[str, Any], own: float, level: str, said: str
) -> None:
    baselines = {"trivial": {"accuracy": 0.5}, "linear": {"accuracy": 0.7}}
    interval = (own - 0.05, own + 0.05)
    found = verdict(ACCURACY, {"accuracy": own}, baselines, interval, members=("network",), before=before)
    assert found["level"] == level
    assert said in found["sentence"]
    assert ("better than the baselines" in found["sentence"]) == (own == 0.9 and before.get("tested") != 0)
    assert found["better_than_baselines"] == found["beyond_chance"] == (level == "good")


@pytest.mark.parametrize(
    ("share", "without", "level", "told"),
    [
        (0.02, 0.8, "good", ""),
        (0.5, 0.8, "close", "50% of the test rows are also among those that it was trained on: on the others its"),
        (1.0, None, "close", "100% of the test rows are also among those that it was trained on: what it is worth"),
    ],
)
def test_a_figure_that_rows_make_which_the_model_knows_by_heart_promises_nothing(
    share: float, without: float | None, level: str, told: str
) -> None:
    again = {"rows": 1, "share": share, "figure": "accuracy", "without": without}
    found = verdict(ACCURACY, {"accuracy": 1.0}, {"linear": {"accuracy": 1.0}}, None, again=again)
    assert found["level"] == level
    assert told in found["sentence"]
    assert ("trained on" in found["sentence"]) == bool(told)


def test_a_model_that_is_worse_than_a_mean_is_not_praised_for_beating_worse_ones() -> None:
    found = verdict(R2, {"r2": -3.0}, {"trivial": {"r2": -9.0}, "linear": {"r2": -8.0}}, (-4.0, -2.0))
    assert found["level"] == "close"
    assert found["sentence"].endswith("R² below 0: the mean of the test rows alone would predict them better.")


def test_several_baselines_within_the_interval_are_several() -> None:
    found = verdict(R2, {"r2": 0.3}, {"trivial": {"r2": 0.0}, "linear": {"r2": 0.1}}, (-0.1, 0.5))
    assert "The trivial and linear baselines lie within its 95 % interval" in found["sentence"]
