"""A few long documents cut into pieces, so that a part can be held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from trainer_image.data.text_store import Texts

# With fewer documents than this they are cut.
FEW_DOCUMENTS = 20
PIECES = 100
LONGEST_PIECE = 64 * 1024
SEARCHED_BYTES = 4096


def pieces(texts: Texts) -> Texts:
    """The documents cut into about PIECES pieces altogether: at line ends, or, where those leave too few pieces to hold
    some out, between characters. A text of one line is as good a text as any."""
    least = max(256, min(LONGEST_PIECE, int(texts.sizes.sum()) // PIECES))
    at_line_ends = _cut(texts, least, _line_end)
    return at_line_ends if len(at_line_ends) >= FEW_DOCUMENTS else _cut(texts, least, _character_end)


def _cut(texts: Texts, least: int, end_from: Callable[[memoryview, int], int]) -> Texts:
    found = []
    for number, content in enumerate(texts.contents()):
        start, row = 0, int(texts.rows[number])
        whole_file = not row and not texts.files[texts.file[number]].in_table
        line = 1
        while start < len(content):
            end = end_from(content, start + least)
            if len(content) - end < least:
                end = len(content)
            found.append((number, start, end - start, line if whole_file else row))
            line += int(np.count_nonzero(np.frombuffer(content[start:end], np.uint8) == ord("\n")))
            start = end
    numbers, starts, sizes, rows = (np.array(column, np.int64) for column in zip(*found, strict=True))
    pieces = texts.select(numbers)
    return replace(pieces, starts=pieces.starts + starts, sizes=sizes, rows=rows)


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
