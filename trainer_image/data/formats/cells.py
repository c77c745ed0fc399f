"""What all table readers share: words for "no value", limits on cells, sizes of what is read at a time."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.errors import LimitExceeded, invalid
from trainer_image.limits import Limits

# What a reader takes in at a time; a single row may not be longer.
BLOCK_BYTES = 8 * 1024**2
# Cells of a batch at most: what is computed for each of them takes memory too.
BATCH_CELLS = 4_000_000
# What spreadsheets, databases and pandas write for "no value". "none" is left out: it is a common category.
NULL_WORDS = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "<na>"})
# Of these words, so written, some are words like others in columns of their kind: Namibia among countries, sodium among
# elements, a name among names. They stay until a column is known (`Table.batches`).
MAYBE_VALUES = ("NA", "na", "Na", "Null", "Nan")
TEXT = pa.large_string()
# What a first column without a name is called, as pandas calls it: it wrote its index there, and R its row names.
UNNAMED = "Unnamed: 0"
_UNSEEN = {0xA0: " ", 0x200B: None, 0x2060: None, 0xFEFF: None}
# The keys of what a table's first batch says beside its columns.
_NOTES, _PASSED_OVER = b"notes", b"passed_over"


@dataclass(frozen=True)
class Wanted:
    """Which columns of a file are read; of the others nothing is, so that they may hold what cannot be.

    needed:  have to be there; which sheet of a workbook is meant, and in which row its header stands, is told by them
    also:    are read where they are there
    others:  whether all further ones are read as well, but for those `dropped`
    """

    needed: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    others: bool = True
    dropped: frozenset[str] = frozenset()

    @property
    def written(self) -> tuple[str, ...]:
        """What is needed, without the names that a header has not, but a reader gives."""
        return tuple(column for column in self.needed if not column.startswith(UNNAMED))

    def takes(self, column: str) -> bool:
        return column in self.needed or column in self.also or (self.others and column not in self.dropped)


EVERYTHING = Wanted()


def batch_rows(columns: int) -> int:
    """Rows of a batch at most, by the number of columns alone: a table's batches are the same wherever it is read."""
    return max(64, min(65_536, BATCH_CELLS // max(1, columns)))


def check_header(name: str, header: Sequence[str], limits: Limits, wanted: Wanted = EVERYTHING) -> None:
    """Raises for more columns than the limit, and for names among the wanted that are empty or stand there twice."""
    if limits.table_columns and len(header) > limits.table_columns:
        raise LimitExceeded(f"{name} has {len(header)} columns; the limit is {limits.table_columns}")
    seen: set[str] = set()
    for number, column in enumerate(header, 1):
        if not column.strip() and wanted.others:
            raise invalid(name, f"row 1: column {number} has no name: name it")
        if column.strip() in seen and wanted.takes(column.strip()):
            raise invalid(name, f"row 1: two columns are named '{column.strip()}': rename one of them")
        seen.add(column.strip())


def as_names(record: Sequence[str]) -> list[str]:
    """The cells of a header, without what nobody sees and would miss: blanks that do not break, of no width and around.
    A Mac writes letters with accents as two characters, which look the same and are not."""
    return [unicodedata.normalize("NFC", column.translate(_UNSEEN)).strip() for column in record]


def unnamed_in(header: Sequence[str]) -> str:
    """UNNAMED, or what pandas makes of it where a table was saved with its index more than once."""
    name = UNNAMED
    while name in header:
        name += ".1"
    return name


def empty(columns: Sequence[str], passed_over: Sequence[str] = (), notes: Sequence[str] = ()) -> pa.RecordBatch:
    """No rows of these columns: what every reader gives first, so that a table without rows has its columns.

    passed_over: columns that the file has beside them; notes: what is to be said about how it was read
    """
    said = {_NOTES: json.dumps(list(notes)), _PASSED_OVER: json.dumps(list(passed_over))}
    batch = pa.RecordBatch.from_arrays([pa.array([], TEXT) for _ in columns], names=list(columns))
    return batch.replace_schema_metadata(said)


def said_of(batch: pa.RecordBatch) -> tuple[list[str], list[str]]:
    """(passed_over, notes) of a reader's first batch."""
    said: Mapping[bytes, bytes] = batch.schema.metadata or {}
    passed_over, notes = (json.loads(said.get(key, b"[]")) for key in (_PASSED_OVER, _NOTES))
    return passed_over, notes


def finished(name: str, batch: pa.RecordBatch, limits: Limits, hint: str = "") -> Iterator[pa.RecordBatch]:
    """The batch (all columns TEXT) with its cells checked and words for "no value" made null but for MAYBE_VALUES, in
    slices.

    hint: what may be the cause of a field that is too long
    """
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        check_lengths(name, column, pc.binary_length(values), limits, hint)
    rows = batch_rows(batch.num_columns)
    for start in range(0, batch.num_rows, rows):
        part = batch.slice(start, rows)
        yield pa.RecordBatch.from_arrays([_without_words(column) for column in part.columns], names=part.schema.names)


def check_lengths(name: str, column: str, lengths: pa.Array, limits: Limits, hint: str = "") -> None:
    """Raises LimitExceeded where a cell has more bytes than the limit. lengths: bytes of each"""
    longest = pc.max(lengths).as_py() or 0
    if limits.field_bytes and longest > limits.field_bytes:
        raise LimitExceeded(
            f"{name}: a field of column '{column}' has {longest} bytes; the limit is {limits.field_bytes}{hint}"
        )


def _without_words(column: pa.Array) -> pa.Array:
    words = pa.array(sorted(NULL_WORDS), TEXT)
    null = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column)), value_set=words)
    return pc.if_else(pc.and_not(null, _maybe_values(column)), pa.scalar(None, TEXT), column)


def has_maybe_values(column: pa.Array) -> bool:
    return bool(pc.any(_maybe_values(column)).as_py())


def without_maybe_values(column: pa.Array) -> pa.Array:
    """The column with MAYBE_VALUES as no values, too."""
    return pc.if_else(_maybe_values(column), pa.scalar(None, TEXT), column)


def _maybe_values(column: pa.Array) -> pa.Array:
    return pc.is_in(column, value_set=pa.array(MAYBE_VALUES, TEXT))
