"""Tensors by name with one row in each for every row of a split: batches, splits, and what a network says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast, overload

import torch
from torch import Tensor

from trainer_image.tasks.stretches import Stretches

Batch = Mapping[str, Tensor]
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


def spaced(splits: Mapping[str, Batch], names: Sequence[str], most: int) -> dict[str, Tensor]:
    """At most this many rows of the named splits, evenly spaced: for what need not see all of them."""
    counts = [rows_in(splits[name]) for name in names]
    chosen = torch.linspace(0, sum(counts) - 1, min(sum(counts), most), dtype=torch.float64).long()
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
