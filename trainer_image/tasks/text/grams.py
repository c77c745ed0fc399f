"""Texts → words, pairs of words and character n-grams as whole numbers: what the linear candidate counts.

Characters are Unicode's in its compatibility form, without case ("Straße" and "STRASSE" are one word; `str.casefold`,
Unicode chapter 5.18). A word is a run of letters, marks, digits and connectors, so that vowel signs of Indian scripts
do not end one (Unicode Annex 29). Character n-grams lie within what white space divides, and see where it begins and
ends. Scripts without white space, such as Chinese, have n-grams of their characters.

All texts are looked at as one array; nothing is done for a single n-gram in Python.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Counts = tuple[Array, Array, Array]
# Character n-grams of these lengths.
ORDERS = (1, 2, 3, 4, 5)
# Of a number: its lowest bits are the hash, above them stands whether it is of words.
HASH_BITS = 38
WORDS = 1 << HASH_BITS
# Rows of one call of `counts` are packed above the feature's number.
FEATURE_BITS = HASH_BITS + 1
MOST_ROWS = 1 << 63 - FEATURE_BITS
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_SPACE = ord(" ")


def counts(texts: Sequence[bytes]) -> Counts:
    """UTF-8 texts → (row, feature, occurrences), int64 each, ordered by row, then by feature: no pair twice."""
    folded = [_folded(text) for text in texts]
    sizes = np.array([len(text) for text in folded], np.int64)
    letters = np.frombuffer("".join(folded).encode("utf-32-le", "replace"), np.uint32)
    row = np.repeat(np.arange(len(folded), dtype=np.int64), sizes)
    space = letters == _SPACE
    values = (letters.astype(np.uint64) + np.uint64(1)) * _MIX
    found = [_characters(values, space, row), *_words(letters, values, row)]
    pairs, occurrences = np.unique(np.concatenate(found), return_counts=True)
    return pairs >> FEATURE_BITS, pairs & ((1 << FEATURE_BITS) - 1), occurrences


def _folded(text: bytes) -> str:
    """Between single spaces, one before and one behind, without case."""
    folded = unicodedata.normalize("NFKC", text.decode("utf-8", "replace").casefold())
    return f" {' '.join(folded.split())} "


def _characters(values: Array, space: Array, row: Array) -> Array:
    """Numbers of all character n-grams. The two spaces between two texts keep them apart."""
    found = []
    hashed = np.zeros(len(values), np.uint64)
    # Up to each place: how many spaces. An n-gram may begin and end with one, and has none within.
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(space)])
    for order in range(1, max(ORDERS) + 1):
        last = len(values) - order + 1
        if last <= 0:
            break
        hashed = hashed[:last] * _BASE + values[order - 1 :]
        if order not in ORDERS:
            continue
        if order <= 2:
            inside = ~(space[:last] & space[order - 1 :])
        else:
            inside = before[order - 1 : order - 1 + last] == before[1 : 1 + last]
        found.append(_numbered(hashed[inside], row[:last][inside], order, 0))
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _words(letters: Array, values: Array, row: Array) -> tuple[Array, Array]:
    """Numbers of all words, and of all pairs of words that follow one another in a text."""
    kinds, place = np.unique(letters, return_inverse=True)
    word = np.array([_in_word(int(kind)) for kind in kinds], bool)[place]
    edges = np.diff(np.concatenate([[False], word, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # From the first word on. Each letter times a power for its place in the word: sums need no loop over words.
    first = int(starts[0])
    inside, values, starts, ends = word[first:], values[first:], starts - first, ends - first
    within = np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))
    raised = np.zeros(len(values), np.uint64)
    raised[inside] = values[inside] * _powers(int((ends - starts).max()))[within[inside]]
    hashed = np.add.reduceat(raised, starts)
    rows = row[first:][starts]
    follows = rows[1:] == rows[:-1]
    pairs = (hashed[:-1] * _MIX + hashed[1:])[follows]
    return _numbered(hashed, rows, 101, WORDS), _numbered(pairs, rows[1:][follows], 102, WORDS)


def _in_word(letter: int) -> bool:
    category = unicodedata.category(chr(letter))
    return category[0] in "LMN" or category == "Pc"


def _powers(count: int) -> Array:
    return np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full(count, _BASE)]), dtype=np.uint64)


def _numbered(hashed: Array, row: Array, salt: int, kind: int) -> Array:
    mixed = (hashed ^ np.uint64(salt)) * _MIX
    mixed ^= mixed >> np.uint64(32)
    mixed = (mixed * _BASE) >> np.uint64(64 - HASH_BITS)
    return (row << FEATURE_BITS) | (mixed.astype(np.int64) | kind)
