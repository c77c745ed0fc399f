"""XGBoost's adapter: gradient boosted trees, and these as plain arrays. Only fits: ensemble.py evaluates.

The trees are read from the library's own JSON, whose format it documents and keeps ("Introduction to Model IO" of its
manual). Targets are classes (rows,), or values; the margins begin at the training rows' mean, its log odds, or its
logarithm.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost

from trainer_image.tasks.tabular.candidates import Sample
from trainer_image.tasks.tabular.trees.ensemble import Trees

Array = np.ndarray[Any, Any]
# Rounds without a better figure of the held-out rows after which boosting ends.
PATIENCE = 50
# Of some rows all values may be zero, which has no logarithm.
LEAST_MEAN = 1e-6


@dataclass(frozen=True)
class Aim:
    """What is predicted. classes: 1 for values; log: values not below zero, of a mean near 1, by their logarithm

    By logarithms each tree multiplies, so that large values need not be reached in many small steps. What is predicted
    is the mean all the same, where trees fitted to logarithms would predict less: the deviance is Poisson's.
    """

    classes: int
    log: bool = False

    @property
    def for_library(self) -> dict[str, Any]:
        if self.log:
            return {"objective": "count:poisson", "eval_metric": "rmse", "max_delta_step": 0.7}
        if self.classes == 1:
            return {"objective": "reg:squarederror", "eval_metric": "rmse"}
        if self.classes == 2:
            return {"objective": "binary:logistic", "eval_metric": "logloss"}
        return {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": self.classes}

    def first_margins(self, y: Array, weights: Array | None = None) -> Array:
        """What is predicted before the first tree: (outputs,), 1 for values and two classes, else one a class."""
        if self.classes == 1:
            mean = np.average(y, weights=weights)
            return np.log([max(mean, LEAST_MEAN)]) if self.log else np.array([mean])
        shares = (np.bincount(y, weights, minlength=self.classes) + 1) / (len(y) + self.classes)
        logs = np.log(shares)
        return np.asarray(logs[1:] - logs[:1] if self.classes == 2 else logs - logs.mean())

    def losses(self, margins: Array, y: Array, weights: Array | None = None) -> Array:
        """Each row's squared error or log loss, times its weight: (rows,)."""
        if self.classes == 1:
            found = margins[:, 0]
            losses = np.asarray(((np.exp(found) if self.log else found) - y) ** 2)
        else:
            logits = np.concatenate([np.zeros_like(margins), margins], axis=1) if self.classes == 2 else margins
            losses = np.asarray(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y])
        return losses if weights is None else losses * weights


@dataclass(frozen=True)
class Settings:
    """One way to boost: how deep trees are, and how much each corrects what the ones before it have left."""

    depth: int
    rate: float
    seed: int
    threads: int

    @property
    def for_library(self) -> dict[str, Any]:
        deep = self.depth >= 8
        return {
            "tree_method": "hist",
            "max_depth": self.depth,
            "eta": self.rate,
            "subsample": 0.7 if deep else 0.8,
            "colsample_bynode": 0.5 if deep else 0.6,
            "min_child_weight": 3 if self.depth <= 3 else 2 if deep else 1,
            "reg_lambda": {3: 5, 4: 3, 6: 1}.get(self.depth, 2),
            "seed": self.seed,
            "nthread": self.threads,
            "verbosity": 0,
        }


@dataclass(frozen=True)
class Boosted:
    """What boosting left. curve: the held-out rows' figure after each round, lower is better; empty without such."""

    booster: xgboost.Booster
    curve: Array

    @property
    def rounds(self) -> int:
        """How many rounds the held-out rows are predicted best with; all, without such."""
        return int(self.curve.argmin()) + 1 if len(self.curve) else self.booster.num_boosted_rounds()

    def margins(self, x: Array, base: Array, rounds: int) -> Array:
        """(rows, outputs)"""
        data = xgboost.DMatrix(x, base_margin=_margins(base, len(x)))
        last = min(rounds, self.booster.num_boosted_rounds())
        found = self.booster.predict(data, output_margin=True, iteration_range=(0, last))
        return np.asarray(found, np.float64).reshape(len(x), len(base))

    def trees(self, rounds: int) -> Trees:
        return _read(self.booster[:rounds])


def boost(
    x: Array,
    y: Array,
    aim: Aim,
    settings: Settings,
    rounds: int,
    go_on: Callable[[], bool],
    held: Sample | None = None,
    weights: Array | None = None,
) -> Boosted:
    """At most so many rounds, fewer where the held-out rows' figure stops to improve or `go_on` says no.

    x: float32 (rows, inputs), NaN where missing; weights: how much each row counts, (rows,), 1 in the mean
    """
    base = aim.first_margins(y, weights)
    threads = settings.threads
    data = xgboost.QuantileDMatrix(x, y, weight=weights, base_margin=_margins(base, len(x)), nthread=threads)
    evals = []
    callbacks: list[xgboost.callback.TrainingCallback] = [_Watching(go_on)]
    if held is not None:
        held_x, held_y, masses = held
        margins = _margins(base, len(held_x))
        evals = [(xgboost.DMatrix(held_x, held_y, weight=masses, base_margin=margins, nthread=threads), "held")]
        callbacks.append(xgboost.callback.EarlyStopping(rounds=PATIENCE, data_name="held"))
    found: dict[str, dict[str, list[float]]] = {}
    booster = xgboost.train(
        settings.for_library | aim.for_library, data, rounds, evals=evals, evals_result=found, verbose_eval=False,
        callbacks=callbacks,
    )  # fmt: skip
    curve = next(iter(found["held"].values())) if found else []
    return Boosted(booster, np.array(curve))


class _Watching(xgboost.callback.TrainingCallback):
    def __init__(self, go_on: Callable[[], bool]) -> None:
        super().__init__()
        self._go_on = go_on

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        return not self._go_on()


def _margins(base: Array, rows: int) -> Array:
    return np.tile(base.astype(np.float32), (rows, 1)) if len(base) > 1 else np.full(rows, base[0], np.float32)


def _read(booster: xgboost.Booster) -> Trees:
    """The library's JSON as arrays."""
    found = json.loads(booster.save_raw(raw_format="json"))["learner"]["gradient_booster"]["model"]["trees"]
    starts = np.cumsum([0, *(len(tree["left_children"]) for tree in found)])

    def every(name: str, kind: Any) -> Array:
        return np.concatenate([np.asarray(tree[name], kind) for tree in found])

    start = np.repeat(starts[:-1], np.diff(starts)).astype(np.int32)
    left, right = every("left_children", np.int32), every("right_children", np.int32)
    conditions = every("split_conditions", np.float32)
    leaf, own = left < 0, np.arange(len(left), dtype=np.int32)
    return Trees(
        roots=starts[:-1].astype(np.int32),
        feature=np.where(leaf, 0, every("split_indices", np.int32)),
        threshold=np.where(leaf, np.float32(0), conditions),
        left=np.where(leaf, own, left + start),
        right=np.where(leaf, own, right + start),
        missing_left=every("default_left", np.bool_),
        value=np.where(leaf, conditions, np.float32(0)),
        depth=max(_depth(tree["parents"]) for tree in found),
    )


def _depth(parents: list[int]) -> int:
    """Steps from the root to the deepest node; children come after their parents."""
    depths = [0] * len(parents)
    for node, parent in enumerate(parents[1:], start=1):
        depths[node] = depths[parent] + 1
    return max(depths)
