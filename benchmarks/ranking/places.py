"""What comes of a ranking: who is first, by how much, and where a quick rival is better than ours beyond chance.

A set belongs to a group of sets that have the same figure and the same rivals. Ours has to be first in each group.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
OURS = "ours"
# What a rival may take to be one that nobody would wait longer than.
QUICK_SECONDS = 3.0
RESAMPLES = 500
# Figures that differ by less are one and the same, and share a rank.
SAME = 1e-4


class Lacking(Exception):
    """What this environment lacks of a set, a sentence."""


@dataclass(frozen=True)
class Placed:
    """One set: each model's figure, the higher the better, and its seconds; and the quick rivals that are better than
    ours beyond chance."""

    name: str
    group: str
    figures: Mapping[str, float]
    seconds: Mapping[str, float]
    beaten_by: Sequence[str]

    def __str__(self) -> str:
        """The set's line."""
        shown = "  ".join(f"{name} {value:.4f} ({self.seconds[name]:.1f} s)" for name, value in self.figures.items())
        beaten = f"  BEATEN BEYOND CHANCE by {', '.join(self.beaten_by)}" if self.beaten_by else ""
        return f"{self.name:18} {self.group:18} {shown}; best: {self.best}{beaten}"

    @property
    def best(self) -> str:
        return max(self.figures.items(), key=lambda item: item[1])[0]


@dataclass(frozen=True)
class Ranked:
    """A set: `place` trains ours in so many seconds, and its rivals, on so many threads each; it may raise Lacking."""

    name: str
    group: str
    place: Callable[[float, int], Placed]


def ranks(figures: Mapping[str, float]) -> dict[str, float]:
    """1 for the highest figure; models whose figures are the same (`SAME`) share the mean of their ranks."""
    values = np.array(list(figures.values()))
    better = (values[None, :] > values[:, None] + SAME).sum(1)
    alike = (np.abs(values[None, :] - values[:, None]) <= SAME).sum(1)
    return dict(zip(figures, (better + (alike + 1) / 2).tolist(), strict=True))


def mean_ranks(placed: Iterable[Placed]) -> dict[str, float]:
    """Of each model over the tables, the best first."""
    every = [ranks(each.figures) for each in placed]
    found = {name: float(np.mean([each[name] for each in every])) for name in every[0]}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def record(placed: Iterable[Placed]) -> tuple[int, int, int]:
    """(wins, ties, losses) of ours against the best rival of each table."""
    ahead = [each.figures[OURS] - max(v for name, v in each.figures.items() if name != OURS) for each in placed]
    return sum(a > SAME for a in ahead), sum(abs(a) <= SAME for a in ahead), sum(a < -SAME for a in ahead)


def beyond_chance(mine: Array, other: Array, y: Array, score: Callable[[Array, Array], float]) -> bool:
    """Whether the other predictions are better in 97.5 % of resamples of the rows."""
    random = np.random.default_rng(0)
    won = 0
    for _ in range(RESAMPLES):
        rows = random.integers(0, len(y), len(y))
        while len(np.unique(y[rows])) < min(2, len(np.unique(y))):
            rows = random.integers(0, len(y), len(y))
        won += score(y[rows], other[rows]) > score(y[rows], mine[rows])
    return won >= 0.975 * RESAMPLES


def timed(fits: Mapping[str, Callable[[], Array]]) -> tuple[dict[str, Array], dict[str, float]]:
    """What each model predicts, and in how many seconds."""
    outputs, took = {}, {}
    for name, fit in fits.items():
        began = time.monotonic()
        outputs[name] = fit()
        took[name] = time.monotonic() - began
    return outputs, took


def judged(
    name: str,
    group: str,
    outputs: Mapping[str, Array],
    took: Mapping[str, float],
    y: Array,
    score: Callable[[Array, Array], float],
) -> Placed:
    """outputs: what each model predicted of the rows whose labels are y"""
    figures = {model: score(y, found) for model, found in outputs.items()}
    quick = [each for each in figures if each != OURS and took[each] <= QUICK_SECONDS and figures[each] > figures[OURS]]
    beaten = [each for each in quick if beyond_chance(outputs[OURS], outputs[each], y, score)]
    return Placed(name, group, figures, took, beaten)


def rank(chosen: Sequence[Ranked], seconds: float, threads: int, kept: Path | None = None) -> bool:
    """Prints a line a set and what comes of them; True where ours is first in each group, and no set was Lacking.

    kept: a file of finished sets, a line of JSON each: those of the same seconds are not done again, others are added
    """
    done = _read(kept, seconds)
    print(f"\nOurs ({seconds:g} s) among rivals by their defaults, {threads} threads each", flush=True)
    every, first = [], True
    for each in chosen:
        try:
            found = done.get((each.group, each.name)) or each.place(seconds, threads)
        except Lacking as lacking:
            print(f"{each.name:18} {each.group:18} NOT RANKED: {lacking}", flush=True)
            first = False
            continue
        every.append(found)
        print(found, flush=True)
        if kept and (each.group, each.name) not in done:
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"ours": seconds, **asdict(found)}) + "\n")
    for group in dict.fromkeys(each.group for each in every):
        first &= _told(group, [each for each in every if each.group == group])
    beaten = [each.name for each in every if each.beaten_by]
    print(f"Goal, no set where a quick rival is better beyond chance: {'met' if not beaten else ', '.join(beaten)}")
    return first


def _told(group: str, placed: Sequence[Placed]) -> bool:
    means = mean_ranks(placed)
    wins, ties, losses = record(placed)
    leads = means[OURS] <= min(means.values())
    shown = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
    print(
        f"{group}, {len(placed)} sets: {wins} wins, {ties} ties, {losses} losses against the best rival; "
        f"mean rank: {shown}{'' if leads else '  NOT FIRST'}"
    )
    return leads


def _read(kept: Path | None, seconds: float) -> dict[tuple[str, str], Placed]:
    if kept is None or not kept.exists():
        return {}
    lines = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    found = [Placed(**{key: line[key] for key in line if key != "ours"}) for line in lines if line["ours"] == seconds]
    return {(each.group, each.name): each for each in found}
