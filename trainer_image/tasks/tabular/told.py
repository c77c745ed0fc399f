"""`data.split`: which rows of the training table are tested and validated on, where a column says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.formats.numbers import numbers
from trainer_image.data.rows.division import HELD_OUT, MOST, Indices, Mask
from trainer_image.data.splits import NAMES
from trainer_image.data.table import Table
from trainer_image.errors import DatasetInvalid, invalid
from trainer_image.tasks.base import Split, TaskSettings
from trainer_image.tasks.tabular.dates import AMBIGUOUS, FORMS, days
from trainer_image.tasks.tabular.target import canonical

Floats = np.ndarray[Any, np.dtype[np.float64]]
SHOWN = 8


def split_column(settings: TaskSettings) -> str | None:
    return settings.split.column if settings.split else None


def times_split(settings: TaskSettings) -> bool:
    """Whether the split's column holds times, which are of use to a model as well."""
    return settings.split is not None and settings.split.by == "time"


def told_in(train: Table, rows: Indices, split: Split, missing: Sequence[str]) -> tuple[dict[str, Mask], list[str]]:
    """(which of these rows of the table are another split's, bool (rows,), notes). Raises DatasetInvalid.

    missing: splits that the dataset does not bring, the test first
    """
    if not missing:
        return {}, [f"The dataset brings its own validation and test: '{split.column}' (data.split) divides nothing."]
    return (_by_time if split.by == "time" else _by_value)(train, rows, split, missing)


def _by_time(train: Table, rows: Indices, split: Split, missing: Sequence[str]) -> tuple[dict[str, Mask], list[str]]:
    column, times = split.column, _times(train, split.column)[rows]
    left = np.isfinite(times)
    notes = []
    if not left.all():
        notes.append(f"{(~left).sum()} rows have no '{column}' (data.split): they are trained on.")
    found: dict[str, Mask] = {}
    for name in missing:
        newest = _newest(np.where(left, times, -np.inf), left.sum())
        if not newest.any() or not (left & ~newest).any():
            raise invalid(
                train.name,
                f"'{column}' (data.split) has too few different times to hold the newest rows out for the {name}; split"
                " by something else, or bring a test split of your own",
            )
        found[name] = newest
        left &= ~newest
        since = train.cell(column, int(rows[newest][np.argmin(times[newest])]))
        notes.append(f"By '{column}' the newest {newest.sum()} rows are the {name} split: those from {since} on.")
    return found, notes


def _newest(times: Floats, count: int) -> Mask:
    """About HELD_OUT of the rows, of which `count` have a time, the others minus infinity; those of one moment lie on
    one side."""
    asked = max(1, round(HELD_OUT * count))
    since = np.partition(times, -asked)[-asked]
    found: Mask = times >= since
    later: Mask = times > since
    return later if found.sum() > max(1, MOST * asked) and later.any() else found


def _times(train: Table, column: str) -> Floats:
    """Of every row, to be compared with each other; NaN where there is none."""
    found = np.empty(train.rows)
    plain = True
    # How many cells are no date in it, and the first of them.
    strays = dict.fromkeys(FORMS, (0, -1))
    for start, cells in train.cells(column):
        found[start : start + len(cells)], bad = numbers(cells)
        plain = plain and not bad.any()
    if plain:
        return found
    for start, cells in train.cells(column):
        for form, (count, first) in strays.items():
            bad = days(cells, form)[1]
            strays[form] = count + int(bad.sum()), start + int(bad.argmax()) if first < 0 and bad.any() else first
    form = min(strays, key=lambda form: strays[form][0])
    count, first = strays[form]
    if count:
        cell = str(train.cell(column, first))[:40]
        raise train.error(
            first,
            f"'{column}' (data.split) holds '{cell}'; times are expected, all numbers or all dates in one form, like"
            " 2026-01-31 or 2026-01-31 17:05",
        )
    if form in AMBIGUOUS and not any(strays[other][0] for other in AMBIGUOUS):
        raise invalid(
            train.name,
            f"'{column}' (data.split) holds dates that could be month/day or day/month; write them like 2026-01-31",
        )
    for start, cells in train.cells(column):
        found[start : start + len(cells)] = days(cells, form)[0]
    return found


def _by_value(train: Table, rows: Indices, split: Split, missing: Sequence[str]) -> tuple[dict[str, Mask], list[str]]:
    column = split.column
    values = pa.concat_arrays([canonical(cells) for _, cells in train.cells(column)]).take(pa.array(rows))
    known = pc.unique(values.drop_null()).to_pylist()
    asked = {"test": split.test, "validation": split.validation}
    if not any(asked.values()):
        of = {value: NAMES.get(value.lower()) for value in known}
        if strange := next((value for value in known if of[value] is None), None):
            row = int(rows[pc.index(values, strange).as_py()])
            raise train.error(
                row,
                f"'{column}' (data.split) holds '{strange[:40]}'; train, validation and test are expected, or lists of"
                " values: data.split: {validation: […], test: […]}",
            )
        asked = {name: tuple(value for value in known if of[value] == name) for name in asked}
    else:
        _all_there(train, split, known)
    found = {}
    for name, wanted in asked.items():
        if not wanted:
            continue  # the dataset brings it, or its rows are held out by their content
        if name not in missing:
            why = f"'{column}' (data.split) names rows for the {name} split, which the dataset brings already"
            raise invalid(train.name, why)
        those = pc.is_in(values, value_set=canonical(pa.array(wanted, values.type)))
        found[name] = those.to_numpy(zero_copy_only=False)
    if found and not (~np.logical_or.reduce(list(found.values()))).any():
        raise invalid(train.name, f"'{column}' (data.split) leaves no row to train on")
    notes = [f"'{column}' says which {those.sum()} rows are the {name} split." for name, those in found.items()]
    return found, notes


def _all_there(train: Table, split: Split, known: Sequence[str]) -> None:
    for name, wanted in (("test", split.test), ("validation", split.validation)):
        for value in wanted:
            if canonical(pa.array([value], pa.large_string()))[0].as_py() not in known:
                shown = ", ".join(f"'{other[:40]}'" for other in known[:SHOWN]) + (", …" if len(known) > SHOWN else "")
                raise DatasetInvalid(
                    f"Invalid dataset: {train.name}: no row has '{value}' in '{split.column}' (data.split.{name}); it"
                    f" has {shown or 'no values'}"
                )
