"""What is counted of a column while its batches go by, for the decisions of fit.py."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.tasks.tabular.columns import ONE_HOT_CATEGORIES, Doubles, Ints, Mask
from trainer_image.tasks.tabular.notation import STRAY_SHARE

# Whole numbers up to 2^53 are exact in float64.
MOST_DIGITS = 15
# Numbers that people and programs write where they know none.
STAND_INS = {
    float(sign + nines): sign + nines
    for sign in ("", "-")
    for nines in ("99", "999", "9999", "99999", "999999", "9999999", "99999999", "999999999")
} | {float(n): str(n) for n in (-9, -88, -888, -8888, 888, 8888, -32768, 32767, -2147483648, 2147483647)}
# Of a column of numbers, how many cells one and the same word may be.
MOST_OF_A_WORD = 0.5
# Of a column's values, how many a stand-in for no value is at least.
LEAST_OUTCASTS = 0.005
# How much further than the others are from each other one alone is far out, and of how many.
FAR_OUT, LEAST_OTHERS = 100.0, 10


@dataclass
class Values:
    """A column read as numbers (or days): figures of its training rows, and the finite values of a sample of them."""

    rows: int = 0
    filled: int = 0
    finite: int = 0
    # Of all rows of the table, held-out ones too: a slip is a slip wherever it is.
    all_filled: int = 0
    bad: int = 0
    first_bad: int = -1
    # The first bad cell where all of them are this one, as "Varies" beside numbers; "" where they differ.
    stray: str | None = None
    # Cells that say there is no value.
    marked: int = 0
    first_marked: int = -1
    infinite: bool = False
    # Cells of digits that begin with a zero, as codes do.
    zeros: int = 0
    # Of the longest cell that is digits only; 1e30 is no id.
    digits: int = 0
    whole: bool = True
    rising: bool = True
    low: float = np.inf
    high: float = -np.inf
    last: float = -np.inf
    parts: list[Doubles] = field(default_factory=list)

    def add(self, start: int, cells: pa.Array, chosen: Ints, values: Doubles, bad: Mask, step: int) -> None:
        """A batch: its first row's index, cells, the training rows among them, and what the cells are as numbers."""
        if bad.any() and not self.bad:
            self.first_bad = start + int(bad.argmax())
        if self.stray != "" and bad.any():
            strays = pc.unique(pc.utf8_trim_whitespace(cells.filter(pa.array(bad))))
            word = str(strays[0]) if len(strays) == 1 else ""
            self.stray = word if self.stray in (None, word) else ""
        filled = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        self.all_filled += int(filled.sum())
        self.filled += int(filled[chosen].sum())
        self.bad += int(bad.sum())
        markers = np.isnan(values) & ~bad & filled
        if markers.any() and not self.marked:
            self.first_marked = start + int(markers.argmax())
        self.marked += int(markers.sum())
        if pc.any(pc.starts_with(cells, "0")).as_py():
            self.zeros += pc.sum(pc.match_substring_regex(cells, r"^0\d+$")).as_py() or 0
        if np.abs(values, where=np.isfinite(values), out=np.zeros(len(values))).max(initial=0) >= 10**MOST_DIGITS:
            longest = pc.max(pc.utf8_length(cells.filter(pc.match_substring_regex(cells, r"^\s*\d+\s*$")))).as_py()
            self.digits = max(self.digits, longest or 0)
        values = values[chosen]
        known = values[np.isfinite(values)]
        self.infinite |= bool(np.isinf(values).any())
        if known.size:
            self.whole &= bool((known == np.floor(known)).all())
            with np.errstate(invalid="ignore"):  # infinity less infinity
                self.rising &= bool((np.diff(values, prepend=self.last) > 0).all())
            self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
            self.last = float(values[-1])
        sampled = values[-self.rows % step :: step]
        self.parts.append(sampled[np.isfinite(sampled)])
        self.rows += len(values)
        self.finite += known.size

    @property
    def sample(self) -> Doubles:
        return np.concatenate(self.parts) if self.parts else np.empty(0)

    @property
    def differ(self) -> bool:
        """Whether no value is there twice, as far as the sample says."""
        return len(np.unique(self.sample)) == len(self.sample)

    @property
    def is_numeric(self) -> bool:
        """Whether the column holds numbers, with a slip or two."""
        if not self.bad:
            return True
        # Few different numbers beside some text are codes ("1", "2", "A"), many are measurements with slips.
        few = len(np.unique(self.sample)) <= ONE_HOT_CATEGORIES
        return self.bad <= self.strays_allowed * self.all_filled and not few

    @property
    def strays_allowed(self) -> float:
        """Which share of the cells may be none of the column's kind and count as missing."""
        one_word = bool(self.stray) and not any(map(str.isdigit, self.stray or ""))
        return MOST_OF_A_WORD if one_word else STRAY_SHARE

    @property
    def scaling(self) -> tuple[float, float, bool] | None:
        """(centre, scale, whether some are missing); None where all are the same, or there is none."""
        missing = self.finite < self.rows
        if self.finite == 0 or self.low == self.high:
            if self.finite == 0 or not missing:
                return None
            return self.low, 0.0, True
        low, centre, high = np.quantile(self.sample, [0.25, 0.5, 0.75])
        # Where half of the values are one and the same, the range takes the quartiles' place (RealMLP's rule).
        scale = 1 / (high - low) if high > low else 2 / (self.high - self.low)
        return float(centre), float(scale), missing


def outcast(sample: Doubles, known: Collection[float]) -> tuple[float, float, float, float] | None:
    """(a value that seems to stand for none, its share of the sample, the least and the greatest of the others): it is
    there again and again and further from all others than these are from each other; else None.

    It is one of the `known`, or a whole number below zero where no other is.
    """
    least = float(sample.min(initial=np.inf))
    for value in {least, float(sample.max(initial=-np.inf))}:
        here = sample == value
        others = sample[~here]
        if here.sum() < max(2, LEAST_OUTCASTS * len(sample)) or len(others) < 2:
            continue
        low, high = float(others.min()), float(others.max())
        alone_below = value == least < 0 <= low and value.is_integer()
        if (value in known or alone_below) and min(abs(value - low), abs(value - high)) > high - low > 0:
            return value, float(here.mean()), low, high
    return None


def alone_far_out(values: np.ndarray[Any, Any]) -> int | None:
    """Where the one value stands that lies a hundred times as far from all others as these from each other."""
    if len(values) < LEAST_OTHERS:
        return None
    order = np.argsort(values, kind="stable")
    for place, others in ((order[-1], order[:-1]), (order[0], order[1:])):
        low, high = float(values[others[0]]), float(values[others[-1]])
        if min(abs(float(values[place]) - low), abs(float(values[place]) - high)) > FAR_OUT * (high - low) > 0:
            return int(place)
    return None
