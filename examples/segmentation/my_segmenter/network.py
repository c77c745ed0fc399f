"""A small U-Net (Ronneberger et al. 2015, arXiv 1505.04597)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

# Each level halves the sides of the one above: an image's must be multiples of 2 ** (LEVELS - 1).
LEVELS = 4


class Block(nn.Sequential):
    """Two convolutions: (rows, before, height, width) → (rows, after, height, width)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.GroupNorm(4, after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.GroupNorm(4, after),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """(rows, 3, height, width) from 0 to 1 → logits (rows, classes, height, width)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS)]
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList([Block(3, width), *(Block(above, below) for above, below in pairs)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(below, above, 2, stride=2) for above, below in pairs])
        self.merge = nn.ModuleList([Block(2 * above, above) for above, _ in pairs])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped: list[Tensor] = []
        for block in self.down:
            x = block(functional.max_pool2d(x, 2) if skipped else x)
            skipped.append(x)
        for level in reversed(range(LEVELS - 1)):
            x = self.merge[level](torch.cat([skipped[level], self.up[level](x)], dim=1))
        logits: Tensor = self.head(x)
        return logits
