"""What a task's hooks return, looked at before it is used: a plug-in's mistake is one sentence that names the hook."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer_image.errors import UserCodeFailed
from trainer_image.tasks.calibration import Calibration
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.recipe import Augment, Loss, Moment, Recipe
from trainer_image.tasks.strictly import restored
from trainer_image.tasks.tensors import Batch, Outputs, rows_in

if TYPE_CHECKING:
    from trainer_image.tasks.base import Figures, Metric, Predictor, Problem, Task


# Hooks whose JSON the report shows; what others return, a model is made of.
SHOWN = ("findings", "demonstrations")


def outputs_of(predictor: Predictor, model: nn.Module, batch: Batch) -> Outputs:
    """`predictor.outputs`. Raises UserCodeFailed for anything but a tensor, or several by name, of the batch's rows."""
    found, rows = predictor.outputs(model, batch), rows_in(batch)
    if isinstance(found, Mapping) and not found:
        raise failed(predictor, "outputs", "an empty dict; at least one tensor is expected")
    for name, tensor in found.items() if isinstance(found, Mapping) else [("", found)]:
        if not isinstance(tensor, Tensor) or not tensor.ndim or len(tensor) != rows:
            at = f" as '{name}'" if name else ""
            raise failed(predictor, "outputs", f"{_kind(tensor)}{at}; a tensor of {rows} rows is expected")
    return found


def loss_of(problem: Problem, model: nn.Module, batch: Batch, moment: Moment) -> Loss:
    """`problem.loss` at this moment. Raises UserCodeFailed for what is no scalar tensor with a gradient."""
    problem.moment = moment
    found = problem.loss(model, batch)
    loss = found if isinstance(found, Loss) else Loss(found, {})
    if not isinstance(loss.total, Tensor) or loss.total.ndim or not loss.total.requires_grad:
        raise failed(problem, "loss", f"{_kind(loss.total)}; a tensor of one number with a gradient is expected")
    for name, part in loss.parts.items():
        if part.numel() != 1 if isinstance(part, Tensor) else not isinstance(part, float | int):
            raise failed(problem, "loss", f"{_kind(part)} as the part '{name}'; one number is expected")
    return loss


def optimizers_of(problem: Problem, model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """`problem.optimizers`, at least one. Raises UserCodeFailed."""
    found = problem.optimizers(model, recipe)
    if isinstance(found, torch.optim.Optimizer) or not isinstance(found, Sequence):
        raise failed(problem, "optimizers", f"{_kind(found)}; a list of torch's optimizers is expected")
    for each in found:
        if not isinstance(each, torch.optim.Optimizer):
            raise failed(problem, "optimizers", f"a list with {_kind(each)}; torch's optimizers are expected")
    if not found:
        raise failed(problem, "optimizers", "none; at least one is needed")
    return list(found)


def rate_of(problem: Problem, moment: Moment, recipe: Recipe) -> float:
    """`problem.schedule`. Raises UserCodeFailed for anything but a number from 0 on."""
    found = problem.schedule(moment, recipe)
    if not isinstance(found, float | int) or not math.isfinite(found) or found < 0:
        raise failed(problem, "schedule", f"{found!r}; a factor of the learning rate from 0 on is expected")
    return float(found)


def augment_of(problem: Problem) -> Augment | None:
    """`problem.augmentation`, which raises UserCodeFailed for what is no batch of as many rows, on the CPU."""
    augment = problem.augmentation()

    def refused(what: str, wanted: str) -> UserCodeFailed:
        return failed(problem, "augmentation", f"{what}; {wanted} is expected")

    def made(batch: Batch, generator: torch.Generator) -> Batch:
        assert augment is not None
        rows, found = rows_in(batch), augment(batch, generator)
        if not isinstance(found, Mapping) or not found:
            raise refused(f"a function that makes {_kind(found)}", "a dict of tensors")
        for name, tensor in found.items():
            if not isinstance(tensor, Tensor) or not tensor.ndim or len(tensor) != rows or not tensor.is_cpu:
                raise refused(
                    f"a function that makes {_kind(tensor)} as '{name}'", f"a tensor of {rows} rows on the CPU"
                )
        return found

    if augment is not None and not callable(augment):
        raise refused(_kind(augment), "a function of batch and generator, or None,")
    return made if augment else None


def json_of(of: object, hook: str, found: Any) -> dict[str, Any]:
    """What the hook returned as plain JSON: numbers and arrays of numpy's or torch's become numbers and lists, NaN and
    infinity None where the report shows it. Raises UserCodeFailed for what JSON does not know."""
    if not isinstance(found, Mapping):
        raise failed(of, hook, f"{_kind(found)}; a dict is expected")

    def plain(value: Any, place: str) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(entry, str(key)) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [plain(entry, place) for entry in value]
        if isinstance(value, float) and not math.isfinite(value):
            if hook in SHOWN:  # a trained model is not lost for it
                return None
            raise failed(of, hook, f"{value} as '{place}', which JSON does not know; None would be right")
        if value is None or isinstance(value, str | int | float):
            return value
        if callable(listed := getattr(value, "tolist", None)):
            return plain(listed(), place)
        raise failed(of, hook, f"{_kind(value)} as '{place}'; what JSON knows is expected, as numbers, texts, lists")

    return {str(key): plain(value, str(key)) for key, value in found.items()}


def intervals_of(findings: Mapping[str, Any], figures: Figures) -> dict[str, tuple[float, float]]:
    """Those that the task has found by itself, [low, high] by figure. Whatever else a plug-in calls so is its own."""
    given = findings.get("intervals")
    found = [(name, given.get(name)) for name in figures] if isinstance(given, dict) else []
    return {
        name: (ends[0], ends[1])
        for name, ends in found
        if isinstance(ends, list) and [isinstance(end, int | float) for end in ends] == [True, True]
    }


def description_of(problem: Problem) -> dict[str, Any]:
    """`problem.model_description` as model.json has it. Raises UserCodeFailed."""
    return json_of(problem, "model_description", problem.model_description())


def fit_of(
    candidate: Candidate, fit_on: Sequence[str], allowance: Allowance, chosen: dict[str, Any] | None
) -> tuple[nn.Module, dict[str, Any]] | None:
    """`candidate.fit`. Raises UserCodeFailed for anything but None, or a module and what JSON knows."""
    found = candidate.fit(fit_on, allowance, chosen)
    if found is None:
        return None
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], nn.Module):
        raise failed(candidate, "fit", f"{_kind(found)}; a module and what was chosen, or None, is expected")
    return found[0], json_of(candidate, "fit", found[1])


