"""Reading tables: CSV, JSON, Parquet and its like, workbooks; every cell kept as text until typed.

A cell is text or null; whether a column holds numbers is decided later, from the training split alone, so that one odd
value in a test file cannot change what a column means. Rows are named as an editor or a spreadsheet numbers them: a
CSV's header is row 1. Everything that cannot be read is a `DatasetInvalid` that says file, row and column.

files → batches of rows (csv_reader, jsonl_reader, parquet_reader, workbook_reader) → memory, or a Parquet file in the
work folder when they are larger than what memory has for them. Whoever computes goes through `Table.batches`, the same
either way.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer_image.data import reading
from trainer_image.data.encodings import joined
from trainer_image.data.formats import csv_reader, jsonl_reader, parquet_reader, partitions, workbook_reader
from trainer_image.data.formats.cells import EVERYTHING, TEXT, Wanted, has_maybe_values, said_of, without_maybe_values
from trainer_image.data.formats.csv_dialect import DELIMITERS
from trainer_image.data.formats.numbers import numbers
from trainer_image.data.spill import Scratch
from trainer_image.errors import DatasetInvalid, LimitExceeded, invalid
from trainer_image.limits import Limits

# Of a name in a sentence.
SHOWN_CHARACTERS = 60
_PACKED = ("", ".gz", ".zst")
_CSV, _JSON, _JSON_LINES = (".csv", ".tsv", ".tab"), (".json",), (".jsonl", ".ndjson")
TABLE_SUFFIXES = (
    *(kind + packed for kind in (*_CSV, *_JSON_LINES, *_JSON) for packed in _PACKED),
    *parquet_reader.SUFFIXES,
    *workbook_reader.SUFFIXES,
)


@dataclass(frozen=True)
class Part:
    """One file of a table: its name within the dataset, its path, its number of rows.

    needed: the columns by which its header was found, see `Wanted`
    """

    name: str
    path: Path
    rows: int
    needed: tuple[str, ...] = ()

    def rows_at(self, indices: Sequence[int]) -> list[int]:
        """Where the data rows with these indices (from 0) begin, as an editor numbers lines; reads the file once."""
        lower = self.path.name.lower()
        if lower.endswith(parquet_reader.SUFFIXES):
            return [index + 1 for index in indices]
        module = (
            workbook_reader
            if lower.endswith(workbook_reader.SUFFIXES)
            else jsonl_reader
            if is_json(self.path)
            else csv_reader
        )
        found = module.line_numbers(self.name, self.path, list(indices), Limits(), Wanted(self.needed))
        return [found.get(index, index + 2) for index in indices]


@dataclass(frozen=True)
class Table:
    """Columns of text (null where the cell was empty), and where each row came from.

    columns: name → all its cells, TEXT (rows,); in a table that lies in a file each look-up reads the column
    worded: those of them in which MAYBE_VALUES are null here, as they are written
    lengths: rows of each batch
    passed_over: columns that are there as well, and that nobody wanted
    notes: what is to be said about how the files were read
    """

    columns: Mapping[str, pa.Array]
    parts: tuple[Part, ...]
    lengths: tuple[int, ...]
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    worded: Mapping[str, pa.Array] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def name(self) -> str:
        """The file's name, or the first shard's."""
        return self.parts[0].name

    def batches(self, *columns: str, written: Collection[str] = ()) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """Index of the first row, and the cells of these columns, batch by batch.

        written: columns in which MAYBE_VALUES are the words that they are, and not null
        """
        start = 0
        for number, length in enumerate(self.lengths):
            yield start, self._batch(number, start, columns, written)
            start += length

    def _batch(
        self, number: int, start: int, columns: Sequence[str], written: Collection[str] = ()
    ) -> dict[str, pa.Array]:
        if isinstance(self.columns, _Spooled):
            return self.columns.batch(number, columns, written)
        sources = {
            column: self.worded if column in written and column in self.worded else self.columns for column in columns
        }
        return {column: cells[column].slice(start, self.lengths[number]) for column, cells in sources.items()}

    def cells(self, column: str, *, written: bool = False) -> Iterator[tuple[int, pa.Array]]:
        """`batches` of one column."""
        for start, batch in self.batches(column, written=(column,) if written else ()):
            yield start, batch[column]

    def take(
        self, indices: Sequence[int], columns: Sequence[str], written: Collection[str] = ()
    ) -> list[dict[str, str | None]]:
        """These columns of these rows, in the order of the indices; reads no more than the batches they lie in.

        written: as of `batches`
        """
        found: dict[int, dict[str, str | None]] = {}
        start = 0
        for number, length in enumerate(self.lengths):
            inside = [index for index in indices if start <= index < start + length]
            batch = self._batch(number, start, columns, written) if inside else {}
            for index in inside:
                found[index] = {column: cells[index - start].as_py() for column, cells in batch.items()}
            start += length
        return [found[index] for index in indices]

    def cell(self, column: str, index: int) -> str | None:
        """One cell."""
        return self.take([index], [column])[0][column]

    def locate(self, index: int) -> tuple[str, int]:
        """File and row number of the row with this index: (name, row)."""
        return self.locate_all([index])[0]

    def locate_all(self, indices: Sequence[int]) -> list[tuple[str, int]]:
        """(name, row) of each row; every file is read once at most."""
        found: dict[int, tuple[str, int]] = {}
        start = 0
        for part in self.parts:
            inside = [index for index in indices if start <= index < start + part.rows]
            rows = part.rows_at([index - start for index in inside]) if inside else []
            found.update((index, (part.name, row)) for index, row in zip(inside, rows, strict=True))
            start += part.rows
        if len(found) < len(set(indices)):
            raise IndexError(next(index for index in indices if index not in found))
        return [found[index] for index in indices]

    def error(self, index: int, why: str) -> DatasetInvalid:
        """A `DatasetInvalid` that names file and row."""
        file, row = self.locate(index)
        return invalid(file, f"row {row}: {why}")

    def text(self, column: str) -> np.ndarray[Any, np.dtype[np.object_]]:
        """The column's cells as str, None where there is no value: (rows,)."""
        values: np.ndarray[Any, np.dtype[np.object_]] = self.columns[column].to_numpy(zero_copy_only=False)
        return values


