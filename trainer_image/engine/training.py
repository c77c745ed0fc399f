"""One training from dataset folder to model folder: prepare, fit, test once, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from trainer_image import report
from trainer_image.config.model_config import Config
from trainer_image.contract import Progress, RunInputs, RunResult
from trainer_image.data import reading
from trainer_image.data.rows import known
from trainer_image.data.rows.known import Known
from trainer_image.data.spill import Scratch
from trainer_image.engine import champion, looking, sizing
from trainer_image.engine.contest import wanted
from trainer_image.engine.loop import Engine
from trainer_image.engine.plan import Fitted, Plan
from trainer_image.engine.preparing import earlier_of, make_plan, prepare, settings_of, task_of
from trainer_image.engine.processes import Processes
from trainer_image.engine.published import NETWORK
from trainer_image.errors import Terminated
from trainer_image.host import exhaustion, gpu_faults
from trainer_image.host.devices import accelerator, choose_device, hardware, unlike_asked, usable_cpus
from trainer_image.limits import Limits
from trainer_image.report import mistakes
from trainer_image.report.pictures import Shots
from trainer_image.report.verdict import verdict
from trainer_image.tasks import hooks, plugins
from trainer_image.tasks.base import Figures, Json, Outputs, Problem, Recipe, scored, take
from trainer_image.tasks.intervals import Interval, bootstrap
from trainer_image.tasks.metrics import first, numbers_of


def check_config(config: Config, limits: Limits) -> None:
    """What the task sees in the configuration before the dataset is there. Raises ConfigInvalid, UserCodeFailed."""
    with plugins.blames(config.custom.entry_point):
        task_of(config).check(settings_of(config, limits, Scratch()))


def validate_dataset(inputs: RunInputs) -> str:
    """Reads and checks the dataset without training; what was found, in a few sentences. Raises DatasetInvalid.

    A few steps are measured, to say where the time budget is too short for what was asked.
    """
    entry_point = inputs.config.custom.entry_point
    with reading.below(inputs.data), plugins.blames(entry_point), gpu_faults.as_gpu_failures():
        problem = prepare(inputs)
        _, network = wanted(problem, inputs.config.model.candidates)
        too_short = _too_short(inputs, problem) if network else []
        return " ".join([problem.description, *problem.notes, *problem.warnings, *too_short])


def _too_short(inputs: RunInputs, problem: Problem) -> list[str]:
    """A sentence where the time budget does not let the smallest network see every training row once."""
    torch.set_num_threads(usable_cpus())
    for size in problem.sizes()[:1]:
        problem.resize(size.name)
    device = choose_device(inputs.device, inputs.gpus)
    plan = make_plan(inputs, problem.recipe, device)
    epochs = sizing.epochs_in(problem, plan)
    if epochs >= 1:
        return []
    return [
        f"THE TIME BUDGET IS TOO SHORT: in {plan.time_budget:g} s (train.time_budget) the network would see"
        f" {epochs:.0%} of the training rows, by steps measured here ({device.type}); about"
        f" {plan.time_budget / epochs:.2g} s are needed for a single pass."
    ]


def train(inputs: RunInputs) -> RunResult:
    """Trains, tests and writes the model folder into `inputs.output`.

    Writes model.safetensors, model.json, rows.safetensors, metrics.jsonl, report.json, report.html and README.md.
    Raises a TrainerError.
    """
    entry_point = inputs.config.custom.entry_point
    with reading.below(inputs.data), plugins.blames(entry_point), gpu_faults.as_gpu_failures():
        return _train(inputs)


def follow(inputs: RunInputs) -> None:
    """Trains along with node 0's `train` as a further node, until that has trained or has no use for this one.

    Raises a TrainerError, PeerLost above all.
    """
    with plugins.blames(inputs.config.custom.entry_point), gpu_faults.as_gpu_failures():
        device = choose_device(inputs.device, inputs.gpus)
        torch.set_num_threads(usable_cpus())
        inputs.progress(Progress("Following node 1", 0))
        with Processes(inputs, device) as processes:
            processes.follow()


def _train(inputs: RunInputs) -> RunResult:
    phases: dict[str, float] = {}
    device = choose_device(inputs.device, inputs.gpus)
    inputs.output.mkdir(parents=True, exist_ok=True)
    with (inputs.output / "metrics.jsonl").open("w", encoding="utf-8", buffering=1) as metrics_file:

        def record(entry: dict[str, Any]) -> None:
            metrics_file.write(json.dumps(entry) + "\n")

        problem, plan, fitted = _fit(inputs, device, record, phases)
        hashes, earlier = looking.hashes_of(problem), earlier_of(inputs)
        before = None if inputs.initial is None else looking.before(problem, hashes, earlier)
        at = time.monotonic()
        inputs.progress(Progress("Testing the model", fitted.steps))
        # As `predict` computes: sums taken in another order would differ in their last digit.
        torch.set_num_threads(usable_cpus())
        outputs = fitted.published.outputs(problem.splits["test"], device)
        name = problem.headline.name
        counted, test, groups = outputs, problem.splits["test"], numbers_of(problem.test_groups)
        if before is not None and before.test.any():
            # A task that knows of them has left them out itself, and its baselines with it.
            counted, test = take(outputs, before.counted), take(test, before.counted)
            groups = None if groups is None else groups[before.counted.numpy()]
        tested = first(name, scored(problem.predictor, counted, test))
        nothing = fitted.best is None and problem.selection.name not in tested
        if nothing and inputs.config.custom.entry_point is not None:
            problem.notes.append(hooks.no_choice(problem, tested))
        phases["test"] = time.monotonic() - at
        at = time.monotonic()
        baselines = {key: first(name, value) for key, value in hooks.baselines_of(problem, fitted.fit_on).items()}
        phases["baselines"] = time.monotonic() - at
        record({"phase": "test", "step": fitted.steps, "test": tested, "baselines": baselines})
    rows = None
    if hashes is not None:
        trained = np.concatenate([hashes.of["train"], hashes.of["validation"]])
        rows = known.known(hashes.content, trained, hashes.of["test"], earlier)
    make_room = inputs.checkpoints.make_room if inputs.checkpoints else None
    exhaustion.with_room(make_room, lambda: _write_model(inputs, problem, fitted, rows))
    at = time.monotonic()
    findings, pictures, gallery = _findings(inputs, problem, fitted, outputs)
    beside = champion.beside(inputs, problem, hashes, outputs, before, device)
    again = looking.repeated_rows(problem, fitted, outputs)
    importance = looking.importance(problem, fitted, plan, device)
    intervals, resamples = bootstrap(partial(scored, problem.predictor), counted, test, tested, groups=groups)
    intervals |= hooks.intervals_of(findings, tested)
    phases["report"] = time.monotonic() - at
    judged = verdict(
        problem.headline,
        tested,
        baselines,
        intervals.get(problem.headline.name),
        members=[member.name for member in fitted.published.members],
        calibration=findings.get("calibration"),
        importance=importance,
        before=None if before is None else before.said,
        again=again,
    )
    content = _report(inputs, problem, plan, fitted, tested, baselines, phases, intervals)
    content["dataset"] |= {"repeated": again, "before": None if before is None else before.said}
    content |= {
        "champion": beside,
        "verdict": judged,
        "importance": importance,
        "resamples": resamples,
        "findings": findings,
        "gallery": [example for example, _ in gallery],
    }
    exhaustion.with_room(
        make_room, lambda: report.write(inputs.output, content, pictures, [shots for _, shots in gallery])
    )
    seconds, on = fitted.seconds, accelerator(device)
    said = judged["sentence"], champion.told(beside)
    return RunResult(inputs.config.task, tested, baselines, fitted.steps, seconds, on, *said)


def _findings(
    inputs: RunInputs, problem: Problem, fitted: Fitted, outputs: Outputs
) -> tuple[Json, dict[int, Shots], list[tuple[Json, Shots]]]:
    """What the task shows of the test split, the pictures of its worst mistakes, and its gallery."""
    findings = hooks.json_of(problem, "findings", problem.findings(outputs))
    if not inputs.config.report.examples:
        return mistakes.withheld(findings), {}, []
    model = fitted.published.foremost
    findings |= hooks.json_of(problem, "demonstrations", problem.demonstrations(model))
    return findings, mistakes.named(problem, findings, outputs), mistakes.gallery(problem, model, outputs)


def _fit(
    inputs: RunInputs, device: torch.device, record: Callable[[dict[str, Any]], None], phases: dict[str, float]
) -> tuple[Problem, Plan, Fitted]:
    """Reads the dataset and trains on it, on every GPU that is visible."""
    began = time.monotonic()
    torch.set_num_threads(usable_cpus())
    inputs.progress(Progress("Reading the dataset", 0))
    with Processes(inputs, device) as processes:
        problem = prepare(inputs, processes.count, inputs.config.model.candidates)
        phases["read"] = time.monotonic() - began
        if inputs.stop.is_set():
            raise Terminated("Stopped on request before the first step", step=0)
        if inputs.checkpoints:
            inputs = replace(inputs, checkpoints=sizing.Remembered(inputs.checkpoints))
        size, of_size, began = "", list[str](), time.monotonic()

        def resize(world: int) -> str:
            nonlocal size, of_size
            size, of_size = sizing.choose(problem, plan_for, inputs.checkpoints, world)
            return size

        def plan_for(recipe: Recipe) -> Plan:
            return make_plan(inputs, recipe, device)

        plan = plan_for(problem.recipe)
        team, notes = processes.team(problem, plan, resize)
        if size:
            plan = plan_for(problem.recipe)
        notes = [*inputs.notes, *unlike_asked(device, inputs.device, inputs.gpus), *notes, *of_size]
        fitted = Engine(problem, plan, inputs, record, team, notes, size, began).run()
    phases["train"] = fitted.seconds
    return problem, plan, fitted


def _write_model(inputs: RunInputs, problem: Problem, fitted: Fitted, rows: Known | None) -> None:
    description = {
        "task": inputs.config.task,
        "run_id": inputs.run_id,
        "model": hooks.description_of(problem),
    }
    if inputs.config.custom.entry_point is not None:
        description["entry_point"] = inputs.config.custom.entry_point
    fitted.published.write(inputs.output, description)
    if rows is not None:
        known.write(inputs.output, rows)


def _candidates(fitted: Fitted) -> list[dict[str, Any]]:
    """How each model fared that competed, the network last; none where it was alone."""
    if not fitted.candidates:
        return []
    weights = {member.name: member.weight for member in fitted.published.members}
    listed = [
        {
            "name": entry.name,
            "validation": entry.validation,
            "seconds": entry.seconds,
            "weight": weights.get(entry.name, 0.0),
            "note": entry.note,
        }
        for entry in fitted.candidates
    ]
    if fitted.steps:
        seconds = round(fitted.seconds - sum(entry.seconds for entry in fitted.candidates), 3)
        network = {"name": NETWORK, "validation": fitted.best, "seconds": seconds, "note": ""}
        listed.append({**network, "weight": weights.get(NETWORK, 0.0)})
    return listed


def _groups(problem: Problem) -> dict[str, Any] | None:
    """How many groups the test split has that intervals count by, and what they are called."""
    groups = problem.test_groups
    return None if groups is None else {"count": len(set(groups.of.tolist())), "called": groups.called}


def _report(
    inputs: RunInputs,
    problem: Problem,
    plan: Plan,
    fitted: Fitted,
    tested: Figures,
    baselines: dict[str, Figures],
    phases: dict[str, float],
    intervals: dict[str, Interval],
) -> dict[str, Any]:
    return {
        "format": 1,
        "run_id": inputs.run_id,
        "task": inputs.config.task,
        "plug_in": plugins.name_of(inputs.config.custom.entry_point),
        "dataset": {
            "fingerprint": inputs.dataset_fingerprint,
            "description": problem.description,
            "rows": {name: len(next(iter(split.values()))) for name, split in problem.splits.items()},
            "test_groups": _groups(problem),
            "weighed_by": problem.weighed_by,
            "notes": problem.notes,
            "warnings": problem.warnings,
        },
        "headline": problem.headline.name,
        "metrics": tested,
        "intervals": intervals,
        "baselines": baselines,
        "training": {
            "steps": fitted.steps,
            "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch,
            "selected_by": f"validation {problem.selection.name}",
            "best_validation": fitted.best,
            "fit_on": list(fitted.fit_on),
            "resumed_from_step": fitted.resumed_from,
            "seconds": round(fitted.seconds, 3),
            "time_budget": plan.time_budget,
            "stopped": fitted.stopped,
            "recipe": asdict(plan.recipe),
            "bfloat16": plan.bfloat16,
            "rows_at_a_time": fitted.micro_batch,
            "parameters": fitted.published.numbers,
            "notes": fitted.notes,
        },
        "candidates": _candidates(fitted),
        "history": fitted.history,
        "seconds": {name: round(value, 3) for name, value in phases.items()},
        "hardware": hardware(plan.device),
        "config": inputs.shown,
    }
