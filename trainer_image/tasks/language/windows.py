"""Documents → windows of bytes for a language model, and what came after the same context earlier in the document.

Tokens are the byte values 0 to 255 and MARK, which stands before every document and after the last: by it a model knows
where a text begins, and can end one. Tensors of a batch, for windows of `context` tokens:

    tokens   (rows, context + 1) int16: position t is to say what token t + 1 is
    matches  (rows, context, orders) int16: the byte that followed the last earlier occurrence of the same order bytes
             in this document, MARK where there was none (the match model of the lpaq compressors, here an input)
    scored   (rows, 2) int16: positions from, to that count; the others are context only, or padding
    document (rows,) int32: the document's number

Tokens and matches of a split are stored once, in memory or in files; windows are stretches of them (see `stretches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer_image.data.spill import Scratch
from trainer_image.data.text_store import Bytes
from trainer_image.tasks.stretches import Stretch, Stretches

MARK = 256
VOCABULARY = 257
# Sorting for matches takes some sixty bytes of memory a token, for up to twice this many.
BLOCK = 4 * 1024**2
Ints = np.ndarray[Any, np.dtype[np.int64]]
Tokens = np.ndarray[Any, np.dtype[np.int16]]
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing (Knuth, volume 3, 6.4)


def stream(documents: Sequence[Bytes]) -> tuple[Tokens, Ints]:
    """All documents in a row, MARK before each and after the last: (tokens, where each MARK before one stands)."""
    sizes = np.array([len(document) + 1 for document in documents], np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    tokens = np.full(int(starts[-1]) + 1, MARK, np.int16)
    for start, document in zip(starts.tolist(), documents, strict=False):
        tokens[start + 1 : start + 1 + len(document)] = np.frombuffer(document, np.uint8)
    return tokens, starts[:-1]


def find_matches(tokens: Tokens, starts: Ints, orders: Sequence[int], first: int = 0) -> Tokens:
    """(positions, orders): what followed the last earlier occurrence of the `order` tokens that end here.

    first: the number of the first document
    """
    count = len(tokens) - 1
    found = np.full((count, len(orders)), MARK, np.int16)
    if not orders:
        return found
    sizes = np.diff(np.append(starts, count))
    document = np.repeat(np.arange(first, first + len(starts), dtype=np.uint64), sizes)
    within = np.arange(count, dtype=np.int64) - np.repeat(starts, sizes)
    values = tokens[:count].astype(np.uint64) + np.uint64(1)
    for column, order in enumerate(orders):
        key = (document + np.uint64(1)) * _FACTOR
        for back in range(order):
            key[back:] = (key[back:] + values[: max(0, count - back)]) * _FACTOR
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


def training_windows(
    documents: Sequence[Bytes], context: int, orders: Sequence[int], scratch: Scratch | None = None
) -> Stretches:
    """The documents packed one after another and cut every `context` tokens: each token is learnt once an epoch."""
    tokens, matches, starts = _flat(documents, orders, scratch or Scratch())
    begins = np.arange(0, len(tokens) - 1, context)
    lengths = np.minimum(context, len(tokens) - 1 - begins)
    firsts = np.searchsorted(starts, begins, side="right") - 1
    return _windows(tokens, matches, context, begins, lengths, np.zeros_like(begins), firsts)


def scoring_windows(
    documents: Sequence[Bytes], context: int, orders: Sequence[int], scratch: Scratch | None = None
) -> Stretches:
    """Each document by itself in windows that overlap by half: every byte is scored once, with at least half a window
    before it where the document has that much. The MARK that would end it is not scored. A document without a byte has
    no window."""
    tokens, matches, starts = _flat(documents, orders, scratch or Scratch())
    stride = context // 2
    sizes = np.diff(np.append(starts, len(tokens) - 1)) - 1
    counts = np.where(sizes > context, -(-(sizes - stride) // stride), np.minimum(sizes, 1))
    numbers = np.repeat(np.arange(len(sizes)), counts)
    place = (np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts)) * stride
    lengths = np.minimum(context, sizes[numbers] - place)
    return _windows(tokens, matches, context, starts[numbers] + place, lengths, np.where(place, stride, 0), numbers)


def _windows(
    tokens: Tokens, matches: Tokens, context: int, begins: Ints, lengths: Ints, firsts: Ints, documents: Ints
) -> Stretches:
    """Windows of the stream that begin there, of these many positions of which those from `firsts` on are scored."""
    return Stretches(
        {
            "tokens": Stretch(torch.from_numpy(tokens), context + 1, MARK, more=1),
            "matches": Stretch(torch.from_numpy(matches), context, MARK),
        },
        torch.from_numpy(begins),
        torch.from_numpy(lengths),
        {
            "scored": torch.from_numpy(np.stack([firsts, lengths], 1).astype(np.int16)),
            "document": torch.from_numpy(documents.astype(np.int32)),
        },
    )


def _part(document: Bytes, start: int, stop: int) -> Tokens:
    """Tokens of the document's own stream from `start` up to `stop`: a MARK, its bytes, a MARK."""
    tokens = np.full(stop - start, MARK, np.int16)
    first, last = max(start, 1), min(stop, len(document) + 1)
    tokens[first - start : last - start] = np.frombuffer(document[first - 1 : last - 1], np.uint8)
    return tokens


def _flat(documents: Sequence[Bytes], orders: Sequence[int], scratch: Scratch) -> tuple[Tokens, Tokens, Ints]:
    """`stream` and `find_matches` of all documents, some BLOCK tokens at a time: only these lie in memory. In a
    document of more than BLOCK bytes a match is looked for among the BLOCK bytes before, at least."""
    ends = np.cumsum(np.fromiter((len(document) + 1 for document in documents), np.int64, len(documents)))
    count = int(ends[-1]) if len(ends) else 0
    tokens = scratch.array((count + 1,), np.int16)
    matches = scratch.array((count, len(orders)), np.int16)
    first = 0
    while first < len(documents):
        begin = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, begin + BLOCK, side="right")))
        size = int(ends[last - 1]) - begin
        if size <= BLOCK:
            part, starts = stream(documents[first:last])
            tokens[begin : begin + size] = part[:-1]
            matches[begin : begin + size] = find_matches(part, starts, orders, first)
        for at in range(0, size, BLOCK) if size > BLOCK else ():
            back, stop = max(0, at - BLOCK), min(at + BLOCK, size)
            part = _part(documents[first], back, stop + 1)
            tokens[begin + at : begin + stop] = part[at - back : -1]
            found = find_matches(part, np.zeros(1, np.int64), orders, first)
            matches[begin + at : begin + stop] = found[at - back :]
        first = last
    tokens[-1] = MARK
    return tokens, matches, np.append(np.zeros(1, np.int64), ends)[:-1]
