"""Rows of the test split that the model has been shown in training: their figures say what it remembers.

Rows are the same where every input is, and the label. They are compared by a 64-bit hash of their content, so that a
dataset of any size takes 8 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from trainer_image.data.rows.division import RowHashes
from trainer_image.data.rows.hashes import Hashes
from trainer_image.tasks.base import WEIGHT, Batch, rows_in, stored, take

LABEL = "target"
# What a row is told by, see `data.rows`.
CONTENT = "tensors of a row"
PORTION = 1024
# Beyond, reading everything once more would cost minutes.
MOST_BYTES = 4 * 1024**3


def in_test(splits: Mapping[str, Batch], fit_on: Sequence[str]) -> Tensor | None:
    """Which test rows, bool (rows,), are also rows of the splits that the model was fitted on; None where rows have no
    label of their own, or there is too much to compare."""
    wanted = [*fit_on, "test"]
    if any(LABEL not in splits[name] for name in wanted):
        return None
    if _bytes(splits[name] for name in wanted) > MOST_BYTES:
        return None
    known = np.unique(np.concatenate([_hashes(splits[name]) for name in fit_on]))
    return torch.from_numpy(np.isin(_hashes(splits["test"]), known))


def hashed(splits: Mapping[str, Batch]) -> RowHashes | None:
    """Of the rows' tensors, where the task does not say what tells a row; None where that is too much to read."""
    if _bytes(splits.values()) > MOST_BYTES:
        return None
    return RowHashes((CONTENT, *sorted(splits["test"])), {name: _hashes(split) for name, split in splits.items()})


def _bytes(splits: Iterable[Batch]) -> int:
    return sum(tensor.numel() * tensor.element_size() for split in splits for tensor in stored(split))


def _hashes(split: Batch) -> Hashes:
    return np.concatenate(
        [_hashed(take(split, slice(start, start + PORTION))) for start in range(0, rows_in(split), PORTION)]
    )


def _hashed(batch: Batch) -> Hashes:
    """The sum of a row's bytes, eight at a time, each times an odd random number (Dietzfelbinger et al. 1997,
    doi:10.1006/jagm.1997.0873), tensor by tensor."""
    found = np.zeros(rows_in(batch), np.uint64)
    for name in sorted(batch.keys() - {WEIGHT}):
        tensor = batch[name].flatten(1) if batch[name].ndim > 1 else batch[name][:, None]
        content = np.ascontiguousarray(tensor.numpy()).view(np.uint8)
        content = np.pad(content, ((0, 0), (0, -content.shape[1] % 8)))
        words = content.view(np.uint64)
        odd = np.random.default_rng(len(name) + words.shape[1]).integers(1, 2**63, words.shape[1], np.uint64) * 2 + 1
        # Upper bits are the mixed ones; bring them down before the next tensor is added.
        mixed = (words * odd.astype(np.uint64)).sum(1, dtype=np.uint64)
        found = (found ^ (mixed >> np.uint64(29)) ^ mixed) * np.uint64(0x9E3779B97F4A7C15)
    return found
