"""The rows of a phase: every process draws the same order and takes its own part; nothing is lost on the way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.engine_rows import PhaseRows

CPU = torch.device("cpu")
KEY = (7, False)


def rows(count: int, batch_size: int, part: tuple[int, int] = (0, 1), *, ahead: bool | None = None) -> PhaseRows:
    return PhaseRows({"n": torch.arange(count)}, batch_size, CPU, KEY, part, ahead=ahead)


sizes = st.tuples(st.integers(16, 200), st.integers(8, 64), st.integers(1, 4))


@given(sizes)
def test_the_parts_of_all_processes_are_the_batch_of_one(given_sizes: tuple[int, int, int]) -> None:
    count, batch_size, world = given_sizes
    alone = rows(count, batch_size)
    team = [rows(count, batch_size, (rank, world)) for rank in range(world)]
    for epoch in (0, 1):
        seen = []
        for number in range(alone.per_epoch):
            whole, share = alone.batch(epoch, number)
            parts = [member.batch(epoch, number) for member in team]
            assert share == 1.0
            assert torch.cat([part["n"] for part, _ in parts]).tolist() == whole["n"].tolist()
            assert sum(share for _, share in parts) == pytest.approx(1.0)
            seen += whole["n"].tolist()
        assert sorted(seen) == list(range(count)), "an epoch sees every row once"
    assert alone.batch(0, 0)[0]["n"].tolist() != alone.batch(1, 0)[0]["n"].tolist() or count < 3


@given(sizes)
def test_equal_batches_have_one_shape_and_still_see_every_row(given_sizes: tuple[int, int, int]) -> None:
    count, batch_size, world = given_sizes
    shapes, seen, shares = set(), set(), []
    for rank in range(world):
        member = rows(count, batch_size, (rank, world))
        for number in range(member.per_epoch):
            batch, share = member.batch(0, number, equal=True)
            shapes.add(len(batch["n"]))
            seen |= set(batch["n"].tolist())
            shares.append(share)
    assert len(shapes) == 1
    assert seen == set(range(count))
    assert shares == pytest.approx([1 / world] * len(shares))


def test_batches_fetched_ahead_are_the_same_also_from_the_middle_of_an_epoch() -> None:
    plain, ahead = rows(50, 8), rows(50, 8, ahead=True)
    wanted = [(0, 3), (0, 4), (0, 5), (0, 6), (1, 0), (1, 1), (0, 0)]
    try:
        for epoch, number in wanted:
            assert ahead.batch(epoch, number)[0]["n"].tolist() == plain.batch(epoch, number)[0]["n"].tolist()
    finally:
        ahead.close()
