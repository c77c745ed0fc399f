"""What every process of a training does before its first step: choose the task, read the dataset, make the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from trainer_image.config.model_config import Config
from trainer_image.config.sections import SplitConfig
from trainer_image.contract import RunInputs
from trainer_image.data import spill
from trainer_image.data.rows import known
from trainer_image.data.rows.known import Known
from trainer_image.data.spill import Scratch
from trainer_image.engine.plan import Plan
from trainer_image.host import memory
from trainer_image.host.devices import computes_bfloat16
from trainer_image.limits import Limits
from trainer_image.tasks import hooks, plugins, task_named
from trainer_image.tasks.base import Problem, Recipe, Split, Task, TaskSettings


def task_of(config: Config) -> Task:
    """The built-in task, or for `custom` the one that a package has registered."""
    own = config.custom.entry_point
    return task_named(config.task) if own is None else plugins.load(own)


def settings_of(config: Config, limits: Limits, scratch: Scratch) -> TaskSettings:
    """The part of the configuration that a task may see."""
    return TaskSettings(
        target=config.data.target,
        text=config.data.text,
        drop=tuple(config.data.drop),
        types=dict(config.data.types),
        group=config.data.group,
        weight=config.data.weight,
        split=split_of(config.data.split),
        preset=config.model.preset,
        metric=config.train.metric,
        seed=config.train.seed,
        limits=limits,
        scratch=scratch,
        params=config.custom.params,
        time_budget=float(config.train.time_budget),
    )


def split_of(split: SplitConfig | None) -> Split | None:
    return None if split is None else Split(split.by, split.column, tuple(split.validation), tuple(split.test))


def prepare(inputs: RunInputs, processes: int = 1, candidates: Sequence[str] | str = ()) -> Problem:
    """The dataset, read and checked: the same in every process of a team. Raises DatasetInvalid, ConfigInvalid.

    processes: how many read it at the same time and share the memory; candidates: what this one is to fit then
    """
    memory_bytes = int(memory.available() * spill.SHARE / processes) if processes > 1 else None
    scratch = Scratch(inputs.output.parent, memory_bytes)
    settings = settings_of(inputs.config, inputs.limits, scratch)
    task = task_of(inputs.config)
    problem = task.prepare(inputs.data, replace(settings, earlier=earlier_of(inputs), candidates=candidates))
    hooks.look_over(problem, None if inputs.config.custom.entry_point is None else task)
    return problem


def earlier_of(inputs: RunInputs) -> Known | None:
    """What the run knew of its rows whose model a warm start begins with; None where there is none, or nobody knows."""
    return None if inputs.initial is None else known.read(inputs.initial)


def make_plan(inputs: RunInputs, recipe: Recipe, device: torch.device) -> Plan:
    """The task's recipe with what the configuration says instead of "auto"."""
    wanted = inputs.config.train
    given = {"epochs": wanted.epochs, "batch_size": wanted.batch_size, "learning_rate": wanted.lr}
    recipe = replace(recipe, **{name: value for name, value in given.items() if value != "auto"})  # type: ignore[arg-type]
    if recipe.small and device.type == "cpu":
        torch.set_num_threads(1)  # a step of microseconds: waking other threads costs more than they do
    on_gpu = device.type == "cuda" and computes_bfloat16(inputs.device)
    return Plan(
        recipe=recipe,
        seed=wanted.seed,
        time_budget=float(wanted.time_budget),
        device=device,
        bfloat16=wanted.precision == "bf16" or (wanted.precision == "auto" and on_gpu),
        # On the CPU compiling costs more than it saves, and would cost the promise of equal bits after a resume.
        compile=(None if device.type == "cuda" else False) if wanted.compile == "auto" else bool(wanted.compile),
        probe=device.type == "cuda",
        checkpoint_every=float(inputs.config.checkpoint.every),
        more=wanted.epochs == "auto",
    )
