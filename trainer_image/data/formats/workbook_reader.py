"""Workbooks of Excel and LibreOffice: one sheet of them as a table, read in a process of its own.

Taken is the first visible sheet that has the columns that are needed, or of several without such a need the first with
rows; which one is said. Its header is the row that names these columns, or the first one that is half as wide as the
sheet: above it people write titles. Blank rows are none.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainer_image.data import archives, file_kinds
from trainer_image.data.formats import reader_apart
from trainer_image.data.formats.cells import (
    EVERYTHING,
    TEXT,
    Wanted,
    as_names,
    batch_rows,
    check_header,
    empty,
    finished,
    unnamed_in,
)
from trainer_image.data.spill import Scratch
from trainer_image.errors import TrainerError, invalid
from trainer_image.limits import Limits
from training_common.text import one_line

SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
# A column that no sheet can have: each row's number.
_ROW = "\0row"
# Rows in which the header is looked for.
_TOP = 50
# Of a part that is packed in the workbook; sheets of a million rows have some 500 MiB.
_PART_BYTES = 2 * 1024**3


def read_workbook(name: str, path: Path, limits: Limits, wanted: Wanted = EVERYTHING) -> Iterator[pa.RecordBatch]:
    """The rows in batches of text. Raises DatasetInvalid with the column, LimitExceeded, OutOfMemory."""
    with path.open("rb") as file:
        start = file.read(file_kinds.START_BYTES)
    if start.startswith(b"PK\3\4"):
        # What it would unpack to is told before a library of another's does it.
        archives.members(name, path, limits, Scratch(), most=_PART_BYTES, kind=".zip")
    elif not start.startswith(file_kinds.OLD_OFFICE):
        file_kinds.check(name, start, "a workbook")
        raise invalid(name, "is no workbook, whatever its name says; save it as .xlsx, or name it as what it is")
    yield from reader_apart.batches(__name__, name, path, limits, wanted)


def line_numbers(
    name: str, path: Path, indices: list[int], limits: Limits, wanted: Wanted = EVERYTHING
) -> dict[int, int]:
    """The sheet's rows (from 1) with these indices."""
    asked = Wanted(wanted.needed, (_ROW,), others=False)
    numbers = [cell for batch in read_workbook(name, path, limits, asked) for cell in batch.column(_ROW).to_pylist()]
    return {index: int(numbers[index]) for index in indices if index < len(numbers)}


def _decoded(name: str, path: Path, limits: Limits, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    import python_calamine

    try:
        with python_calamine.load_workbook(str(path)) as book:
            yield from _table(name, book, limits, wanted)
    except (TrainerError, MemoryError):
        raise
    except python_calamine.PasswordError:
        raise invalid(name, "is protected by a password; save it without one") from None
    except Exception as error:  # the library raises whatever a broken file makes it stumble over
        why = one_line(str(error))[:200] or type(error).__name__
        raise invalid(name, f"is no readable workbook ({why}); save it anew, or as CSV") from None


def _table(name: str, book: Any, limits: Limits, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    sheet, head, notes = _chosen(name, book, wanted)
    titles = next(islice(sheet.iter_rows(), head, None))
    header = as_names([_text(title) or "" for title in titles])
    if not header[0]:
        header[0] = unnamed_in(header)
    filled = [place for place, title in enumerate(header) if title]
    below = list(islice(sheet.iter_rows(), head + 1, head + 1 + _TOP))
    for place in set(range(len(header))) - set(filled):
        if below and 2 * sum(cells[place] != "" for cells in below) >= len(below):
            notes.append(f"{name}: column {place + 1} has no name in row {head + 1} and was not read.")
    named = [header[place] for place in filled]
    check_header(name, named, limits, wanted)
    places = [place for place in filled if wanted.takes(header[place])]
    columns = [header[place] for place in places]
    rows_too = _ROW in wanted.also
    yield empty([*columns, *[_ROW] * rows_too], [title for title in named if not wanted.takes(title)], notes)
    rows: list[list[str | None]] = []
    width = len(columns) + rows_too
    for number, cells in enumerate(islice(sheet.iter_rows(), head + 1, None), head + 2):
        if all(cell == "" for cell in cells):
            continue
        texts = [_text(cells[place]) for place in places]
        rows.append([*texts, str(number)] if rows_too else texts)
        if len(rows) >= batch_rows(width):
            yield from finished(name, _batch([*columns, *[_ROW] * rows_too], rows), limits)
            rows = []
    if rows and width:
        yield from finished(name, _batch([*columns, *[_ROW] * rows_too], rows), limits)


def _batch(columns: list[str], rows: list[list[str | None]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(column, TEXT) for column in zip(*rows, strict=True)], names=columns)


def _chosen(name: str, book: Any, wanted: Wanted) -> tuple[Any, int, list[str]]:
    """(the sheet, the index of its header's row, what is to be said about the choice)"""
    found = []
    for described in book.sheets_metadata:
        if "WorkSheet" not in str(described.typ) or not str(described.visible).endswith(".Visible"):
            continue
        sheet = book.get_sheet_by_name(described.name)
        top = list(islice(sheet.iter_rows(), _TOP))
        if sum(any(cell != "" for cell in row) for row in top) > (1 if wanted.others else 0):
            found.append((sheet, *_header_in(top, wanted.written)))
    if not found:
        raise invalid(name, f"holds no visible sheet with a header{' and rows' * wanted.others}")
    fitting = [entry for entry in found if entry[2]] or found
    sheet, head, _ = fitting[0]
    notes = []
    if len(found) > 1:
        others = ", ".join(f"'{entry[0].name}'" for entry in found if entry[0] is not sheet)
        notes.append(
            f"{name}: the sheet '{sheet.name}' was read; {others} beside it: save another one as its own file."
        )
    if head:
        notes.append(f"{name}: row {head + 1} of the sheet '{sheet.name}' was read as its header.")
    return sheet, head, notes


def _header_in(top: Sequence[Sequence[Any]], needed: Sequence[str]) -> tuple[int, bool]:
    """(the index of the header's row, whether it has all the needed columns)"""
    if needed:
        for index, row in enumerate(top):
            if set(needed) <= set(as_names([_text(cell) or "" for cell in row])):
                return index, True
    filled = [sum(cell != "" for cell in row) for row in top]
    return next(index for index, count in enumerate(filled) if count and 2 * count >= max(filled)), not needed


def _text(cell: Any) -> str | None:
    """As a CSV would have it. A duration is a number of hours."""
    if cell == "" or cell is None:
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(" ")
    if isinstance(cell, datetime.timedelta):
        return repr(cell.total_seconds() / 3600)
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    return str(cell)


if __name__ == "__main__":
    reader_apart.serve(_decoded)
