"""Columns in the names of folders, `city=Bonn/0.parquet`, as Hive, Spark and pandas write a table in parts."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

import pyarrow as pa

from trainer_image.data.formats.cells import TEXT, Wanted, empty, said_of

# What they write where there is no value.
_NONE = "__HIVE_DEFAULT_PARTITION__"


def columns_of(name: str) -> dict[str, str | None]:
    """What the folders around a file say of all of its rows. name: its place within the dataset"""
    found = {}
    for folder in name.split("/")[:-1]:
        column, told, value = folder.partition("=")
        if told and column:
            found[unquote(column)] = None if value == _NONE else unquote(value)
    return found


def with_columns(name: str, batches: Iterator[pa.RecordBatch], wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """A reader's batches, with the columns that the folders say and the file itself has not."""
    said = columns_of(name)
    if not said:
        yield from batches
        return
    for number, batch in enumerate(batches):
        more = {column: value for column, value in said.items() if column not in batch.schema.names}
        taken = [column for column in more if wanted.takes(column)]
        if not number:
            passed_over, notes = said_of(batch)
            others = [column for column in more if column not in (*taken, *passed_over)]
            yield empty([*batch.schema.names, *taken], [*passed_over, *others], notes)
            if not batch.num_rows:
                continue
        cells = [pa.repeat(pa.scalar(more[column], TEXT), batch.num_rows) for column in taken]
        yield pa.RecordBatch.from_arrays([*batch.columns, *cells], names=[*batch.schema.names, *taken])
