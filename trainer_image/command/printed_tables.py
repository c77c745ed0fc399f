"""Figures that programs print below a header, and as rows of a name and a number. Pure.

    epoch     train_loss  valid_loss  accuracy  time              (fastai; skorch, Chainer and CSV alike)
    0         0.713141    0.612315    0.701234  00:05
          Iter       Train Loss   Remaining Time        (scikit-learn with verbose; R's gbm, spaCy, YOLO alike)
             1           0.6123            1.20s
    |    ep_rew_mean     | 22.1     |         test_acc         0.91       (Stable-Baselines3, Lightning's test)

Lines are anybody's, and are cut before they come here (see printed.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

EPOCHS, STEPS = frozenset({"epoch", "epochs", "e"}), frozenset({"iter", "iters", "iteration", "step", "round", "#"})
_BETWEEN = re.compile(r"\s{0,20}[|,│]\s{0,20}|\s{2,60}")
# A table's row with a bar behind it: YOLO's.
_BAR = re.compile(r":\s{1,8}\d{1,3}%\|.*")
_PLACE = re.compile(r"(\d{1,12})(?:/(\d{1,12}))?")
NUMBER = re.compile(r"[-+]?(?:\d{1,18}(?:\.\d{0,25})?|\.\d{1,25})(?:[eE][-+]?\d{1,3})?")
_ALONE = re.compile(
    r"(?:[|│]\s{1,60})?([A-Za-z][\w@/.-]{0,60})(?:\s{1,60}[|│=:]\s{1,60}|\s{2,60})([-+.\d][\d.eE+-]{0,30})(?:\s{0,60}[|│])?"
)


def cells(line: str) -> list[str]:
    """The cells of a row that stand apart by two spaces, bars or commas."""
    return _BETWEEN.split(_BAR.sub("", line).strip().strip("|│").strip())


def header(line: str) -> list[str] | None:
    """The names of the columns, the first of which counts epochs or steps; None for any other line."""
    names = cells(line)
    first = names[0].lower()
    if len(names) < 2 or first not in EPOCHS | STEPS or any(NUMBER.match(name) or not name for name in names):
        return None
    return names


def row(names: Sequence[str], line: str) -> tuple[dict[str, float], int | None, int | None] | None:
    """(its numbers by column, of the first column what it counts, of how many) of a row below this header."""
    found = cells(line)
    if len(found) != len(names):
        found = _BAR.sub("", line).split()
    place = _PLACE.fullmatch(found[0]) if len(found) == len(names) else None
    if place is None:
        return None
    numbers = {
        name: value
        for name, cell in zip(names[1:], found[1:], strict=True)
        if NUMBER.fullmatch(cell) and math.isfinite(value := float(cell))
    }
    return (numbers, int(place[1]), int(place[2]) if place[2] else None) if numbers else None


def alone(line: str) -> tuple[str, float] | None:
    """A name and its number, which are the whole line; None where that is no finite one."""
    found = _ALONE.fullmatch(line)
    if found is None or not NUMBER.fullmatch(found[2]) or not math.isfinite(value := float(found[2])):
        return None
    return found[1], value
