"""JSON Lines and JSON, plain or packed, in batches: a flat object is a row, its keys are the columns."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainer_image.data import file_kinds
from trainer_image.data.encodings import open_utf8, remark
from trainer_image.data.formats import cells, json_documents
from trainer_image.data.formats.cells import EVERYTHING, TEXT, Wanted, batch_rows, check_header, empty, finished
from trainer_image.data.formats.json_documents import HALF, decoder
from trainer_image.errors import LimitExceeded, invalid
from trainer_image.limits import Limits

_EXPECTED = "one object a line is expected"


def read_jsonl(name: str, path: Path, limits: Limits, wanted: Wanted = EVERYTHING) -> Iterator[pa.RecordBatch]:
    """The rows in batches of text. Raises DatasetInvalid with row and column, LimitExceeded.

    Read twice: a key may appear for the first time in the last line, and all batches have the same columns.
    """
    found: dict[str, None] = {}
    for _, record in records(name, path, limits):
        if record.keys() - found.keys():
            found.update(dict.fromkeys(record))
            check_header(name, list(found), limits, wanted)
    if not found and not wanted.others:
        yield empty(wanted.needed)
        return
    if not found:
        raise invalid(name, "is empty; one JSON object a line is expected")
    columns = [column for column in found if wanted.takes(column)]
    yield empty(columns, [column for column in found if not wanted.takes(column)], remark(name, path, limits))
    if not columns:
        return
    rows: list[list[str | None]] = []
    size = 0
    for number, record in records(name, path, limits):
        rows.append([cell(name, number, column, record.get(column)) for column in columns])
        size += sum(len(text) for text in rows[-1] if text)
        if size > cells.BLOCK_BYTES or len(rows) >= batch_rows(len(columns)):
            yield from finished(name, _batch(columns, rows), limits)
            rows, size = [], 0
    if rows:
        yield from finished(name, _batch(columns, rows), limits)


def records(name: str, path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `objects`; of a JSON document the objects in it, numbered from 1."""
    if json_documents.is_document(name, path, limits):
        yield from enumerate(json_documents.objects(name, path, limits), 1)
    else:
        yield from objects(name, path, limits)


def line_numbers(
    name: str, path: Path, indices: list[int], limits: Limits, wanted: Wanted = EVERYTHING
) -> dict[int, int]:
    """The lines (from 1) of the rows with these indices, whatever is wanted of them."""
    if json_documents.is_document(name, path, limits):
        return {index: index + 1 for index in indices}
    asked, found = set(indices), lines(name, path, limits, cells.BLOCK_BYTES)
    return {i: number for i, (number, _) in enumerate(found) if i in asked}


def lines(name: str, path: Path, limits: Limits, longest: int) -> Iterator[tuple[int, str]]:
    """Every line that is not blank, with its number. They end with \\n alone: U+2028 and their like may stand within a
    JSON string. longest: bytes of one; -1: no bound. Raises LimitExceeded, DatasetInvalid for what is not UTF-8."""
    with open_utf8(name, path, limits, "JSON Lines") as raw:
        number = 0
        while line := raw.readline(longest):
            number += 1
            if len(line) == longest and not line.endswith(b"\n"):
                raise LimitExceeded(f"{name}: row {number} is longer than {longest} bytes")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise file_kinds.not_utf8(name, number, line[error.start]) from None
            yield number, text


def objects(name: str, path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects with the number of their line; numbers stay the text that they were written as."""
    strict = decoder()
    for number, line in lines(name, path, limits, cells.BLOCK_BYTES):
        try:
            record = strict.decode(line)
        except RecursionError:
            raise invalid(name, f"row {number}: is nested too deeply; a flat JSON object is expected") from None
        except ValueError as error:
            raise invalid(name, f"row {number}: is no JSON object ({error}); {_EXPECTED}") from None
        if not isinstance(record, dict):
            hint = ", or the list in a file named .json" if isinstance(record, list) else ""
            raise invalid(name, f"row {number}: is no JSON object; {_EXPECTED}{hint}")
        yield number, record


def cell(name: str, row: int, column: str, value: Any) -> str | None:
    """One value of an object of `objects` as the text that a table keeps. Raises DatasetInvalid for what is no text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        if value and not value.isascii() and HALF.search(value):
            what = r"half a character (an escape \ud800 to \udfff alone)"
            raise invalid(name, f"row {row}: column '{column}' holds {what}")
        return value
    kind = "a list" if isinstance(value, list) else "an object"
    advice = "list it under data.drop, or write its parts as columns of their own"
    raise invalid(name, f"row {row}: column '{column}' holds {kind}, not a number, text, date or boolean; {advice}")


def _batch(columns: list[str], rows: list[list[str | None]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(column, TEXT) for column in zip(*rows, strict=True)], names=columns)