class _Spooled(Mapping[str, pa.Array]):
    """A table's columns in a Parquet file, one row group a batch."""

    def __init__(self, path: Path, names: list[str], worded: set[str], scratch: Scratch) -> None:
        self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1024**2)
        self._names, self._worded = names, worded
        self._scratch = scratch  # the file is gone with it

    def batch(self, number: int, columns: Sequence[str], written: Collection[str]) -> dict[str, pa.Array]:
        group = self._file.read_row_group(number, columns=list(columns), use_threads=False)
        found = {column: _whole(group.column(column).chunks) for column in columns}
        return {column: cells if column in written else self._meant(column, cells) for column, cells in found.items()}

    def _meant(self, column: str, cells: pa.Array) -> pa.Array:
        return without_maybe_values(cells) if column in self._worded else cells

    def __getitem__(self, column: str) -> pa.Array:
        if column not in self._names:
            raise KeyError(column)
        return self._meant(column, _whole(self._file.read(columns=[column]).column(column).chunks))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_table(
    files: Sequence[tuple[str, Path]], limits: Limits, scratch: Scratch | None = None, wanted: Wanted = EVERYTHING
) -> Table:
    """Reads the shards of one split, in order: (name for messages, path). They must agree on their columns, but for
    files without a single byte.

    scratch: where the table goes when it is too large for memory; None: it stays in memory
    """
    keeper = _Keeper(limits, scratch)
    parts: list[Part] = []
    empty: list[str] = []
    some = any(path.stat().st_size for _, path in files)
    for name, path in files:
        if some and not path.stat().st_size:
            empty.append(name)  # as Spark writes a part without rows
            continue
        rows = 0
        for number, batch in enumerate(_as_written(name, path, limits, wanted)):
            if parts and not number:
                compare_columns(name, batch.schema.names, parts[0].name, keeper.names)
            rows += batch.num_rows
            keeper.add(name, batch, *said_of(batch))
        parts.append(Part(name, path, rows, wanted.needed))
    if empty:
        more = "is empty and was" if len(empty) == 1 else f"and {len(empty) - 1} more are empty and were"
        keeper.say(f"{empty[0]} {more} passed over.")
    return keeper.table(tuple(parts))


def stream_table(name: str, path: Path, limits: Limits, wanted: Wanted = EVERYTHING) -> Iterator[pa.RecordBatch]:
    """One file's rows in batches of text, never all at once; the first batch has no rows, but every column."""
    for batch in _as_written(name, path, limits, wanted):
        yield (
            batch
            if not batch.num_rows
            else pa.RecordBatch.from_arrays(
                [without_maybe_values(column) for column in batch.columns], names=batch.schema.names
            )
        )


