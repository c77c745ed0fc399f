"""Reading tables: CSV (any usual delimiter, gzip, byte order mark) and Parquet, every cell kept as text until typed.

A cell is text or null; whether a column holds numbers is decided later, from the training split alone, so that one odd
value in a test file cannot change what a column means. Rows are named as an editor or a spreadsheet numbers them: the
header is row 1. Everything that cannot be read is a `DatasetInvalid` that says file, row and column.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from trainer_image.contract import Limits
from trainer_image.errors import DatasetInvalid, LimitExceeded

TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
# What the reader takes in at a time; a single row may not be longer.
BLOCK_BYTES = 8 * 1024**2
# What the delimiter is told by.
SAMPLE_CHARACTERS = 65536
DELIMITERS = (",", ";", "\t", "|")
# What spreadsheets, databases and pandas write for "no value". "none" is left out: it is a common category.
NULL_WORDS = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "<na>"})


def invalid(file: str, why: str) -> DatasetInvalid:
    """The sentence of the trainer's contract for a dataset that cannot be used."""
    return DatasetInvalid(f"Invalid dataset: {file}: {why}")


@dataclass(frozen=True)
class Part:
    """One file of a table: its name within the dataset, its path, its number of rows."""

    name: str
    path: Path
    rows: int


@dataclass(frozen=True)
class Table:
    """Columns of text (null where the cell was empty), and where each row came from."""

    columns: dict[str, pa.Array]
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def name(self) -> str:
        """The file's name, or the first shard's."""
        return self.parts[0].name

    def locate(self, index: int) -> tuple[str, int]:
        """File and row number (the header is row 1) of the row with this index: (name, row)."""
        return self.locate_all([index])[0]

    def locate_all(self, indices: Sequence[int]) -> list[tuple[str, int]]:
        """The same for many rows; each file is gone through once at most."""
        found: dict[int, tuple[str, int]] = {}
        first = 0
        for part in self.parts:
            here = {index - first for index in indices if first <= index < first + part.rows}
            if here:
                numbered = _row_numbers(part.path, here)
                found |= {first + index: (part.name, row) for index, row in numbered.items()}
            first += part.rows
        return [found[index] for index in indices]

    def error(self, index: int, why: str) -> DatasetInvalid:
        """A `DatasetInvalid` that names file and row."""
        file, row = self.locate(index)
        return invalid(file, f"row {row}: {why}")

    def text(self, column: str) -> np.ndarray[Any, np.dtype[np.object_]]:
        """The column's cells as str, None where there is no value: (rows,)."""
        values: np.ndarray[Any, np.dtype[np.object_]] = self.columns[column].to_numpy(zero_copy_only=False)
        return values


def read_table(files: Sequence[tuple[str, Path]], limits: Limits) -> Table:
    """Reads the shards of one split, in order: (name for messages, path). They must agree on their columns."""
    tables: list[tuple[Part, pa.Table]] = []
    for name, path in files:
        table = _read_parquet(name, path) if path.name.endswith(".parquet") else _read_csv(name, path, limits)
        _check_fields(name, table, limits)
        if limits.table_columns and table.num_columns > limits.table_columns:
            raise LimitExceeded(f"{name} has {table.num_columns} columns; the limit is {limits.table_columns}")
        tables.append((Part(name, path, table.num_rows), table))
    first_part, first = tables[0]
    for part, table in tables[1:]:
        compare_columns(part.name, table.column_names, first_part.name, first.column_names)
    columns = {
        column: _nullified(pa.concat_arrays([c for _, t in tables for c in t.column(column).chunks]))
        if any(t.column(column).chunks for _, t in tables)
        else pa.array([], pa.large_string())
        for column in first.column_names
    }
    return Table(columns, tuple(part for part, _ in tables))


def _check_fields(name: str, table: pa.Table, limits: Limits) -> None:
    for column in table.column_names if limits.field_bytes else ():
        longest = pc.max(pc.binary_length(table.column(column))).as_py() or 0
        if longest > limits.field_bytes:
            raise LimitExceeded(
                f"{name}: a field of column '{column}' has {longest} bytes; the limit is {limits.field_bytes}"
            )


