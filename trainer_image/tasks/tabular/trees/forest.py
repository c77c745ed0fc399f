"""A random forest as a candidate: scikit-learn's, of random splits or of the best ones, read into plain arrays.

How fine its trees are is chosen by rows that each tree has not seen, of which there are far more than validation rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import nn

from trainer_image.tasks.base import Json, Size, restored, rows_in
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.tabular.candidates import TableCandidate, threads_for
from trainer_image.tasks.tabular.columns import Preprocessing
from trainer_image.tasks.tabular.target import Target
from trainer_image.tasks.tabular.trees.ensemble import TreeEnsemble, Trees, TreeShape
from trainer_image.tasks.tabular.trees.rows import TreeRows, statistics

Array = np.ndarray[Any, Any]

LEAST_ROWS = 30
LEAST_SECONDS = 0.5
TREES, TRIED_TREES, PORTION = 100, 30, 10
MOST_DEPTH = 48
# Values in leaves and nodes together: 32 MB.
MOST_VALUES = 8_000_000
# Of the allowance, what trying settings may take.
TRYING = 0.5


@dataclass(frozen=True)
class Grown:
    """How a forest is grown.

    random: splits at random places; leaf: rows of a leaf at least; share: of the inputs that a split is chosen among
    """

    random: bool
    leaf: Size
    share: Annotated[float, Field(gt=0, le=1)]
    trees: Size = TREES


# In the order in which they are tried, as far as time lasts.
SETTINGS = (
    Grown(True, 3, 0.6),
    Grown(False, 4, 0.35),
    Grown(True, 8, 0.6),
    Grown(True, 1, 0.9),
    Grown(True, 20, 0.9),
)


@dataclass(frozen=True)
class ChosenForest:
    """What the fit chose, and the shape of what it left."""

    grown: Grown
    shape: TreeShape


def unfitted(chosen: Json, columns: Preprocessing, target: Target) -> TreeEnsemble:
    """Raises ValueError for what no fit returns."""
    shape, classes = restored(ChosenForest, chosen).shape, target.outputs
    return TreeEnsemble(columns, classes, statistics(classes), shape, chances=classes > 1)


class RandomForest(TableCandidate):
    """Of very many rows evenly spaced ones are fitted on, as with boosted trees."""

    name = "random forest"

    def _fit(self, fit_on: Sequence[str], allowance: Allowance, chosen: Json | None) -> tuple[nn.Module, Json] | None:
        deadline = time.monotonic() + allowance.seconds
        if chosen is None and allowance.seconds < LEAST_SECONDS:
            self.note = f"The random forest sat out: {allowance.seconds:.2g} s were too little time for it."
            return None
        if sum(rows_in(self.splits[name]) for name in fit_on) < LEAST_ROWS:
            self.note = f"The random forest sat out: it needs {LEAST_ROWS} rows to be fitted on."
            return None
        rows = TreeRows(self.splits, fit_on, self.columns, self.target, allowance.seed)
        fits = _Fits(rows, allowance, deadline)
        settings = fits.chosen() if chosen is None else restored(ChosenForest, chosen).grown
        began = time.monotonic()
        made = None if settings is None else fits.grown(settings, cut=chosen is None)
        self.again = time.monotonic() - began
        if made is None:
            self.note = "No time was left to fit the random forest once more on training and validation rows together."
            return None
        if rows.left_out:
            self.note = f"The forest saw {len(rows.y)} evenly spaced rows; the other {rows.left_out} were left out."
        trees, settings = made
        found = {"grown": asdict(settings), "shape": asdict(trees.shape)}
        model = unfitted(found, self.columns, self.target)
        model.fill(trees, np.zeros(rows.classes), rows.tables)
        return model, found


class _Fits:
    """One fit of the candidate within its allowance."""

    def __init__(self, rows: TreeRows, allowance: Allowance, deadline: float) -> None:
        self._rows, self._allowance, self._deadline = rows, allowance, deadline
        self._threads = threads_for(rows.x.size, allowance)
        values = (5 + rows.classes) * 2 * len(rows.y) * TREES
        self._least_leaf = -(-values // MOST_VALUES)

    def chosen(self) -> Grown | None:
        """The settings whose small forest predicts the rows best that each of its trees has not seen."""
        began, allowance = time.monotonic(), self._allowance
        tried: dict[Grown, float] = {}
        for each in SETTINGS:
            settings = replace(each, leaf=max(each.leaf, self._least_leaf))
            if settings in tried:
                continue
            tried[settings] = self._loss(settings)
            if allowance.stop.is_set():
                return None
            spent = time.monotonic() - began
            if spent * (1 + 1 / len(tried)) > TRYING * allowance.seconds:
                break
        return min(tried, key=lambda each: tried[each])

    def grown(self, settings: Grown, *, cut: bool) -> tuple[Trees, Grown] | None:
        """The forest. cut: fewer trees are as good where time does not last; else there is none then."""
        trees: list[Any] = []
        for tree, _ in self._trees(settings, settings.trees, sampled=not settings.random):
            if self._allowance.stop.is_set():
                return None
            if trees and time.monotonic() > self._deadline:
                if not cut:
                    return None
                break
            trees.append(tree)
        return _read(trees, self._rows), replace(settings, trees=len(trees))

    def _loss(self, settings: Grown) -> float:
        rows = self._rows
        sums, seen = np.zeros((len(rows.y), rows.classes)), np.zeros(len(rows.y))
        for tree, counts in self._trees(settings, TRIED_TREES, sampled=True):
            if self._allowance.stop.is_set():
                return np.inf
            others = np.flatnonzero(counts == 0)
            found = tree.predict(rows.x[others])[:, None] if rows.classes == 1 else tree.predict_proba(rows.x[others])
            sums[np.ix_(others, _present(rows))] += found
            seen[others] += 1
        known = seen > 0
        mean, y = sums[known] / seen[known, None], rows.y[known]
        weights = None if rows.weights is None else rows.weights[known]
        if rows.classes == 1:
            return float(np.average((mean[:, 0] - y) ** 2, weights=weights))
        # As the leaves will have it: no class is impossible.
        mixed = (settings.leaf * mean + 1 / rows.classes) / (settings.leaf + 1)
        return float(np.average(-np.log(mixed[np.arange(len(y)), y]), weights=weights))

    def _trees(self, settings: Grown, count: int, *, sampled: bool) -> Iterator[tuple[Any, Array]]:
        """Trees, and how often each was shown each row (rows,): of random samples, or of all rows."""
        from sklearn import tree

        kind = ("ExtraTree" if settings.random else "DecisionTree") + (
            "Regressor" if self._rows.classes == 1 else "Classifier"
        )
        rows, seed = self._rows, self._allowance.seed

        def grow(number: int) -> tuple[Any, Array]:
            random = np.random.default_rng((seed, number))
            every = len(rows.y)
            counts = np.bincount(random.integers(0, every, every), minlength=every) if sampled else np.ones(every)
            made = getattr(tree, kind)(
                min_samples_leaf=settings.leaf,
                max_features=settings.share,
                max_depth=MOST_DEPTH,
                random_state=int(random.integers(2**31)),
            )
            weights = counts if rows.weights is None else counts * rows.weights
            return made.fit(rows.x, rows.y, sample_weight=weights), counts

        with ThreadPoolExecutor(self._threads) as pool:
            for first in range(0, count, PORTION):
                yield from pool.map(grow, range(first, min(count, first + PORTION)))
                self._allowance.beat()


def _present(rows: TreeRows) -> Array:
    """The classes that a tree knows, or the one place of a value."""
    return np.zeros(1, np.int64) if rows.classes == 1 else np.unique(rows.y)


def _read(estimators: Sequence[Any], rows: TreeRows) -> Trees:
    """The library's trees, of which the mean is wanted, as arrays."""
    parts = [_arrays(each, rows) for each in estimators]
    starts = np.cumsum([0, *(len(part["feature"]) for part in parts)])[:-1]
    for start, part in zip(starts, parts, strict=True):
        part["left"], part["right"] = part["left"] + start, part["right"] + start
        part["value"] = part["value"] / len(parts)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Trees(
        roots=starts.astype(np.int32),
        feature=joined["feature"].astype(np.int32),
        threshold=joined["threshold"],
        left=joined["left"].astype(np.int32),
        right=joined["right"].astype(np.int32),
        missing_left=joined["missing_left"],
        value=joined["value"].astype(np.float32),
        depth=max(each.get_depth() for each in estimators),
    )


