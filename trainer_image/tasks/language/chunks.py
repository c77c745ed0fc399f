"""A few long documents cut into pieces, so that a part can be held out.

Where a piece ends is told by the bytes before that place: text put in front of a document, or behind it, leaves nearly
all pieces as they were, and what was held out before is held out again.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from trainer_image.data.rows.hashes import mixed
from trainer_image.data.text_store import Array, Ints, Texts

# With fewer documents than this they are cut.
FEW_DOCUMENTS = 20
PIECES = 100
LEAST_PIECE, LONGEST_PIECE = 256, 64 * 1024
SEARCHED_BYTES = 4096
# What tells an end: so many bytes before it.
CONTEXT = 32
BLOCK_BYTES = 1024**2


def pieces(texts: Texts) -> Texts:
    """The documents cut into PIECES to twice as many pieces altogether: at line ends, or, where those leave too few
    pieces to hold some out, between characters. A text of one line is as good a text as any."""
    wanted = max(LEAST_PIECE, min(LONGEST_PIECE, int(texts.sizes.sum()) // PIECES))
    size = 2 ** int(math.log2(wanted))  # so that it seldom changes as the text grows
    at_line_ends = _cut(texts, size, lines=True)
    return at_line_ends if len(at_line_ends) >= FEW_DOCUMENTS else _cut(texts, size, lines=False)


def _cut(texts: Texts, size: int, *, lines: bool) -> Texts:
    """size: of a piece on average, in bytes"""
    found = []
    for number, content in enumerate(texts.contents()):
        start, row = 0, int(texts.rows[number])
        whole_file = not row and not texts.files[texts.file[number]].in_table
        line = 1
        for end in [*_ends(content, size, lines=lines), len(content)]:
            found.append((number, start, end - start, line if whole_file else row))
            line += int(np.count_nonzero(np.frombuffer(content[start:end], np.uint8) == ord("\n")))
            start = end
    numbers, starts, sizes, rows = (np.array(column, np.int64) for column in zip(*found, strict=True))
    pieces = texts.select(numbers)
    return replace(pieces, starts=pieces.starts + starts, sizes=sizes, rows=rows)


def _ends(content: memoryview, size: int, *, lines: bool) -> list[int]:
    """Where the document's pieces end but for the last one: half the size apart at least."""
    likely = _likely(np.frombuffer(content, np.uint8), size, lines=lines)
    ends: list[int] = []
    last = 0
    while True:
        at = int(np.searchsorted(likely, last + size // 2))
        end = int(likely[at]) if at < len(likely) else len(content)
        if end - last > 3 * size:
            end = (_line_end if lines else _character_end)(content, last + 3 * size)
        if len(content) - end < size // 2:
            return ends
        ends.append(end)
        last = end


def _likely(content: Array, size: int, *, lines: bool) -> Ints:
    """Ends that the bytes before them tell, one in `size` / 2 bytes on average, wherever in the document they are."""
    found, before = [np.empty(0, np.int64)], 0
    for begin in range(0, len(content), BLOCK_BYTES):
        first = max(0, begin - CONTEXT)
        part = np.ascontiguousarray(content[first : begin + BLOCK_BYTES])
        at = np.flatnonzero(part == ord("\n")) + 1 if lines else np.flatnonzero(part & 0xC0 != 0x80)
        at = at[(at + first > begin) & (at >= CONTEXT)]
        if not len(at):
            continue
        widths = np.diff(at + first, prepend=before)
        before = int(at[-1]) + first
        words = np.ndarray(len(part) - 7, "<u8", part, strides=(1,))
        told = np.zeros(len(at), np.uint64)
        for back in range(8, CONTEXT + 1, 8):
            told = mixed(told ^ words[at - back])
        found.append(at[told < widths * (2 / size) * 2.0**64] + first)
    return np.concatenate(found)


def _line_end(content: memoryview, at: int) -> int:
    while at < len(content):
        block = content[at : at + SEARCHED_BYTES].tobytes()
        found = block.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(block)
    return len(content)


def _character_end(content: memoryview, at: int) -> int:
    while at < len(content) and content[at] & 0xC0 == 0x80:  # the second to fourth byte of a UTF-8 character
        at += 1
    return at
