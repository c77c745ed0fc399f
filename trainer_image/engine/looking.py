"""A second look at a model that is tested: what it makes of each column, and of rows that it has been shown before."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from trainer_image.engine.plan import Fitted, Plan
from trainer_image.report.html import words
from trainer_image.tasks import importance as columns
from trainer_image.tasks import repeated
from trainer_image.tasks.base import Json, Problem, rows_in, scored, spaced, take

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
            problem.predictor.score,
            rows,
            places,
            problem.headline,
            seconds,
        )
    except Exception as error:  # the model is trained and tested: a picture less is no reason to lose it
        log.warning("The report has no importance of columns: %s: %s", type(error).__name__, error)
        return None


def repeated_rows(problem: Problem, fitted: Fitted, outputs: Tensor) -> Json | None:
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
        without = scored(problem.predictor, outputs[others], take(test, others)).get(name)
    if count:
        sentence = (
            f"{count} of {rows} test rows ({count / rows:.1%}) are also among the rows that the model was trained on,"
            " with the same label: of these it may know the answer by heart."
        )
        if without is not None:
            sentence += f" On the others its {words(name)} is {without:.4g}."
        (problem.warnings if count >= WORTH_A_WARNING * rows else problem.notes).append(sentence)
    return {"rows": count, "share": count / rows, "figure": name, "without": without}
