"""The network for texts: a bag of hashed n-grams, and beside it, where wanted, convolutions over the bytes.

The bag is a linear model on weighted n-grams, of few dimensions where there are many classes or texts, as in fastText
(arXiv 1607.01759); the convolutions are a small character-level network (arXiv 1509.01626). Their logits are added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.tasks.base import Share
from trainer_image.tasks.text import features

# Of a text at most; presets come to it, and so the memory that applying a model takes.
MOST_BYTES = 4096
# Texts of a batch are padded to the longest that has as many bytes, unless the batch is small anyway.
WIDTHS, FEW_BYTES = (64, 128, 256, 512, 1024, 2048), 2**14


@dataclass(frozen=True)
class TextSizes:
    """longest: bytes of a text that are read; buckets, width: of the bag's table, width 0: one column for each class;
    filters: of the byte network, 0: none."""

    longest: Annotated[int, Field(ge=8, le=MOST_BYTES)]
    buckets: Annotated[int, Field(ge=4, le=2**24)]
    width: Annotated[int, Field(ge=0, le=65_536)]
    filters: Annotated[int, Field(ge=0, le=65_536, multiple_of=2)]
    dropout: Share


class ByteNetwork(nn.Module):
    """uint8 (rows, length) → (rows, 2 * filters): the largest and the mean answer of each filter."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(257, filters // 2)
        self.first = nn.Conv1d(filters // 2, filters, 7, 2, 3)
        self.second = nn.Conv1d(filters, filters, 5, 2, 2)
        self.third = nn.Conv1d(filters, filters, 3, 1, 1)

    def forward(self, texts: Tensor, lengths: Tensor) -> Tensor:
        inside = torch.arange(texts.shape[1], device=texts.device) < lengths[:, None]
        x = self.embedding(torch.where(inside, texts.long(), 256)).transpose(1, 2)
        x = functional.gelu(self.first(x))
        x = functional.gelu(self.second(x))
        x = x + functional.gelu(self.third(x))
        kept = (torch.arange(x.shape[2], device=x.device) * 4 < lengths[:, None].clamp(min=1))[:, None]
        largest = x.masked_fill(~kept, -1e4).amax(2)
        return torch.cat([largest, (x * kept).sum(2) / kept.sum(2)], 1)


def _alike(lengths: Tensor, device: torch.device) -> list[Tensor]:
    """Numbers of rows of like lengths: on a CPU short texts are not padded for a long one beside them."""
    rows = torch.arange(len(lengths), device=device)
    if device.type != "cpu" or len(lengths) * int(lengths.max()) <= FEW_BYTES:
        return [rows]
    kinds = torch.bucketize(lengths, torch.tensor(WIDTHS))
    return [rows[kinds == kind] for kind in torch.unique(kinds)]


class TextNetwork(nn.Module):
    """texts (rows, length) uint8, lengths (rows,) int64 → logits (rows, classes)."""

    def __init__(self, sizes: TextSizes, classes: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.weights: Tensor
        self.up: Tensor
        self.down: Tensor
        self.is_word: Tensor
        # What a bucket weighs, from the training rows (`TextProblem.begin`): part of the model.
        self.register_buffer("weights", torch.ones(sizes.buckets))
        for name, value in zip(("up", "down"), features.powers(sizes.longest), strict=True):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("is_word", features.word_bytes(), persistent=False)
        self.table = nn.Embedding(sizes.buckets, sizes.width or classes)
        nn.init.zeros_(self.table.weight)
        self.head = nn.Linear(sizes.width, classes) if sizes.width else None
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.3)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.dropout = nn.Dropout(sizes.dropout)
        self.byte_network = ByteNetwork(sizes.filters) if sizes.filters else None
        self.byte_head = nn.Linear(2 * sizes.filters, classes) if sizes.filters else None
        if self.byte_head is not None:
            nn.init.zeros_(self.byte_head.weight)

    def buckets(self, texts: Tensor, lengths: Tensor) -> Tensor:
        """The features of each text: see `features.buckets_of`."""
        if texts.device.type == "cpu":  # no padding for the longest text of all; a GPU would have to wait to know it
            texts = texts[:, : max(8, int(lengths.max()))]
        return features.buckets_of(texts, lengths, self.up, self.down, self.is_word, self.sizes.buckets)

    def bags(self, texts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The buckets of each text and what they weigh: see `features.bags`."""
        return features.bags(self.buckets(texts, lengths), self.weights)

    def forward(self, texts: Tensor, lengths: Tensor) -> Tensor:
        groups = _alike(lengths, texts.device)
        found = [self.bags(texts[rows], lengths[rows]) for rows in groups]
        index, value = (torch.cat([part.flatten() for part in parts]) for parts in zip(*found, strict=True))
        widths = torch.cat([torch.full((len(part),), part.shape[1], device=texts.device) for part, _ in found])
        offsets = widths.cumsum(0) - widths
        bag = functional.embedding_bag(index, self.table.weight, offsets, per_sample_weights=value, mode="sum")
        bag = bag.index_select(0, torch.cat(groups).argsort())
        logits: Tensor = self.bias + (bag if self.head is None else self.head(self.dropout(bag)))
        if self.byte_network is not None and self.byte_head is not None:
            logits = logits + self.byte_head(self.dropout(self.byte_network(texts, lengths)))
        return logits
