"""Columns of free text → which telling words they hold: a switch for each of a bounded number of words and pairs.

The words are chosen on the training rows: those that are frequent enough to be learnt from, and of them the ones that
tell most of the target (the F statistic of each, as in a one-way analysis of variance). Written out instead of hashed,
no two share a place, and the model's description says what it looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from trainer_image.data.formats.cells import TEXT

# Inputs of one text column, and of all together; and rows of which one more word is worth learning.
MOST_WORDS, MOST_OF_ALL, ROWS_A_WORD = 256, 1024, 8
# Rows that a word has to be in, and rows that are looked at to choose the words.
LEAST_ROWS, SAMPLE_ROWS = 3, 20_000
LETTERED = 0.5
# Of more classes the most frequent ones say which words are telling.
_MOST_CLASSES = 50
# Of a longer text the beginning is read.
_CHARACTERS = 4096
_BETWEEN = r"[^\p{L}\p{N}]+"
# Without blanks between words each character is one.
_BY_CHARACTER = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"

Floats = np.ndarray[Any, np.dtype[np.float32]]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TextColumn:
    """words: in small letters; two with a blank between stand next to each other in a text"""

    name: str
    words: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_WORDS)]

    @property
    def width(self) -> int:
        return len(self.words)

    def inputs(self, cells: pa.Array) -> Floats:
        """1 where a text has the word: (rows, width)"""
        made = np.zeros((len(cells), self.width), np.float32)
        known = pa.array(self.words, TEXT)
        for rows, terms in _terms(cells):
            places = pc.index_in(terms, value_set=known)
            there = places.is_valid().to_numpy(zero_copy_only=False)
            made[rows[there], places.drop_null().to_numpy(zero_copy_only=False)] = 1.0
        return made


def chosen(name: str, cells: pa.Array, labels: Array, most: int) -> TextColumn | None:
    """The column with the words that tell most of the labels; None where no word is frequent enough.

    cells, labels: of the same training rows; labels are positions of classes (integers) or values (floats)
    """
    parts = list(_terms(cells))
    rows = np.concatenate([part[0] for part in parts])
    terms = pa.chunked_array([part[1] for part in parts]).combine_chunks().dictionary_encode()
    if not len(rows):
        return None
    # A word counts once a row.
    pairs = np.unique(terms.indices.to_numpy(zero_copy_only=False).astype(np.int64) * len(cells) + rows)
    codes, rows = pairs // len(cells), pairs % len(cells)
    count = np.bincount(codes, minlength=len(terms.dictionary))
    score = _telling(codes, rows, count, labels)
    score[(count < LEAST_ROWS) | (count > len(cells) - LEAST_ROWS)] = 0
    order = np.argsort(-score, kind="stable")[: min(most, MOST_WORDS, max(16, len(cells) // ROWS_A_WORD))]
    words = tuple(terms.dictionary[int(place)].as_py() for place in order if score[place] > 0)
    return TextColumn(name, words) if words else None


def _telling(codes: Array, rows: Array, count: Array, labels: Array) -> Array:
    """For each word, how much of the labels' variance whether a row has it explains: (words,)."""
    if labels.dtype.kind == "f":
        spread = float(labels.std()) or 1.0
        wanted = ((labels.astype(np.float64) - labels.mean()) / spread)[:, None]
    else:
        frequent = np.argsort(-np.bincount(labels), kind="stable")[:_MOST_CLASSES]
        wanted = (labels[:, None] == frequent).astype(np.float64)
        share = wanted.mean(0)
        wanted = (wanted - share) / np.sqrt(np.maximum(share * (1 - share), 1e-12))
    total = np.zeros(len(count))
    for column in wanted.T:
        sums = np.bincount(codes, column[rows], minlength=len(count))
        total += sums**2 / np.maximum(count * (1 - count / len(labels)), 1e-9)
    return total


def _terms(cells: pa.Array) -> Iterator[tuple[Array, pa.Array]]:
    """(rows, words) and (rows, pairs of neighbours), a row as often as it has some."""
    texts = pc.utf8_lower(pc.utf8_slice_codeunits(pc.fill_null(cells, ""), 0, _CHARACTERS))
    texts = pc.replace_substring_regex(texts, _BY_CHARACTER, r" \1 ")
    lists = pc.split_pattern_regex(texts, _BETWEEN)
    rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    words = pc.list_flatten(lists)
    there = pc.greater(pc.utf8_length(words), 0)
    rows, words = rows[there.to_numpy(zero_copy_only=False)], words.filter(there)
    yield rows, words
    if len(words) > 1:
        same = rows[1:] == rows[:-1]
        pairs = pc.binary_join_element_wise(words[:-1], words[1:], pa.scalar(" ", words.type))
        yield rows[1:][same], pairs.filter(pa.array(same))


def words_in(cells: pa.Array) -> float:
    """Words of a cell on average, by the blanks between them; 0 where most cells have no letter, as coordinates."""
    lettered = pc.mean(pc.cast(pc.match_substring_regex(cells.drop_null(), r"\p{L}"), pa.float64())).as_py()
    if (lettered or 0.0) < LETTERED:
        return 0.0
    lengths = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(cells.drop_null())))
    return pc.mean(lengths).as_py() or 0.0
