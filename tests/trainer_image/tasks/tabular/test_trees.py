"""What competes with a table's network: trees as tensors, and the linear model."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.world.training_data import write_csv
from trainer_image.tasks.base import Problem, TaskSettings, rows_in, take
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.tabular import linear as linear_models
from trainer_image.tasks.tabular.candidates import Linear
from trainer_image.tasks.tabular.predictor import TabularPredictor
from trainer_image.tasks.tabular.task import TabularProblem
from trainer_image.tasks.tabular.trees import boosted, boosting
from trainer_image.tasks.tabular.trees.boosting import Aim
from trainer_image.tasks.tabular.trees.ensemble import Trees
from trainer_image.tasks.tabular.trees.rows import TreeRows

TOWNS = [f"town {number}" for number in range(12)]


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a fit does, at the fastest rate, and few trees."""
    monkeypatch.setattr("trainer_image.tasks.tabular.trees.forest.TRIED_TREES", 10)
    monkeypatch.setattr("trainer_image.tasks.tabular.trees.boosted.PLANS", ((2, True, 0.2),))


def allowance(seconds: float = 60.0) -> Allowance:
    return Allowance(seconds, 1, 0, threading.Event(), lambda: None)


def problem(
    folder: Path, classes: int, rows: int = 240, to_fit: Sequence[str] | str = ("boosted trees",)
) -> TabularProblem:
    """Numbers, some of them missing, a mood, and a town that matters. classes: 1 for values."""
    random = np.random.default_rng(5)
    a, b = random.normal(size=rows), random.normal(size=rows)
    town = random.integers(0, len(TOWNS), rows)
    said = a * b + np.sin(town * 7.0) + random.normal(scale=0.1, size=rows)
    target: Any = np.round(said, 4)
    if classes > 1:
        target = [f"class {n}" for n in np.digitize(said, np.quantile(said, np.arange(1, classes) / classes))]
    shown = ["" if hidden else value for value, hidden in zip(a, random.random(rows) < 0.2, strict=True)]
    mood = np.where(b > 1, "good", np.where(b < -1, "bad", "fair"))
    cells = [[shown[n], b[n], TOWNS[town[n]], mood[n], target[n]] for n in range(rows)]
    write_csv(folder / "train.csv", ["a", "b", "town", "mood", "y"], cells)
    return TabularProblem(folder, TaskSettings(target="y", candidates=to_fit))


def outputs(made: Problem, module: torch.nn.Module, split: str = "test") -> torch.Tensor:
    return made.predictor.outputs(module.eval(), made.splits[split])


KINDS = ["boosted trees", "random forest"]


def candidate(made: TabularProblem, name: str = "boosted trees") -> Candidate:
    [found] = [each for each in made.candidates() if each.name == name]
    return found


def fitted(made: TabularProblem, name: str = "boosted trees") -> tuple[Any, dict[str, Any]]:
    trees = candidate(made, name)
    found = trees.fit(["train"], allowance(), None)
    assert found is not None, trees.note
    return found


@pytest.mark.parametrize("aim", [Aim(1), Aim(2), Aim(3), Aim(1, log=True)])
def test_torch_adds_up_what_the_library_predicts(aim: Aim) -> None:
    classes = aim.classes
    random = np.random.default_rng(classes)
    x = random.normal(size=(300, 5)).astype(np.float32)
    x[random.random(x.shape) < 0.15] = np.nan
    said = np.nan_to_num(x[:, 0]) * np.nan_to_num(x[:, 1], nan=2.0)
    y = np.digitize(said, np.quantile(said, np.arange(1, classes) / classes)) if classes > 1 else said
    y = np.exp(y) if aim.log else y
    boosted = boosting.boost(x, y, aim, boosting.Settings(4, 0.1, 3, 1), 20, lambda: True)
    base = aim.first_margins(y)
    trees = boosted.trees(20)

    value = trees.value[_leaves(trees, x)].reshape(len(x), -1, len(base)).sum(1, dtype=np.float64) + base

    np.testing.assert_allclose(value, boosted.margins(x, base, 20), rtol=0, atol=3e-6)
    assert len(trees.roots) == 20 * len(base)


