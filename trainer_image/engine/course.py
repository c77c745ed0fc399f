"""How long the network trains: what of the time is its own, when its search ends, and whether more epochs follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from trainer_image.engine.budget import FORWARD, LEAST_BESIDE_REFIT, LEAST_REFIT, LITTLE, Pace, fitted, more_epochs
from trainer_image.engine.contest import Contest
from trainer_image.engine.plan import Plan
from trainer_image.engine.published import NETWORK
from trainer_image.engine.sizing import budget_of
from trainer_image.engine.steps.position import REFIT, SEARCH, Position
from trainer_image.tasks.base import Problem, rows_in

# More epochs follow more epochs only where those have improved the figure by this share.
WORTH_IT = 0.002
MORE = "The best epoch was one of the last"


class Course:
    """Sets a position's `planned`, `stop_at`, `full`, `most` and `cycle`, by measured steps.

    seconds: of training so far, earlier attempts included
    """

    def __init__(self, problem: Problem, plan: Plan, contest: Contest, seconds: Callable[[], float]) -> None:
        self._problem, self._plan, self._contest, self._seconds = problem, plan, contest, seconds
        self.budget = budget_of(problem, plan)
        self._ends = 0.0
        self._pace = Pace(0.0, 0, 0.0)

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget.total - self._seconds()

    def share(self, at: Position) -> None:
        """When the phase has to be over, by what is known by now of what comes after it."""
        if at.phase == REFIT:
            self._ends = self.budget.total
        else:
            self.budget = replace(self.budget, testing=self._contest.testing())
            later = self._contest.again(at) + self._contest.folding(at) / self.budget.growth
            self._ends = self.budget.search_ends(self._contest.seconds(at), later)
        self._pace.until(self._ends)

    def begin(self, at: Position, per_epoch: int) -> None:
        """Before the first step of an attempt at a phase."""
        if not at.planned:
            at.planned = at.stop_at = at.full = at.most = self._plan.recipe.epochs * per_epoch
        self._pace = Pace(self._seconds(), at.phase_step, self._ends)

    def leave_out(self, seconds: float) -> None:
        """These were spent on what is no step's usual work."""
        self._pace.leave_out(seconds)

    def fit(self, at: Position) -> None:
        """Fits the schedule to what the time budget holds, never before a tenth of it: first steps are slow."""
        after = self._after(at) if at.phase == SEARCH else 0.0
        fitting = self._pace.fitting(self._seconds(), at.phase_step, after)
        if fitting is not None and at.phase == SEARCH and not at.cycle and fitting < LEAST_BESIDE_REFIT * at.most:
            self.budget = replace(self.budget, refit=False)
            self.share(at)
            fitting = self._pace.fitting(self._seconds(), at.phase_step, after)
        if fitting is not None:
            done, now, most, fitting = (steps - at.cycle for steps in (at.phase_step, at.stop_at, at.most, fitting))
            at.stop_at = at.cycle + fitted(done, now, most, fitting)
            at.planned = at.full if at.stop_at == at.most else at.stop_at

    def idle(self, at: Position) -> bool:
        """Whether validation has not improved for so long that it is not expected to."""
        # Of epochs that were added the first ones make it worse, as a high learning rate does.
        return at.best is not None and at.epoch - at.best_epoch >= self._plan.recipe.patience and not at.cycle

    def more(self, at: Position, per_epoch: int) -> int:
        """At the end of a search: begins another cycle of epochs where that promises something; how many."""
        if at.phase != SEARCH or at.stopped:
            return 0
        added = 0
        if self.idle(at):
            at.stopped = (
                f"the validation {self._problem.selection.name.replace('_', ' ')} had not improved for"
                f" {self._plan.recipe.patience} epochs (patience)"
            )
        elif at.stop_at < at.most:
            at.stopped = "the time budget was used up"
            at.notes.append(
                f"The time budget of {self._plan.time_budget:g} s (train.time_budget) was used up: training ended with "
                f"epoch {at.epoch} of at most {math.ceil(at.most / per_epoch)}. More time may give a better model."
            )
        else:
            at.stopped = f"all {at.epoch} epochs were done"
            if self._plan.more and _worth_it(at):
                spent = self._seconds()
                an_epoch = self._pace.step(spent, at.phase_step) * per_epoch
                added = more_epochs(at.epoch, at.best_epoch, self._ends - spent, an_epoch)
        if added:
            at.stopped = ""
            if at.cycle:
                at.notes = [note for note in at.notes if not note.startswith(MORE)]
            at.notes.append(f"{MORE} of {at.epoch}, and time was left: up to {added} more followed.")
            at.cycle, at.reached = at.phase_step, at.best
            at.planned = at.stop_at = at.full = at.most = at.phase_step + added * per_epoch
        return added

    def folds(self, at: Position, count: int) -> int:
        """For how many of so many folds time is left to train a network like the best one, and then for all refits."""
        network = self._step(at) * at.best_step
        again = self._contest.again(at) + (network if self._plan.recipe.refit else 0.0)
        fitting = (self.left - again * self.budget.growth) / max(network * (count - 1) / count, 1e-9)
        return max(0, min(count, int(fitting)))

    def _step(self, at: Position) -> float:
        """Seconds of a step of the network, validation included."""
        beside = self._contest.seconds(at) + self._contest.comparing
        return (self._seconds() - beside) / max(1, at.step)

    def again(self, at: Position) -> float:
        """Seconds that the network's refit takes, where it is to have one."""
        return self._step(at) * (at.stop_at - at.phase_step) if NETWORK in at.again else 0.0

    def after_search(self, at: Position) -> float:
        """Chooses the candidates that are fitted once more (`again`); seconds that are left for the network's refit."""
        self.budget = replace(self.budget, testing=self._contest.testing(at.weights))
        left = self.left
        at.again = []
        for entry in at.candidates:
            seconds = entry["again"] * self.budget.growth
            if entry["name"] in at.weights and seconds <= max(left, LITTLE * self._plan.time_budget):
                at.again.append(entry["name"])
                left -= seconds
        return left

    def begin_refit(self, at: Position, left: float) -> bool:
        """Whether the network trains once more, for the same schedule on all rows: where most of it fits into the time
        that is left."""
        if NETWORK not in at.weights or not self._plan.recipe.refit:
            return False
        per_epoch = math.ceil(rows_in(self._problem.splits["train"]) / self._plan.recipe.batch_size)
        rows = sum(rows_in(self._problem.splits[name]) for name in ("train", "validation"))
        growth = math.ceil(rows / self._plan.recipe.batch_size) / per_epoch
        steps = max(1, round(at.best_step * growth))
        fitting = int(left / self._step(at))
        if fitting < LEAST_REFIT * steps:
            return False
        at.again.append(NETWORK)
        # Cycles that followed each other become one of their length.
        at.full, at.most = (steps if at.cycle else round(at.planned * growth)), steps
        at.stop_at = min(steps, fitting)
        at.planned = at.full if at.stop_at == at.most else at.stop_at
        at.phase_step = at.epoch = at.batch = at.cycle = 0
        return True

    def _after(self, at: Position) -> float:
        """What validation, and the test while nobody knows what it takes, will cost at the search's end, in steps."""
        splits = ("validation",) if at.epoch else ("validation", "test")
        rows = sum(rows_in(self._problem.splits[name]) for name in splits)
        return FORWARD * rows / self._plan.recipe.batch_size


def _worth_it(at: Position) -> bool:
    """Whether the present cycle of epochs has improved what the one before had reached."""
    if at.reached is None or at.best is None:
        return True
    return abs(at.best - at.reached) > WORTH_IT * max(abs(at.reached), 1e-9)
