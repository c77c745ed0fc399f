"""What all table readers share: words for "no value", limits on cells, sizes of what is read at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
TEXT = pa.large_string()


def batch_rows(columns: int) -> int:
    """Rows of a batch at most, by the number of columns alone: a table's batches are the same wherever it is read."""
    return max(64, min(65_536, BATCH_CELLS // max(1, columns)))


def check_header(name: str, header: Sequence[str], limits: Limits) -> None:
    """Raises for more columns than the limit, and for names that are empty or stand there twice."""
    if limits.table_columns and len(header) > limits.table_columns:
        raise LimitExceeded(f"{name} has {len(header)} columns; the limit is {limits.table_columns}")
    seen: set[str] = set()
    for number, column in enumerate(header, 1):
        if not column.strip():
            raise invalid(name, f"row 1: column {number} has no name")
        if column.strip() in seen:
            raise invalid(name, f"row 1: two columns are named '{column.strip()}'")
        seen.add(column.strip())


def empty(columns: Sequence[str]) -> pa.RecordBatch:
    """No rows of these columns: what every reader gives first, so that a table without rows has its columns."""
    return pa.RecordBatch.from_arrays([pa.array([], TEXT) for _ in columns], names=list(columns))


def finished(name: str, batch: pa.RecordBatch, limits: Limits, hint: str = "") -> Iterator[pa.RecordBatch]:
    """The batch (all columns TEXT) with its cells checked and words for "no value" made null, in slices.

    hint: what may be the cause of a field that is too long
    """
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        check_lengths(name, column, pc.binary_length(values), limits, hint)
    rows = batch_rows(batch.num_columns)
    for start in range(0, batch.num_rows, rows):
        part = batch.slice(start, rows)
        yield pa.RecordBatch.from_arrays([_nullified(column) for column in part.columns], names=part.schema.names)


def check_lengths(name: str, column: str, lengths: pa.Array, limits: Limits, hint: str = "") -> None:
    """Raises LimitExceeded where a cell has more bytes than the limit. lengths: bytes of each"""
    longest = pc.max(lengths).as_py() or 0
    if limits.field_bytes and longest > limits.field_bytes:
        raise LimitExceeded(
            f"{name}: a field of column '{column}' has {longest} bytes; the limit is {limits.field_bytes}{hint}"
        )


def _nullified(column: pa.Array) -> pa.Array:
    words = pa.array(sorted(NULL_WORDS), TEXT)
    null = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column)), value_set=words)
    return pc.if_else(null, pa.scalar(None, TEXT), column)