def _leaves(trees: Trees, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """By a loop over rows and trees, as a person would follow them."""
    ends = np.empty((len(x), len(trees.roots)), np.int64)
    for row, tree in np.ndindex(*ends.shape):
        node = int(trees.roots[tree])
        while trees.left[node] != node:
            value = x[row, trees.feature[node]]
            left = trees.missing_left[node] if np.isnan(value) else value < trees.threshold[node]
            node = int(trees.left[node] if left else trees.right[node])
        ends[row, tree] = node
    return ends


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_trees_at_rest_predict_as_the_fitted_ones_and_as_followed_one_by_one(
    tmp_path: Path, classes: int, name: str
) -> None:
    made = problem(tmp_path, classes)
    module, chosen = fitted(made, name)
    again = made.predictor.build_candidate(name, chosen)
    again.load_state_dict(module.state_dict())
    predicted = outputs(made, module)
    assert torch.equal(outputs(made, again), predicted)

    test = made.splits["test"]
    x = module.inputs(test["dense"], test["codes"]).numpy()
    assert np.isnan(x).any()
    fields = ("roots", "feature", "threshold", "left", "right", "missing_left", "value")
    trees = Trees(**{name: getattr(module, name).numpy() for name in fields}, depth=module.shape.depth)
    sums = trees.value[_leaves(trees, x)].astype(np.float64).reshape(len(x), -1, module.outputs).sum(1)
    margins = torch.from_numpy(sums + module.base.numpy())
    if name == "random forest":
        margins = margins.log() if classes > 1 else margins
    elif classes == 2:
        margins = torch.cat([torch.zeros_like(margins), margins], 1)
    target = made.predictor.target
    expected = margins.softmax(1) if classes > 1 else margins[:, 0] * target.spread + target.centre  # type: ignore[union-attr]
    torch.testing.assert_close(predicted.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_trees_find_what_a_linear_model_cannot(tmp_path: Path, classes: int) -> None:
    made = problem(tmp_path, classes, rows=600)
    name = made.selection.name
    linear, *scores = [
        made.predictor.score(outputs(made, fitted(made, each)[0]), made.splits["test"])[name]
        for each in ["linear", *KINDS]
    ]
    assert all(made.selection.better(score, linear) for score in scores)


def test_values_that_multiply_and_are_far_from_evenly_spread_are_boosted_by_their_logarithms(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(600, 3))
    y = 1000 * np.exp(0.8 * (x[:, 0] + x[:, 1] * (x[:, 2] > 0))) * random.lognormal(0, 0.1, 600)
    write_csv(tmp_path / "train.csv", ["a", "b", "c", "y"], np.column_stack([x, y]).round(4).tolist())
    made = TabularProblem(tmp_path, TaskSettings(target="y"))
    module, chosen = fitted(made)
    assert chosen["log"]
    again = made.predictor.build_candidate("boosted trees", chosen)
    again.load_state_dict(module.state_dict())
    predicted = outputs(made, again)
    assert torch.equal(predicted, outputs(made, module))
    assert made.predictor.score(predicted, made.splits["test"])["r2"] > 0.6
    found = candidate(made).fit(["train", "validation"], allowance(), chosen)
    assert found is not None
    assert found[1]["log"]
    # A fold may have no row of the few that are far above all others, and nothing is chosen anew for it.
    target = made.splits["train"]["target"]
    made.splits["train"] = take(made.splits["train"], torch.nonzero(target < target.median()).squeeze(1))
    for values in (made.splits["train"]["target"], torch.zeros(1)):
        made.splits["train"]["target"] = values.expand(rows_in(made.splits["train"]))
        module = candidate(made).fit(["train"], allowance(), chosen)[0]
        assert outputs(made, module).isfinite().all()


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_and_choice_give_the_same_trees(tmp_path: Path, name: str) -> None:
    made = problem(tmp_path, 2)
    module, chosen = fitted(made, name)
    trees = candidate(made, name)
    found = [trees.fit(["train", "validation"], allowance(), chosen) for _ in range(2)]
    (first, again), (second, _) = [each for each in found if each is not None]
    assert all(torch.equal(tensor, second.state_dict()[key]) for key, tensor in first.state_dict().items())
    assert {**again, "shape": {}} == {**chosen, "shape": {}}
    assert trees.again is not None
    assert not torch.equal(outputs(made, first), outputs(made, module))


@pytest.mark.parametrize("name", ["roots", "left", "right", "feature"])
@pytest.mark.parametrize("wrong", [-1, 10_000_000])
def test_a_strangers_trees_that_point_beyond_their_nodes_are_refused(tmp_path: Path, name: str, wrong: int) -> None:
    made = problem(tmp_path, 1, rows=60)
    module, chosen = fitted(made)
    tensors = module.state_dict()
    tensors[name] = tensors[name].clone()
    tensors[name][-1] = wrong
    with pytest.raises(ValueError, match=f"the trees' tensor '{name}' points beyond"):
        made.predictor.build_candidate("boosted trees", chosen).load_state_dict(tensors)


def test_a_strangers_trees_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    made = problem(tmp_path, 1, rows=60)
    module, _ = fitted(made)
    module.left.zero_()
    module.right.zero_()
    assert outputs(made, module).isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"depth": 65}, {"depth": -1}, {"nodes": 2**25}, {"trees": 0}, {"trees": "many"}, {"extra": 1}]
)
def test_a_strangers_shape_of_trees_is_checked(tmp_path: Path, wrong: dict[str, Any]) -> None:
    made = problem(tmp_path, 1, rows=60)
    shape = {"trees": 1, "nodes": 3, "depth": 1}
    made.predictor.build_candidate("boosted trees", {"ensembles": [], "shape": shape})
    with pytest.raises(ValueError, match="shape"):
        made.predictor.build_candidate("boosted trees", {"ensembles": [], "shape": shape | wrong})


