"""A stable 64-bit hash of a row's content as it is read: what the row is told by, wherever it stands.

Of texts and images it is of their bytes; of a table's row it is of its cells, whatever the order of the columns, and
the same for a number, a moment or a truth value however a file writes it (1, 1.0, 1e0, 1,0; 2026-01-31,
2026-01-31T00:00:00.000Z; True, 1). A cell without a value adds nothing, so that a column that is empty so far changes
no hash. Two different rows of ten million have the same hash by a chance of 1 to 370,000.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.formats.numbers import numbers
from trainer_image.data.table import Table

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
# Columns that only number the rows, whatever programs call them: a row put in front gives all others another number.
_NUMBERING = re.compile(r"Unnamed: ?\d+(\.\d+)*|__index_level_\d+__|(?i:level_\d|#|id|index|nr|no|row([ _.]?\w+)?)")
# What CSV and JSON call 2026-01-31 and 2026-01-31 18:30, Parquet, pandas and ISO 8601 with more or fewer digits.
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[t ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+?)0*)?)? ?(?:z|utc|[+-]00:?00)?")
_TRUTH = {"true": 1.0, "false": 0.0}
# Numbers with a comma, and those of them that say by themselves whether it is the decimal sign; "1,234" does not.
_COMMA = r"^[-+]?\d[\d.]*(?:,\d+)+(?:\.\d*)?$"
_DECIMAL_COMMA = r"^[-+]?(?:\d+,(?:\d{1,2}|\d{4,})|0\d*,\d+|\d{4,},\d+|\d{1,3}(?:\.\d{3})+,\d+)$"
_THOUSANDS_COMMA = r"^[-+]?[1-9]\d{0,2}(?:,\d{3}(?:,\d{3})+(?:\.\d*)?|,\d{3}\.\d*)$"


def of_bytes(contents: Iterable[bytes | memoryview]) -> Hashes:
    """Of each of them: uint64 (rows,)."""
    return np.fromiter(
        (int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") for content in contents), np.uint64
    )


def content_of(columns: Sequence[str], target: str) -> tuple[str, ...]:
    """The columns that make a row's content: all but those that only number the rows, unless there are no others."""
    told = tuple(column for column in columns if not _NUMBERING.fullmatch(column))
    return tuple(sorted(told if set(told) - {target} else columns))


def of_table(table: Table, columns: Sequence[str]) -> Hashes:
    """Of each row's cells in these columns: uint64 (rows,)."""
    found = np.zeros(table.rows, np.uint64)
    for name, salt in zip(columns, of_bytes(column.encode() for column in columns), strict=True):
        decimal = cache(partial(_decimal, table, name))
        for start, cells in table.cells(name):
            of = mixed(_of_cells(cells, decimal) ^ salt)
            found[start : start + len(cells)] += np.where(_filled(cells), of, np.uint64(0))
    return mixed(found)


def _decimal(table: Table, column: str) -> str:
    """What a comma is in the numbers of this column: "," the decimal sign, "." what stands between thousands, "" where
    no cell tells, or some cells tell otherwise than others."""
    told = set[str]()
    for _, cells in table.cells(column):
        trimmed = pc.utf8_trim_whitespace(cells)
        for sign, written in ((",", _DECIMAL_COMMA), (".", _THOUSANDS_COMMA)):
            if sign not in told and pc.any(pc.match_substring_regex(trimmed, written)).as_py():
                told.add(sign)
    return told.pop() if len(told) == 1 else ""


def mixed(hashes: Hashes) -> Hashes:
    """Other numbers, as different from each other as these (the finaliser of SplitMix64, public domain)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _filled(cells: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    filled: np.ndarray[Any, np.dtype[np.bool_]] = cells.is_valid().to_numpy(zero_copy_only=False)
    return filled


def _of_cells(cells: pa.Array, decimal: Callable[[], str]) -> Hashes:
    """decimal: asked for the column's where a number with a comma is among them"""
    values, _ = numbers(cells)
    texts = np.flatnonzero(np.isnan(values) & _filled(cells))
    if not len(texts):
        return _of_numbers(values)
    coded = pc.dictionary_encode(pc.utf8_lower(pc.utf8_trim_whitespace(cells.take(pa.array(texts)))))
    written = coded.dictionary.to_pylist()
    each = mixed(of_bytes(_moment(text).encode() for text in written))
    meant = np.array([_TRUTH.get(text, np.nan) for text in written])
    if pc.any(pc.match_substring_regex(coded.dictionary, _COMMA)).as_py() and (sign := decimal()):
        meant = np.fmax(meant, numbers(_without_commas(coded.dictionary, sign))[0])
    each = np.where(np.isnan(meant), each, _of_numbers(meant))
    found = _of_numbers(values)
    found[texts] = each[coded.indices.to_numpy()]
    return found


def _of_numbers(values: np.ndarray[Any, np.dtype[np.float64]]) -> Hashes:
    return (values + 0.0).view(np.uint64)  # -0.0 is 0.0


def _without_commas(written: pa.Array, decimal: str) -> pa.Array:
    """Numbers with a comma as programs write them; null for all else."""
    between, sign = (",", ".") if decimal == "." else (".", ",")
    plain = pc.replace_substring(pc.replace_substring(written, between, ""), sign, ".")
    return pc.if_else(pc.match_substring_regex(written, _COMMA), plain, pa.scalar(None, written.type))


def _moment(text: str) -> str:
    """A moment in its shortest form, a day's begin as the day; any other text as it is."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return text
    day, minute, second, fraction = found.groups()
    if minute == "00:00" and (second or "00") == "00" and not (fraction or "").strip("0"):
        return day
    return f"{day} {minute}:{second or '00'}" + (f".{fraction}" if (fraction or "").strip("0") else "")
