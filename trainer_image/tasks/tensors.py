"""Tensors by name with one row in each for every row of a split: batches, splits, and what a network says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, overload

import numpy as np
import torch
from torch import Tensor

from trainer_image.tasks.stretches import Stretches

Batch = Mapping[str, Tensor]
Ints = np.ndarray[Any, np.dtype[np.int64]]
# What a network says of each row: a tensor (rows, ...), or several by name, with equal first dimension.
Outputs = Tensor | Mapping[str, Tensor]


def rows_in(rows: Outputs) -> int:
    """The number of rows of a batch, a split or outputs."""
    return len(rows) if isinstance(rows, Tensor) else len(next(iter(rows.values())))


def each(outputs: Outputs) -> list[Tensor]:
    """The tensors of outputs."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs.values())


def collected(portions: Sequence[Outputs]) -> Outputs:
    """Outputs of consecutive rows as those of all of them, on the CPU: in float32, but whole numbers within a dict."""
    if isinstance(portions[0], Tensor):
        return torch.cat(cast("list[Tensor]", portions)).float().cpu()
    batches = cast("Sequence[Batch]", portions)
    found = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    return {name: (t.float() if t.is_floating_point() else t).cpu() for name, t in found.items()}


def stored(batch: Batch) -> list[Tensor]:
    """Every tensor that a batch or split keeps."""
    return batch.stored if isinstance(batch, Stretches) else list(batch.values())


@overload
def take(rows: Tensor, index: Tensor | slice) -> Tensor: ...
@overload
def take(rows: Batch, index: Tensor | slice) -> dict[str, Tensor]: ...
def take(rows: Outputs, index: Tensor | slice) -> Tensor | dict[str, Tensor]:
    """The rows at `index`, a slice or an int64 tensor on the same device, of a batch, a split or outputs."""
    if isinstance(rows, Tensor):
        return rows[index] if isinstance(index, slice) else rows.index_select(0, index)
    if isinstance(rows, Stretches):
        return rows.take(index)
    return {name: take(tensor, index) for name, tensor in rows.items()}


def evenly(count: int, most: int) -> Ints:
    """At most `most` of the numbers below `count`, ascending: one by chance of each stretch. Every n-th would hold one
    class only of rows whose classes take turns."""
    if count <= most:
        return np.arange(count)
    edges = np.linspace(0, count, most + 1).astype(np.int64)
    return edges[:-1] + (np.random.default_rng(0).random(most) * np.diff(edges)).astype(np.int64)


def one_of(every: int, count: int) -> Ints:
    """One of every so many of the numbers below `count`, `evenly`."""
    return evenly(count, -(-count // every))


def of_each_class(targets: Ints, every: int) -> Ints:
    """Numbers of rows, ascending: `one_of` every so many, and the first of each class (-1: of none)."""
    firsts = np.unique(targets, return_index=True)[1]
    return np.union1d(firsts, one_of(every, len(targets)))


def spaced(splits: Mapping[str, Batch], names: Sequence[str], most: int) -> dict[str, Tensor]:
    """At most this many rows of the named splits, `evenly` spaced: for what need not see all of them."""
    counts = [rows_in(splits[name]) for name in names]
    chosen = torch.from_numpy(evenly(sum(counts), most))
    parts, first = [], 0
    for name, count in zip(names, counts, strict=True):
        inside = chosen[(chosen >= first) & (chosen < first + count)] - first
        parts.append(take(splits[name], inside))
        first += count
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def joined(first: Batch, second: Batch) -> Batch:
    """The rows of both."""
    if isinstance(first, Stretches) and isinstance(second, Stretches):
        return first.joined(second)
    return {name: torch.cat([tensor, second[name]]) for name, tensor in first.items()}
