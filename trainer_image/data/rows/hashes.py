"""A stable 64-bit hash of a row's content as it is read: what the row is told by, wherever it stands.

Of texts and images it is of their bytes; of a table's row it is of its cells, whatever the order of the columns, and
the same for a number however a file writes it (1, 1.0, 1e0). A cell without a value adds nothing, so that a column that
is empty so far changes no hash. Two different rows of ten million have the same hash by a chance of 1 to 370,000.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.formats.numbers import numbers
from trainer_image.data.table import Table

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
# Columns that only number the rows, whatever programs call them: a row put in front gives all others another number.
_NUMBERING = re.compile(r"Unnamed: ?\d+(\.\d+)*|__index_level_\d+__|(?i:level_\d|#|id|index|nr|no|row([ _.]?\w+)?)")


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
        for start, cells in table.cells(name):
            found[start : start + len(cells)] += np.where(_filled(cells), mixed(_of_cells(cells) ^ salt), np.uint64(0))
    return mixed(found)


def mixed(hashes: Hashes) -> Hashes:
    """Other numbers, as different from each other as these (the finaliser of SplitMix64, public domain)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _filled(cells: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    filled: np.ndarray[Any, np.dtype[np.bool_]] = cells.is_valid().to_numpy(zero_copy_only=False)
    return filled


def _of_cells(cells: pa.Array) -> Hashes:
    values, _ = numbers(cells)
    found = (values + 0.0).view(np.uint64)  # -0.0 is 0.0
    texts = np.flatnonzero(np.isnan(values) & _filled(cells))
    if len(texts):
        coded = pc.dictionary_encode(pc.utf8_lower(pc.utf8_trim_whitespace(cells.take(pa.array(texts)))))
        each = of_bytes(text.encode() for text in coded.dictionary.to_pylist())
        found[texts] = mixed(each)[coded.indices.to_numpy()]
    return found
