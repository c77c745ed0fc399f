"""The network by folds: what it says of rows that it has not seen, and for how many of them there is time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tests.world.training_data import TABULAR, run_inputs, value_table
from trainer_image.engine import folds
from trainer_image.engine.course import Course
from trainer_image.engine.plan import Plan
from trainer_image.engine.steps.position import Position
from trainer_image.engine.training import train
from trainer_image.tasks.base import Problem, TaskSettings
from trainer_image.tasks.tabular.task import TabularProblem


def prepared(folder: Path, seconds: float = 60.0) -> tuple[Problem, Plan]:
    value_table(folder)
    problem = TabularProblem(folder, TaskSettings(target="y", preset="fast"))
    return problem, Plan(problem.recipe, seed=0, time_budget=seconds, device=torch.device("cpu"))


def test_the_network_has_not_seen_the_rows_that_it_is_compared_by(tmp_path: Path) -> None:
    problem, plan = prepared(tmp_path)
    initial, fold_of = problem.predictor.build_model().state_dict(), problem.folds(0)
    assert fold_of is not None

    def found(*, go_on: bool = True) -> folds.Folded | None:
        torch.manual_seed(0)
        at = Position(best_step=4, planned=6)
        return folds.network(problem, plan, at, initial, fold_of, 2, lambda: go_on)

    before = found()
    train = problem.splits["train"]["target"]
    train[fold_of[: len(train)] == 0] += 10.0
    after = found()
    assert before is not None
    assert after is not None
    assert torch.equal(before.rows, torch.nonzero(fold_of < 2).squeeze(1))
    first = fold_of[before.rows] == 0
    assert torch.equal(before.outputs[first], after.outputs[first])
    assert not torch.equal(before.outputs[~first], after.outputs[~first])
    assert found(go_on=False) is None


def test_a_training_ends_where_the_network_cannot_be_fitted_by_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value_table(tmp_path / "data")
    asked = []

    def fails(*given: Any) -> None:
        asked.append(given)
        raise ValueError("a fold without a class")

    monkeypatch.setattr(folds, "network", fails)
    several = TABULAR.replace("[network]", "[network, linear, random forest]")
    assert "r2" in train(run_inputs(tmp_path / "data", tmp_path / "out", several)).metrics
    assert len(asked) == 1


@pytest.mark.parametrize(("budget", "wanted"), [(20.0, 0), (30.0, 2), (100.0, 4)])
def test_the_network_is_fitted_by_folds_only_in_the_time_that_refits_leave(
    tmp_path: Path, budget: float, wanted: int
) -> None:
    """A tenth of a second a step: 5 s for the best network, 3.75 s for one without a fold, 7 s for all refits."""
    problem, plan = prepared(tmp_path, budget)
    plan = Plan(**{**vars(plan), "recipe": SimpleNamespace(refit=True)})
    contest = SimpleNamespace(seconds=lambda at: 0.5, comparing=0.5, again=lambda at: 1.0)
    course = Course(problem, plan, cast("Any", contest), lambda: 11.0)
    assert course.folds(Position(step=100, best_step=50), 4) == wanted