def test_a_row_does_not_see_its_own_label_in_the_statistics_of_its_category(tmp_path: Path) -> None:
    made = problem(tmp_path, 1)
    parts = ["train"], made.predictor.preprocessing, made.predictor.target, 0
    before = TreeRows(made.splits, *parts)
    train = dict(made.splits["train"])
    train["target"] = train["target"].clone()
    train["target"][7] += 1000.0
    after = TreeRows({**made.splits, "train": train}, *parts)
    assert np.array_equal(before.x[7], after.x[7], equal_nan=True)
    town = train["codes"][:, 0] == train["codes"][7, 0]
    others = town.numpy() & (before.folds != before.folds[7])
    assert (before.x[others, -1] != after.x[others, -1]).all()


def test_without_time_or_rows_trees_sit_out_and_say_so(tmp_path: Path) -> None:
    made = problem(tmp_path, 1, rows=24)
    for name, who in (("boosted trees", "Boosted trees"), ("random forest", "The random forest")):
        trees = candidate(made, name)
        assert trees.fit(["train"], allowance(0.1), None) is None
        assert trees.note.startswith(f"{who} sat out: 0.1 s were too little time")
        assert trees.fit(["train"], allowance(), None) is None
        assert trees.note.startswith(f"{who} sat out: ")
        assert trees.note.endswith("30 rows to be fitted on.")


