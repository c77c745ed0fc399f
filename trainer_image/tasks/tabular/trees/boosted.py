"""Boosted trees as a candidate: ensembles of several depths, of which the mean of the best is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from torch import nn

from trainer_image.tasks.base import Json, restored, rows_in
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.tabular.candidates import Sample, TableCandidate, threads_for, within_chance
from trainer_image.tasks.tabular.columns import Preprocessing
from trainer_image.tasks.tabular.target import Target, ValueTarget
from trainer_image.tasks.tabular.trees.ensemble import TreeEnsemble, Trees, TreeShape
from trainer_image.tasks.tabular.trees.rows import FOLDS, TreeRows, margins, statistics

if TYPE_CHECKING:  # imported where trees are fitted: predicting does without
    from trainer_image.tasks.tabular.trees.boosting import Boosted, Settings

Array = np.ndarray[Any, Any]

LEAST_ROWS = 30
LEAST_SECONDS = 0.5
# Up to so many rows the number of rounds is chosen with folds of the training rows: the validation rows are too few.
FOLDED_ROWS = 2_000
DEPTHS = (4, 6, 3)
# Deeper trees where there are rows enough for them, in place of shallow ones.
MANY_ROWS, MANY_DEPTHS = 5_000, (6, 8, 4)
MOST_ROUNDS = 3_000
# How many depths are tried, whether rounds are chosen with folds where rows are few, and the rate: the first of these
# that there is time for. At the slowest rate so many rounds are enough, at others as many fewer as they are faster.
PLANS = (
    (3, True, 0.05),
    (3, True, 0.1),
    (3, False, 0.05),
    (2, False, 0.1),
    (1, False, 0.1),
    (1, False, 0.2),
)
ENOUGH_ROUNDS = 600
# Rounds by which the pace is measured.
PACE_ROUNDS = 5
# More rows carry more rounds.
REFIT_ROUNDS = 1.1


@dataclass(frozen=True)
class Ensemble:
    """Trees of one depth, and how they are boosted."""

    depth: Annotated[int, Field(ge=1, le=32)]
    rate: Annotated[float, Field(gt=0, le=1)]
    rounds: Annotated[int, Field(ge=1, le=10 * MOST_ROUNDS)]


@dataclass(frozen=True)
class ChosenTrees:
    """What the fit chose, and the shape of what it left. log: they add up to logarithms of values"""

    ensembles: tuple[Ensemble, ...]
    shape: TreeShape
    log: bool = False


def unfitted(chosen: Json, columns: Preprocessing, target: Target) -> TreeEnsemble:
    """Raises ValueError for what no fit returns."""
    found, classes = restored(ChosenTrees, chosen), target.outputs
    of = target if isinstance(target, ValueTarget) and found.log else None
    return TreeEnsemble(columns, margins(classes), statistics(classes), found.shape, two=classes == 2, log=of)


class BoostedTrees(TableCandidate):
    """XGBoost's trees. More rows than memory is to hold twice are left out, evenly spaced."""

    name = "boosted trees"
    # Most tables are predicted best by these.
    share = 3.0

    def _fit(self, fit_on: Sequence[str], allowance: Allowance, chosen: Json | None) -> tuple[nn.Module, Json] | None:
        deadline = time.monotonic() + allowance.seconds
        try:
            from trainer_image.tasks.tabular.trees import boosting  # noqa: F401
        except Exception as error:  # the library says in its own way what it misses on this machine
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            self.note = f"Boosted trees sat out, because XGBoost cannot be loaded here: {why}"
            return None
        # Loading it may have taken all there was.
        if chosen is None and deadline - time.monotonic() < LEAST_SECONDS:
            self.note = f"Boosted trees sat out: {allowance.seconds:.2g} s were too little time for them."
            return None
        if sum(rows_in(self.splits[name]) for name in fit_on) < LEAST_ROWS:
            self.note = f"Boosted trees sat out: they need {LEAST_ROWS} rows to be fitted on."
            return None
        rows = TreeRows(self.splits, fit_on, self.columns, self.target, allowance.seed)
        if chosen is None:
            made = _best(rows, allowance, deadline)
        else:
            given = restored(ChosenTrees, chosen)
            made = _Fits(rows, allowance, deadline, log=given.log).again(given.ensembles)
        if made is None:
            self.note = "No time was left to fit the boosted trees once more on training and validation rows together."
            return None
        if rows.left_out:
            self.note = f"Boosted trees saw {len(rows.y)} evenly spaced rows; the other {rows.left_out} were left out."
        self.again = made.seconds
        # As it comes back from a checkpoint or a model: lists for tuples.
        ensembles = [asdict(each) for each in made.ensembles]
        found = {"ensembles": ensembles, "shape": asdict(made.trees.shape), "log": made.log}
        model = unfitted(found, self.columns, self.target)
        model.fill(made.trees, made.base, rows.tables)
        return model, found


