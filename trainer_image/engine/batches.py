"""The rows of one phase in the order in which they are trained on, and how they come to the device.

Every rank draws the same order from the seed and takes its own part of each batch, so the effective batch and its order
do not depend on the number of GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from trainer_image.engine.plan import Plan
from trainer_image.engine.position import REFIT, Position
from trainer_image.engine.row_order import epoch_order
from trainer_image.engine.team import Team
from trainer_image.tasks.base import Batch, Problem, joined, rows_in, stored, take
from trainer_image.tasks.stretches import Stretches

# Of the device's free memory, what a phase's rows may fill; the rest is for activations.
RESIDENT_SHARE = 0.25


class PhaseRows:
    """A split's rows, batch by batch, on `device`.

    per_epoch: batches an epoch; rows stay on the device where they fit, else the next batch is fetched meanwhile.
    """

    def __init__(
        self,
        split: Batch,
        batch_size: int,
        device: torch.device,
        key: tuple[int, bool],
        part: tuple[int, int] = (0, 1),
        *,
        block: int = 0,
        ahead: bool | None = None,
    ) -> None:
        """key: the seed, and whether this is the refit; part: (rank, world); block: see `epoch_order`; ahead: fetch
        batches in advance (None: where rows do not lie on the device)."""
        self.count = rows_in(split)
        self.per_epoch = math.ceil(self.count / batch_size)
        self._key, self._part, self._device, self._block = key, part, device, block
        self._rows = resident(split, device)
        self._rows_at = next(iter(self._rows.values())).device
        self._drawn: tuple[int, Tensor] | None = None
        fetch = ahead if ahead is not None else self._rows_at != device
        self._ahead = Ahead(self._gather, device) if fetch else None

    def batch(self, epoch: int, number: int, *, equal: bool = False) -> tuple[Batch, float]:
        """This rank's part of a batch, and which share of the whole batch it is.

        equal: every batch of the epoch has the very same number of rows, for compiled networks: where the epoch does
        not divide evenly, some begin with the last row of the one before.
        """
        key = (epoch, number, equal)
        if self._ahead is None:
            batch: Batch = take(self._rows, self._index(key))
        else:
            following = (epoch, number + 1, equal) if number + 1 < self.per_epoch else (epoch + 1, 0, equal)
            batch = self._ahead.get(key, following)
        start, stop = self._bounds(number, equal)
        whole = self._part[1] * math.ceil((stop - start) / self._part[1]) if equal else stop - start
        return batch, rows_in(batch) / whole

    def close(self) -> None:
        if self._ahead:
            self._ahead.close()

    def _bounds(self, number: int, equal: bool) -> tuple[int, int]:
        # Batches of one epoch are as equal as can be: no small last one with noisy statistics.
        start, stop = number * self.count // self.per_epoch, (number + 1) * self.count // self.per_epoch
        return _stretched(start, stop, math.ceil(self.count / self.per_epoch)) if equal else (start, stop)

    def _index(self, key: tuple[int, int, bool]) -> Tensor:
        epoch, number, equal = key
        start, stop = self._bounds(number, equal)
        (rank, world), rows = self._part, stop - start
        first, last = rank * rows // world, (rank + 1) * rows // world
        if equal:
            first, last = _stretched(first, last, math.ceil(rows / world))
        return self._order(epoch)[start + first : start + last]

    def _gather(self, key: tuple[int, int, bool]) -> Batch:
        index = self._index(key)
        if self._device.type != "cuda":
            return take(self._rows, index)
        # Only a batch is pinned, never the split: that may be a mapped file, larger than the memory.
        if isinstance(self._rows, Stretches):
            return {name: tensor.pin_memory() for name, tensor in self._rows.take(index).items()}
        return {
            name: torch.index_select(
                tensor, 0, index, out=torch.empty((len(index), *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=True)
            )
            for name, tensor in self._rows.items()
        }

    def _order(self, epoch: int) -> Tensor:
        """An epoch's order of rows, from seed, phase and epoch: a resumed run and another process need none stored."""
        if self._drawn is None or self._drawn[0] != epoch:
            seed, refit = self._key
            drawn = (seed * 1_000_003 + epoch * 2 + refit) % 2**63
            self._drawn = (epoch, epoch_order(self.count, drawn, self._block).to(self._rows_at))
        return self._drawn[1]


def phase_split(problem: Problem, at: Position) -> Batch:
    """The rows that the phase trains on: a refit's are those of the validation, too."""
    splits = problem.splits
    return joined(splits["train"], splits["validation"]) if at.phase == REFIT else splits["train"]


def phase_rows(split: Batch, plan: Plan, at: Position, team: Team) -> PhaseRows:
    """The `phase_split` batch by batch: the same order on every rank, and this rank's part of it."""
    return PhaseRows(
        split,
        plan.recipe.batch_size,
        plan.device,
        (plan.seed, at.phase == REFIT),
        (team.rank, team.world),
        block=at.block_rows,
    )


class Ahead:
    """Fetches the next batch in a thread of its own while the device works on this one.

    On CUDA it is copied from pinned memory on a stream of its own; elsewhere it is what `gather` returns.
    """

    def __init__(self, gather: Callable[[tuple[int, int, bool]], Batch], device: torch.device) -> None:
        self._gather, self._device = gather, device
        # A thread begins with the first GPU as its own, whose memory it must not touch.
        begin = partial(torch.cuda.set_device, device) if device.type == "cuda" else None
        self._worker = ThreadPoolExecutor(1, "rows", begin)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._next: tuple[tuple[int, int, bool], Future[tuple[Batch, torch.cuda.Event | None]]] | None = None

    def get(self, key: tuple[int, int, bool], following: tuple[int, int, bool]) -> Batch:
        """The batch of `key`; begins to fetch the one of `following`."""
        waiting = self._next[1] if self._next and self._next[0] == key else self._worker.submit(self._fetch, key)
        batch, copied = waiting.result()
        self._next = (following, self._worker.submit(self._fetch, following))
        if copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copied)
            for tensor in batch.values():
                # The allocator must not hand the memory to the other stream while this one still reads it.
                tensor.record_stream(stream)
        return batch

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, key: tuple[int, int, bool]) -> tuple[Batch, torch.cuda.Event | None]:
        batch = self._gather(key)
        if self._stream is None:
            return batch, None
        with torch.cuda.stream(self._stream):
            moved = {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()}
            return moved, self._stream.record_event()


def _stretched(start: int, stop: int, size: int) -> tuple[int, int]:
    """A range of this size that holds the given one: it begins earlier, or ends later where nothing is earlier."""
    start = min(start, max(0, stop - size))
    return start, start + size


def resident(split: Batch, device: torch.device) -> Batch:
    """The split on the device when it fits in a quarter of the free memory, else where it is."""
    if device.type != "cuda":
        return split
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps for later, from the phase before say, is as good as free.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if sum(tensor.nbytes for tensor in stored(split)) > free * RESIDENT_SHARE:
        return split
    return split.to(device) if isinstance(split, Stretches) else {n: t.to(device) for n, t in split.items()}
