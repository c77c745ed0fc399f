"""CSV and TSV, plain or packed, in batches: any usual delimiter, quotes, line ends within them, any usual encoding."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from trainer_image.data import file_kinds
from trainer_image.data.encodings import open_utf8, remark
from trainer_image.data.formats import cells
from trainer_image.data.formats.cells import (
    EVERYTHING,
    TEXT,
    Wanted,
    as_names,
    check_header,
    empty,
    finished,
    unnamed_in,
)
from trainer_image.data.formats.csv_dialect import SAMPLE_CHARACTERS, Dialect, as_lines, dialect_of
from trainer_image.errors import DatasetInvalid, LimitExceeded, invalid
from trainer_image.limits import Limits

_QUOTE = "is there a quote that is never closed?"


def read_csv(name: str, path: Path, limits: Limits, wanted: Wanted = EVERYTHING) -> Iterator[pa.RecordBatch]:
    """The rows in batches of text. Raises DatasetInvalid with row and column, LimitExceeded."""
    csv.field_size_limit(limits.field_bytes or 2**31 - 1)
    try:
        with _open_text(name, path, limits) as text:
            # One mark of a file joined from two was taken away, the other would be a part of the first name.
            sample = text.read(SAMPLE_CHARACTERS).lstrip("\ufeff")
    except UnicodeDecodeError:
        raise _not_utf8(name, path, limits) from None
    if not sample.strip() and not wanted.others:
        yield empty(wanted.needed)
        return
    if not sample.strip():
        raise invalid(name, "is empty; a header row and data rows are expected")
    dialect, sample = dialect_of(path, sample, wanted.written)
    try:
        written, fields = _header(name, path, dialect, sample, limits, wanted)
        header = as_names(fields)
    except csv.Error as error:
        raise invalid(name, f"row 1: {error}") from None
    if not header[0]:
        header[0] = unnamed_in(header)
    named = len(header)
    while named > 1 and not header[named - 1]:
        named -= 1
    check_header(name, header[:named], limits, wanted)
    taken = [wanted.takes(column) for column in header[:named]]
    columns = [column for column, takes in zip(header, taken, strict=False) if takes]
    passed_over = [column for column, takes in zip(header, taken, strict=False) if not takes]
    notes = remark(name, path, limits)
    if dialect.below:
        notes.append(f"{name}: row {dialect.skip + 1} was read as its header.")
    if written < len(header) and fields[0] == "":
        notes.append(f"{name}: its rows have one field more than its header; the first was read as '{header[0]}'.")
    yield empty(columns, passed_over, notes)
    if not columns or _is_a_header_alone(sample, dialect):
        return
    # Delimiters at the rows' ends make columns without a name: they get names that no column can have, and so does what
    # is passed over, whose names may stand there twice.
    unique = [f"\0{number}" if number >= named or not taken[number] else c for number, c in enumerate(header)]
    unnamed = range(named, len(header)) if wanted.others else range(0)
    rows = 0
    last: pa.RecordBatch | None = None
    for batch in _parsed(name, path, dialect, unique, [*columns, *(unique[number] for number in unnamed)], limits):
        for place, number in enumerate(unnamed, len(columns)):
            _check_empty(name, path, number, batch.column(place), rows, limits, wanted)
        _check_tabs(name, path, dialect, batch, rows, limits, wanted)
        rows += batch.num_rows
        last = batch.select(range(len(columns)))
        yield last
    if last is not None and last.num_rows and any(_ends_a_line(column[-1].as_py()) for column in last.columns):
        _check_closed(name, path, dialect, limits)


def _check_empty(
    name: str, path: Path, number: int, column: pa.Array, before: int, limits: Limits, wanted: Wanted
) -> None:
    column = cells.without_maybe_values(column)
    if column.null_count == len(column):
        return
    index = pc.index(pc.is_valid(column), True).as_py()
    row = line_numbers(name, path, [before + index], limits, wanted).get(before + index, 0)
    raise invalid(
        name, f"row 1: column {number + 1} has no name, and row {row} holds '{str(column[index])[:40]}' in it: name it"
    )


def _is_a_header_alone(sample: str, dialect: Dialect) -> bool:
    """Where it does not end in a line end either, Arrow's reader takes it for the beginning of a long row."""
    return len(sample) < SAMPLE_CHARACTERS and len(_first_records(sample, dialect)) < 2


