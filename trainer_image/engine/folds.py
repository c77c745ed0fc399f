"""Where validation rows are few: candidates are compared by all rows but the test's, each predicted by a fit that has
not seen it. Fits of the network would take too long: it is compared with the others on the validation split.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from trainer_image.engine.steps.position import Position
from trainer_image.errors import TrainerError
from trainer_image.tasks.base import Outputs, Predictor
from trainer_image.tasks.candidates import Allowance, Candidate

log = logging.getLogger(__name__)

# Of the time budget, what this may take.
MOST_SHARE = 0.25
# Fits on other rows may take longer than they did: so many times as long.
PATIENCE = 3.0


def seconds(candidates: Sequence[Candidate], at: Position, time_budget: float) -> float:
    """What it takes; 0: it is not to be done, because one of several does not offer it, or it would take too long."""
    fitted = [entry for entry in at.candidates if entry["chosen"] is not None]
    fits = {candidate.name: candidate.folds for candidate in candidates}
    if len(fitted) < 2 or not all(fits[entry["name"]] for entry in fitted):
        return 0.0
    found = float(sum(fits[entry["name"]] * entry["again"] for entry in fitted))
    return found if found <= MOST_SHARE * time_budget else 0.0


def unseen(
    candidates: Sequence[Candidate], at: Position, predictor: Predictor, allowance: Allowance
) -> dict[str, Outputs]:
    """By candidate, its predictions for training and validation rows; empty where that is not to be had."""
    found: dict[str, Outputs] = {}
    if not allowance.seconds:
        return found
    chosen = {entry["name"]: entry["chosen"] for entry in at.candidates}
    for candidate in candidates:
        if chosen.get(candidate.name) is None:
            continue
        try:
            outputs = candidate.unseen(predictor, allowance, chosen[candidate.name])
        except TrainerError:
            raise
        except Exception as error:  # a part of the rows may lack what a fit needs: the validation split has to do
            log.warning("The candidate %s was not compared by folds", candidate.name, exc_info=error)
            return {}
        if outputs is None:
            return {}
        found[candidate.name] = outputs
    return found
