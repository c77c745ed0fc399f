"""In which notation a column's numbers are written, where programs would not write them so: one for all of its cells.

A notation is taken only where it fits more cells than any other. `1,234` in a column without another clue may be
1234 or 1.234: no guess could be trusted, so the user is asked to write it unambiguously.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.formats.numbers import PERCENT, Notation, is_currency, marked, measured
from trainer_image.data.table import Table

# Cells that are no number in a column of numbers: slips and words for "unknown" up to this share, a mixture beyond.
STRAY_SHARE = 0.05
# Different cells that look like thousands with a point: one may be chance.
LEAST_DOTTED = 2


@dataclass(frozen=True)
class Found:
    """notation: None where several fit; why: a clause for people, about a cell with its file and row"""

    notation: Notation | None
    why: str


@dataclass
class _Read:
    """A column read with one decimal sign. bad: cells that are no number so; strays: what they hold, two at most;
    first: (index, value) of one that is not plain; units: how often each stands beside a number other than 0."""

    bad: int = 0
    strays: set[str] = field(default_factory=set)
    first: tuple[int, float] | None = None
    units: Counter[str] = field(default_factory=Counter)

    def add(self, start: int, cells: pa.Array, plain_bad: pa.Array, values: pa.Array, units: pa.Array) -> None:
        bad = values.null_count - cells.null_count
        self.bad += bad
        if bad and len(self.strays) < 2:
            strays = pc.unique(pc.utf8_trim_whitespace(cells.filter(pc.and_(values.is_null(), cells.is_valid()))))
            self.strays.update(strays.slice(0, 2).to_pylist())
        for entry in pc.value_counts(units.filter(pc.not_equal(values, 0.0))).to_pylist():
            self.units[entry["values"]] += entry["counts"]
        if self.first is None:
            index = pc.index(pc.and_(plain_bad, pc.is_valid(values)), True).as_py()
            if index >= 0:
                self.first = start + index, values[index].as_py()


def notation_of(table: Table, column: str, plain_bad: int, filled: int) -> Found | None:
    """How the numbers of this column are written; None where they are plain, or hardly any cell is a number.

    plain_bad: number of cells that are no plain number; filled: number of cells that are not empty
    """
    point, comma = _Read(), _Read()
    differ: int | None = None
    most = STRAY_SHARE * filled
    for start, given in table.cells(column):
        cells = pc.if_else(marked(given), pa.scalar(None, given.type), given)
        read = {}
        for sign, into in ((".", point), (",", comma)):
            read[sign] = measured(cells, sign)
            into.add(start, cells, _no_plain(cells), *read[sign])
        if min(point.bad, comma.bad) > most and min(len(point.strays), len(comma.strays)) > 1:
            return None  # one word again and again may say that there is no number
        if differ is None:
            index = pc.index(pc.not_equal(read["."][0], read[","][0]), True).as_py()
            differ = start + index if index >= 0 else None
    best, sign = (point, ".") if point.bad <= comma.bad else (comma, ",")
    if best.bad >= plain_bad or best.first is None:
        return None
    units = sorted(unit for unit in best.units if unit)
    words = [unit for unit in units if unit != PERCENT and not is_currency(unit)]
    if words and (len(units) > 1 or best.units[""]):
        return None  # 12A and 7B are codes; only what stands beside every number is a unit
    if point.bad == comma.bad and differ is not None:
        return Found(None, _two_ways(table, column, differ))
    if len(units) > 1 or (units == [PERCENT] and best.units[""]):
        beside = [f"'{unit}'" for unit in units] + ["nothing"] * (best.units[""] > 0)
        return Found(
            None, f"holds numbers with {' and '.join(beside)} beside them; bring one unit and leave its sign out"
        )
    return Found(Notation(sign, units[0] if units else ""), _said(table, column, *best.first))


def hidden_thousands(table: Table, column: str) -> str | None:
    """Why the numbers of a column, all of them plain, may be others: '2.033' beside '588' is 2033 where points stand
    between thousands. A clause that names a cell; None where the other cells leave no doubt."""
    first, dotted = -1, set[str]()
    for start, cells in table.cells(column):
        trimmed = pc.utf8_trim_whitespace(cells)
        with_point = pc.match_substring_regex(trimmed, r"^[+-]?[1-9]\d{0,2}\.\d{3}$")
        small = pc.match_substring_regex(trimmed, r"^[+-]?\d{1,3}$")
        if pc.any(pc.invert(pc.or_(pc.or_(with_point, small), marked(cells)))).as_py():
            return None
        if first < 0 and (index := pc.index(with_point, True).as_py()) >= 0:
            first = start + index
        if len(dotted) < LEAST_DOTTED:
            dotted.update(pc.unique(trimmed.filter(with_point)).to_pylist())
    if len(dotted) < LEAST_DOTTED:
        return None
    text = str(table.cell(column, first)).strip()
    return (
        f"holds numbers that can be read in two ways: {_place(table, column, first)}, may be {text.replace('.', '')} "
        f"or {text}, since all with a point have three digits behind it, and the others are whole and below 1000; "
        f"write them without points between thousands, or say data.types: {{{column}: number}} for {text}"
    )


def _no_plain(cells: pa.Array) -> pa.Array:
    """Where there is more than digits with a point: enough to find an example by."""
    return pc.invert(pc.match_substring_regex(pc.utf8_trim_whitespace(cells), r"^[+-]?\d*\.?\d*$"))


def _said(table: Table, column: str, index: int, value: float) -> str:
    return f"was read as numbers: {_place(table, column, index)}, is {value:.15g}"


def _two_ways(table: Table, column: str, index: int) -> str:
    cells = pa.array([table.cell(column, index)], pa.large_string())
    values = [measured(cells, sign)[0][0].as_py() for sign in ".,"]
    return (
        f"holds numbers that can be read in two ways: {_place(table, column, index)}, may be {values[0]:.15g} or "
        f"{values[1]:.15g}; write them with a decimal point and nothing between thousands"
    )


def _place(table: Table, column: str, index: int) -> str:
    file, row = table.locate(index)
    return f"'{str(table.cell(column, index))[:40]}', in {file}, row {row}"
