"""What an image is described by where no network has learned it: its pixels, the directions of its edges, its patches.

Each is a module without anything to train by gradient: float (rows, channels, height, width) in 0..255 → (rows,
features). What `Patches` learns from images lies in buffers, so that its tensors say all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 16
BINS, CELL, MOST_CELLS = 9, 4, 8
FILTERS, PATCH, PATCH_SIDE, PLACES, POOLED = 256, 6, 48, 26, 3
DRAWN, THRESHOLD = 20_000, 0.25
Look = Callable[[], None]


class Pixels(nn.Module):
    """The image itself, shrunk to SIDE pixels a side where it is larger."""

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = (min(SIDE, side) for side in pixels.shape[2:])
        return functional.adaptive_avg_pool2d(pixels, (height, width)).flatten(1)


class Gradients(nn.Module):
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): BINS directions without sign in a grid of cells,
    scaled within blocks of 2 x 2. Of several channels the one with the steepest edge counts at each pixel."""

    def forward(self, pixels: Tensor) -> Tensor:
        across = functional.pad(pixels, (1, 1, 0, 0), mode="replicate")
        down = functional.pad(pixels, (0, 0, 1, 1), mode="replicate")
        across, down = across[..., 2:] - across[..., :-2], down[..., 2:, :] - down[..., :-2, :]
        steepness, channel = torch.hypot(across, down).max(1, keepdim=True)
        across, down = across.gather(1, channel), down.gather(1, channel)
        direction = torch.remainder(torch.atan2(down, across), math.pi) * (BINS / math.pi)
        down_cells, across_cells = (min(MOST_CELLS, max(2, side // CELL)) for side in pixels.shape[2:])
        bins = []
        for number in range(BINS):  # one at a time: nine images at once would be memory's largest use
            apart = (direction - number).abs()
            share = (1 - torch.minimum(apart, BINS - apart)).clamp(min=0)
            bins.append(functional.adaptive_avg_pool2d(share * steepness, (down_cells, across_cells)))
        cells = torch.cat(bins, 1)
        blocks = torch.cat([cells[:, :, :-1, :-1], cells[:, :, 1:, :-1], cells[:, :, :-1, 1:], cells[:, :, 1:, 1:]], 1)
        blocks = blocks / (blocks.norm(dim=1, keepdim=True) + 5)
        blocks = blocks.clamp(max=0.2)
        scaled: Tensor = blocks / (blocks.norm(dim=1, keepdim=True) + 0.1)
        return scaled.flatten(1)


class Patches(nn.Module):
    """How much of each of FILTERS patches there is in nine parts of the image, and of its opposite.

    The patches are drawn from training images, their contrast made equal and whitened (Coates and Ng, "Learning
    Feature Representations with K-means", 2012, where drawn patches do nearly as well as learned ones).
    """

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        shrink = min(1.0, PATCH_SIDE / max(height, width))
        self._size = (max(2, round(height * shrink)), max(2, round(width * shrink)))
        self._patch = min(PATCH, *(max(1, side // 2) for side in self._size))
        self._stride = max(1, -(-(max(self._size) - self._patch) // PLACES))
        self.filters: Tensor
        self.offsets: Tensor
        self.least: Tensor
        self.register_buffer("filters", torch.zeros(FILTERS, channels, self._patch, self._patch))
        self.register_buffer("offsets", torch.zeros(FILTERS))
        self.register_buffer("least", torch.ones(()))

    def learn(self, pixels: Tensor, generator: torch.Generator, look: Look = lambda: None) -> None:
        """pixels: uint8 (rows, channels, height, width), some thousand training images at most; look: is called now and
        then"""
        parts = []
        for part in torch.split(pixels, 128):
            look()
            parts.append(self._shrunk(part.float()))
        shrunk = torch.cat(parts)
        drawn = self._drawn(shrunk, DRAWN, generator)
        drawn = drawn - drawn.mean(1, keepdim=True)
        contrast = drawn.norm(dim=1, keepdim=True)
        self.least.fill_(float(contrast.mean()) * 0.1 + 1e-3)
        drawn = drawn / (contrast + self.least)
        middle = drawn.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(drawn.T).double())
        values = values.clamp(min=0)
        floor = 1e-3 * values.max() + 1e-5
        whitening = ((vectors / torch.sqrt(values + floor)) @ vectors.T).float()
        # Of the half with more contrast: a flat patch is like every other flat one.
        clear = contrast[:, 0].argsort(descending=True, stable=True)[: len(drawn) // 2]
        chosen = clear[torch.randperm(len(clear), generator=generator)[:FILTERS]]
        white = (drawn[chosen] - middle) @ whitening
        filters = white / white.norm(dim=1, keepdim=True).clamp(min=1e-6) @ whitening.T
        self.offsets.copy_(-(filters @ middle))
        self.filters.copy_((filters - filters.mean(1, keepdim=True)).view_as(self.filters))

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = self._shrunk(pixels)
        ones = torch.ones_like(self.filters[:1])
        total, squares = (functional.conv2d(p, ones, stride=self._stride) for p in (pixels, pixels.square()))
        contrast = (squares - total.square() / ones.numel()).clamp(min=0).sqrt() + self.least
        like = functional.conv2d(pixels, self.filters, stride=self._stride)
        like = like.div_(contrast).add_(self.offsets.view(1, -1, 1, 1))
        unlike = (-like).sub_(THRESHOLD).clamp_(min=0)
        like = like.sub_(THRESHOLD).clamp_(min=0)
        return torch.cat([functional.adaptive_avg_pool2d(part, POOLED) for part in (like, unlike)], 1).flatten(1)

    def _shrunk(self, pixels: Tensor) -> Tensor:
        if pixels.shape[2:] == self._size:
            return pixels
        return functional.interpolate(pixels, self._size, mode="area")

    def _drawn(self, pixels: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """(count, features of one patch), from anywhere in any of the images."""
        rows, channels, height, width = pixels.shape
        size = torch.arange(self._patch)

        def random(below: int) -> Tensor:
            return torch.randint(below, (count,), generator=generator)

        row, top, left = random(rows), random(height - self._patch + 1), random(width - self._patch + 1)
        row, channel = row[:, None, None, None], torch.arange(channels)[None, :, None, None]
        down, across = (top[:, None] + size)[:, None, :, None], (left[:, None] + size)[:, None, None, :]
        return pixels[row, channel, down, across].flatten(1)