def compare_columns(file: str, columns: Sequence[str], other: str, expected: Sequence[str]) -> None:
    """Raises when a file lacks columns that another one has; the order does not matter, additional ones neither."""
    missing = [column for column in expected if column not in columns]
    if missing:
        extra = [column for column in columns if column not in expected]
        hint = f" and has {_listed(extra)} instead" if extra else ""
        raise invalid(file, f"lacks the column {_listed(missing)} that {other} has{hint}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def numbers(
    column: pa.Array,
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Cells as float64, NaN where null or no number, and a mask of those that are no number: both (rows,)."""
    trimmed = pc.utf8_trim_whitespace(column)
    try:
        values = pc.cast(trimmed, pa.float64())
    except pa.ArrowInvalid:
        values = pa.array([_number(cell) for cell in trimmed.to_pylist()], pa.float64())
    bad = pc.and_(pc.is_valid(column), pc.is_null(values)).to_numpy(zero_copy_only=False)
    return pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False).copy(), bad


def _number(cell: str | None) -> float | None:
    if cell is None or "_" in cell:  # Python's float() takes 1_000; no file format does
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _nullified(column: pa.Array) -> pa.Array:
    words = pa.array(sorted(NULL_WORDS), pa.large_string())
    null = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column)), value_set=words)
    return pc.if_else(null, pa.scalar(None, pa.large_string()), column)


def _open_text(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def sniff_delimiter(sample: str) -> str:
    """The delimiter that splits the sample's records into the most columns, evenly; a comma when there is one column.

    Python's csv.Sniffer guesses from character frequencies and is fooled by text columns; agreement between records is
    what a reader needs in the end.
    """
    best, best_score = ",", (0, 0)
    for delimiter in DELIMITERS:
        try:
            records = [r for r in csv.reader(io.StringIO(sample), delimiter=delimiter) if r][:50]
        except csv.Error:
            continue
        if len(records) > 1:
            records = records[:-1] if len(sample) >= SAMPLE_CHARACTERS else records  # the last one may be cut
        width = len(records[0]) if records else 0
        even = sum(len(record) == width for record in records)
        score = (even * (width > 1), width)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _read_csv(name: str, path: Path, limits: Limits) -> pa.Table:
    csv.field_size_limit(limits.field_bytes or 2**31 - 1)
    try:
        with _open_text(path) as text:
            sample = text.read(SAMPLE_CHARACTERS)
    except UnicodeDecodeError:
        raise _not_utf8(name, path) from None
    except (OSError, EOFError) as error:
        raise invalid(name, f"cannot be unpacked as gzip ({error})") from None
    if not sample.strip():
        raise invalid(name, "is empty; a header row and data rows are expected")
    delimiter = "\t" if ".tsv" in path.name else sniff_delimiter(sample)
    try:
        header = _header(name, path, delimiter, sample)
    except csv.Error as error:
        raise invalid(name, f"row 1: {error}") from None
    _check_header(name, header)
    ragged: list[pacsv.InvalidRow] = []

    def note(row: pacsv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    try:
        return pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(
                use_threads=False,
                block_size=BLOCK_BYTES,
                column_names=[h.strip() for h in header],
                skip_rows=0,
                skip_rows_after_names=1,
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
            convert_options=pacsv.ConvertOptions(
                column_types={h.strip(): pa.large_string() for h in header}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        if ragged:
            raise _ragged(name, path, delimiter, len(header)) from None
        if "UTF8" in str(error) or "utf8" in str(error).lower():
            raise _not_utf8(name, path) from None
        if "straddling" in str(error):
            raise LimitExceeded(f"{name}: a row is longer than {BLOCK_BYTES} bytes") from None
        raise invalid(name, f"is no readable CSV ({str(error).splitlines()[0]})") from None
    except OSError as error:
        raise invalid(name, f"cannot be unpacked as gzip ({str(error).splitlines()[0]})") from None


def _header(name: str, path: Path, delimiter: str, sample: str) -> list[str]:
    """The first record. Thousands of columns make it longer than the sample, which may have cut it."""
    records = _first_records(sample, delimiter)
    if len(records) < 2 and len(sample) >= SAMPLE_CHARACTERS:
        with _open_text(path) as text:
            longer = text.read(BLOCK_BYTES)
        records = _first_records(longer, delimiter)
        if len(records) < 2 and len(longer) >= BLOCK_BYTES:
            raise LimitExceeded(f"{name}: a row is longer than {BLOCK_BYTES} bytes")
    return records[0]


def _first_records(text: str, delimiter: str) -> list[list[str]]:
    return list(islice((record for record in csv.reader(io.StringIO(text), delimiter=delimiter) if record), 2))


def _check_header(name: str, header: list[str]) -> None:
    seen: set[str] = set()
    for number, column in enumerate(header, 1):
        if not column.strip():
            raise invalid(name, f"row 1: column {number} has no name")
        if column.strip() in seen:
            raise invalid(name, f"row 1: two columns are named '{column.strip()}'")
        seen.add(column.strip())


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank with the number of its first line."""
    with _open_text(path) as text:
        reader = csv.reader(text, delimiter=delimiter)
        line = 1
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1


def _ragged(name: str, path: Path, delimiter: str, width: int) -> DatasetInvalid:
    for line, record in _records(path, delimiter):
        if len(record) != width:
            return invalid(name, f"row {line} has {len(record)} fields where the header has {width}")
    return invalid(name, f"has rows whose number of fields is not the header's ({width})")


def _not_utf8(name: str, path: Path) -> DatasetInvalid:
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as raw:
        for number, line in enumerate(raw, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return invalid(name, f"row {number} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8")
    return invalid(name, "is not UTF-8; save the file as UTF-8")


def _row_numbers(path: Path, wanted: set[int]) -> dict[int, int]:
    """Index of a row → its number in the file, as an editor counts lines."""
    if path.name.endswith(".parquet"):
        return {index: index + 1 for index in wanted}
    with _open_text(path) as text:
        delimiter = "\t" if ".tsv" in path.name else sniff_delimiter(text.read(SAMPLE_CHARACTERS))
    numbers = {index: index + 2 for index in wanted}
    last = max(wanted) + 1
    for position, (line, _) in enumerate(_records(path, delimiter)):
        if position - 1 in wanted:
            numbers[position - 1] = line
        if position == last:
            break
    return numbers


def _read_parquet(name: str, path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise invalid(name, f"is no readable Parquet ({str(error).splitlines()[0]})") from None
    columns = {}
    for column in table.column_names:
        try:
            columns[column] = pc.cast(table.column(column), pa.large_string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            kind = table.schema.field(column).type
            raise invalid(name, f"column '{column}' holds {kind}, not numbers, text, dates or booleans") from None
    return pa.table(columns)
