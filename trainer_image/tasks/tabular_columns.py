"""What a table's columns mean, and how cells become the network's input. Decided on the training split alone.

The preprocessing is RealMLP's in idea (arXiv 2407.04491, section 3): robust scaling by median and interquartile
range, one-hot for few categories, embeddings for many. A missing number is the median and says so in a column of its
own. The smooth clip is the network's first layer, because its linear part is better off without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.tables import Table, numbers
from trainer_image.tasks.base import Json

ONE_HOT_CATEGORIES = 9
MOST_CATEGORIES = 10_000
# Interquartile ranges from the median beyond which nothing is further: what a linear model may still extrapolate to.
FURTHEST = 10.0
ID_SHARE = 0.95
ID_ROWS = 50
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?Z?")

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class NumberColumn:
    """x → (x - centre) * scale, at most ±FURTHEST; `dates`: cells are ISO dates, counted in days."""

    name: str
    centre: float
    scale: float
    indicator: bool
    dates: bool = False


@dataclass(frozen=True)
class CategoryColumn:
    """Known categories, the most frequent first; another one, or none, is "unknown"."""

    name: str
    categories: tuple[str, ...]

    @property
    def embedded(self) -> bool:
        return len(self.categories) > ONE_HOT_CATEGORIES


@dataclass(frozen=True)
class Preprocessing:
    """Fitted columns. The dense input has one value a number, indicator and one-hot category; codes are embedded."""

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]

    @property
    def columns(self) -> list[str]:
        return [c.name for c in self.numbers] + [c.name for c in self.categories]

    @property
    def dense_width(self) -> int:
        one_hot = sum(len(c.categories) for c in self.categories if not c.embedded)
        return len(self.numbers) + sum(c.indicator for c in self.numbers) + one_hot

    @property
    def cardinalities(self) -> list[int]:
        """Rows of each embedding table: the categories and, at 0, the unknown."""
        return [len(c.categories) + 1 for c in self.categories if c.embedded]

    def apply(self, table: Table) -> tuple[Floats, Ints]:
        """Dense input (rows, dense_width) float32 and codes (rows, embedded columns) int64; DatasetInvalid with row."""
        dense = np.zeros((table.rows, self.dense_width), np.float32)
        codes = np.zeros((table.rows, len(self.cardinalities)), np.int64)
        at = code_at = 0
        for number in self.numbers:
            values = read_numbers(table, number.name, dates=number.dates)
            missing = ~np.isfinite(values)
            scaled = (np.where(missing, number.centre, values) - number.centre) * number.scale
            dense[:, at] = np.clip(scaled, -FURTHEST, FURTHEST)
            at += 1
            if number.indicator:
                dense[:, at] = missing
                at += 1
        for category in self.categories:
            known = pa.array(category.categories, pa.large_string())
            index = pc.index_in(table.columns[category.name], value_set=known)
            code = pc.fill_null(index, -1).to_numpy(zero_copy_only=False).astype(np.int64)
            if category.embedded:
                codes[:, code_at] = code + 1
                code_at += 1
            else:
                hit = code >= 0
                dense[np.flatnonzero(hit), at + code[hit]] = 1.0
                at += len(category.categories)
        return dense, codes

    def to_json(self) -> Json:
        return {
            "numbers": [asdict(column) for column in self.numbers],
            "categories": [{"name": c.name, "categories": list(c.categories)} for c in self.categories],
        }

    @classmethod
    def from_json(cls, value: Json) -> Preprocessing:
        return cls(
            tuple(NumberColumn(**column) for column in value["numbers"]),
            tuple(CategoryColumn(c["name"], tuple(c["categories"])) for c in value["categories"]),
        )


def read_numbers(table: Table, column: str, *, dates: bool = False) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The column as float64 (rows,), NaN where missing; a cell that is no number is an error with its row."""
    if dates:
        return _days(table.columns[column], table, column)
    values, bad = numbers(table.columns[column])
    if bad.any():
        index = int(bad.argmax())
        raise table.error(index, f"column '{column}' holds '{_cell(table, column, index)}', which is no number")
    return values


def _cell(table: Table, column: str, index: int) -> str:
    return str(table.columns[column][index].as_py())[:40]