def calibration_of(problem: Problem, outputs: Outputs) -> dict[str, Any]:
    """`problem.calibrate` of these outputs, as JSON. Raises UserCodeFailed for what no model could be restored with."""
    found = problem.calibrate(outputs)
    if not isinstance(found, Calibration):
        raise failed(problem, "calibrate", f"{_kind(found)}; a Calibration is expected")
    said = json_of(problem, "calibrate", asdict(found))
    try:
        restored(Calibration, said)
    except ValueError as error:
        raise failed(problem, "calibrate", f"what is none: {error}") from None
    return said


def failed(of: object, hook: str, what: str) -> UserCodeFailed:
    """what: was returned, and what is expected"""
    return UserCodeFailed(f"{named(of, hook)} returned {what}")


def named(of: object, hook: str) -> str:
    """ "my_package.task:MyProblem.loss" """
    return f"{type(of).__module__}:{type(of).__qualname__}.{hook}"


def look_over(problem: Problem, task: Task | None) -> None:
    """Raises UserCodeFailed for what would otherwise show when the training is over, or nobody would understand.

    task: a plug-in's, which is tried on the description; what was written for interface 1 may know its own only once it
    has trained, and fail here
    """
    for name in ("train", "validation", "test"):
        if name not in problem.splits:
            told = f"has no '{name}'; train, validation and test are needed"
            raise UserCodeFailed(f"{named(problem, 'splits')} {told}")
        lengths = {key: len(tensor) for key, tensor in problem.splits[name].items()}
        if len(set(lengths.values())) != 1:
            told = ", ".join(f"{length} of '{key}'" for key, length in lengths.items()) or "no tensors"
            raise UserCodeFailed(f"{named(problem, 'splits')} has in '{name}' {told}; as many rows of each are needed")
    try:
        description = problem.model_description()
    except Exception:
        if task is None or task.interface > 1:
            raise
        return
    said = json_of(problem, "model_description", description)
    if task is None or task.interface == 1:
        return
    found = task.restore(json.loads(json.dumps(said)))
    if not isinstance(found, type(problem.predictor)):
        raise failed(task, "restore", f"{_kind(found)}; a {type(problem.predictor).__name__} is expected")


def scored(predictor: Predictor, outputs: Outputs, batch: Batch, chooses: Metric | None = None) -> Figures:
    """`predictor.score`, as numbers: a plug-in's may be tensors of one value. What is NaN or infinite is left out: no
    JSON can hold it, that of a checkpoint above all.

    chooses: the figure that weights are chosen by, which must not be NaN: nothing would ever be better than it.
    Raises UserCodeFailed for what is no figure.
    """
    numbers = _figures(predictor, "score", predictor.score(outputs, batch))
    if chooses and math.isnan(numbers.get(chooses.name, 0.0)):
        raise failed(
            predictor,
            "score",
            f"NaN as '{chooses.name}', by which weights are chosen, for {rows_in(batch)} rows whose outputs are "
            "all numbers; a figure that has no meaning for these rows is left out",
        )
    return _defined(numbers)


def no_choice(problem: Problem, figures: Figures) -> str:
    """A sentence where `score` never gave the figure that weights are chosen by, most often by a slip in its name; or
    where it never was finite."""
    given = ", ".join(f"'{name}'" for name in figures) or "none"
    return (
        f"{named(problem.predictor, 'score')} returned no finite '{problem.selection.name}', by which weights are"
        f" chosen: those of the last epoch were taken. Its figures are {given}."
    )


def baselines_of(problem: Problem, fit_on: Sequence[str]) -> dict[str, Figures]:
    """`problem.baselines`, as numbers, without NaN and infinity. Raises UserCodeFailed."""
    found = problem.baselines(fit_on)
    if not isinstance(found, Mapping):
        raise failed(problem, "baselines", f"{_kind(found)}; a dict of names and figures is expected")
    return {str(name): _defined(_figures(problem, "baselines", figures)) for name, figures in found.items()}


def _figures(of: object, hook: str, figures: object) -> Figures:
    if not isinstance(figures, Mapping):
        raise failed(of, hook, f"{_kind(figures)}; a dict of names and numbers is expected")
    numbers: Figures = {}
    for name, value in figures.items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise failed(of, hook, f"{_kind(value)} as '{name}'; a figure is one number, or left out") from None
    return numbers


def _defined(figures: Figures) -> Figures:
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _kind(value: object) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{f' of shape {tuple(shape)}' if shape else ''}"
