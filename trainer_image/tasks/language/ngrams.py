"""What a language model has to beat: how frequent each byte is, and an n-gram model with back-off.

Absolute discounting, interpolated with the next shorter context (Ney, Essen and Kneser 1994; discount 0.75 as in Chen
and Goodman 1999). Counted by sorting, on at most MOST_BYTES of the training text, and asked for as much of the test's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer_image.data.text_store import Bytes
from trainer_image.tasks.base import Figures
from trainer_image.tasks.language.windows import MARK, VOCABULARY, stream

MOST_BYTES = 16 * 1024**2
# 9 bits a token: five of context and the next one fit in 63.
ORDER = 5
DISCOUNT = 0.75
Array = np.ndarray[Any, Any]


def baselines(train: Sequence[Bytes], test: Sequence[Bytes]) -> dict[str, Figures]:
    """Figures of "trivial" (frequencies of bytes) and "n-gram" on the test documents' bytes."""
    seen, asked = (stream(sample(documents))[0].astype(np.int64) for documents in (train, test))
    targets = asked[1:]
    counted = targets != MARK
    probability = np.full(len(targets), 1 / VOCABULARY)
    guess = np.zeros(len(targets), np.int64)
    found: dict[str, Figures] = {}
    for order in range(ORDER + 1):
        probability, guess = _refined(
            _contexts(seen, order), seen[1:], _contexts(asked, order), targets, probability, guess
        )
        if order in (0, ORDER):
            bits = float(-np.log2(probability[counted]).mean())
            hits = float((guess == targets)[counted].mean())
            found["n-gram" if order else "trivial"] = figures(bits, hits)
    return found


def sample(documents: Sequence[Bytes], most: int | None = None) -> list[Bytes]:
    """Evenly spaced documents of `most` bytes (MOST_BYTES) altogether, the last of them cut: all where there are no
    more."""
    left = max(1, MOST_BYTES if most is None else most)
    step = math.ceil(sum(map(len, documents)) / left) or 1
    chosen = []
    for document in documents[::step]:
        if left > 0:
            chosen.append(document[:left])
        left -= len(document)
    return chosen


def figures(bits: float, hits: float) -> Figures:
    """bits: mean over bytes; hits: the share of bytes that were the likeliest one."""
    return {"bits_per_byte": bits, "perplexity": 2**bits, "accuracy": hits}


def _contexts(tokens: Array, order: int) -> Array:
    """The last `order` tokens up to each position but the last, packed; before the beginning stand MARKs."""
    packed = np.zeros(len(tokens) - 1, np.int64)
    padded = np.concatenate([np.full(ORDER, MARK), tokens])
    for back in range(order):
        packed |= padded[ORDER - back : ORDER - back + len(packed)] << (9 * back)
    return packed


def _refined(
    contexts: Array, following: Array, asked: Array, targets: Array, shorter: Array, guess: Array
) -> tuple[Array, Array]:
    """Probabilities of `targets` after `asked`: this order over the `shorter` one; and the likeliest tokens."""
    pairs, counts = np.unique((contexts << 9) | following, return_counts=True)
    known, first, kinds = np.unique(pairs >> 9, return_index=True, return_counts=True)
    total = np.add.reduceat(counts, first)
    # The last of a context's pairs, ordered by count, is its most frequent follower.
    by_count = np.lexsort((counts, pairs >> 9))
    likeliest = pairs[by_count[np.append(first[1:], len(pairs)) - 1]] & 511
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    seen = known[at] == asked
    wanted = (asked << 9) | targets
    pair_at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    count = np.where(pairs[pair_at] == wanted, counts[pair_at], 0)
    refined = (np.maximum(count - DISCOUNT, 0) + DISCOUNT * kinds[at] * shorter) / total[at]
    return np.where(seen, refined, shorter), np.where(seen, likeliest[at], guess)