def _days(column: pa.Array, table: Table, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    days = np.full(len(column), np.nan)
    for index, cell in enumerate(column.to_pylist()):
        if cell is None:
            continue
        try:
            stamp = np.datetime64(cell.strip().rstrip("Z").replace(" ", "T"), "s")
        except ValueError:
            raise table.error(index, f"column '{name}' holds '{cell[:40]}', which is no date") from None
        days[index] = stamp.astype(np.int64) / 86400
    return days


def _looks_like_dates(column: pa.Array) -> bool:
    cells = [cell for cell in column.to_pylist() if cell is not None]
    if not cells or not all(_DATE.fullmatch(cell.strip()) for cell in cells):
        return False
    try:
        for cell in cells:
            np.datetime64(cell.strip().rstrip("Z").replace(" ", "T"), "s")
    except ValueError:
        return False
    return True


def fit(
    table: Table, rows: Ints, features: Sequence[str], types: Mapping[str, str]
) -> tuple[Preprocessing, list[str], list[str]]:
    """Fits on the given rows of the training table. Returns (preprocessing, notes, warnings).

    Raises DatasetInvalid when a column declared a number holds something else.
    """
    take = pa.array(rows)
    notes: list[str] = []
    warnings: list[str] = []
    fitted = [
        _fit_column(table, name, table.columns[name].take(take), types.get(name), notes, warnings) for name in features
    ]
    preprocessing = Preprocessing(
        tuple(c for c in fitted if isinstance(c, NumberColumn)),
        tuple(c for c in fitted if isinstance(c, CategoryColumn)),
    )
    return preprocessing, notes, warnings


def _fit_column(
    table: Table, name: str, column: pa.Array, declared: str | None, notes: list[str], warnings: list[str]
) -> NumberColumn | CategoryColumn | None:
    """Number, category or None (of no use); appends to notes and warnings why."""
    filled = len(column) - column.null_count
    if filled == 0:
        notes.append(f"Column '{name}' is empty and was left out.")
        return None
    values, bad = numbers(column)
    if declared == "number" or (declared is None and not bad.any()):
        if declared == "number":
            read_numbers(table, name)  # an error with its row, where there is one
        if np.isinf(values).any():
            warnings.append(f"Column '{name}' holds infinite values; they are treated as missing.")
        if _is_row_number(values):
            warnings.append(f"Column '{name}' looks like a row number; list it under data.drop if it is one.")
        return _fit_number(name, values, notes)
    if declared is None and _looks_like_dates(column):
        notes.append(f"Column '{name}' was read as dates.")
        return _fit_number(name, _days(column, table, name), notes, dates=True)
    if declared is None and filled >= ID_ROWS and pc.count_distinct(column).as_py() > ID_SHARE * filled:
        warnings.append(f"Column '{name}' has a different value in nearly every row, like an id; left out.")
        return None
    category = _fit_category(name, column)
    if len(category.categories) < 2 and column.null_count == 0:
        notes.append(f"Column '{name}' is constant and was left out.")
        return None
    return category


def _is_row_number(values: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Consecutive or at least strictly rising whole numbers in file order."""
    steps = np.diff(values)
    return len(values) >= ID_ROWS and bool((steps > 0).all()) and bool((values == np.floor(values)).all())


def _fit_number(
    name: str, values: np.ndarray[Any, np.dtype[np.float64]], notes: list[str], *, dates: bool = False
) -> NumberColumn | None:
    missing = ~np.isfinite(values)
    known = values[~missing]
    if known.size == 0 or known.min() == known.max():
        if known.size == 0 or not missing.any():
            notes.append(f"Column '{name}' is constant and was left out.")
            return None
        return NumberColumn(name, float(known[0]), 0.0, indicator=True, dates=dates)
    low, centre, high = np.quantile(known, [0.25, 0.5, 0.75])
    # Where half of the values are one and the same, the range takes the quartiles' place (RealMLP's rule).
    scale = 1 / (high - low) if high > low else 2 / (known.max() - known.min())
    return NumberColumn(name, float(centre), float(scale), indicator=bool(missing.any()), dates=dates)


def _fit_category(name: str, column: pa.Array) -> CategoryColumn:
    counted = pc.value_counts(column.drop_null()).to_pylist()
    counted.sort(key=lambda entry: (-entry["counts"], entry["values"]))
    return CategoryColumn(name, tuple(entry["values"] for entry in counted[:MOST_CATEGORIES]))
