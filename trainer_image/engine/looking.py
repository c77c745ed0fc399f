"""A second look at a model that is tested: what it makes of each column, and of rows that it has been shown before."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainer_image.data.rows.division import RowHashes
from trainer_image.data.rows.known import Known, seen
from trainer_image.engine.plan import Fitted, Plan
from trainer_image.report.html import words
from trainer_image.tasks import importance as columns
from trainer_image.tasks import repeated
from trainer_image.tasks.base import Json, Outputs, Problem, rows_in, scored, spaced, take

log = logging.getLogger(__name__)

# Of the time budget, and seconds at least and at most, for the importance of columns.
SHARE, LEAST_SECONDS, MOST_SECONDS = 0.05, 2.0, 20.0
# From this share of the test rows on, repeated ones are a warning, else a note.
WORTH_A_WARNING = 0.01


def importance(problem: Problem, fitted: Fitted, plan: Plan, device: torch.device) -> Json | None:
    """What the headline figure loses without each column: see `importance.measured`; None where there are none."""
    places = problem.places()
    if not places:
        return None
    rows = spaced(problem.splits, ["test"], columns.MOST_ROWS)
    seconds = min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * plan.time_budget))
    try:
        return columns.measured(
            lambda batch: fitted.published.outputs(batch, device),
            partial(scored, problem.predictor),
            rows,
            places,
            problem.headline,
            seconds,
        )
    except Exception as error:  # the model is trained and tested: a picture less is no reason to lose it
        log.warning("The report has no importance of columns: %s: %s", type(error).__name__, error)
        return None


def hashes_of(problem: Problem) -> RowHashes | None:
    """By which the rows are told when they come again; None where they cannot be."""
    if problem.hashes is not None:
        return problem.hashes
    try:
        return repeated.hashed(problem.splits)
    except Exception as error:  # a plug-in's rows of a kind that has no bytes to compare
        log.warning("Later runs will not know these rows: %s: %s", type(error).__name__, error)
        return None


@dataclass(frozen=True)
class Before:
    """What a warm start's first model was trained on, of the rows that this one is judged by.

    known:    whether that is known at all
    test:     bool (rows,), of the test split; left_out: further rows of it, which were taken out for that reason
    """

    known: bool
    test: Tensor
    left_out: int = 0

    @property
    def counted(self) -> Tensor:
        """The test rows that figures are of, int64: those that it was not trained on, all where there are none."""
        return torch.nonzero(~self.test if not self.test.all() else self.test).squeeze(1)

    @property
    def said(self) -> Json:
        """{"known", "rows": test rows that it was trained on, "of": all of them, "tested": those that figures are of
        and are none of these}, for report.json."""
        if not self.known:
            return {"known": False}
        count, seen_now = len(self.test), int(self.test.sum())
        return {
            "known": True,
            "rows": self.left_out + seen_now,
            "of": self.left_out + count,
            "tested": count - seen_now,
        }


def before(problem: Problem, hashes: RowHashes | None, earlier: Known | None) -> Before:
    """Of a warm start. earlier: what the run of that model knew; adds to the problem's notes."""
    none = torch.zeros(rows_in(problem.splits["test"]), dtype=torch.bool)
    if earlier is None or hashes is None or hashes.content != earlier.content:
        return Before(known=False, test=none)
    found = Before(True, torch.from_numpy(seen(hashes.of["test"], earlier)), problem.left_out)
    said, validation = found.said, seen(hashes.of["validation"], earlier)
    problem.notes.append(
        f"Warm start: the model before was trained on {said['rows'] or 'none'} of {said['of']} test rows"
        + ("; the figures are of the others." if said["rows"] and said["tested"] else ".")
    )
    if validation.any():
        problem.notes.append(
            f"Warm start: the model before was trained on {validation.sum()} of {len(validation)} validation rows, too:"
            " the choice among the models leans towards its weights."
        )
    return found


def repeated_rows(problem: Problem, fitted: Fitted, outputs: Outputs) -> Json | None:
    """{"rows": test rows that the model was fitted on, "share", "figure", "without": the headline figure on the other
    ones}, said among the problem's warnings or notes; None where rows cannot be compared.

    outputs: of all test rows
    """
    test = problem.splits["test"]
    try:
        again = repeated.in_test(problem.splits, fitted.fit_on)
    except Exception as error:  # a plug-in's rows of a kind that has no bytes to compare
        log.warning("Rows that test and training share were not counted: %s: %s", type(error).__name__, error)
        return None
    if again is None:
        return None
    count, rows, name = int(again.sum()), rows_in(test), problem.headline.name
    without = None
    if 0 < count < rows:
        others = torch.nonzero(~again).squeeze(1)
        without = scored(problem.predictor, take(outputs, others), take(test, others)).get(name)
    if count:
        sentence = (
            f"{count} of {rows} test rows ({count / rows:.1%}) are also among the rows that the model was trained on,"
            " with the same label: of these it may know the answer by heart."
        )
        if without is not None:
            sentence += f" On the others its {words(name)} is {without:.4g}."
        (problem.warnings if count >= WORTH_A_WARNING * rows else problem.notes).append(sentence)
    return {"rows": count, "share": count / rows, "figure": name, "without": without}
