"""Which of several networks is trained: the largest with time for enough epochs, and no more is measured than that; and
what `validate` says where the time budget holds none of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tests.world.training_data import TABULAR, class_table, documents, image_folder, run_inputs
from trainer_image.engine import sizing
from trainer_image.engine.plan import Plan
from trainer_image.engine.training import validate_dataset
from trainer_image.errors import GpuOutOfMemory
from trainer_image.tasks import task_named
from trainer_image.tasks.base import NetworkSize, Problem, Recipe, TaskSettings
from trainer_image.tasks.tabular.task import TabularProblem

RECIPE = Recipe(epochs=8, batch_size=4, learning_rate=1e-3)
SIZES = [NetworkSize("small", RECIPE, 0), NetworkSize("medium", RECIPE, 5), NetworkSize("large", RECIPE, 100)]


class Sized:
    """A problem of three sizes."""

    def __init__(self) -> None:
        self.recipe, self.name = RECIPE, ""

    def sizes(self) -> list[NetworkSize]:
        return SIZES

    def resize(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize(
    ("epochs", "chosen", "measured"),
    [
        ({"small": 0.1}, "small", ["small"]),
        ({"small": 6, "medium": 2}, "small", ["small", "medium"]),
        ({"small": 20, "medium": 7}, "medium", ["small", "medium"]),
        # A network never needs more epochs than it is trained for.
        ({"small": 20, "medium": 9, "large": 8}, "large", ["small", "medium", "large"]),
        ({"small": 20, "medium": None}, "small", ["small"]),
    ],
)
def test_the_largest_network_with_enough_epochs_is_taken(
    epochs: dict[str, float | None], chosen: str, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def epochs_in(problem: Sized, plan: Any, world: int) -> float:
        found = epochs[problem.name]
        if found is None:
            raise RuntimeError("CUDA out of memory")
        asked.append(problem.name)
        return found

    monkeypatch.setattr(sizing, "epochs_in", epochs_in)
    monkeypatch.setattr(sizing.gpu_faults, "out_of_memory", lambda error: isinstance(error, RuntimeError))
    problem = Sized()
    plan = cast("Any", SimpleNamespace(recipe=RECIPE, time_budget=60.0))
    name, [note] = sizing.choose(cast("Problem", problem), lambda recipe: plan, None, 1)
    assert (name, problem.name, asked) == (chosen, chosen, measured)
    assert note.startswith(f"The network's size is {chosen}: by measured steps 60 s hold ")
    assert ("medium does not fit into memory" in note) == (epochs.get("medium", 1) is None)


def test_a_smallest_network_that_does_not_fit_is_no_matter_of_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def epochs_in(problem: Sized, plan: Any, world: int) -> float:
        raise GpuOutOfMemory("Out of GPU memory at batch size 1")

    monkeypatch.setattr(sizing, "epochs_in", epochs_in)
    plan = cast("Any", SimpleNamespace(recipe=RECIPE, time_budget=60.0))
    with pytest.raises(GpuOutOfMemory):
        sizing.choose(cast("Problem", Sized()), lambda recipe: plan, None, 1)


def test_a_mistake_in_a_larger_network_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def epochs_in(problem: Sized, plan: Any, world: int) -> float:
        if problem.name == "medium":
            raise ValueError("a mistake")
        return 50

    monkeypatch.setattr(sizing, "epochs_in", epochs_in)
    plan = cast("Any", SimpleNamespace(recipe=RECIPE, time_budget=60.0))
    with pytest.raises(ValueError, match="a mistake"):
        sizing.choose(cast("Problem", Sized()), lambda recipe: plan, None, 1)


def test_the_size_in_the_newest_checkpoint_is_kept_and_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Store:
        def newest_first(self) -> list[Path]:
            return [Path("broken"), Path("whole")]

        def keep(self, folder: Path) -> None:
            raise AssertionError("nothing is written")

    def read(folder: Path) -> Any:
        if folder.name == "broken":
            raise sizing.CheckpointInvalid("half of it is missing")
        return SimpleNamespace(scalars={"position": {"size": "medium"}})

    monkeypatch.setattr(sizing.checkpoint, "read", read)
    monkeypatch.setattr(sizing, "epochs_in", lambda problem, plan, world: 1 / 0)
    problem = Sized()
    assert sizing.choose(cast("Problem", problem), lambda recipe: cast("Any", None), Store(), 1) == ("medium", [])
    assert problem.name == "medium"


@pytest.mark.parametrize(
    ("task", "data", "target"),
    [("tabular", class_table, "y"), ("image_classification", image_folder, None), ("language_model", documents, None)],
)
def test_a_problem_that_is_resized_keeps_its_predictor_which_builds_and_describes_the_network_of_that_size(
    tmp_path: Path, task: str, data: Callable[[Path], Path], target: str | None
) -> None:
    problem = task_named(task).prepare(data(tmp_path / "data"), TaskSettings(target=target))
    before, built = problem.predictor, dict[str, dict[str, torch.Size]]()
    for size in problem.sizes():
        problem.resize(size.name)
        assert problem.predictor is before
        assert problem.recipe is size.recipe
        restored = task_named(task).restore(json.loads(json.dumps(problem.model_description())))
        shapes = [{k: t.shape for k, t in each.build_model().state_dict().items()} for each in (before, restored)]
        assert shapes[0] == shapes[1]
        built[size.name] = shapes[0]
    assert len(built) > 1
    assert len({str(shapes) for shapes in built.values()}) == len(built)


def test_measuring_steps_takes_no_random_number_from_the_training(tmp_path: Path) -> None:
    problem = TabularProblem(class_table(tmp_path), TaskSettings(target="y", preset="fast"))
    plan = Plan(RECIPE, seed=0, time_budget=100.0, device=torch.device("cpu"))
    assert sizing.choose(problem, lambda recipe: plan, None, 1) == ("", [])
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert 0 < sizing.seconds_a_step(problem, plan) < 100
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("tick", "steps"), [(1e-6, sizing.WARM_UP + sizing.MEASURED), (0.01, 2), (0.1, 1)], ids=["quick", "slow", "long"]
)
def test_steps_that_are_long_beside_the_time_budget_are_not_measured_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: float, steps: int
) -> None:
    """tick: of the budget, between two looks at the clock"""
    problem = TabularProblem(class_table(tmp_path), TaskSettings(target="y", preset="fast"))
    plan = Plan(problem.recipe, 0, 60.0, torch.device("cpu"))
    looks = itertools.count(0.0, tick * plan.time_budget)
    monkeypatch.setattr(sizing, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    taken: list[object] = []
    monkeypatch.setattr(sizing.Stepper, "step", lambda self, state, batch: taken.append(batch))
    sizing.seconds_a_step(problem, plan)
    assert len(taken) == steps


@pytest.mark.parametrize(("epochs", "told"), [(0.25, True), (1.0, False)])
def test_validate_says_when_the_time_budget_holds_no_single_pass(tmp_path: Path, monkeypatch, epochs, told) -> None:
    monkeypatch.setattr(sizing, "epochs_in", lambda problem, plan: epochs)
    data = class_table(tmp_path / "data")
    sentence = (
        "THE TIME BUDGET IS TOO SHORT: in 1800 s (train.time_budget) the network would see 25% of the training rows, "
        "by steps measured here (cpu); about 7.2e+03 s are needed for a single pass."
    )
    assert (sentence in validate_dataset(run_inputs(data, tmp_path / "out"))) == told


def test_validate_measures_nothing_where_no_network_is_to_train(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sizing, "epochs_in", lambda problem, plan: 1 / 0)
    config = TABULAR.replace("[network]", json.dumps(["linear"]))
    assert "2 classes" in validate_dataset(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", config))
