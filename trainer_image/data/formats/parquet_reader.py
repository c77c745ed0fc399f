"""Parquet, Feather (Arrow) and ORC in batches, read in a process of its own: some damage makes the library abort the
process that reads it.

Dictionaries stay packed until it is known how much text they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer_image.data.formats import cells, reader_apart
from trainer_image.data.formats.cells import (
    EVERYTHING,
    TEXT,
    Wanted,
    batch_rows,
    check_header,
    check_lengths,
    empty,
    finished,
)
from trainer_image.errors import LimitExceeded, TrainerError, invalid
from trainer_image.limits import Limits
from trainer_image.units import format_bytes
from training_common.text import one_line

SUFFIXES = (".parquet", ".feather", ".arrow", ".orc")
# A column of a row group is decoded page by page, and a page may be as large as the column.
COLUMN_CHUNK_BYTES = 2 * 1024**3


def read_parquet(name: str, path: Path, limits: Limits, wanted: Wanted = EVERYTHING) -> Iterator[pa.RecordBatch]:
    """The rows in batches of text. Raises DatasetInvalid with the column, LimitExceeded, OutOfMemory."""
    yield from reader_apart.batches(__name__, name, path, limits, wanted)


def _decoded(name: str, path: Path, limits: Limits, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    kind = path.suffix.lower()
    opened = {".parquet": _parquet, ".orc": _orc}.get(kind, _arrow)
    try:
        schema, batches = opened(name, path)
        check_header(name, schema.names, limits, wanted)
        columns = [column for column in schema.names if wanted.takes(column)]
        _check_types(name, [schema.field(column) for column in columns])
        yield empty(columns, [column for column in schema.names if not wanted.takes(column)])
        if not columns:
            return
        for batch in batches(columns):
            for start in range(0, batch.num_rows, batch_rows(len(columns))):
                for part in _bounded(name, batch.slice(start, batch_rows(len(columns))), limits):
                    yield from finished(name, _as_text(name, part), limits)
    except (TrainerError, MemoryError):
        raise
    except Exception as error:  # the library raises whatever a broken header makes it stumble over
        raise invalid(name, _unreadable(kind, error)) from None


Batches = Callable[[list[str]], Iterator[pa.RecordBatch]]


def _parquet(name: str, path: Path) -> tuple[pa.Schema, Batches]:
    schema = pq.read_schema(path)
    texts = [field.name for field in schema if _is_text(field.type)]

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False, buffer_size=1024**2) as file:
            _check_sizes(name, file.metadata)
            yield from file.iter_batches(batch_size=batch_rows(len(columns)), columns=columns)

    return schema, batches


def _arrow(name: str, path: Path) -> tuple[pa.Schema, Batches]:
    """Arrow's own format, as a file (which Feather is, too) or as a stream."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"FEA1"):
        raise invalid(name, "is Feather of version 1; write it anew with a newer pandas, or as Parquet")
    opened = pa.ipc.open_file if start == b"ARROW1" else pa.ipc.open_stream
    schema = opened(pa.OSFile(str(path))).schema

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        fields = [schema.get_field_index(column) for column in columns]
        reader = opened(pa.OSFile(str(path)), options=pa.ipc.IpcReadOptions(included_fields=fields))
        found = (
            (reader.get_batch(number) for number in range(reader.num_record_batches))
            if opened is pa.ipc.open_file
            else reader
        )
        for batch in found:
            batch.validate(full=True)
            yield batch.select(columns)

    return schema, batches


def _orc(name: str, path: Path) -> tuple[pa.Schema, Batches]:
    from pyarrow import orc

    file = orc.ORCFile(path)

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        for stripe in range(file.nstripes):
            yield file.read_stripe(stripe, columns=columns)

    return file.schema, batches


def _unreadable(kind: str, error: Exception) -> str:
    called = {".parquet": "Parquet", ".orc": "ORC"}.get(kind, "Arrow or Feather")
    return f"is no readable {called} ({one_line(str(error))[:200] or type(error).__name__})"


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _check_types(name: str, fields: list[pa.Field]) -> None:
    for field in fields:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
            raise invalid(
                name,
                f"column '{field.name}' holds {field.type}, not numbers, text, dates or booleans; list it under "
                "data.drop, or write its parts as columns of their own",
            )


def _check_sizes(name: str, metadata: pq.FileMetaData) -> None:
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for column in range(row_group.num_columns):
            chunk = row_group.column(column)
            if chunk.total_uncompressed_size > COLUMN_CHUNK_BYTES:
                raise LimitExceeded(
                    f"{name}: column '{chunk.path_in_schema}' holds {format_bytes(chunk.total_uncompressed_size)}"
                    f" in one row group; at most {format_bytes(COLUMN_CHUNK_BYTES)} are read at a time:"
                    " write smaller row groups"
                )


def _bounded(name: str, batch: pa.RecordBatch, limits: Limits) -> Iterator[pa.RecordBatch]:
    """The batch in slices that hold a bounded amount of text: one long word may stand in each of a million rows."""
    size = 0
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(values.type) and _is_text(values.type.value_type):
            lengths = pc.binary_length(values.dictionary)
            size += pc.sum(pc.cast(lengths.take(values.indices), pa.int64())).as_py() or 0
            check_lengths(name, column, lengths, limits)
    if size <= cells.BLOCK_BYTES or batch.num_rows < 2:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _bounded(name, batch.slice(0, half), limits)
    yield from _bounded(name, batch.slice(half), limits)


def _as_text(name: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = []
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns.append(pc.cast(values, TEXT))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise invalid(
                name, f"column '{column}' holds {values.type}, not numbers, text, dates or booleans"
            ) from None
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


if __name__ == "__main__":
    reader_apart.serve(_decoded)
