"""The rows of a phase: every process draws the same order and takes its own part; nothing is lost on the way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.engine_rows import PhaseRows
from trainer_image.tasks.base import joined, rows_in, take
from trainer_image.tasks.stretches import Stretch, Stretches

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


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=12), st.integers(1, 6))
def test_stretches_are_the_padded_rows_that_they_stand_for(given_rows: list[tuple[int, int]], width: int) -> None:
    source = torch.arange(1, 51, dtype=torch.uint8)
    pairs = torch.stack([source, source + 1], 1)
    starts, lengths = (torch.tensor(column) for column in zip(*given_rows, strict=True))
    lengths = lengths.clamp(max=width)

    def split(part: slice) -> Stretches:
        columns = {"bytes": Stretch(source, width), "pairs": Stretch(pairs, width + 1, 7, more=1)}
        return Stretches(columns, starts[part], lengths[part], {"n": torch.arange(len(starts))[part]})

    batch = take(split(slice(None)), slice(None))
    for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        assert batch["bytes"][row].tolist() == list(range(start + 1, start + 1 + length)) + [0] * (width - length)
        assert batch["pairs"][row, : length + 1].tolist() == pairs[start : start + length + 1].tolist()
        assert batch["pairs"][row, length + 1 :].tolist() == [[7, 7]] * (width - length)
    middle = len(starts) // 2
    both = joined(split(slice(middle)), split(slice(middle, None)))
    assert isinstance(both, Stretches)
    assert both.sources["bytes"].source is source, "what both share is not copied"
    other = Stretches({"bytes": Stretch(source.clone(), width)}, starts, lengths, {"n": lengths})
    apart = take(
        joined(other, Stretches({"bytes": Stretch(source, width)}, starts, lengths, {"n": lengths})), slice(None)
    )
    assert apart["bytes"].tolist() == batch["bytes"].tolist() * 2
    for name, tensor in take(both, slice(None)).items():
        assert torch.equal(tensor, batch[name])
    assert rows_in(both) == len(starts)
    phase = PhaseRows(both, 4, CPU, KEY)
    seen = [phase.batch(0, number)[0] for number in range(phase.per_epoch)]
    order = torch.cat([part["n"] for part in seen])
    assert torch.equal(torch.cat([part["bytes"] for part in seen]), batch["bytes"][order])


def test_batches_fetched_ahead_are_the_same_also_from_the_middle_of_an_epoch() -> None:
    plain, ahead = rows(50, 8), rows(50, 8, ahead=True)
    wanted = [(0, 3), (0, 4), (0, 5), (0, 6), (1, 0), (1, 1), (0, 0)]
    try:
        for epoch, number in wanted:
            assert ahead.batch(epoch, number)[0]["n"].tolist() == plain.batch(epoch, number)[0]["n"].tolist()
    finally:
        ahead.close()
