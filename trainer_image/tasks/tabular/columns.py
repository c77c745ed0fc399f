"""What a table's columns mean, and how cells become the network's input. Fitted in fit.py.

The preprocessing is RealMLP's in idea (arXiv 2407.04491, section 3): robust scaling by median and interquartile
range, one-hot for few categories, embeddings for many. A missing number is the median and says so in a column of its
own. The smooth clip is the network's first layer, because its linear part is better off without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from trainer_image.data.formats.cells import TEXT
from trainer_image.data.formats.numbers import PLAIN, Notation, in_words, measured, numbers
from trainer_image.data.spill import Scratch
from trainer_image.data.table import Table
from trainer_image.tasks.tabular import dates as tabular_dates
from trainer_image.tasks.tabular.texts import TextColumn

ONE_HOT_CATEGORIES = 9
TRUTHS = {"true": "1", "false": "0"}
# Columns that a sentence about many of them names.
SHOWN = 10
# Interquartile ranges from the median: what a linear model may still extrapolate to. Beyond, the inputs grow by their
# logarithm only: trees tell large values apart by it, and whatever multiplies its inputs cuts them off here.
FURTHEST = 10.0

Floats = np.ndarray[Any, np.dtype[np.float32]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class NumberColumn:
    """x → (x - centre) * scale, growing by its logarithm only beyond ±FURTHEST.

    indicator: a second input says that the value is missing
    strays:    training held cells that are no number; such cells count as missing, else they are an error
    notation:  how the training rows write numbers, and all others have to
    """

    name: str
    centre: float
    scale: float
    indicator: bool
    strays: bool = False
    notation: Notation = PLAIN

    @property
    def width(self) -> int:
        return 1 + self.indicator

    def values(self, cells: pa.Array) -> tuple[Doubles, Mask]:
        """Numbers, NaN where missing, and where a cell is none."""
        return numbers(cells, self.notation)

    def inputs(self, values: Doubles) -> Doubles:
        """(rows, width)"""
        missing = ~np.isfinite(values)
        with np.errstate(over="ignore"):
            scaled = np.nan_to_num((np.where(missing, self.centre, values) - self.centre) * self.scale)
        beyond = np.copysign(np.log(np.maximum(np.abs(scaled) / FURTHEST, 1)), scaled)
        return np.stack([np.clip(scaled, -FURTHEST, FURTHEST) + beyond, missing], axis=1)[:, : self.width]


@dataclass(frozen=True)
class DateColumn:
    """A date: days passed, scaled as a number is, and its place in year, week and (`clock`) day as sine and cosine.
    Of a duration the days alone."""

    name: str
    form: Annotated[str, Field(pattern=f"^({'|'.join(map(re.escape, tabular_dates.ALL_FORMS))})$")]
    centre: float
    scale: float
    indicator: bool
    clock: bool
    strays: bool = False

    @property
    def in_words(self) -> str:
        """For a cell that "is no …"."""
        what = "duration" if self.form in tabular_dates.DURATIONS else "date"
        what = "time of day" if self.form in tabular_dates.TIMES_OF_DAY else what
        return f"{what} written as in training, as {self.form}"

    @property
    def waves(self) -> int:
        return 0 if self.form in tabular_dates.DURATIONS else 6 if self.clock else 4

    @property
    def width(self) -> int:
        return 1 + self.indicator + self.waves

    def values(self, cells: pa.Array) -> tuple[Doubles, Mask]:
        """Days since 1970, NaN where missing, and where a cell is no date of this form."""
        return tabular_dates.days(cells, self.form)

    def inputs(self, values: Doubles) -> Doubles:
        """(rows, width)"""
        passed = NumberColumn(self.name, self.centre, self.scale, self.indicator).inputs(values)
        if not self.waves:
            return passed
        return np.concatenate([passed, tabular_dates.cycles(values, clock=self.clock)], axis=1)


@dataclass(frozen=True)
class CategoryColumn:
    """Known categories, the most frequent first; another one, or none, is "unknown". folded: case does not matter."""

    name: str
    categories: tuple[str, ...]
    folded: bool = False

    @property
    def embedded(self) -> bool:
        return len(self.categories) > ONE_HOT_CATEGORIES

    def codes(self, cells: pa.Array) -> Ints:
        """Positions of the categories, -1 for unknown: (rows,)."""
        said = words(cells, folded=self.folded)
        if self.folded and TRUTHS.keys() & set(self.categories):  # True and False are 1 and 0 to many a program
            for word, number in TRUTHS.items():
                said = pc.if_else(pc.is_in(said, value_set=pa.array([number, f"{number}.0"], TEXT)), word, said)
        known = pc.index_in(said, value_set=pa.array(self.categories, TEXT))
        codes: Ints = pc.fill_null(known, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return codes


def words(cells: pa.Array, *, folded: bool) -> pa.Array:
    """Cells as categories are compared."""
    trimmed = pc.utf8_trim_whitespace(cells)
    return pc.utf8_lower(trimmed) if folded else trimmed


@dataclass(frozen=True)
class Preprocessing:
    """Fitted columns. The dense input is numbers, dates, one-hot categories and texts, in this order; codes are
    embedded."""

    numbers: tuple[NumberColumn, ...]
    dates: tuple[DateColumn, ...]
    categories: tuple[CategoryColumn, ...]
    texts: tuple[TextColumn, ...] = ()

    @property
    def measured(self) -> tuple[NumberColumn | DateColumn, ...]:
        """What the dense input begins with."""
        return (*self.numbers, *self.dates)

    @property
    def columns(self) -> list[str]:
        return [c.name for c in (*self.measured, *self.categories, *self.texts)]

    @property
    def in_words(self) -> str:
        """How many columns of each kind, e.g. "3 numeric, 1 date and 2 categorical columns"."""
        kinds = (
            ("numeric", self.numbers),
            ("date", self.dates),
            ("categorical", self.categories),
            ("text", self.texts),
        )
        *rest, last = [f"{len(columns)} {kind}" for kind, columns in kinds if columns]
        return f"{', '.join(rest)}{' and ' * bool(rest)}{last} column{'s' * (len(self.columns) > 1)}"

    @property
    def dense_width(self) -> int:
        one_hot = sum(len(c.categories) for c in self.categories if not c.embedded)
        return sum(c.width for c in (*self.measured, *self.texts)) + one_hot

    @property
    def cardinalities(self) -> list[int]:
        """Rows of each embedding table: the categories and, at 0, the unknown."""
        return [len(c.categories) + 1 for c in self.categories if c.embedded]

    @property
    def places(self) -> dict[str, dict[str, list[int]]]:
        """Column → "dense" or "codes" → where it is there."""
        found, at, code_at = {}, 0, 0
        for column in (*self.measured, *self.categories, *self.texts):
            if isinstance(column, CategoryColumn) and column.embedded:
                found[column.name] = {"codes": [code_at]}
                code_at += 1
            else:
                width = len(column.categories) if isinstance(column, CategoryColumn) else column.width
                found[column.name] = {"dense": list(range(at, at + width))}
                at += width
        return found

    def apply(
        self, table: Table, scratch: Scratch, wanted: Mapping[str, Ints | None]
    ) -> dict[str, tuple[Floats, Ints]]:
        """Inputs of the wanted rows (ascending indices, None: all) under each name, the table read once.

        (dense (rows, dense_width) float32, codes (rows, embedded columns) int64). DatasetInvalid with row and column.
        """
        made = {}
        for name, rows in wanted.items():
            count = table.rows if rows is None else len(rows)
            dense: Floats = scratch.array((count, self.dense_width), np.float32)
            made[name] = dense, scratch.array((count, len(self.cardinalities)), np.int64)
        for start, batch in table.batches(*self.columns, written=[column.name for column in self.categories]):
            dense, codes = self._inputs(table, start, batch)
            for name, rows in wanted.items():
                end = start + len(dense)
                if rows is None:
                    first, last, chosen = start, end, np.arange(len(dense))
                else:
                    first, last = (int(place) for place in np.searchsorted(rows, [start, end]))
                    chosen = rows[first:last] - start
                made[name][0][first:last] = dense[chosen]
                made[name][1][first:last] = codes[chosen]
        return made

    def unlike_training(self, table: Table) -> list[str]:
        """What makes predictions of these rows worth less: columns without a value, and categories that are all new."""
        found = []
        known = dict.fromkeys((column.name for column in self.categories), 0)
        filled = dict.fromkeys(self.columns, 0)
        for _, batch in table.batches(*self.columns, written=list(known)):
            for name, cells in batch.items():
                filled[name] += len(cells) - cells.null_count
            for category in self.categories:
                known[category.name] += int((category.codes(batch[category.name]) >= 0).sum())
        if table.rows:
            found += _together("is empty", "are empty", [name for name, count in filled.items() if not count])
            found += _together(
                "holds no category that training had",
                "hold no category that training had",
                [name for name, count in known.items() if filled[name] and not count],
            )
        of = {said: "them" if said.startswith("the columns") else "it" for said in found}
        return [f"{table.name}: {said}: the predictions know nothing of {of[said]}." for said in found]

    def _inputs(self, table: Table, start: int, batch: Mapping[str, pa.Array]) -> tuple[Floats, Ints]:
        count = len(next(iter(batch.values())))
        dense = np.zeros((count, self.dense_width), np.float32)
        codes = np.zeros((count, len(self.cardinalities)), np.int64)
        at = code_at = 0
        for column in self.measured:
            values, bad = column.values(batch[column.name])
            if bad.any() and not column.strays:
                kind = in_words(column.notation) if isinstance(column, NumberColumn) else column.in_words
                raise stray(table, column.name, start + int(bad.argmax()), kind)
            dense[:, at : at + column.width] = column.inputs(values)
            at += column.width
        for category in self.categories:
            code = category.codes(batch[category.name])
            if category.embedded:
                codes[:, code_at] = code + 1
                code_at += 1
            else:
                hit = code >= 0
                dense[np.flatnonzero(hit), at + code[hit]] = 1.0
                at += len(category.categories)
        for text in self.texts:
            dense[:, at : at + text.width] = text.inputs(batch[text.name])
            at += text.width
        return dense, codes


def _together(one: str, many: str, columns: Sequence[str]) -> list[str]:
    """A clause about these columns; none where there are none."""
    if not columns:
        return []
    shown = ", ".join(f"'{column}'" for column in columns[:SHOWN])
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    return [f"the column{'s' * (len(columns) > 1)} {shown}{more} {one if len(columns) == 1 else many}"]


def stray(table: Table, column: str, index: int, kind: str = "number") -> Exception:
    """The error for a cell that is no number (or no date) in a column of them."""
    cell = str(table.cell(column, index))[:40]
    plain = kind == "number" and measured(pa.array([cell], TEXT), ",")[0][0].is_valid
    hint = "; a decimal comma is none where training had decimal points" if plain and "," in cell else ""
    return table.error(index, f"column '{column}' holds '{cell}', which is no {kind}{hint}")