def _check_tabs(
    name: str, path: Path, dialect: Dialect, batch: pa.RecordBatch, before: int, limits: Limits, wanted: Wanted
) -> None:
    """A field with a tab and a line end in it has swallowed rows, beyond what the dialect was told from."""
    if dialect.delimiter != "\t" or not dialect.quotes:
        return
    for column in map(cells.without_maybe_values, batch.columns):
        swallowed = pc.and_(pc.match_substring(column, "\t"), pc.match_substring(column, "\n"))
        if pc.any(swallowed).as_py():
            index = before + pc.index(swallowed, True).as_py()
            row = line_numbers(name, path, [index], limits, wanted).get(index, 0)
            raise invalid(name, f"row {row}: a field in quotes holds tabs and line ends; {_QUOTE}")


def _ends_a_line(cell: str | None) -> bool:
    return cell is not None and ("\n" in cell or "\r" in cell)


def _check_closed(name: str, path: Path, dialect: Dialect, limits: Limits) -> None:
    """A quote that is never closed makes one field of the rest of the file; no reader of ours says so by itself."""
    line = max(line for line, _ in _records(name, path, dialect, limits))
    with _open_text(name, path, limits) as text:
        rest = list(islice(text, line - 1, None))
    try:
        list(csv.reader(rest, delimiter=dialect.delimiter, strict=True))
    except csv.Error as error:
        if "end of data" in str(error):
            raise invalid(
                name, f"row {line}: a quote is opened and never closed: the rest of the file lies in it"
            ) from None


