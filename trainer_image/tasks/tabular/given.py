"""The tables of a dataset as they are given: read, checked, their rows divided into splits; nothing is fitted yet."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from trainer_image.data.formats.cells import Wanted
from trainer_image.data.formats.numbers import numbers
from trainer_image.data.rows.division import RowHashes, divide
from trainer_image.data.rows.hashes import content_of, of_table
from trainer_image.data.spill import Scratch
from trainer_image.data.splits import find_tables, is_table_name
from trainer_image.data.table import Table, no_such_column, read_table
from trainer_image.data.unpacking import looked_into
from trainer_image.errors import invalid
from trainer_image.limits import Limits
from trainer_image.tasks.base import RowGroups, TaskSettings
from trainer_image.tasks.tabular import weights
from trainer_image.tasks.tabular.columns import Ints
from trainer_image.tasks.tabular.target import ValueTarget, fit_target, labelled
from trainer_image.tasks.tabular.told import split_column, times_split, told_in

# Rows that make a sum, and how near it is to be; rows that the first one is compared with.
LEAST_SUMMED, SUM_SHARE = 9, 1e-5
LOOKED_AT = 100
_RULE, _IN_BRACKETS = re.compile(r"\s*(-{3,}|:-+:?|-+:)\s*"), re.compile(r"\s*[(\[].*[)\]]\s*")


class Given:
    """A dataset of tables to learn `settings.target` from.

    tables: of each split that has its own; labels: of the training table's rows, 0 where there is none
    division: of the labelled rows; rows: those of each split, as its table numbers them (see `table_of`)
    weights: of each split's rows, where `settings.weight` says that they count differently; else None
    test_again: reads the table that has the test split once more, as `read` does, into the `scratch` it is given
    """

    def __init__(self, data: Path, settings: TaskSettings, target: str) -> None:
        self._settings = settings
        data, notes = looked_into(data, settings.limits, settings.scratch, is_table_name)
        found = find_tables(data)
        told_by = target, settings.group, settings.weight, split_column(settings)
        needed = tuple(column for column in told_by if column)
        wanted = Wanted(needed, dropped=frozenset(settings.drop))
        again = partial(read, data=data, limits=settings.limits, wanted=wanted)
        self.tables = {split: again(files, scratch=settings.scratch) for split, files in found.splits.items()}
        train = self.tables["train"]
        _check_names(train, settings)
        notes += [*found.notes, *(note for table in self.tables.values() for note in table.notes)]
        notes += _without_unlabelled(self.tables, target)
        _check(self.tables, target)
        _check_first_row(train)
        for table in self.tables.values():
            _check_headers(table, target)
        self.target, target_notes = fit_target(train, target, settings.types.get(target))
        self.labels = self.target.encode(train, settings.scratch)
        labels = {split: labelled(table, target) for split, table in self.tables.items()}
        notes += [_left_out(self.tables[split], target, rows) for split, rows in labels.items() if rows is not None]
        usable = {split: np.arange(self.tables[split].rows) if rows is None else rows for split, rows in labels.items()}
        for split, rows in usable.items():
            if (last := self._total(self.tables[split], rows)) is not None:
                usable[split] = rows[:-1]
                notes.append(last)
        of_tables = self._weights(usable)
        for split, each in of_tables.items():
            rows, usable[split] = usable[split], usable[split][each[usable[split]] > 0]
            if left := len(rows) - len(usable[split]):
                name = self.tables[split].name
                notes.append(f"{left} of {len(rows)} rows of {name} have the weight 0 (data.weight) and were left out.")
        known, told = usable["train"], None
        if settings.split:
            missing = [split for split in ("test", "validation") if split not in self.tables]
            told, more = told_in(train, known, settings.split, missing)
            notes += more
        self.division = divide(
            self._hashes(usable, target),
            self.target.strata(self.labels[known]),
            settings.seed,
            groups=train.text(settings.group)[known] if settings.group else None,
            earlier=settings.earlier,
            told=told,
        )
        self.rows = self.division.of(usable, lambda rows, index: rows[index])
        self.weights = None
        if settings.weight:
            self.weights = {name: of_tables[self.division.source(name)][rows] for name, rows in self.rows.items()}
            notes.append(weights.told(settings.weight, self.weights["train"], self.weights["test"]))
        self.notes = [*notes, *target_notes, *self.division.notes]
        self.test_again = partial(again, found.splits[self.division.source("test")])

    def table_of(self, split: str) -> Table:
        """The table that has this split's rows."""
        return self.tables[self.division.source(split)]

    @property
    def test_groups(self) -> RowGroups | None:
        """Which of the test rows belong together, as data.group says."""
        test, group = self.table_of("test"), self._settings.group
        return RowGroups.by(group, test.text(group)[self.rows["test"]]) if group and group in test.columns else None

    def _hashes(self, usable: Mapping[str, Ints], target: str) -> RowHashes:
        """Of the labelled rows' cells in the columns that all tables have; in the earlier run's, where they do."""
        train, *others = self.tables.values()
        shared = [column for column in train.columns if all(column in table.columns for table in others)]
        if not times_split(self._settings):  # whoever moves a row to another split has not changed the row
            shared = [column for column in shared if column != split_column(self._settings)]
        told = [column for column in shared if column != self._settings.weight]  # nor whoever lets it count more
        columns, earlier = content_of(told, target), self._settings.earlier
        if earlier is not None and set(earlier.content) <= set(shared):
            columns = earlier.content
        hashes = {split: of_table(table, columns)[usable[split]] for split, table in self.tables.items()}
        return RowHashes(columns, hashes)

    def _total(self, table: Table, rows: Ints) -> str | None:
        """What is to be said of a last row that has the sum of all others as its label; None where it has not."""
        if not isinstance(self.target, ValueTarget) or len(rows) < LEAST_SUMMED:
            return None
        labels = self.labels if table is self.tables["train"] else self.target.encode(table, Scratch())
        others, last = labels[rows[:-1]], float(labels[rows[-1]])
        whole = float(others.sum(dtype=np.float64))
        if not abs(last - whole) <= SUM_SHARE * abs(last) or abs(last) <= np.abs(others).max():
            return None
        file, row = table.locate(int(rows[-1]))
        return (
            f"The last row of {file}, row {row}, has the sum of all others as '{self.target.column}': it was left out."
        )

    def _weights(self, usable: Mapping[str, Ints]) -> dict[str, weights.Array]:
        """Of each table's rows; of none where all count alike."""
        column = self._settings.weight
        if column is None:
            return {}
        for table in self.tables.values():
            if column not in table.columns:
                raise no_such_column(table.name, column, f"{weights.KEY}, which every split needs", list(table.columns))
        return {split: weights.read(table, column, usable[split]) for split, table in self.tables.items()}


