"""The rows of one phase in the order in which they are trained on, and how they come to the device.

Every rank draws the same order from the seed and takes its own part of each batch, so the effective batch and its order
do not depend on the number of GPUs.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from torch import Tensor

from trainer_image.engine.plan import Plan
from trainer_image.engine.steps.ahead import Ahead
from trainer_image.engine.steps.position import REFIT, Position
from trainer_image.engine.steps.row_order import epoch_order
from trainer_image.engine.team import Team
from trainer_image.host.devices import usable_cpus
from trainer_image.tasks import hooks
from trainer_image.tasks.base import Augment, Batch, Problem, joined, rows_in, stored, take
from trainer_image.tasks.stretches import Stretches

# Of the device's free memory, what a phase's rows may fill; the rest is for activations.
RESIDENT_SHARE = 0.25
# Threads that augment, at most; and how many batches each is ahead, so that a slow one is not waited for.
MOST_THREADS, AHEAD = 8, 2

# (epoch, number of the batch in it, whether all have the same number of rows)
Key = tuple[int, int, bool]


class PhaseRows:
    """A split's rows, batch by batch, on `device`.

    per_epoch: batches an epoch; rows stay on the device where they fit, else the next batch is fetched meanwhile. Rows
    that are augmented stay on the CPU, and threads make the next batches meanwhile.
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
        ahead: bool = False,
        augment: Augment | None = None,
        threads: int = 1,
    ) -> None:
        """key: the seed, and whether this is the refit; part: (rank, world); block: see `epoch_order`; ahead: fetch
        batches in advance, also where rows lie on the device; augment: see `Problem.augmentation`; threads:
        that augment."""
        self.count = rows_in(split)
        self.per_epoch = math.ceil(self.count / batch_size)
        self._key, self._part, self._device, self._block = key, part, device, block
        self._augment = augment
        self._rows = split if augment else resident(split, device)
        self._rows_at = next(iter(self._rows.values())).device
        self._drawn: dict[int, Tensor] = {}
        self._drawing = threading.Lock()
        self._depth = AHEAD * threads if augment else 1
        fetch = ahead or augment is not None or self._rows_at != device
        alone = augment is not None
        self._ahead = Ahead(self._gather, device, threads if alone else 1, alone=alone) if fetch else None

    def batch(self, epoch: int, number: int, *, equal: bool = False) -> tuple[Batch, float]:
        """This rank's part of a batch, and which share of the whole batch it is.

        equal: every batch of the epoch has the very same number of rows, for compiled networks: where the epoch does
        not divide evenly, some begin with the last row of the one before.
        """
        key = (epoch, number, equal)
        if self._ahead is None:
            batch: Batch = take(self._rows, self._index(key))
        else:
            after = range(number + 1, number + 1 + self._depth)
            batch = self._ahead.get(key, [(epoch + n // self.per_epoch, n % self.per_epoch, equal) for n in after])
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

    def _index(self, key: Key) -> Tensor:
        epoch, number, equal = key
        start, stop = self._bounds(number, equal)
        (rank, world), rows = self._part, stop - start
        first, last = rank * rows // world, (rank + 1) * rows // world
        if equal:
            first, last = _stretched(first, last, math.ceil(rows / world))
        return self._order(epoch)[start + first : start + last]

    def _gather(self, key: Key) -> Batch:
        """In any thread, in any order: what is drawn for a batch follows from its key."""
        index = self._index(key)
        cuda = self._device.type == "cuda"
        if self._augment is not None:
            batch = self._augment(take(self._rows, index), self._generator(key))
            return _pinned(batch) if cuda else batch
        if not cuda:
            return take(self._rows, index)
        # Only a batch is pinned, never the split: that may be a mapped file, larger than the memory.
        if isinstance(self._rows, Stretches):
            return _pinned(self._rows.take(index))
        return {
            name: torch.index_select(
                tensor, 0, index, out=torch.empty((len(index), *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=True)
            )
            for name, tensor in self._rows.items()
        }

    def _generator(self, key: Key) -> torch.Generator:
        (seed, refit), (epoch, number, _), (rank, _) = self._key, key, self._part
        # A 64-bit hash: plain sums would give batches of neighbouring seeds the same numbers.
        [drawn] = np.random.SeedSequence([seed, refit, epoch, number, rank]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(drawn))

    def _order(self, epoch: int) -> Tensor:
        """An epoch's order of rows, from seed, phase and epoch: a resumed run and another process need none stored."""
        with self._drawing:
            if epoch not in self._drawn:
                seed, refit = self._key
                drawn = (seed * 1_000_003 + epoch * 2 + refit) % 2**63
                order = epoch_order(self.count, drawn, self._block).to(self._rows_at)
                # Where batches of the next epoch are fetched already, the end of this one is still asked for.
                self._drawn = {known: of for known, of in self._drawn.items() if known == epoch - 1} | {epoch: order}
            return self._drawn[epoch]


def phase_split(problem: Problem, at: Position) -> Batch:
    """The rows that the phase trains on: a refit's are those of the validation, too."""
    splits = problem.splits
    return joined(splits["train"], splits["validation"]) if at.phase == REFIT else splits["train"]


def phase_rows(problem: Problem, split: Batch, plan: Plan, at: Position, team: Team) -> PhaseRows:
    """The `phase_split` batch by batch: the same order on every rank, and this rank's part of it."""
    # The thread that trains has a CPU of its own where there are several.
    threads = max(1, min(MOST_THREADS, usable_cpus() // team.here - 1))
    return PhaseRows(
        split,
        plan.recipe.batch_size,
        plan.device,
        (plan.seed, at.phase == REFIT),
        (team.rank, team.world),
        block=at.block_rows,
        augment=hooks.augment_of(problem),
        threads=threads,
    )


def _pinned(batch: Batch) -> Batch:
    return {n: torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t) for n, t in batch.items()}


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