def _as_written(name: str, path: Path, limits: Limits, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """`stream_table` with MAYBE_VALUES in it."""
    return partitions.with_columns(name, _of_file(name, path, limits, wanted), wanted)


def _of_file(name: str, path: Path, limits: Limits, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    lower = path.name.lower()
    if lower.endswith(parquet_reader.SUFFIXES):
        yield from parquet_reader.read_parquet(name, path, limits, wanted)
    elif lower.endswith(workbook_reader.SUFFIXES):
        yield from workbook_reader.read_workbook(name, path, limits, wanted)
    else:
        read = jsonl_reader.read_jsonl if is_json(path) else csv_reader.read_csv
        with reading.of(name):
            yield from read(name, path, limits, wanted)


def is_jsonl(path: Path) -> bool:
    return _plain_name(path).endswith(_JSON_LINES)


def is_json(path: Path) -> bool:
    """JSON Lines, or one document."""
    return _plain_name(path).endswith((*_JSON_LINES, *_JSON))


def _plain_name(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".zst")


class _Keeper:
    """Takes batches, and moves to a file when they become too many for memory."""

    def __init__(self, limits: Limits, scratch: Scratch | None) -> None:
        self._limits, self._scratch = limits, scratch
        self._batches: list[pa.RecordBatch] = []
        self._lengths: list[int] = []
        self._bytes = self._taken = 0
        self._path: Path | None = None
        self._writer: pq.ParquetWriter | None = None
        self.names: list[str] = []
        self._worded: set[str] = set()
        self._passed_over: list[str] = []
        self._notes: list[str] = []

    def add(self, name: str, batch: pa.RecordBatch, passed_over: Sequence[str], notes: Sequence[str]) -> None:
        self.names = self.names or batch.schema.names
        self._passed_over = self._passed_over or list(passed_over)
        self._notes += notes
        if not batch.num_rows:
            return
        batch = batch.select(self.names).replace_schema_metadata()
        unsuspected = (name for name in self.names if name not in self._worded)
        self._worded.update([name for name in unsuspected if has_maybe_values(batch.column(name))])
        self._lengths.append(batch.num_rows)
        self._bytes += batch.nbytes
        if self._limits.dataset_bytes and self._bytes > 8 * self._limits.dataset_bytes:
            raise LimitExceeded(f"{name} unpacks to more than eight times the limit on the dataset (MAX_DATASET_BYTES)")
        if self._writer is None:
            self._batches.append(batch)
            if self._scratch is None or self._scratch.take(batch.nbytes):
                self._taken += batch.nbytes
                return
            self._path = self._scratch.file(self._bytes)
            self._scratch.release(self._taken)
            self._writer = pq.ParquetWriter(self._path, batch.schema, compression="lz4", write_statistics=False)
        else:
            assert self._scratch is not None
            self._scratch.room_for(batch.nbytes)
            self._batches.append(batch)
        for waiting in self._batches:
            self._writer.write_table(pa.Table.from_batches([waiting]), row_group_size=max(1, waiting.num_rows))
        self._batches.clear()

    def say(self, note: str) -> None:
        self._notes.append(note)

    def table(self, parts: tuple[Part, ...]) -> Table:
        lengths = tuple(self._lengths)
        said = tuple(self._passed_over), tuple(joined(self._notes))
        if self._writer is not None:
            assert self._path is not None
            assert self._scratch is not None
            self._writer.close()
            self._scratch.spilled_bytes += self._path.stat().st_size
            return Table(_Spooled(self._path, self.names, self._worded, self._scratch), parts, lengths, *said)
        columns = {name: _whole([batch.column(name) for batch in self._batches]) for name in self.names}
        worded = {name: columns[name] for name in self._worded}
        columns |= {name: without_maybe_values(cells) for name, cells in worded.items()}
        return Table(columns, parts, lengths, *said, worded)


def _whole(chunks: list[pa.Array]) -> pa.Array:
    return pa.concat_arrays(chunks) if chunks else pa.array([], TEXT)


def compare_columns(file: str, columns: Sequence[str], other: str, expected: Sequence[str]) -> None:
    """Raises when a file lacks columns that another one has; the order does not matter, additional ones neither."""
    missing = [column for column in expected if column not in columns]
    if missing:
        extra = [column for column in columns if column not in expected]
        hint = f" and has {_listed(extra)} instead" if extra else ""
        if len(missing) == len(expected) and any(map(_is_a_number, extra)):
            hint += ": does it lack a header that names the columns?"
        raise invalid(file, f"lacks the column{'s' * (len(missing) > 1)} {_listed(missing)} that {other} has{hint}")


def _is_a_number(text: str) -> bool:
    """A year is as good a name as any."""
    return not numbers(pa.array([text], TEXT))[1][0] and not re.fullmatch(r"(19|20)\d\d", text)


def no_such_column(file: str, column: str, option: str, known: Sequence[str]) -> DatasetInvalid:
    """The error for a column that the configuration's `option` names and the table does not have."""
    listed = ", ".join(name[:SHOWN_CHARACTERS] for name in known[:8])
    if len(known) == 1 and column in known[0] and any(delimiter in known[0] for delimiter in DELIMITERS):
        hint = f": each row stands in quotes as a whole, as '{known[0][:60]}' does; take these quotes away"
    elif len(known) == 1 and column in known[0]:
        # Its one column's name holds what was asked for: the header was not divided.
        named = " ".join({"\t": "tab"}.get(delimiter, delimiter) for delimiter in DELIMITERS)
        hint = (
            f": the whole header '{known[0][:SHOWN_CHARACTERS]}' is one column; delimiters that are known are {named}"
        )
    elif same := [name for name in known if name.casefold() == column.casefold()]:
        hint = f"; did you mean '{same[0]}'?"
    elif 2 * sum(map(_is_a_number, known)) >= len(known):
        hint = f"; its first row is {listed}: does it lack a header that names the columns?"
    elif within := [name for name in known if column.casefold() in name.casefold()]:
        hint = f"; did you mean '{within[0]}'?"
    elif near := difflib.get_close_matches(column, known, 1, 0.5):
        hint = f"; did you mean '{near[0]}'?"
    else:
        hint = f"; it has {listed}"
    return invalid(file, f"has no column '{column}' ({option}){hint}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name[:SHOWN_CHARACTERS]}'" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