def read(files: Sequence[Path], data: Path, limits: Limits, scratch: Scratch | None, wanted: Wanted) -> Table:
    """The files as one table, called as they are within the dataset."""
    root = data if data.is_dir() else data.parent
    return read_table([(path.relative_to(root).as_posix(), path) for path in files], limits, scratch, wanted)


def _check_first_row(table: Table) -> None:
    """Raises for a row of units or other names below the header, and for the rule of a Markdown table."""
    _, batch = next(table.batches(*table.columns))
    first = {column: cells[0].as_py() for column, cells in batch.items()}
    said = [cell for cell in first.values() if cell]
    if said and all(_RULE.fullmatch(cell) for cell in said):
        raise table.error(0, "is the rule of a Markdown table, not a row: take it out")
    odd, held = [], 0
    for column, cells in batch.items():
        values, bad = numbers(cells.slice(0, LOOKED_AT))
        if len(values) > LEAST_SUMMED and not bad[1:].any() and np.isfinite(values[1:]).any():
            held += np.isfinite(values[0]) and not bad[0]
            odd += [first[column]] if bad[0] else []
    # A row that holds more numbers than words is a row with slips, as any other may have them.
    if (len(odd) > 1 and len(odd) > held) or any(_IN_BRACKETS.fullmatch(cell) for cell in odd):
        shown = " and ".join(f"'{cell[:40]}'" for cell in odd[:2])
        raise table.error(
            0,
            f"holds {shown} where all rows below hold numbers: take it out if it is a second header; otherwise leave"
            " cells empty whose number is not known",
        )


def _check_headers(table: Table, target: str) -> None:
    """Raises for a row that is the header once more, as files that were joined have it."""
    for start, cells in table.cells(target):
        for index in np.flatnonzero(pc.equal(pc.utf8_trim_whitespace(cells), target).fill_null(False))[:LOOKED_AT]:
            row = table.take([start + int(index)], list(table.columns), written=list(table.columns))[0]
            if all((cell or "").strip() == column for column, cell in row.items()):
                raise table.error(start + int(index), "repeats the header: take it out")


def _check_names(train: Table, settings: TaskSettings) -> None:
    """Whether the columns that the configuration names are there."""
    for key, wanted in (
        ("target", [settings.target]),
        ("group", [settings.group] if settings.group else []),
        ("weight", [settings.weight] if settings.weight else []),
        ("split.column", [split_column(settings)] if settings.split else []),
        ("drop", settings.drop),
        ("types", settings.types),
    ):
        for column in wanted:
            if column not in train.columns and column not in train.passed_over:
                raise no_such_column(train.name, str(column), f"data.{key}", list(train.columns))


def _without_unlabelled(tables: dict[str, Table], target: str) -> list[str]:
    """Takes the splits beside the training split away that have no labels at all, as Kaggle's test.csv; and says so."""
    notes = []
    for split in [split for split in tables if split != "train"]:
        table = tables[split]
        if target in table.columns and (not table.rows or table.columns[target].null_count < table.rows):
            continue
        alike = [column for column in table.columns if column.casefold() == target.casefold()]
        near = alike or difflib.get_close_matches(target, table.columns, 1, 0.8)
        if target not in table.columns and near:
            raise no_such_column(table.name, target, "data.target", [*near, *table.columns])
        what = "no label" if target in table.columns else f"no column '{target}'"
        notes.append(
            f"{table.name} has {what}: nothing can be tested on it, and it was not used; `predict` is what it is for."
        )
        del tables[split]
    return notes


def _left_out(table: Table, target: str, rows: Ints) -> str:
    """rows: those that have a label"""
    missing = np.setdiff1d(np.arange(table.rows), rows)
    file, row = table.locate(int(missing[0]))
    word = table.take([int(missing[0])], [target], written=[target])[0][target]
    holds = f", which holds '{word}': should that be a class, write it otherwise" if word else ""
    if len(missing) == 1:
        return f"1 of {table.rows} rows of {table.name} has no '{target}' and was left out: row {row} of {file}{holds}."
    return (
        f"{len(missing)} of {table.rows} rows of {table.name} have no '{target}' and were left out, the first of them "
        f"row {row} of {file}{holds}."
    )


def _check(tables: Mapping[str, Table], target: str) -> None:
    """Whether the splits have rows, and the training split labels."""
    for table in tables.values():
        if table.rows == 0:
            raise invalid(table.name, "has a header but no rows")
    train = tables["train"]
    if train.columns[target].null_count == train.rows:
        raise invalid(train.name, f"the target column '{target}' is empty: no row has a label")
