"""The order in which the rows of an epoch are trained on: from seed, phase and epoch alone.

Wholly random, unless the rows lie in files that are larger than what memory may cache of them. There each row would be
a seek of its own, and the kernel would read a quarter of a megabyte around it (docs/performance.md has figures). So
blocks of neighbouring rows are drawn at random, and the rows of some hundred blocks together are shuffled, as in a
shuffle buffer. It is an order like any other: a resumed run finds its place in it by the number of the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer_image.data import spill
from trainer_image.host import memory
from trainer_image.tasks.base import Batch, rows_in, stored

# Of the free memory, what the files of a split may fill without a thought: the kernel caches them.
CACHED_SHARE = 0.5
BLOCK_BYTES = 1024**2
BUFFERED_BLOCKS = 256


def epoch_order(count: int, drawn: int, block: int) -> Tensor:
    """The rows 0 to `count` - 1 in the order that the number `drawn` stands for, int64.

    block: rows of a block; 0: there are none, every order is as likely as any other
    """
    random = torch.Generator().manual_seed(drawn)
    if not block:
        return torch.randperm(count, generator=random)
    blocks = torch.randperm(math.ceil(count / block), generator=random) * block
    order = torch.empty(count, dtype=torch.int64)
    done = 0
    for first in range(0, len(blocks), BUFFERED_BLOCKS):
        rows = (blocks[first : first + BUFFERED_BLOCKS, None] + torch.arange(block)).flatten()
        rows = rows[rows < count]
        order[done : done + len(rows)] = rows[torch.randperm(len(rows), generator=random)]
        done += len(rows)
    return order


def block_rows(split: Batch, processes: int = 1) -> int:
    """How many rows a block has, 0 where memory has room for all of the split.

    processes: number of processes that have files of their own
    """
    in_files = sum(tensor.nbytes for tensor in stored(split) if spill.in_file(tensor.data_ptr()))
    if in_files * processes <= memory.available() * CACHED_SHARE:
        return 0
    return max(1, BLOCK_BYTES * rows_in(split) // in_files)
