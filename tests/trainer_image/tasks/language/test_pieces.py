"""A few long documents are cut where their bytes say it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer_image.data.spill import Scratch
from trainer_image.data.text_store import Source, Text, TextKeeper
from trainer_image.tasks.language import chunks
from trainer_image.tasks.language.chunks import pieces


def lines(count: int, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    words = np.array(["the", "sea", "ünder", "bread", "of", "a", "house", "stone", "left", "and"])
    return "".join(" ".join(random.choice(words, random.integers(3, 12))) + "\n" for _ in range(count)).encode()


def cut(*documents: bytes) -> list[bytes]:
    keeper = TextKeeper(Scratch())
    for number, content in enumerate(documents):
        keeper.begin(Source(f"{number}.txt", Path(f"{number}.txt")))
        keeper.add(Text(content))
    found = pieces(keeper.texts())
    contents = [piece.tobytes() for piece in found.contents()]
    assert b"".join(contents) == b"".join(documents)
    return contents


@pytest.mark.parametrize("joined", [False, True], ids=["lines", "one line"])
def test_text_in_front_behind_and_between_leaves_nearly_all_pieces_as_they_were(joined: bool) -> None:
    parts = [
        lines(count, seed).replace(b"\n", b" " if joined else b"\n") for count, seed in ((700, 0), (60, 1), (700, 2))
    ]
    first, more, second = parts
    before = cut(first + second)
    assert 80 <= len(before) <= 250
    sizes = np.array([len(piece) for piece in before])
    size = 2 ** int(np.log2(max(256, len(first + second) / 100)))
    assert 0.6 * size <= sizes.mean() <= 1.6 * size
    assert sizes.max() <= 4 * size
    for changed in (more + first + second, first + more + second, first + second + more):
        gone = set(before) - set(cut(changed))
        assert len(gone) <= 0.08 * len(before)


def test_pieces_of_text_that_is_read_block_by_block_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    content = lines(900)
    whole = cut(content)
    monkeypatch.setattr(chunks, "BLOCK_BYTES", 1000)
    assert cut(content) == whole


def test_lines_of_one_kind_and_a_line_without_end_are_cut_all_the_same() -> None:
    assert len(cut(b"so it is\n" * 3000)) >= 20
    found = cut("ü".encode() * 30_000)
    assert len(found) >= 20
    assert all(piece.decode() for piece in found)
