"""The network for tables: k multilayer perceptrons that share their weight matrices, waves of numbers, a linear skip.

TabM in idea (arXiv 2410.24210): each member scales a layer's input and output by vectors of its own and has its own
bias and head (the BatchEnsemble trick), so that an ensemble of k costs little more than one network. Members are
trained each on its own loss; what is published is the mean of their predictions. The linear skip lets the network
begin as a linear model, which is what small tables are best served with. Beside each number the layers see waves of
it, whose frequencies are learnt (arXiv 2203.05556): a bend in one column is at hand, and need not be put together from
many units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.tasks.base import Share, Size
from trainer_image.tasks.tabular.columns import FURTHEST

# What the layers see of each number's waves.
MIXED = 4
FREQUENCY = 0.5


@dataclass(frozen=True)
class TabularSizes:
    """members: k; width and depth: of the hidden layers; embedding: width of a category's embedding; waves: of each
    number, 0 for none."""

    members: Size
    width: Size
    depth: Annotated[int, Field(ge=1, le=64)]
    dropout: Share
    embedding: Size = 8
    waves: Annotated[int, Field(ge=0, le=256)] = 0


class SharedLinear(nn.Module):
    """(rows, k, inputs) → (rows, k, outputs): one weight matrix, per-member input scale, output scale and bias."""

    def __init__(self, members: int, inputs: int, outputs: int, *, random_signs: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        # Only the first layer tells the members apart at the start: TabM found that to be enough, and better.
        signs = torch.randint(0, 2, (members, inputs)) * 2.0 - 1.0
        self.input_scale = nn.Parameter(signs if random_signs else torch.ones(members, inputs))
        self.output_scale = nn.Parameter(torch.ones(members, outputs))
        bound = inputs**-0.5
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x * self.input_scale, self.weight) * self.output_scale + self.bias


def smooth_clip(x: Tensor) -> Tensor:
    """Nearly x within ±1, never beyond ±3: RealMLP's x / sqrt(1 + (x / 3)²)."""
    return x * torch.rsqrt(1 + (x / 3).square())


class Waves(nn.Module):
    """(rows, numbers) → (rows, numbers * MIXED): of each number cosines of learnt frequency and phase, mixed."""

    def __init__(self, numbers: int, waves: int) -> None:
        super().__init__()
        # About half a wave within an interquartile range, some more, some fewer.
        self.frequency = nn.Parameter(torch.randn(numbers, waves) * FREQUENCY)
        self.phase = nn.Parameter((torch.rand(numbers, waves) * 2 - 1) * math.pi)
        self.mix = nn.Parameter((torch.rand(numbers, waves, MIXED) * 2 - 1) * waves**-0.5)
        self.bias = nn.Parameter((torch.rand(numbers, MIXED) * 2 - 1) * waves**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.cos(2 * math.pi * x.unsqueeze(-1) * self.frequency + self.phase)
        return (torch.einsum("bnw,nwm->bnm", waves, self.mix) + self.bias).flatten(1)


class TabularNetwork(nn.Module):
    """dense (rows, dense_width) and codes (rows, embedded columns) → (rows, k, outputs).

    numbers: how many inputs of `dense`, the first ones, are no categories
    """

    def __init__(
        self, dense_width: int, numbers: int, cardinalities: Sequence[int], outputs: int, sizes: TabularSizes
    ) -> None:
        super().__init__()
        self.waves = Waves(numbers, sizes.waves) if sizes.waves and numbers else None
        self.numbers = numbers
        self.embeddings = nn.ModuleList(nn.Embedding(count, sizes.embedding) for count in cardinalities)
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=sizes.embedding**-0.5)  # type: ignore[arg-type]
        inputs = dense_width + sizes.embedding * len(cardinalities)
        self.members = sizes.members
        waves = MIXED * numbers if self.waves else 0
        widths = [inputs + waves] + [sizes.width] * sizes.depth
        self.layers = nn.ModuleList(
            SharedLinear(sizes.members, a, b, random_signs=number == 0)
            for number, (a, b) in enumerate(pairwise(widths))
        )
        self.dropout = nn.Dropout(sizes.dropout)
        # Heads begin at zero: the network starts as its linear part, and the layers learn what that cannot express.
        self.head = nn.Parameter(torch.zeros(sizes.members, sizes.width, outputs))
        self.head_bias = nn.Parameter(torch.zeros(sizes.members, outputs))
        self.skip = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.skip.weight)
        nn.init.zeros_(self.skip.bias)

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        embedded = [*(embed(codes[:, number]) for number, embed in enumerate(self.embeddings))]
        dense = dense.clamp(-FURTHEST, FURTHEST)
        features = torch.cat([dense, *embedded], dim=1)
        clipped = smooth_clip(dense)
        waves = [self.waves(clipped[:, : self.numbers])] if self.waves else []
        x = torch.cat([clipped, *embedded, *waves], dim=1).unsqueeze(1).expand(-1, self.members, -1)
        for layer in self.layers:
            x = self.dropout(functional.silu(layer(x)))
        heads = torch.einsum("bki,kio->bko", x, self.head) + self.head_bias
        linear: Tensor = self.skip(features)
        return heads + linear.unsqueeze(1)
