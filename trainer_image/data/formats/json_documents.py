"""Tables in one JSON document: an array of objects, or what programs write around one or in place of it.

[{"a": 1, "b": 2}, ...]                                     read piece by piece, however long
{"data": [{"a": 1, "b": 2}, ...], ...}                      one list of objects among other things
{"columns": ["a", "b"], "data": [[1, 2], ...]}              pandas, orient="split"
{"a": {"0": 1, ...}, ...} or {"a": [1, ...], ...}           column by column
{"0": {"a": 1, "b": 2}, ...}                                row by row
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from trainer_image.data.encodings import open_utf8
from trainer_image.data.formats import cells
from trainer_image.errors import DatasetInvalid, LimitExceeded, invalid
from trainer_image.limits import Limits
from trainer_image.units import format_bytes

Record = dict[str, Any]

# JSON may say half a character (`\ud800`); no file or screen can.
HALF = re.compile("[\ud800-\udfff]")
# Of a document that is no array all is in memory at once, as Python's objects: twenty times as much.
DOCUMENT_CHARACTERS = 64 * 1024**2
# Columns of a document that is column by column; beyond, and with few keys in each, they are rows.
_MANY = 20
_CHUNK = 1024**2
_BETWEEN = re.compile(r"[\s,]*")
_EXPECTED = "a list of flat objects is expected, or one object a line"


def decoder() -> json.JSONDecoder:
    """Strict about keys; numbers stay the text that they were written as."""

    def unique(pairs: list[tuple[str, Any]]) -> Record:
        record = dict(pairs)
        if len(record) < len(pairs):
            raise ValueError("a key stands there twice")
        if any(not key.isascii() and HALF.search(key) for key in record):
            raise ValueError("a key holds half a character")
        return record

    return json.JSONDecoder(object_pairs_hook=unique, parse_int=str, parse_float=str, parse_constant=str)


def is_document(name: str, path: Path, limits: Limits) -> bool:
    """Whether the file is one JSON value, and not an object a line. Only a name with .json in it can be."""
    status = path.stat()
    return _is_document(name, path, limits, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _is_document(name: str, path: Path, limits: Limits, size: int, changed: int) -> bool:
    if not re.search(r"\.json(\.[a-z0-9]+)?$", path.name.lower()):
        return False
    with _open(name, path, limits) as text:
        try:
            first = next((line for line in iter(lambda: text.readline(cells.BLOCK_BYTES), "") if line.strip()), "")
            if not first.lstrip().startswith("{"):
                return True
            decoder().decode(first)
            return not any(line.strip() for line in iter(lambda: text.readline(cells.BLOCK_BYTES), ""))
        except (ValueError, RecursionError):  # that it is not UTF-8 is told by whoever reads it
            return True


def objects(name: str, path: Path, limits: Limits) -> Iterator[Record]:
    """The rows. Raises DatasetInvalid, LimitExceeded."""
    with _open(name, path, limits) as text:
        try:
            start = text.read(_CHUNK)
            begin = _BETWEEN.match(start).end()  # type: ignore[union-attr]
            if start.startswith("[", begin):
                yield from _array(name, text, start[begin + 1 :])
            else:
                yield from _document(name, text, start[begin:])
        except UnicodeDecodeError as error:
            raise invalid(name, f"is not UTF-8 (byte 0x{error.object[error.start]:02x}); save it as UTF-8") from None


def _open(name: str, path: Path, limits: Limits) -> TextIO:
    return io.TextIOWrapper(open_utf8(name, path, limits, "JSON"), encoding="utf-8-sig", newline="")


def _array(name: str, text: TextIO, buffer: str) -> Iterator[Record]:
    strict, at, row = decoder(), 0, 1
    while True:
        at = _BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]
        if buffer.startswith("]", at):
            return
        try:
            record, at = strict.raw_decode(buffer, at)
        except RecursionError:
            raise invalid(name, f"row {row}: is nested too deeply; a flat object is expected") from None
        except ValueError as error:
            # An object that is cut looks like a broken one until there is no more to come.
            buffer, at = buffer[at:], 0
            if len(buffer) > cells.BLOCK_BYTES:
                raise LimitExceeded(f"{name}: row {row} is longer than {cells.BLOCK_BYTES} bytes, or broken") from None
            if more := text.read(_CHUNK):
                buffer += more
                continue
            why = "the file ends before the list does" if not buffer.strip() else str(error)
            raise invalid(name, f"row {row}: is no JSON object ({why}); {_EXPECTED}") from None
        if not isinstance(record, dict):
            raise invalid(name, f"row {row}: is no JSON object; {_EXPECTED}")
        yield record
        row += 1


def _document(name: str, text: TextIO, start: str) -> Iterator[Record]:
    content = start + text.read(DOCUMENT_CHARACTERS)
    if len(content) > DOCUMENT_CHARACTERS:
        most = format_bytes(DOCUMENT_CHARACTERS)
        raise LimitExceeded(f"{name}: a JSON document that is no list is read up to {most}; write one object a line")
    try:
        found = decoder().decode(content)
    except RecursionError:
        raise invalid(name, f"is nested too deeply; {_EXPECTED}") from None
    except ValueError as error:
        raise invalid(name, f"is no readable JSON ({error}); {_EXPECTED}") from None
    if not isinstance(found, dict) or not found:
        raise invalid(name, f"holds no table; {_EXPECTED}")
    yield from _rows(name, found)


def _rows(name: str, found: Record) -> list[Record]:
    columns, data = found.get("columns"), found.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [_named(name, number, columns, row) for number, row in enumerate(data, 1)]
    lists = [key for key, value in found.items() if isinstance(value, list) and _all(value, dict)]
    if len(lists) > 1:
        raise invalid(name, f"holds {len(lists)} lists of objects ({', '.join(lists[:5])}); bring a file for one")
    if lists:
        return list(found[lists[0]])
    if _all(list(found.values()), list) and len({len(values) for values in found.values()}) == 1:
        return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    if _all(list(found.values()), dict):
        if _by_rows(found):
            return list(found.values())
        labels = dict.fromkeys(label for values in found.values() for label in values)
        return [{column: values.get(label) for column, values in found.items()} for label in labels]
    if not any(isinstance(value, (list, dict)) for value in found.values()):
        return [found]
    raise _no_table(name)


def _by_rows(found: Record) -> bool:
    """Whether it is row by row, as pandas writes it with orient="index", and not column by column: the outer keys are
    numbers of rows, or many ids."""
    inner = {key for values in found.values() for key in values}
    if any(map(str.isdigit, inner)):
        return False
    return all(map(str.isdigit, found)) or len(found) > max(_MANY, 2 * len(inner))


def _named(name: str, number: int, columns: list[Any], row: list[Any]) -> Record:
    if len(row) != len(columns) or not _all(columns, str):
        raise invalid(name, f"row {number} has {len(row)} values where there are {len(columns)} columns")
    return dict(zip(columns, row, strict=True))


def _all(values: list[Any], kind: type) -> bool:
    return bool(values) and all(isinstance(value, kind) for value in values)


def _no_table(name: str) -> DatasetInvalid:
    return invalid(name, f"holds no table that is known; {_EXPECTED}")
