"""The rows of a phase: every process draws the same order and takes its own part; nothing is lost on the way."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.data import spill
from trainer_image.data.spill import Scratch
from trainer_image.engine.steps import row_order
from trainer_image.engine.steps.batches import PhaseRows
from trainer_image.engine.steps.row_order import epoch_order
from trainer_image.host import memory
from trainer_image.tasks.base import joined, rows_in, take
from trainer_image.tasks.stretches import Stretch, Stretches

CPU = torch.device("cpu")
KEY = (7, False)


def rows(
    count: int, batch_size: int, part: tuple[int, int] = (0, 1), *, block: int = 0, ahead: bool = False
) -> PhaseRows:
    return PhaseRows({"n": torch.arange(count)}, batch_size, CPU, KEY, part, block=block, ahead=ahead)


sizes = st.tuples(st.integers(16, 200), st.integers(8, 64), st.integers(1, 4))


@given(sizes, st.integers(0, 9))
def test_the_parts_of_all_processes_are_the_batch_of_one(given_sizes: tuple[int, int, int], block: int) -> None:
    count, batch_size, world = given_sizes
    alone = rows(count, batch_size, block=block)
    team = [rows(count, batch_size, (rank, world), block=block) for rank in range(world)]
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


def test_splits_that_share_only_some_of_their_sources_keep_their_rows_when_joined() -> None:
    common = Stretch(torch.arange(6), 2)

    def split(start: int, own: int) -> Stretches:
        sources = {"training_common": common, "own": Stretch(torch.arange(6) * own, 2)}
        return Stretches(sources, torch.tensor([start]), torch.tensor([2]), {"n": torch.tensor([own])})

    both = take(joined(split(1, 10), split(4, 100)), slice(None))
    assert both["training_common"].tolist() == [[1, 2], [4, 5]]
    assert both["own"].tolist() == [[10, 20], [400, 500]]


@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 11), st.integers(0, 2**62), st.integers(1, 5))
def test_blocks_come_whole_within_a_buffer(blocks: int, block: int, cut: int, drawn: int, buffered: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_order, "BUFFERED_BLOCKS", buffered)
        order = epoch_order(blocks * block, drawn, block).tolist()
        assert order == epoch_order(blocks * block, drawn, block).tolist()
        count = max(1, blocks * block - cut % block)
        assert sorted(epoch_order(count, drawn, block).tolist()) == list(range(count)), "also where the last one is cut"
    assert sorted(order) == list(range(blocks * block))
    for start in range(0, len(order), buffered * block):
        inside = order[start : start + buffered * block]
        assert len({row // block for row in inside}) == len(inside) / block
    if block > 8 and len(order) > 2 * block:
        assert order[:block] != sorted(order[:block]), "shuffled there"


def test_the_order_of_what_memory_has_room_for_is_wholly_random() -> None:
    whole = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    assert torch.equal(epoch_order(100, 3, 0), whole)


def test_only_files_larger_than_memory_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, free = Scratch(tmp_path, 0), 2 * 40_000
    monkeypatch.setattr(memory, "available", lambda: free)
    monkeypatch.setattr(row_order, "BLOCK_BYTES", 400)
    inside = {"x": torch.zeros(1000, 10), "n": torch.arange(1000)}
    outside = inside | {"x": torch.from_numpy(room.array((1000, 10), "float32"))}
    assert row_order.block_rows(inside) == row_order.block_rows(outside) == 0
    assert row_order.block_rows(outside, processes=2) == 10, "each has files of its own"
    free -= 2
    assert row_order.block_rows(inside) == 0
    assert row_order.block_rows(outside) == 10
    source = Stretch(outside["x"], 100)
    assert row_order.block_rows(Stretches({"x": source}, inside["n"], inside["n"], {"n": inside["n"]})) == 10
    address = outside["x"].data_ptr()
    del outside, source
    gc.collect()
    assert not spill.in_file(address), "what is gone is forgotten"


@pytest.mark.parametrize("block", [0, 3])
def test_batches_fetched_ahead_are_the_same_also_from_the_middle_of_an_epoch(block: int) -> None:
    plain, ahead = rows(50, 8, block=block), rows(50, 8, block=block, ahead=True)
    wanted = [(0, 3), (0, 4), (0, 5), (0, 6), (1, 0), (1, 1), (0, 0)]
    try:
        for epoch, number in wanted:
            assert ahead.batch(epoch, number)[0]["n"].tolist() == plain.batch(epoch, number)[0]["n"].tolist()
    finally:
        ahead.close()
