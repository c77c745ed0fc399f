"""The published model beside a new one: both on the same test rows, without those that either was trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer_image.contract import Beside, RunInputs
from trainer_image.data.rows import known
from trainer_image.data.rows.division import RowHashes
from trainer_image.data.rows.known import Known, seen
from trainer_image.engine import restoring
from trainer_image.engine.looking import Before
from trainer_image.engine.published import Published
from trainer_image.errors import TrainerError, shown
from trainer_image.report.html import words
from trainer_image.storage.blob_names import printable
from trainer_image.tasks import hooks
from trainer_image.tasks.base import Batch, Figures, ForAnother, Json, Outputs, Problem, rows_in, scored, take
from trainer_image.tasks.metrics import first

log = logging.getLogger(__name__)

# Of fewer rows nobody can tell which model is better.
LEAST_ROWS = 10
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


class _NotComparable(Exception):
    """The message says why, as a clause."""


@dataclass(frozen=True)
class _Tested:
    """The figures of both on the same rows. left_out: test rows that either was trained on"""

    ours: Figures
    theirs: Figures
    rows: int
    left_out: int


def beside(
    inputs: RunInputs,
    problem: Problem,
    hashes: RowHashes | None,
    outputs: Outputs,
    before: Before | None,
    device: torch.device,
) -> Json | None:
    """What report.json has under "champion"; None where there is no published model.

        {"run_id", "better": bool or None, "sentence", "why": None, or why they could not be compared,
         "rows": test rows that both are judged by, "left_out": those that either was trained on,
         "metrics": of the new model on these rows, "champion": of the published one}

    hashes: of the problem's rows; outputs: the new model's, of all test rows; before: of a warm start
    """
    if inputs.champion is None:
        return None
    run_id = inputs.champion.run_id
    try:
        known_rows = before.test if before is not None and before.known else None
        tested = _test(inputs, problem, hashes, outputs, known_rows, device)
        return {"run_id": run_id, "why": None, **_judged(run_id, problem, tested)}
    except _NotComparable as why:
        said = str(why)
    except Exception as error:
        # The new model is trained and tested: whatever a stranger's model leads to is no reason to lose it.
        line = next(iter(str(error).splitlines()), "")
        said = error.sentence if isinstance(error, TrainerError) else f"{type(error).__name__}: {line}"
        log.warning("The published model could not be tested: %s", said, exc_info=not isinstance(error, TrainerError))
    sentence = shown(f"The published model (run {run_id}) was not tested beside this one: {said.removesuffix('.')}.")
    return {"run_id": run_id, "why": said, "better": None, "sentence": sentence}


def told(found: Json | None) -> Beside | None:
    """What the supervisor is told of it."""
    return None if found is None else Beside(found["better"], found["sentence"])


def _test(
    inputs: RunInputs,
    problem: Problem,
    hashes: RowHashes | None,
    outputs: Outputs,
    known_rows: Tensor | None,
    device: torch.device,
) -> _Tested:
    assert inputs.champion is not None
    folder = inputs.champion.folder
    _same_task(restoring.described(folder), inputs)
    rows = known.read(folder)
    if rows is None:
        raise _NotComparable("its run did not note which rows it was trained on, as earlier versions did not")
    description, model = restoring.load(folder)
    other = _for_another(problem, hashes, model, description["model"], rows)
    ours, theirs = _unseen(hashes, other, rows, inputs, known_rows)
    test = problem.splits["test"]
    if len(ours) < LEAST_ROWS:
        of = rows_in(test)
        raise _NotComparable(
            f"of {of} test rows {len(ours)} are left that neither was trained on; at least {LEAST_ROWS} are needed"
        )
    predicted = model.outputs(other.rows, device)
    return _Tested(
        scored(problem.predictor, take(outputs, ours), _only(test, ours)),
        scored(model.predictor, take(predicted, theirs), _only(other.rows, theirs)),
        len(ours),
        rows_in(test) - len(ours) + problem.left_out,
    )


def _same_task(description: Json, inputs: RunInputs) -> None:
    task, own = description["task"], inputs.config.task
    if task != own:
        raise _NotComparable(f"it is of task {printable(task)[:40]}, this one of task {own}")
    theirs, ours = description.get("entry_point"), inputs.config.custom.entry_point
    if own == "custom" and theirs != ours:
        raise _NotComparable(f"it is of the task {printable(str(theirs))[:100]}, this one of {ours}")


def _for_another(
    problem: Problem, hashes: RowHashes | None, model: Published, described: Any, rows: Known
) -> ForAnother:
    try:
        return problem.for_another(model.predictor, rows.content)
    except NotImplementedError:
        pass
    except ValueError as why:
        raise _NotComparable(str(why)) from None
    # A plug-in that has nothing to say of it: what is prepared in the same way can be read by both.
    same = hooks.description_of(problem) == described
    if not same or hashes is None or hashes.content != rows.content:
        raise _NotComparable("its task cannot read the test rows for a model that was prepared otherwise")
    of = hashes.of["test"]
    return ForAnother(problem.splits["test"], of, of)


def _unseen(
    hashes: RowHashes | None, other: ForAnother, rows: Known, inputs: RunInputs, known_rows: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The rows that neither was trained on, int64: among the new model's test rows, and among those of the other."""
    ours: Mask = seen(other.own, rows)
    theirs: Mask = seen(other.hashes, rows)
    if hashes is not None:
        # A dataset may bring a test split of its own, with rows in it that train as well.
        trained = np.concatenate([hashes.of["train"], hashes.of["validation"]])
        ours = ours | np.isin(hashes.of["test"], trained)
        theirs = ours if other.own is other.hashes else theirs | np.isin(other.hashes, trained)
    if inputs.initial is not None:
        start = known.read(inputs.initial)
        if start is None or known_rows is None:
            raise _NotComparable("it is not known which rows the model was trained on that this one begins with")
        ours = ours | known_rows.numpy()
        # Where the two have rows of different kinds, such as windows of different lengths, all tell them by the same.
        theirs = ours if other.own is other.hashes else theirs | seen(other.hashes, start)
    return tuple(torch.from_numpy(np.flatnonzero(~mask)) for mask in (ours, theirs))  # type: ignore[return-value]


def _only(batch: Batch, index: Tensor) -> Batch:
    """These rows; all of them without a copy."""
    return batch if len(index) == rows_in(batch) else take(batch, index)


def _judged(run_id: str, problem: Problem, tested: _Tested) -> Json:
    name = problem.headline.name
    if name not in tested.ours or name not in tested.theirs:
        raise _NotComparable(f"{words(name)} is not defined on the {tested.rows} test rows that neither was trained on")
    own, other = tested.ours[name], tested.theirs[name]
    better = problem.headline.better(own, other)
    how = f"test {words(name)} {own:.4g} against {other:.4g}, on {tested.rows} test rows that neither was trained on"
    beaten = f"Better than the published model (run {run_id}): {how}."
    return {
        "better": better,
        "sentence": beaten if better else f"NOT BETTER THAN THE PUBLISHED MODEL (run {run_id}): {how}.",
        "rows": tested.rows,
        "left_out": tested.left_out,
        "metrics": first(name, tested.ours),
        "champion": first(name, tested.theirs),
    }