@dataclass(frozen=True)
class _Tried:
    """An ensemble, its trees, the loss of each row that they have not seen, and what fitting these trees alone took."""

    ensemble: Ensemble
    trees: Trees
    loss: Array
    seconds: float


@dataclass(frozen=True)
class _Made:
    """Ensembles, the mean of their trees, what these add up to and from where on; the least loss of rows that they have
    not seen, and how many seconds it takes to fit them once more."""

    ensembles: Sequence[Ensemble]
    trees: Trees
    log: bool
    base: Array
    loss: float
    seconds: float


def _best(rows: TreeRows, allowance: Allowance, deadline: float) -> _Made | None:
    """Of values that are far from evenly spread, trees of logarithms too: whichever predict values better."""
    if not rows.skewed:
        return _Fits(rows, allowance, deadline, log=False).best()
    middle = (time.monotonic() + deadline) / 2
    found = [_Fits(rows, allowance, until, log=log).best() for log, until in ((False, middle), (True, deadline))]
    there = [each for each in found if each is not None]
    return min(there, key=lambda each: each.loss) if len(there) == len(found) else None


class _Fits:
    """Several ensembles within an allowance."""

    def __init__(self, rows: TreeRows, allowance: Allowance, deadline: float, *, log: bool) -> None:
        from trainer_image.tasks.tabular.trees import boosting

        self._boosting, self._rows, self._allowance = boosting, rows, allowance
        self._deadline = deadline
        self._aim = boosting.Aim(rows.classes, log)
        self._y = rows.positive(rows.y) if log else rows.y
        self._weights = rows.weights
        self._base = self._aim.first_margins(self._y, self._weights)
        # Losses of both aims in one unit.
        self._unit = rows.mean_in_spreads**2 if log else 1.0

    def _made(self, ensembles: Sequence[Ensemble], trees: Trees, loss: float, seconds: float) -> _Made:
        base = self._base + np.log(self._rows.mean) if self._aim.log else self._base
        return _Made(ensembles, trees, self._aim.log, base, loss * self._unit, seconds)

    def best(self) -> _Made | None:
        """Those whose loss on rows that they have not seen is within chance of the least: the mean of these."""
        depths = MANY_DEPTHS if len(self._y) >= MANY_ROWS else DEPTHS
        count, folded, rate = self._plan(depths[0])
        found: list[_Tried] = []
        for number, depth in enumerate(depths[:count]):
            left = self._deadline - time.monotonic()
            if found and (left < 0.1 * self._allowance.seconds or self._allowance.stop.is_set()):
                break
            deadline = time.monotonic() + left / (count - number)
            settings = self._settings(depth, rate)
            found.append(self._folded(settings, deadline) if folded else self._held(settings, deadline))
        if self._allowance.stop.is_set():
            return None
        least = min(found, key=lambda each: float(each.loss.mean())).loss
        kept = [each for each in found if within_chance(each.loss - least)]
        trees = Trees.joined([each.trees for each in kept])
        seconds = sum(each.seconds for each in kept)
        return self._made([each.ensemble for each in kept], trees, float(least.mean()), seconds)

    def _plan(self, depth: int) -> tuple[int, bool, float]:
        """How many depths, whether with folds, and the rate, by the pace of the first rounds."""
        ends: list[float] = []
        self._boost(self._settings(depth, PLANS[0][2]), PACE_ROUNDS, self._deadline, ends=ends)
        # What comes before the first round is no part of it.
        pace = float(np.median(np.diff(ends))) if len(ends) > 1 else np.inf
        few = len(self._y) <= FOLDED_ROWS
        for count, folded, rate in PLANS:
            rounds = ENOUGH_ROUNDS * PLANS[0][2] / rate * count * (FOLDS + 1 if folded and few else 1)
            if rounds * pace <= self._deadline - time.monotonic():
                break
        return count, folded and few, rate

    def again(self, ensembles: Sequence[Ensemble]) -> _Made | None:
        """The same ensembles of these rows; None where time does not last."""
        made, began = [], time.monotonic()
        for each in ensembles:
            rounds = round(REFIT_ROUNDS * each.rounds)
            boosted = self._boost(self._settings(each.depth, each.rate), rounds, self._deadline)
            if boosted.rounds < rounds:
                return None
            made.append(boosted.trees(rounds))
        return self._made(ensembles, Trees.joined(made), 0.0, time.monotonic() - began)

    def _held(self, settings: Settings, deadline: float) -> _Tried:
        """An ensemble of as many rounds as the validation rows are predicted best with, and each one's loss."""
        x, y, weights = self._rows.held()
        held, began = (x, self._rows.positive(y) if self._aim.log else y, weights), time.monotonic()
        boosted = self._boost(settings, MOST_ROUNDS, deadline, held=held)
        rounds = boosted.rounds
        seconds = (time.monotonic() - began) * rounds / len(boosted.curve)
        loss = self._aim.losses(boosted.margins(x, self._base, rounds), *held[1:])
        return _Tried(Ensemble(settings.depth, settings.rate, rounds), boosted.trees(rounds), loss, seconds)

    def _folded(self, settings: Settings, deadline: float) -> _Tried:
        """The same by folds: as many rounds as are best for all of them together; then all rows are fitted on."""
        rows, y = self._rows, self._y
        fits: list[tuple[Array, Boosted]] = []
        for fold in range(FOLDS):
            inside = rows.folds == fold
            left = deadline - time.monotonic()
            until = time.monotonic() + left / (FOLDS + 1 - fold)
            held = rows.x[inside], y[inside], self._weights_of(inside)
            fits.append((inside, self._boost(settings, MOST_ROUNDS, until, among=~inside, held=held)))
        longest = max(len(boosted.curve) for _, boosted in fits)
        curves = [np.pad(boosted.curve, (0, longest - len(boosted.curve)), mode="edge") for _, boosted in fits]
        rounds = int(np.mean(curves, axis=0).argmin()) + 1
        loss = np.zeros(len(y))
        for inside, boosted in fits:
            base = self._aim.first_margins(y[~inside], self._weights_of(~inside))
            margins = boosted.margins(rows.x[inside], base, rounds)
            loss[inside] = self._aim.losses(margins, y[inside], self._weights_of(inside))
        # Its time was measured with the folds; cut short it is what it is.
        began = time.monotonic()
        boosted = self._boost(settings, rounds, self._deadline)
        seconds, rounds = time.monotonic() - began, boosted.rounds
        return _Tried(Ensemble(settings.depth, settings.rate, rounds), boosted.trees(rounds), loss, seconds)

    def _weights_of(self, rows: Array) -> Array | None:
        return None if self._weights is None else self._weights[rows]

    def _settings(self, depth: int, rate: float) -> Settings:
        threads = threads_for(self._rows.x.size, self._allowance)
        return self._boosting.Settings(depth, rate, self._allowance.seed, threads)

    def _boost(
        self,
        settings: Settings,
        rounds: int,
        deadline: float,
        among: Array | None = None,
        held: Sample | None = None,
        ends: list[float] | None = None,
    ) -> Boosted:
        """Fits on all rows, or those `among` them, until the deadline; `ends` gets when each round ended."""
        allowance = self._allowance

        def go_on() -> bool:
            allowance.beat()
            now = time.monotonic()
            if ends is not None:
                ends.append(now)
            return not allowance.stop.is_set() and now < deadline

        x, y, weights = self._rows.x, self._y, self._weights
        if among is not None:
            x, y, weights = x[among], y[among], self._weights_of(among)
        return self._boosting.boost(x, y, self._aim, settings, rounds, go_on, held, weights)
