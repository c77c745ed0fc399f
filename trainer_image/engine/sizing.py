"""How large a network is: the largest whose steps, measured on the device, leave time for enough epochs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from trainer_image.contract import CheckpointStore
from trainer_image.engine import checkpoint
from trainer_image.engine.budget import Budget
from trainer_image.engine.checkpoint import CheckpointInvalid
from trainer_image.engine.plan import Plan
from trainer_image.engine.steps.step import Stepper, on_device
from trainer_image.engine.team import Team
from trainer_image.errors import TrainerError
from trainer_image.host import gpu_faults
from trainer_image.tasks import hooks
from trainer_image.tasks.base import Batch, NetworkSize, Problem, Recipe, rows_in, take

log = logging.getLogger(__name__)

# Steps that are not measured, and steps that are; fewer where they take this share of the time budget together, and one
# where it takes a larger share by itself.
WARM_UP, MEASURED = 2, 5
MOST_SHARE, MOST_SHARE_OF_ONE = 0.02, 0.1


def budget_of(problem: Problem, plan: Plan) -> Budget:
    """How the plan's time is divided."""
    rows = {name: rows_in(problem.splits[name]) for name in ("train", "validation")}
    growth = sum(rows.values()) / rows["train"]
    return Budget(plan.time_budget, growth, plan.recipe.refit, problem.candidates_share)


def seconds_a_step(problem: Problem, plan: Plan, world: int = 1) -> float:
    """What an optimizer step of the problem's network takes on the plan's device, as one of `world` processes."""
    rows = max(1, min(rows_in(problem.splits["train"]), math.ceil(plan.recipe.batch_size / world)))
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        model = on_device(problem.predictor.build_model(), plan.device).train()
        stepper = Stepper(problem, replace(plan, compile=False), model, Team(), [])
        state = stepper.fresh_state(model)
        state.at.planned = WARM_UP + MEASURED
        made: Batch = take(problem.splits["train"], slice(0, rows))
        if augment := hooks.augment_of(problem):
            made = augment(made, torch.Generator().manual_seed(plan.seed))
        batch = {name: t.to(plan.device) for name, t in made.items()}
        began = time.monotonic()
        took: list[float] = []
        for number in range(WARM_UP + MEASURED):
            at = time.monotonic()
            stepper.step(state, batch)
            if plan.device.type == "cuda":
                torch.cuda.synchronize(plan.device)
            took.append(time.monotonic() - at)
            if time.monotonic() - began > (MOST_SHARE if number else MOST_SHARE_OF_ONE) * plan.time_budget:
                break
    # The first ones choose algorithms and allocate memory; the quickest is not what a shared machine will keep up.
    measured = sorted(took[min(WARM_UP, len(took) - 1) :])
    return measured[len(measured) // 2]


def epochs_in(problem: Problem, plan: Plan, world: int = 1) -> float:
    """How many passes over the training rows the time budget holds for the network's search, by measured steps."""
    steps = math.ceil(rows_in(problem.splits["train"]) / plan.recipe.batch_size)
    candidates = problem.candidates()
    return budget_of(problem, plan).epochs(
        steps * seconds_a_step(problem, plan, world),
        plan.recipe.epochs,
        candidates=bool(candidates),
        again=any(candidate.again != 0 for candidate in candidates),
    )


def choose(
    problem: Problem, plan_for: Callable[[Recipe], Plan], store: CheckpointStore | None, world: int
) -> tuple[str, list[str]]:
    """Resizes the problem to the size that suits its device and time budget: (its name or "", notes for the report).

    The choice that is in the newest checkpoint is kept: its tensors belong to no other network.
    """
    sizes = problem.sizes()
    if not sizes:
        return "", []
    names = [size.name for size in sizes]
    notes: list[str] = []
    name = _kept(store, names) if store else None
    if name is None:
        name, notes = _measured(problem, sizes, plan_for, world)
    problem.resize(name)
    return name, notes


def _measured(
    problem: Problem, sizes: Sequence[NetworkSize], plan_for: Callable[[Recipe], Plan], world: int
) -> tuple[str, list[str]]:
    chosen, told, epochs = sizes[0].name, list[str](), math.inf
    for size in sizes:
        problem.resize(size.name)
        plan = plan_for(problem.recipe)
        if epochs < min(size.enough, plan.recipe.epochs):
            break  # no larger one has more of them: measuring it would only cost time
        try:
            epochs = epochs_in(problem, plan, world)
        except Exception as error:
            # One that does not fit into memory is not the right one; whatever else is wrong shows in the training.
            if isinstance(error, TrainerError) or size is sizes[0] or not gpu_faults.out_of_memory(error):
                raise
            told.append(f"{size.name} does not fit into memory")
            break
        told.append(f"{epochs:.3g} epochs of {size.name}")
        if size is not sizes[0] and epochs < min(size.enough, plan.recipe.epochs):
            break
        chosen = size.name
    log.info("Size %s: the time budget holds %s", chosen, ", ".join(told))
    of = plan_for(problem.recipe).time_budget
    return chosen, [f"The network's size is {chosen}: by measured steps {of:g} s hold {', '.join(told)}."]


def _kept(store: CheckpointStore, names: Sequence[str]) -> str | None:
    """The size in the newest checkpoint that can be read; None: there is none."""
    for folder in store.newest_first():
        try:
            size = checkpoint.read(folder).scalars["position"]["size"]
        except (CheckpointInvalid, KeyError, TypeError):
            continue
        if size in names:
            return str(size)
    return None


class Remembered:
    """A store whose checkpoints are fetched once, though both the size and the state are looked for in them."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store, self._found = store, list[Path]()
        self._asked = False

    def newest_first(self) -> list[Path]:
        if not self._asked:
            self._found, self._asked = self._store.newest_first(), True
        return self._found

    def keep(self, folder: Path) -> None:
        self._store.keep(folder)

    def make_room(self) -> bool:
        return self._store.make_room()
