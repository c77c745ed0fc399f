"""Which of several networks is trained: the largest with time for enough epochs, and no more is measured than that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from trainer_image.engine import sizing
from trainer_image.errors import GpuOutOfMemory
from trainer_image.tasks.base import NetworkSize, Problem, Recipe

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
