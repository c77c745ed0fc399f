"""Documents → windows of bytes for a language model, and what came after the same context earlier in the document.

Tokens are the byte values 0 to 255 and MARK, which stands before every document and after the last: by it a model knows
where a text begins, and can end one. Tensors of a batch, for windows of `context` tokens:

    tokens   (rows, context + 1) int16: position t is to say what token t + 1 is
    matches  (rows, context, orders) int16: the byte that followed the last earlier occurrence of the same order bytes
             in this document, MARK where there was none (the match model of the lpaq compressors, here an input)
    scored   (rows, 2) int16: positions from, to that count; the others are context only, or padding
    document (rows,) int32: the document's number
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MARK = 256
VOCABULARY = 257
Ints = np.ndarray[Any, np.dtype[np.int64]]
Tokens = np.ndarray[Any, np.dtype[np.int16]]
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing (Knuth, volume 3, 6.4)


def stream(documents: Sequence[bytes]) -> tuple[Tokens, Ints]:
    """All documents in a row, MARK before each and after the last: (tokens, where each MARK before one stands)."""
    sizes = np.array([len(document) + 1 for document in documents], np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    tokens = np.full(int(starts[-1]) + 1, MARK, np.int16)
    for start, document in zip(starts.tolist(), documents, strict=False):
        tokens[start + 1 : start + 1 + len(document)] = np.frombuffer(document, np.uint8)
    return tokens, starts[:-1]


def find_matches(tokens: Tokens, starts: Ints, orders: Sequence[int]) -> Tokens:
    """(positions, orders): what followed the last earlier occurrence of the `order` tokens that end here."""
    count = len(tokens) - 1
    found = np.full((count, len(orders)), MARK, np.int16)
    if not orders:
        return found
    sizes = np.diff(np.append(starts, count))
    document = np.repeat(np.arange(len(starts), dtype=np.uint64), sizes)
    within = np.arange(count, dtype=np.int64) - np.repeat(starts, sizes)
    values = tokens[:count].astype(np.uint64) + np.uint64(1)
    for column, order in enumerate(orders):
        key = (document + np.uint64(1)) * _FACTOR
        for back in range(order):
            key[back:] = (key[back:] + values[: count - back]) * _FACTOR
            key ^= key >> np.uint64(29)
        sorted_positions = np.argsort(key, kind="stable")
        same = np.empty(count, bool)
        same[:1] = False
        np.equal(key[sorted_positions[1:]], key[sorted_positions[:-1]], out=same[1:])
        here = sorted_positions[same]
        earlier = sorted_positions[np.flatnonzero(same) - 1]
        inside = within[here] >= order  # all of the context lies in the document, its MARK excluded
        found[here[inside], column] = tokens[earlier[inside] + 1]
    return found


def training_windows(documents: Sequence[bytes], context: int, orders: Sequence[int]) -> dict[str, Tensor]:
    """The documents packed one after another and cut every `context` tokens: each token is learnt once an epoch."""
    tokens, starts = stream(documents)
    matches = find_matches(tokens, starts, orders)
    count = len(tokens) - 1
    rows = -(-count // context)
    padded = np.full(rows * context + 1, MARK, np.int16)
    padded[: len(tokens)] = tokens
    shown = np.full((rows * context, len(orders)), MARK, np.int16)
    shown[:count] = matches
    scored = torch.tensor([0, context], dtype=torch.int16).repeat(rows, 1)
    scored[-1, 1] = count - (rows - 1) * context
    # A view: neighbouring rows share one token, and no copy is made of a large text.
    windows = torch.from_numpy(padded).as_strided((rows, context + 1), (context, 1))
    firsts = np.searchsorted(starts, np.arange(rows) * context, side="right") - 1
    return {
        "tokens": windows,
        "matches": torch.from_numpy(shown).view(rows, context, len(orders)),
        "scored": scored,
        "document": torch.from_numpy(firsts.astype(np.int32)),
    }


def scoring_windows(documents: Sequence[bytes], context: int, orders: Sequence[int]) -> dict[str, Tensor]:
    """Each document by itself in windows that overlap by half: every byte is scored once, with at least half a window
    before it where the document has that much. The MARK that would end it is not scored. A document without a byte has
    no window."""
    tokens, starts = stream(documents)
    matches = find_matches(tokens, starts, orders)
    stride = context // 2
    begins, ends, numbers, firsts = [], [], [], []
    for number, (start, document) in enumerate(zip(starts.tolist(), documents, strict=True)):
        size = len(document)
        for begin in range(0, max(1, size - stride) if size > context else min(1, size), stride):
            begins.append(start + begin)
            ends.append(min(context, size - begin))
            numbers.append(number)
            firsts.append(stride if begin else 0)
    begin_at, end_at = np.array(begins, np.int64), np.array(ends, np.int64)
    rows = len(begin_at)
    offsets = np.arange(context + 1)
    at = np.minimum(begin_at[:, None] + offsets, len(tokens) - 1)
    windows = np.where(offsets <= end_at[:, None], tokens[at], MARK)
    shown = np.where(
        (offsets[:-1] < end_at[:, None])[..., None], matches[np.minimum(at[:, :-1], len(matches) - 1)], MARK
    )
    scored = np.stack([np.array(firsts, np.int64), end_at], 1) if rows else np.empty((0, 2))
    return {
        "tokens": torch.from_numpy(windows.astype(np.int16)),
        "matches": torch.from_numpy(shown.astype(np.int16)),
        "scored": torch.from_numpy(scored.astype(np.int16)),
        "document": torch.tensor(numbers, dtype=torch.int32),
    }
