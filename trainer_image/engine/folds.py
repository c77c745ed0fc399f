"""Where validation rows are few: models are compared by all rows but the test's, each predicted by a fit that has not
seen it. The network, too, where its fits do not take too long: on the few rows that have chosen its best epoch it looks
better than it is.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer_image.engine.plan import Plan
from trainer_image.engine.steps.batches import PhaseRows
from trainer_image.engine.steps.evaluation import evaluate
from trainer_image.engine.steps.position import Position
from trainer_image.engine.steps.step import Stepper, on_device
from trainer_image.engine.team import Team
from trainer_image.errors import TrainerError
from trainer_image.tasks.base import Outputs, Predictor, Problem, joined, rows_in, take
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.tensors import collected

log = logging.getLogger(__name__)

# Of the time budget, what the candidates' fits may take.
MOST_SHARE = 0.25
# Fits on other rows may take longer than they did: so many times as long.
PATIENCE = 3.0


def seconds(folds: int, at: Position, time_budget: float) -> float:
    """What so many fits of each candidate take; 0: it is not to be done, because there is one at most, or it would take
    too long."""
    fitted = [entry for entry in at.candidates if entry["chosen"] is not None]
    found = float(sum(folds * entry["again"] for entry in fitted))
    return found if len(fitted) > 1 and found <= MOST_SHARE * time_budget else 0.0


def unseen(
    candidates: Sequence[Candidate], at: Position, predictor: Predictor, allowance: Allowance, fold_of: Tensor
) -> dict[str, Outputs]:
    """By candidate, its predictions for training and validation rows; empty where that is not to be had."""
    found: dict[str, Outputs] = {}
    chosen = {entry["name"]: entry["chosen"] for entry in at.candidates}
    for candidate in candidates:
        if chosen.get(candidate.name) is None:
            continue
        try:
            outputs = candidate.unseen(predictor, allowance, chosen[candidate.name], fold_of)
        except TrainerError:
            raise
        except Exception as error:  # a part of the rows may lack what a fit needs: the validation split has to do
            log.warning("The candidate %s was not compared by folds", candidate.name, exc_info=error)
            return {}
        if outputs is None:
            return {}
        found[candidate.name] = outputs
    return found


@dataclass(frozen=True)
class Folded:
    """outputs: what the network predicts for `rows` of training and validation split together, int64, ascending"""

    outputs: Outputs
    rows: Tensor


def network(
    problem: Problem,
    plan: Plan,
    at: Position,
    initial: Mapping[str, Tensor],
    fold_of: Tensor,
    count: int,
    go_on: Callable[[], bool],
) -> Folded | None:
    """What a network like the best one of the search predicts for the first `count` folds: trained for as many epochs,
    by the same schedule, on the rows of other folds. None: `go_on` has said no.

    initial: its weights before `Problem.begin`; fold_of: (rows,)
    """
    rows, size = joined(problem.splits["train"], problem.splits["validation"]), plan.recipe.batch_size
    per_epoch = math.ceil(rows_in(problem.splits["train"]) / size)
    places, parts = list[Tensor](), list[Outputs]()
    for fold in range(count):
        alone = copy.copy(problem)
        alone.splits = {"train": take(rows, torch.nonzero(fold_of != fold).squeeze(1))}
        model = alone.predictor.build_model()
        model.load_state_dict(initial)
        alone.begin(model, ["train"])
        stepper = Stepper(alone, replace(plan, compile=False), on_device(model, plan.device), Team(), [])
        state = stepper.fresh_state(model)
        with closing(PhaseRows(alone.splits["train"], size, plan.device, (plan.seed, False))) as batches:
            growth = batches.per_epoch / per_epoch
            steps = max(1, round(at.best_step * growth))
            state.at.planned = steps if at.cycle else round(at.planned * growth)
            for step in range(steps):
                if not go_on():
                    return None
                state.at.epoch, number = divmod(step, batches.per_epoch)
                stepper.step(state, batches.batch(state.at.epoch, number)[0])
        stepper.check()
        places.append(torch.nonzero(fold_of == fold).squeeze(1))
        parts.append(evaluate(alone.predictor, state.judged, take(rows, places[-1]), plan.device))
    order = torch.cat(places).argsort()
    return Folded(take(collected(parts), order), torch.cat(places)[order])
