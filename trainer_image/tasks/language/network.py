"""The byte-level GPT: causal attention over a window of bytes, which is also given what the last few bytes hashed to
and what followed the same context earlier in the document.

Pre-norm blocks with RMSNorm (arXiv 1910.07467), rotary positions (arXiv 2104.09864) and torch's fused attention.
Hashed n-gram embeddings of the preceding bytes are added to the input, as in the byte latent transformer
(arXiv 2412.09871, section 3.2.1). Bytes that earlier matches suggest get a bonus on their logit that the network
decides: copying over any distance at the price of one addition (compare pointer networks, arXiv 1506.03134).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.tasks.base import Share, Size
from trainer_image.tasks.language.windows import MARK, VOCABULARY

_MASK = 2**31 - 1


# Tokens of a window at most, which no tensor shows; presets come to it, and so the memory that applying a model takes.
MOST_CONTEXT = 1024
# Bytes that an n-gram or a match has.
Order = Annotated[int, Field(ge=1, le=64)]


@dataclass(frozen=True)
class LanguageSizes:
    """context: tokens of a window; orders, buckets, hashed: n-gram lengths, hash buckets and width of each; matches:
    context lengths by which earlier occurrences are sought; further: those that are sought for the n-grams alone."""

    context: Annotated[int, Field(ge=2, le=MOST_CONTEXT)]
    width: Size
    depth: Annotated[int, Field(ge=1, le=256)]
    heads: Size
    orders: Annotated[tuple[Order, ...], Field(min_length=1, max_length=64)]
    buckets: Size
    hashed: Size
    matches: Annotated[tuple[Order, ...], Field(max_length=64)]
    dropout: Share
    further: Annotated[tuple[Order, ...], Field(max_length=64)] = ()

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError("the width is no even multiple of the heads")

    @property
    def sought(self) -> tuple[int, ...]:
        """Of each column of a batch's matches its order, ascending."""
        return tuple(sorted({*self.matches, *self.further}))


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to its input; both begin as nothing."""

    def __init__(self, sizes: LanguageSizes) -> None:
        super().__init__()
        width = sizes.width
        self.heads = sizes.heads
        self.attention_norm, self.forward_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(sizes.dropout)
        nn.init.zeros_(self.attended.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(_turned(q, cos, sin), _turned(k, cos, sin), v, is_causal=True)
        x = x + self.dropout(self.attended(y.transpose(1, 2).reshape(rows, length, width)))
        y = functional.gelu(self.up(self.forward_norm(x)), approximate="tanh")
        result: Tensor = x + self.dropout(self.down(y))
        return result


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


def ngram_buckets(tokens: Tensor, orders: tuple[int, ...], buckets: int) -> Tensor:
    """(rows, length) int64 → (rows, length, orders): the bucket, of `buckets` a power of two, of the n-gram that ends
    at each position; beyond the window's start stands nothing."""
    shifted = tokens + 1
    state = torch.zeros_like(shifted)
    found = []
    for length in range(1, max(orders, default=0) + 1):
        # Products stay below 2^62: the same on every device, without overflow.
        state = (state * 0x2C1B3C6D + shifted * 0x297A2D39) & _MASK
        state = state ^ (state >> 15)
        shifted = functional.pad(shifted, (1, 0))[:, :-1]
        if length in orders:
            found.append(((state * 0x5BD1E995) >> 12) % buckets)
    return torch.stack(found, -1)


class LanguageNetwork(nn.Module):
    """tokens (rows, length) int64, matches (rows, length, sought) int64 → logits (rows, length, VOCABULARY)."""

    def __init__(self, sizes: LanguageSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.token = nn.Embedding(VOCABULARY, width)
        self.match = nn.ModuleList(nn.Embedding(VOCABULARY, width) for _ in sizes.matches)
        self.ngram = nn.Embedding(sizes.buckets * len(sizes.orders), sizes.hashed)
        self.ngram_mix = nn.Linear(sizes.hashed * len(sizes.orders), width, bias=False)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, VOCABULARY)
        self.copy = nn.Linear(width, len(sizes.matches)) if sizes.matches else None
        for embedding in (self.token, *self.match):
            nn.init.normal_(embedding.weight, std=0.08)
        nn.init.normal_(self.ngram.weight, std=0.1)
        nn.init.zeros_(self.head.weight)
        half = width // sizes.heads // 2
        angles = torch.arange(sizes.context)[:, None] / 10_000 ** (torch.arange(half) / half)
        self.cos: Tensor
        self.sin: Tensor
        self.first: Tensor
        self.columns: Tensor
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.register_buffer("first", torch.arange(len(sizes.orders)) * sizes.buckets, persistent=False)
        # On the device: a list would be sent there in each step.
        columns = torch.tensor([sizes.sought.index(order) for order in sizes.matches], dtype=torch.int64)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, tokens: Tensor, matches: Tensor) -> Tensor:
        length = tokens.shape[1]
        hashed = self.ngram(ngram_buckets(tokens, self.sizes.orders, self.sizes.buckets) + self.first)
        x = self.token(tokens) + self.ngram_mix(hashed.flatten(-2))
        matches = matches[..., self.columns]
        for column, embedding in enumerate(self.match):
            x = x + embedding(matches[..., column])
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        x = self.norm(x)
        logits: Tensor = self.head(x)
        if self.copy is not None:
            bonus = torch.where(matches == MARK, 0.0, self.copy(x).float())
            logits = logits.float().scatter_add(-1, matches, bonus)
        return logits