def test_the_library_of_trees_is_loaded_while_the_table_is_read_and_not_in_the_time_that_is_given_for_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = queue.SimpleQueue[str]()

    def lacks(name: str) -> None:
        asked.put(name)
        raise ImportError(name)

    monkeypatch.setattr("trainer_image.tasks.candidates.importlib", SimpleNamespace(import_module=lacks))
    problem(tmp_path, 1, to_fit=("network", "linear"))
    made = problem(tmp_path, 1)
    problem(tmp_path, 1, to_fit="auto")
    assert {asked.get(timeout=30), asked.get(timeout=30)} == {boosting.__name__}
    assert asked.empty(), "only where trees are to be fitted"
    looks = iter([0.0])
    monkeypatch.setattr(boosted, "time", SimpleNamespace(monotonic=lambda: next(looks, 59.9)))
    trees = candidate(made, "boosted trees")
    assert trees.fit(["train"], allowance(60), None) is None, "where loading it took all the time nevertheless"
    assert trees.note == "Boosted trees sat out: 60 s were too little time for them."


def test_little_time_is_for_one_depth_that_comes_to_an_end_not_for_the_beginnings_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = problem(tmp_path, 1, rows=120)
    monkeypatch.setattr("trainer_image.tasks.tabular.trees.boosted.PLANS", ((2, False, 0.1), (1, False, 0.2)))
    monkeypatch.setattr("trainer_image.tasks.tabular.trees.boosted.ENOUGH_ROUNDS", 10**9)  # however fast the machine is
    _, hurried = fitted(made)
    assert [each["rate"] for each in hurried["ensembles"]] == [0.2]
    monkeypatch.setattr("trainer_image.tasks.tabular.trees.boosted.ENOUGH_ROUNDS", 1)
    _, patient = fitted(made)
    assert {each["rate"] for each in patient["ensembles"]} == {0.1}


@pytest.mark.parametrize("name", [*KINDS, "linear"])
def test_a_fit_that_is_stopped_leaves_nothing(tmp_path: Path, name: str) -> None:
    made = problem(tmp_path, 2)
    stopped = replace(allowance(), stop=threading.Event())
    stopped.stop.set()
    assert candidate(made, name).fit(["train"], stopped, None) is None


def test_more_rows_than_are_fitted_on_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem(tmp_path, 1)
    monkeypatch.setattr("trainer_image.tasks.tabular.trees.rows.MOST_ROWS", 100)
    trees = candidate(made)
    assert trees.fit(["train"], allowance(), None) is not None
    left = len(made.splits["train"]["target"]) - 100
    assert trees.note == f"Boosted trees saw 100 evenly spaced rows; the other {left} were left out."


def test_a_stronger_linear_model_is_chosen_only_where_the_rows_carry_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def strength(folder: Path, noise: float) -> float:
        folder.mkdir()
        x = random.normal(size=(120, 20))
        y = x[:, 0] + x[:, 1] + random.normal(scale=noise, size=120) > 0
        cells = [[*row, "yes" if label else "no"] for row, label in zip(x.round(3), y, strict=True)]
        write_csv(folder / "train.csv", [*(f"x{n}" for n in range(20)), "y"], cells)
        made = TabularProblem(folder, TaskSettings(target="y"))
        linear = candidate(made, "linear")
        found = linear.fit(["train"], allowance(), None)
        assert isinstance(linear, Linear)
        assert found is not None
        again = made.predictor.build_candidate("linear", found[1])
        again.load_state_dict(found[0].state_dict())
        assert torch.equal(outputs(made, again), outputs(made, found[0]))
        return float(found[1]["strength"])

    assert strength(tmp_path / "noise", 10.0) < strength(tmp_path / "clear", 0.05)


