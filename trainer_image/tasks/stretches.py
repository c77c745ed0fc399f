"""Rows that are stretches of long tensors: texts one after another, windows of a stream. Padded only when taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stretch:
    """Where a batch's tensor comes from.

    source: (n, ...), in memory or over a file (see `scratch`); n is at least 1
    width:  of a row when it is taken
    fill:   what stands behind a row that is shorter
    more:   elements that belong to a row beyond its length
    """

    source: Tensor
    width: int
    fill: int = 0
    more: int = 0

    def taken(self, starts: Tensor, lengths: Tensor) -> Tensor:
        """(rows, width, ...)"""
        offsets = torch.arange(self.width, device=starts.device)
        have = lengths[:, None] + self.more
        # Behind its end a row reads its own last element again: in a file, another one would be another page.
        at = starts[:, None] + torch.minimum(offsets, (have - 1).clamp(min=0))
        rows = self.source[at.clamp(max=len(self.source) - 1)]
        inside = (offsets < have).view(*at.shape, *(1 for _ in self.source.shape[1:]))
        return torch.where(inside, rows, torch.full((), self.fill, dtype=rows.dtype, device=rows.device))


class Stretches(Mapping[str, Tensor]):
    """A split of such rows. As a mapping it has only what is stored a row: `tensors`, at least one of them.

    starts, lengths: int64 (rows,), of each row in every source
    """

    def __init__(self, sources: Mapping[str, Stretch], starts: Tensor, lengths: Tensor, tensors: Mapping[str, Tensor]):
        self.sources, self.starts, self.lengths, self.tensors = dict(sources), starts, lengths, dict(tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def take(self, index: Tensor | slice) -> dict[str, Tensor]:
        """A batch of ordinary tensors: the rows at `index`, on the tensors' device."""
        starts, lengths = self.starts[index], self.lengths[index]
        made = {name: source.taken(starts, lengths) for name, source in self.sources.items()}
        return made | {name: tensor[index] for name, tensor in self.tensors.items()}

    def joined(self, other: Stretches) -> Stretches:
        """The rows of both; where they share every source, none is copied. Else those of `self` have one length."""
        pairs = {name: (ours.source, other.sources[name].source) for name, ours in self.sources.items()}
        sources, shift = self.sources, 0
        if any(ours is not theirs for ours, theirs in pairs.values()):
            sources = {name: replace(part, source=torch.cat(pairs[name])) for name, part in sources.items()}
            # A row has one start for all sources.
            [shift] = {len(ours) for ours, _ in pairs.values()}
        return Stretches(
            sources,
            torch.cat([self.starts, other.starts + shift]),
            torch.cat([self.lengths, other.lengths]),
            {name: torch.cat([tensor, other.tensors[name]]) for name, tensor in self.tensors.items()},
        )

    def to(self, device: torch.device) -> Stretches:
        """The same on a device, whole."""
        return Stretches(
            {name: replace(part, source=part.source.to(device)) for name, part in self.sources.items()},
            self.starts.to(device),
            self.lengths.to(device),
            {name: tensor.to(device) for name, tensor in self.tensors.items()},
        )

    @property
    def stored(self) -> list[Tensor]:
        """Every tensor that is kept."""
        return [*(part.source for part in self.sources.values()), self.starts, self.lengths, *self.tensors.values()]