def _parsed(
    name: str, path: Path, dialect: Dialect, header: list[str], columns: list[str], limits: Limits
) -> Iterator[pa.RecordBatch]:
    """header: a name for each field; columns: those that are read"""
    ragged: list[pacsv.InvalidRow] = []

    def note(row: pacsv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    try:
        with io.BufferedReader(_WithoutNul(open_utf8(name, path, limits)), cells.BLOCK_BYTES) as source:
            reader = pacsv.open_csv(
                source,
                read_options=pacsv.ReadOptions(
                    use_threads=False,
                    block_size=cells.BLOCK_BYTES,
                    column_names=header,
                    skip_rows=dialect.skip,
                    skip_rows_after_names=1,
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=dialect.delimiter,
                    quote_char='"' if dialect.quotes else False,
                    newlines_in_values=dialect.quotes,
                    invalid_row_handler=note,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(columns, TEXT), strings_can_be_null=False, include_columns=columns
                ),
            )
            for batch in reader:
                yield from finished(name, batch, limits, f"; {_QUOTE}")
    except _NulFound:
        row, _ = _line_with(name, path, limits, lambda line: line.find(b"\0"))
        raise invalid(name, f"row {row} holds a NUL byte: the file is damaged, or no text file") from None
    except pa.ArrowInvalid as error:
        if ragged:
            raise _ragged(name, path, dialect, len(header), limits) from None
        if "utf8" in str(error).lower():
            raise _not_utf8(name, path, limits) from None
        if "straddling" in str(error):
            raise _too_long(name) from None
        if "Empty CSV file" in str(error):
            return
        raise invalid(name, f"is no readable CSV ({str(error).splitlines()[0]})") from None


class _NulFound(Exception):
    pass


class _WithoutNul(io.RawIOBase):
    """A NUL would silently become part of a category's name."""

    def __init__(self, raw: io.BufferedReader) -> None:
        super().__init__()
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto1(buffer)
        if b"\0" in bytes(memoryview(buffer)[:count]):
            raise _NulFound
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _too_long(name: str) -> LimitExceeded:
    return LimitExceeded(f"{name}: a row is longer than {cells.BLOCK_BYTES} bytes; {_QUOTE}")


def _open_text(name: str, path: Path, limits: Limits) -> TextIO:
    return io.TextIOWrapper(open_utf8(name, path, limits, "CSV"), encoding="utf-8-sig", newline="")


def _header(
    name: str, path: Path, dialect: Dialect, sample: str, limits: Limits, wanted: Wanted
) -> tuple[int, list[str]]:
    """(how many fields the first record has, these and what each row has more). Thousands of columns make it longer
    than the sample, which may have cut it."""
    records = _first_records(sample, dialect)
    if len(records) < 2 and len(sample) >= SAMPLE_CHARACTERS:
        with _open_text(name, path, limits) as text:
            _, longer = dialect_of(path, text.read(cells.BLOCK_BYTES), wanted.written)
        records = _first_records(longer, dialect)
        if len(records) < 2 and len(longer) >= cells.BLOCK_BYTES:
            raise _too_long(name)
    header = records[0]
    if 2 <= len(header) == len(records[-1]) - 1:
        quoted = sample.lstrip().startswith('"')
        return len(header), _with_row_names(header, _first_records(sample, dialect, 50), dialect, quoted)
    return len(header), header


def _with_row_names(header: list[str], records: list[list[str]], dialect: Dialect, quoted: bool) -> list[str]:
    """The header with a field for what each row has more: R's row names, which have no name, or nothing at the end.

    Row names differ. Commas in texts that nobody put into quotes make a field more as well: there they are numbers, or
    the file has quotes.
    """
    rows = records[1:-1] if len(records) > 2 else records[1:]  # the sample may have cut the last one
    if any(len(row) != len(header) + 1 for row in rows):
        return header
    if not any(row[-1].strip() for row in rows):
        return [*header, ""]
    names = [row[0].strip() for row in rows]
    believable = quoted or dialect.delimiter == "\t" or all(name.isdigit() for name in names)
    return ["", *header] if believable and len(set(names)) == len(names) else header


def _first_records(text: str, dialect: Dialect, most: int = 2) -> list[list[str]]:
    return list(islice((record for record in dialect.records(as_lines(text)) if record), most))


def _records(name: str, path: Path, dialect: Dialect, limits: Limits) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank with the number of its first line."""
    with _open_text(name, path, limits) as text:
        for _ in range(dialect.skip):
            text.readline()
        reader = dialect.records(text)
        line = dialect.skip + 1
        for record in reader:
            if record:
                yield line, record
            line = dialect.skip + reader.line_num + 1


def line_numbers(
    name: str, path: Path, indices: list[int], limits: Limits, wanted: Wanted = EVERYTHING
) -> dict[int, int]:
    """The lines (from 1) on which the data rows with these indices begin."""
    with _open_text(name, path, limits) as text:
        dialect, _ = dialect_of(path, text.read(SAMPLE_CHARACTERS).lstrip("\ufeff"), wanted.written)
    asked, last = set(indices), max(indices, default=-1)
    found = {}
    for position, (line, _) in enumerate(_records(name, path, dialect, limits), -1):
        if position in asked:
            found[position] = line
        if position >= last:
            break
    return found


def _ragged(name: str, path: Path, dialect: Dialect, width: int, limits: Limits) -> DatasetInvalid:
    try:
        header = ""
        for line, record in _records(name, path, dialect, limits):
            header = header or record[0][:60]
            if len(record) != width:
                hint = f"; {_QUOTE}" if any(map(_ends_a_line, record)) else _odd_quotes(record, width)
                if len(record) == 1 < width and not hint:
                    hint = f" ('{record[0].strip()[:40]!s}'): a remark, a title or a rest is no row; take it out"
                hint = f" only ('{header}'): the first row must name the columns" if width == 1 else hint
                fields = f"{len(record)} field{'s' * (len(record) != 1)}"
                return invalid(name, f"row {line} has {fields} where the header has {width}{hint}")
    except csv.Error:
        pass  # a field beyond the limit, on the way to the row
    return invalid(name, f"has rows whose number of fields is not the header's ({width})")


def _odd_quotes(record: list[str], width: int) -> str:
    """What may be the cause of too many fields."""
    if len(record) <= width:
        return ""
    if any(re.match(r"\s+\"", field) for field in record):
        return "; quotes hold a field together only where no blank stands before them"
    if any("\\" in field for field in record):
        return '; a quote within a field in quotes is written twice ("")'
    return '; a field that holds the delimiter has to stand in quotes (")'


def _not_utf8(name: str, path: Path, limits: Limits) -> DatasetInvalid:
    def wrong(line: bytes) -> int:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            return error.start
        return -1

    return file_kinds.not_utf8(name, *_line_with(name, path, limits, wrong))


def _line_with(name: str, path: Path, limits: Limits, wanted: Callable[[bytes], int]) -> tuple[int, int]:
    """(the number of the first line with what is wanted, the byte), zeros if there is none. Overlong lines are looked
    at in pieces.

    wanted: where in the bytes it stands, -1: nowhere
    """
    with open_utf8(name, path, limits) as raw:
        number, rest = 1, b""
        while piece := raw.readline(cells.BLOCK_BYTES):
            # A character may be cut in two where a piece ends; its first bytes wait for the rest.
            line = rest + piece
            rest = b"" if line.endswith(b"\n") else line[-3:]
            line = line[: len(line) - len(rest)]
            at = wanted(line)
            if at >= 0:
                return number + _returns(line[:at]), line[at]
            number += line.endswith(b"\n") + _returns(line)
        at = wanted(rest)
        return (number + _returns(rest[:at]), rest[at]) if at >= 0 else (0, 0)


def _returns(content: bytes) -> int:
    """Line ends of old Macs, a carriage return alone."""
    return content.count(b"\r") - content.count(b"\r\n")
