"""The network for images, a small residual network scaled by the image's size, and the augmentation.

Basic blocks (He et al., arXiv 1512.03385) without a pooling stem: in small images every pixel counts. Stages halve the
image until about four pixels a side are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.tasks.base import Share, Size

# Pixels of an image's side, and places that the stem leaves of it: presets come to this, and so does the memory that a
# model takes to be applied.
MOST_SIDE = 160
MOST_PLACES = MOST_SIDE * 64


@dataclass(frozen=True)
class ImageSizes:
    """height, width: pixels of the input, which no tensor of the network shows; widths: channels of each stage; blocks:
    in each; stride: the stem's."""

    height: Annotated[int, Field(ge=1, le=MOST_SIDE)]
    width: Annotated[int, Field(ge=1, le=MOST_SIDE)]
    channels: int
    widths: Annotated[tuple[Size, ...], Field(min_length=1, max_length=16)]
    blocks: Annotated[int, Field(ge=1, le=64)]
    stride: Annotated[int, Field(ge=1, le=8)]
    dropout: Share

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError("images have one channel or three")
        if self.height * self.width > MOST_PLACES * self.stride**2:
            raise ValueError(f"{self.height} x {self.width} pixels want a larger stride than {self.stride}")


@dataclass(frozen=True)
class Scaling:
    """Mean and spread of each channel over the training images: what pixels are scaled by.

    over_white: what is transparent was read as white, as it is seen on paper; models of before have whatever colour lay
        under it, often one black for figure and ground
    bits: that the values of images stored with 16 bits have
    """

    mean: tuple[float, ...]
    spread: tuple[Annotated[float, Field(gt=0)], ...]
    over_white: bool = False
    bits: Annotated[int, Field(ge=8, le=16)] = 16


class Block(nn.Module):
    """Two 3 x 3 convolutions around which the input is led, through a 1 x 1 one where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return functional.relu(y + (x if self.around is None else self.around(x)))


class ImageNetwork(nn.Module):
    """float (rows, channels, height, width) in 0..255 → logits (rows, classes)."""

    def __init__(self, sizes: ImageSizes, classes: int, mean: Sequence[float], spread: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(spread).view(1, -1, 1, 1), persistent=False)
        first = sizes.widths[0]
        self.stem = nn.Conv2d(sizes.channels, first, 3, sizes.stride, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(first)
        blocks: list[nn.Module] = []
        inputs = first
        for stage, width in enumerate(sizes.widths):
            for number in range(sizes.blocks):
                blocks.append(Block(inputs, width, 2 if stage and not number else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(sizes.dropout)
        self.head = nn.Linear(inputs, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels - self.mean) / self.spread
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.blocks(functional.relu(self.stem_norm(self.stem(x))))
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training batch: rotation in degrees, shift and zoom as shares, brightness and contrast."""

    rotation: float
    shift: float
    zoom: float
    light: float
    mirror: bool

    def __call__(self, pixels: Tensor) -> Tensor:
        """float (rows, c, h, w) → the same shape; one affine resampling on the batch's device for all rows at once."""
        rows, device = len(pixels), pixels.device

        def spread(scale: float) -> Tensor:
            return (torch.rand(rows, device=device) * 2 - 1) * scale

        angle, zoom = spread(math.radians(self.rotation)), 1 + spread(self.zoom)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        flip = torch.where(torch.rand(rows, device=device) < 0.5, -1.0, 1.0) if self.mirror else torch.ones_like(cos)
        # By whole pixels: between them an image is blurred, and of 2,400 images with lines to count a network came to
        # 0.45 of such ones, to 0.77 of the others, in the same time.
        across, down = (torch.round(spread(self.shift) * side) / side for side in (pixels.shape[3], pixels.shape[2]))
        # A shift by a share of the side is twice that in grid_sample's coordinates, which run from -1 to 1.
        top = torch.stack([cos * flip, -sin, 2 * across], 1)
        bottom = torch.stack([sin * flip, cos, 2 * down], 1)
        grid = functional.affine_grid(torch.stack([top, bottom], 1), list(pixels.shape), align_corners=False)
        pixels = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        if self.light:
            shape = (rows, 1, 1, 1)
            middle = pixels.mean((1, 2, 3), keepdim=True)
            contrast, brightness = 1 + spread(self.light).view(shape), 255 * spread(self.light / 2).view(shape)
            pixels = (pixels - middle) * contrast + middle + brightness
        return pixels
