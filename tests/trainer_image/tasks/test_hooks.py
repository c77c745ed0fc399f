"""What a task says is looked at before the training, and what it shows costs no trained model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer_image.engine.rendezvous import identity
from trainer_image.errors import UserCodeFailed
from trainer_image.tasks.base import Metric
from trainer_image.tasks.hooks import intervals_of, json_of, look_over, no_choice


class Mine:
    """Stands for a plug-in's problem and task."""

    interface = 2

    def __init__(self, description: dict[str, Any], *restored: Any) -> None:
        self.description = description
        self.predictor = SimpleNamespace()
        self.restored = restored or (self.predictor,)
        self.splits = {name: {"x": torch.ones(2)} for name in ("train", "validation", "test")}

    def model_description(self) -> Any:
        return self.description

    def restore(self, description: Any) -> Any:
        assert description == {"width": 3, "names": ["a", "b"]}
        return self.restored[0]


def test_whether_a_model_could_be_restored_is_known_before_it_is_trained() -> None:
    said = {"width": torch.tensor(3), "names": ("a", "b")}
    look_over(mine := Mine(said), mine)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        look_over(lacks := Mine({}), lacks)  # type: ignore[arg-type]
    with pytest.raises(UserCodeFailed, match=r"Mine\.restore returned NoneType; a SimpleNamespace is expected"):
        look_over(none := Mine(said, None), none)  # type: ignore[arg-type]
    old = Mine({})
    old.interface = 1
    look_over(old, old)  # type: ignore[arg-type]
    del old.description
    look_over(old, old)  # type: ignore[arg-type]


def test_a_finding_that_is_not_defined_costs_no_model_and_a_description_has_none() -> None:
    assert json_of(object(), "findings", {"r2": float("nan"), "m": torch.tensor([1.0, float("inf")])}) == {
        "r2": None,
        "m": [1.0, None],
    }
    with pytest.raises(UserCodeFailed, match="returned nan as 'mean'"):
        json_of(object(), "model_description", {"mean": float("nan")})


def test_a_figure_that_score_never_gave_is_named_with_those_that_it_gave() -> None:
    mine = SimpleNamespace(selection=Metric("MAE"), predictor=Mine({}))
    assert no_choice(mine, {"mae": 1.0, "r2": 0.5}) == (  # type: ignore[arg-type]
        f"{__name__}:Mine.score returned no finite 'MAE', by which weights are chosen: those of the last epoch were"
        " taken. Its figures are 'mae', 'r2'."
    )


def test_processes_agree_on_a_description_with_arrays_as_model_json_has_it() -> None:
    plan: Any = SimpleNamespace(recipe=None, bfloat16=False)
    arrays: Any = Mine({"mean": torch.tensor([1.0, 2.0]), "names": ("a", "b")})
    lists: Any = Mine({"mean": [1.0, 2.0], "names": ["a", "b"]})
    other: Any = Mine({"mean": [1.0, 2.5], "names": ["a", "b"]})
    arrays.hashes = lists.hashes = other.hashes = None
    assert identity(arrays, plan) == identity(lists, plan) != identity(other, plan)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"mae": [1, 2.5], "other": [0.0, 1.0], "r2": None}, {"mae": (1, 2.5)}),
        ({"mae": [1.0, None], "r2": 0.5}, {}),
        ([{"row": 1, "low": 0.5}], {}),
        (None, {}),
    ],
)
def test_what_a_plug_in_calls_intervals_and_is_none_costs_no_model(given: Any, taken: dict[str, Any]) -> None:
    assert intervals_of({"intervals": given}, {"mae": 1.5, "r2": 0.5}) == taken
