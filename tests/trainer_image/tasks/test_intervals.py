"""Intervals hold what they promise; the report's findings are what a second way of counting says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer_image.tasks import metrics
from trainer_image.tasks.base import Batch, Figures, RowGroups
from trainer_image.tasks.intervals import (
    MOST_ROWS,
    bootstrap,
    calibration_by_chance,
    mean_interval,
    share_interval,
    student,
    wilson,
)


@pytest.mark.parametrize(
    ("hits", "rows", "expected"),
    # Newcombe 1998, Statistics in Medicine 17, table I: method 3, Wilson's score without continuity correction.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilsons_interval_is_the_published_one(hits: int, rows: int, expected: tuple[float, float]) -> None:
    assert wilson(hits, rows) == pytest.approx(expected, abs=5e-5)
    low, high = expected
    assert wilson(rows - hits, rows) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_a_share_of_no_rows_has_no_interval() -> None:
    assert wilson(0, 0) is None


def mean(outputs: Tensor, batch: Batch) -> Figures:
    return {"mean": float((outputs - batch["target"]).mean())}


def test_the_bootstrap_of_a_mean_is_its_standard_error_also_for_more_rows_than_a_resample_has() -> None:
    for rows in (400, 4 * MOST_ROWS):
        values = torch.from_numpy(np.random.default_rng(1).normal(5, 2, rows))
        batch = {"target": torch.zeros(rows)}
        intervals, resamples = bootstrap(mean, values, batch, mean(values, batch), seconds=60)
        assert resamples == 1000
        low, high = intervals["mean"]
        half = 1.96 * float(values.std()) / rows**0.5
        assert (high - low) / 2 == pytest.approx(half, rel=0.1)
        assert low < float(values.mean()) < high


def test_many_outputs_a_row_make_resamples_small_and_the_interval_no_other() -> None:
    random = np.random.default_rng(2)
    rows, classes = 6000, 500
    y = torch.from_numpy(random.integers(0, classes, rows))
    outputs = torch.nn.functional.one_hot(
        torch.where(torch.from_numpy(random.random(rows)) < 0.7, y, (y + 1) % classes), classes
    ).float()

    def score(outputs: Tensor, batch: Batch) -> Figures:
        assert len(outputs) == 1000
        return {"accuracy": float((outputs.argmax(1) == batch["target"]).float().mean())}

    point = {"accuracy": float((outputs.argmax(1) == y).float().mean())}
    low, high = bootstrap(score, outputs, {"target": y}, point, seconds=60)[0]["accuracy"]
    assert (low, high) == pytest.approx(wilson(round(point["accuracy"] * rows), rows), abs=0.003)


def test_the_same_outputs_give_the_same_interval_and_the_global_generator_is_left_alone() -> None:
    values, batch = torch.arange(50.0), {"target": torch.zeros(50)}
    before = torch.get_rng_state()
    assert bootstrap(mean, values, batch, {"mean": 24.5}) == bootstrap(mean, values, batch, {"mean": 24.5})
    assert torch.equal(before, torch.get_rng_state())


def test_a_score_that_wants_all_rows_or_has_no_figure_in_a_resample_costs_the_interval_only() -> None:
    def picky(outputs: Tensor, batch: Batch) -> Figures:
        if not torch.equal(outputs, torch.arange(50.0)):
            raise ValueError("not my rows")
        return {"mean": 1.0}

    def sometimes(outputs: Tensor, batch: Batch) -> Figures:
        return {"always": 1.0, "rarely": float("nan")}

    values, batch = torch.arange(50.0), {"target": torch.zeros(50)}
    assert bootstrap(picky, values, batch, {"mean": 1.0}) == ({}, 0)
    assert set(bootstrap(sometimes, values, batch, {"always": 1.0, "rarely": 2.0})[0]) == {"always"}


def test_a_score_too_slow_for_enough_resamples_gives_no_interval() -> None:
    values, batch = torch.arange(50.0), {"target": torch.zeros(50)}
    assert bootstrap(mean, values, batch, {"mean": 1.0}, seconds=-1) == ({}, 0)


def random_classifier(rows: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities and labels that are drawn as the probabilities say."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, 0.4), rows)
    y = np.array([random.choice(classes, p=row) for row in p])
    return torch.from_numpy(p), torch.from_numpy(y)


def test_of_calibrated_models_one_in_twenty_is_suspected_and_an_overconfident_one_is() -> None:
    suspected = 0
    for seed in range(40):
        p, y = random_classifier(300, 3, seed)
        found = metrics.classification_findings(p, y, ["a", "b", "c"])["calibration"]
        suspected += found["expected_calibration_error"] > found["error_by_chance"]
    assert suspected <= 5
    sharpened = p**4 / (p**4).sum(1, keepdim=True)
    boastful = metrics.classification_findings(sharpened, y, ["a", "b", "c"])["calibration"]
    assert boastful["expected_calibration_error"] > 2 * boastful["error_by_chance"]


def test_the_calibration_error_is_the_weighted_distance_of_accuracy_from_confidence() -> None:
    found = metrics.calibration(np.array([0.95, 0.95, 0.65, 0.65]), np.array([True, False, True, True]))
    assert [(b["rows"], b["accuracy"]) for b in found["bins"]] == [(2, 1.0), (2, 0.5)]
    assert found["expected_calibration_error"] == pytest.approx(0.5 * 0.35 + 0.5 * 0.45)


def test_certainty_of_one_belongs_to_the_last_bin() -> None:
    assert metrics.calibration(np.array([1.0]), np.array([True]))["bins"][0]["from"] == 0.9


def test_chance_shrinks_with_the_rows_also_beyond_those_that_are_drawn() -> None:
    def chance(rows: int) -> float:
        return calibration_by_chance(np.full(rows, 0.7), np.full(rows, 7), 10)

    assert chance(400) == pytest.approx(1.96 * (0.21 / 400) ** 0.5, rel=0.15)
    assert chance(4 * MOST_ROWS) == pytest.approx(1.96 * (0.21 / (4 * MOST_ROWS)) ** 0.5, rel=0.15)


def test_the_worst_mistakes_are_those_that_the_model_was_surest_of() -> None:
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    worst = metrics.classification_findings(p, torch.tensor([0, 0, 0, 1]), ["a", "b"])["worst"]
    assert [(entry["row"], entry["true"], entry["predicted"]) for entry in worst] == [
        (1, "a", "b"), (3, "b", "a"), (2, "a", "b"),
    ]  # fmt: skip
    assert worst[0]["probability"] == pytest.approx(0.8)
    assert worst[0]["probability_of_true"] == pytest.approx(0.2)


def test_many_classes_are_listed_by_their_confusions_without_a_matrix() -> None:
    y = torch.arange(150).repeat(3)
    said = y.clone()
    said[:2] = torch.tensor([7, 9])
    said[150] = 7
    found = metrics.classification_findings(
        torch.nn.functional.one_hot(said, 150).double(), y, [f"c{k}" for k in range(150)]
    )
    assert found["confusion_matrix"] is None
    assert found["confusions"] == [[0, 7, 2], [1, 9, 1]]
    assert len(found["per_class"]) == 150


def test_the_largest_errors_and_the_parts_of_a_regression_are_counted_right() -> None:
    truth = torch.arange(100, dtype=torch.float64)
    values = truth.clone()
    values[17] += 30
    values[40] -= 20
    found = metrics.regression_findings(values, truth)
    assert [(entry["row"], entry["residual"]) for entry in found["worst"][:2]] == [(17, 30.0), (40, -20.0)]
    assert sum(found["residual_histogram"]["counts"]) == 100
    assert [part["rows"] for part in found["calibration"]["bins"]] == [10] * 10
    assert found["absolute_error_quantiles"]["50%"] == 0.0


def unlike_groups(seed: int, groups: int = 9, rows: int = 40) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(hits, groups) of rows whose chance to be right is one for each group, spread over the whole range."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(groups), rows)
    return random.random(groups * rows) < random.random(groups)[number], number


def covered(ends: tuple[float, float] | None) -> bool:
    assert ends is not None
    return ends[0] <= 0.5 <= ends[1]


def test_intervals_that_count_by_groups_hold_where_those_that_count_rows_do_not() -> None:
    plain = grouped = drawn = means = 0
    for seed in range(100):
        hits, number = unlike_groups(seed)
        outputs = torch.from_numpy(hits.astype(np.float64))
        batch = {"target": torch.zeros(len(hits))}
        plain += covered(wilson(int(hits.sum()), len(hits)))
        grouped += covered(share_interval(hits, number))
        means += covered(mean_interval(hits.astype(np.float64), number))
        if seed < 40:
            drawn += covered(bootstrap(mean, outputs, batch, mean(outputs, batch), groups=number)[0]["mean"])
    assert plain < 60
    assert grouped >= 90
    assert means >= 90
    assert drawn >= 35


def test_groups_of_one_row_give_the_interval_of_independent_rows() -> None:
    hits = np.random.default_rng(3).random(500) < 0.8
    assert share_interval(hits, np.arange(500)) == pytest.approx(share_interval(hits), abs=5e-4)
    values = np.random.default_rng(3).normal(size=500)
    assert mean_interval(values, np.arange(500)) == pytest.approx(mean_interval(values), abs=5e-4)


def test_rows_that_are_all_right_are_worth_no_more_than_their_groups() -> None:
    hits, number = np.ones(400, bool), np.repeat(np.arange(8), 50)
    low, high = share_interval(hits, number) or (0.0, 0.0)
    assert (low < wilson(8, 8)[0], high) == (True, 1.0)  # type: ignore[index]


def test_one_group_says_nothing_of_others() -> None:
    hits, number = np.array([True, False, True]), np.zeros(3, np.int64)
    assert share_interval(hits, number) is None
    assert mean_interval(hits.astype(np.float64), number) is None
    assert bootstrap(mean, torch.ones(3), {"target": torch.zeros(3)}, {"mean": 1.0}, groups=number) == ({}, 0)


def test_students_quantile_is_the_tables() -> None:
    # Abramowitz and Stegun 1964, table 26.10.
    assert [student(n) for n in (3, 5, 10, 30)] == pytest.approx([3.182, 2.571, 2.228, 2.042], rel=2e-3)


def test_findings_of_rows_in_groups_are_as_uncertain_as_the_groups_and_judge_no_calibration() -> None:
    hits, number = unlike_groups(0)
    y = torch.from_numpy(hits.astype(np.int64))
    p = torch.tensor([[0.2, 0.8]]).repeat(len(y), 1)
    groups = RowGroups(torch.from_numpy(number), "groups by 'patient'")
    found = metrics.classification_findings(p, y, ["no", "yes"], groups)
    assert found["intervals"]["accuracy"] == share_interval(hits, number)
    assert found["per_class"][1]["precision_interval"] == share_interval(hits, number)
    assert found["calibration"]["bins"][0]["interval"] == share_interval(hits, number)
    assert found["calibration"]["error_by_chance"] is None
    values = torch.from_numpy(np.random.default_rng(0).normal(size=len(y)) + 3 * number)
    said = torch.from_numpy(np.random.default_rng(1).normal(size=len(y)))
    together, alone = (
        metrics.regression_findings(said, values, them)["calibration"]["bins"][0]["interval"] for them in (groups, None)
    )
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])