@pytest.mark.parametrize("multiplies", [True, False])
def test_a_linear_model_is_of_logarithms_where_effects_multiply(tmp_path: Path, multiplies: bool) -> None:
    random = np.random.default_rng(6)
    x = random.normal(size=(300, 4))
    sums = x @ [0.5, 0.4, -0.3, 0.0]
    y = 1000 * random.gamma(20, 1 / 20, 300) * np.exp(sums) if multiplies else 9 + sums + random.normal(size=300)
    write_csv(tmp_path / "train.csv", ["a", "b", "c", "d", "y"], np.column_stack([x, y]).round(4).tolist())
    made = TabularProblem(tmp_path, TaskSettings(target="y"))
    module, chosen = fitted(made, "linear")
    assert set(chosen) == ({"log"} if multiplies else set())
    again = made.predictor.build_candidate("linear", chosen)
    again.load_state_dict(module.state_dict())
    assert torch.equal(outputs(made, again), outputs(made, module))
    flat = made.predictor.build_candidate("linear", {})
    flat.load_state_dict(module.state_dict(), strict=False)
    score = [made.predictor.score(outputs(made, each), made.splits["test"])["r2"] for each in (module, flat)]
    assert score[0] > score[1] or not multiplies
    far = {name: tensor * 1e3 for name, tensor in made.splits["test"].items()}
    assert made.predictor.outputs(module, far).isfinite().all()
    # Of rows that are all zero there is no logarithm: a fold may have no other.
    made.splits["train"]["target"] = torch.zeros_like(made.splits["train"]["target"])
    found = candidate(made, "linear").fit(["train"], allowance(), chosen)
    assert found is not None
    assert found[1] == {}


def test_a_log_linear_model_knows_nearly_what_it_would_predict_without_a_row() -> None:
    random = np.random.default_rng(7)
    x = random.normal(size=(80, 3))
    y = np.exp(x[:, 0]) * random.gamma(2, 0.5, 80)
    whole = linear_models.log_linear(x, y)
    assert whole is not None
    without = []
    for row in range(80):
        fit = linear_models.log_linear(np.delete(x, row, 0), np.delete(y, row))
        assert fit is not None
        without.append(float(np.exp(x[row] @ fit.weight[0] + fit.bias[0])))
    errors = [np.mean((found - y) ** 2) for found in (whole.unseen, np.array(without))]
    assert errors[0] == pytest.approx(errors[1], rel=0.2)
    assert linear_models.log_linear(x, y - 1.0) is None


@pytest.mark.parametrize("name", ["log", "strength"])
def test_a_strangers_linear_model_is_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        problem(tmp_path, 1, rows=40).predictor.build_candidate("linear", {name: -1.0})


def test_a_linear_model_of_few_rows_does_not_wait_for_other_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, used, logistic = problem(tmp_path, 2, rows=60), set(), linear_models.logistic

    def counted(*given: Any) -> Any:
        used.add(torch.get_num_threads())
        return logistic(*given)

    monkeypatch.setattr(linear_models, "logistic", counted)
    before = torch.get_num_threads()
    try:
        candidate(made, "linear").fit(["train"], replace(allowance(), threads=2), None)
    finally:
        torch.set_num_threads(before)
    assert used == {1}


def test_another_name_is_no_candidate_of_a_table(tmp_path: Path) -> None:
    predictor = problem(tmp_path, 1, rows=40).predictor
    assert isinstance(predictor, TabularPredictor)
    with pytest.raises(ValueError, match="no candidate 'wood'"):
        predictor.build_candidate("wood", {})


def test_numbers_far_out_are_told_apart_by_trees_alone(tmp_path: Path) -> None:
    cells = [[10.0**n, n] for n in range(9)] * 6
    write_csv(tmp_path / "train.csv", ["x", "y"], cells)
    made = TabularProblem(tmp_path, TaskSettings(target="y", types={"y": "number"}))
    dense = made.splits["train"]["dense"]
    assert len(dense[:, 0].unique()) == 9
    network = made.predictor.build_model()
    torch.nn.init.ones_(network.skip.weight)  # type: ignore[union-attr, arg-type]
    far = outputs(made, network, "train")[dense[:, 0] >= 10]
    assert len(far.unique()) == 1
