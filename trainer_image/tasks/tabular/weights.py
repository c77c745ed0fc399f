"""`data.weight`: how much each row of a table counts, as a column of it says.

Only ratios matter: weights twice as large in every row are the same training. A row with 0 is none, as one without a
label is none; whatever else is no number from 0 is a slip that nobody can guess the meaning of.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer_image.data.formats.numbers import PLAIN, Notation, in_words, numbers
from trainer_image.data.table import Table
from trainer_image.errors import invalid
from trainer_image.tasks.intervals import worth_of
from trainer_image.tasks.tabular.notation import notation_of

Array = np.ndarray[Any, np.dtype[np.float64]]
Rows = np.ndarray[Any, np.dtype[np.int64]]
KEY = "data.weight"
# Of the mean: less is nothing, but could make all weights of a few rows zero.
LEAST = 1e-20


def read(table: Table, column: str, rows: Rows) -> Array:
    """The weights of the table's rows, of which these (ascending) are looked at, float64 (rows of the table,), 0 for
    the others. DatasetInvalid for a weight that is missing, below zero, not finite or no number, and where all are 0.
    """
    values, notation = _numbers(table, column, rows)
    for wrong, why in (
        (values < 0, "is below zero"),
        (np.isinf(values), "is not finite"),
        (np.isnan(values), f"is no {in_words(notation)}"),
    ):
        those = rows[wrong[rows]]
        if len(those):
            cell = table.cell(column, int(those[0]))
            said = "has no value" if cell is None else f"holds '{cell[:40]}', which {why}"
            raise table.error(
                int(those[0]),
                f"column '{column}' ({KEY}) {said}; the weight of a row is a number, 0 leaves the row out",
            )
    if len(rows) and not values[rows].any():
        raise invalid(table.name, f"column '{column}' ({KEY}) is 0 in every row: no row counts")
    found = np.zeros(table.rows)
    found[rows] = values[rows]
    return found


def scaled(weights: Array, among: Array | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As batches have them: 1 in the mean of the rows that count, or of those `among` which they are learnt from. A row
    with 0, which only `predict` does not leave out, counts in no figure, nor does a class that is only in such rows."""
    those = weights if among is None else among
    share = np.maximum(weights / those[those > 0].mean(), LEAST)
    return np.asarray(np.where(weights > 0, share, 0), np.float32)


def told(column: str, train: Array, test: Array) -> str:
    """What is to be said of the rows' weights, (rows,) each."""
    worth = worth_of(test) if len(test) else 0.0
    return (
        f"'{column}' says how much a row counts ({KEY}), from {train.min():g} to {train.max():g}: in training, in the"
        f" choice of models and in all figures; the {len(test)} test rows tell as much as {worth:.0f} of equal weight."
    )


def _numbers(table: Table, column: str, rows: Rows) -> tuple[Array, Notation]:
    """Of every row, NaN where there is none, in the notation that most of them are written in."""
    values, bad = _read(table, column, PLAIN)
    if bad[rows].any():
        filled = table.rows - sum(cells.null_count for _, cells in table.cells(column))
        found = notation_of(table, column, int(bad.sum()), filled)
        if found is not None and found.notation is not None:
            return _read(table, column, found.notation)[0], found.notation
    return values, PLAIN


def _read(table: Table, column: str, notation: Notation) -> tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    values, bad = np.empty(table.rows), np.zeros(table.rows, bool)
    for start, cells in table.cells(column):
        end = start + len(cells)
        values[start:end], bad[start:end] = numbers(cells, notation)
    return np.where(bad, np.nan, values), bad