def _arrays(estimator: Any, rows: TreeRows) -> dict[str, Array]:
    tree, classes = estimator.tree_, rows.classes
    leaf, own = tree.children_left < 0, np.arange(tree.node_count)
    # Left where x <= threshold, x single and the threshold double: that is below the next single number.
    nearest = tree.threshold.astype(np.float32)
    below = np.where(nearest > tree.threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    value = tree.value[:, 0, :]
    if classes == 1:
        value = value[:, 0]
    else:
        # A class that a leaf does not have is not impossible: one row more, as all rows are.
        shares = np.bincount(rows.y, rows.weights, minlength=classes) / len(rows.y)
        full = np.zeros((tree.node_count, classes))
        full[:, _present(rows)] = value
        count = tree.weighted_n_node_samples[:, None]
        value = (full * count + (shares + 1 / classes) / 2) / (count + 1)
    return {
        "feature": np.where(leaf, 0, tree.feature),
        "threshold": np.where(leaf, np.float32(0), np.nextafter(below, np.float32(np.inf))),
        "left": np.where(leaf, own, tree.children_left),
        "right": np.where(leaf, own, tree.children_right),
        "missing_left": tree.missing_go_to_left.astype(np.bool_),
        "value": np.where(leaf[:, None], value, 0.0) if classes > 1 else np.where(leaf, value, 0.0),
    }
