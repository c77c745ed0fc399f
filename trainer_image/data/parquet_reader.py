"""Parquet in batches, read in a process of its own: some damage makes the library abort the process that reads it.

Dictionaries stay packed until it is known how much text they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer_image.data import apart, cells
from trainer_image.data.cells import TEXT, batch_rows, check_header, check_lengths, empty, finished
from trainer_image.errors import LimitExceeded, TrainerError, invalid
from trainer_image.limits import Limits
from trainer_image.units import format_bytes
from training_common.text import one_line

# A column of a row group is decoded page by page, and a page may be as large as the column.
COLUMN_CHUNK_BYTES = 2 * 1024**3


def read_parquet(name: str, path: Path, limits: Limits) -> Iterator[pa.RecordBatch]:
    """The rows in batches of text. Raises DatasetInvalid with the column, LimitExceeded, OutOfMemory."""
    request = {"name": name, "path": str(path.absolute()), "limits": asdict(limits)}
    for part in apart.asked(__name__, name, request):
        try:
            batch = pa.ipc.open_stream(part).read_next_batch()
            batch.validate(full=True)  # what damaged its reader may have made it answer nonsense
            if any(kind != TEXT for kind in batch.schema.types):
                raise pa.ArrowInvalid("its cells are no text")
        except pa.ArrowInvalid as error:
            raise invalid(name, _unreadable(error)) from None
        yield batch


def _answer(request: dict[str, Any]) -> Iterator[pa.Buffer]:
    for batch in _decoded(request["name"], Path(request["path"]), Limits(**request["limits"])):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        yield sink.getvalue()


def _decoded(name: str, path: Path, limits: Limits) -> Iterator[pa.RecordBatch]:
    try:
        schema = pq.read_schema(path)
        check_header(name, schema.names, limits)
        _check_types(name, schema)
        yield empty(schema.names)
        texts = [field.name for field in schema if _is_text(field.type)]
        with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False, buffer_size=1024**2) as file:
            _check_sizes(name, file.metadata)
            for batch in file.iter_batches(batch_size=batch_rows(len(schema))):
                for part in _bounded(name, batch, limits):
                    yield from finished(name, _as_text(name, part), limits)
    except (TrainerError, MemoryError):
        raise
    except Exception as error:  # the library raises whatever a broken header makes it stumble over
        raise invalid(name, _unreadable(error)) from None


def _unreadable(error: Exception) -> str:
    return f"is no readable Parquet ({one_line(str(error))[:200] or type(error).__name__})"


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _check_types(name: str, schema: pa.Schema) -> None:
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
            raise invalid(
                name,
                f"column '{field.name}' holds {field.type}, not numbers, text, dates or booleans; write its parts as "
                "columns of their own, or leave it out of the file",
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
    apart.serve(_answer)
