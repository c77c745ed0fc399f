"""How large images are made, how large their network is and how it is trained: by image size and count alone.

Written down before any gate was scored, and never by data set. AdamW with a cosine, label smoothing 0.05 and averaged
weights are the common recipe for small residual networks trained from scratch; epochs are chosen so that a small set is
seen some 60 to 100 thousand times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer_image.tasks.base import Recipe
from trainer_image.tasks.image.files import Header
from trainer_image.tasks.image.network import MOST_SIDE, Augmentation, ImageSizes

LARGEST_SIDE = {"fast": 48, "auto": 96, "best": MOST_SIDE}
SMALLEST_SIDE = 8
SMALL_COUNT = 5_000
# Values in the first stage's activations up to which one CPU thread is as fast as two, and far faster where
# others want the CPU too: measured, 4.1 s against 16.6 s beside three busy processes, 3.7 s alone.
ONE_THREAD_VALUES = 500_000


def input_size(preset: str, headers: Sequence[Header]) -> tuple[int, int, int]:
    """(height, width, channels) of the network's input: the images' own when all agree and it is not too large, else
    a square of their median side."""
    shapes = {(h.height, h.width) for h in headers}
    channels = 1 if all(h.grey for h in headers) else 3
    largest = LARGEST_SIDE[preset]
    if len(shapes) == 1:
        height, width = next(iter(shapes))
        shrink = min(1.0, largest / max(height, width))
        return max(SMALLEST_SIDE, round(height * shrink)), max(SMALLEST_SIDE, round(width * shrink)), channels
    sides = sorted(math.sqrt(h.height * h.width) for h in headers)
    side = min(largest, max(SMALLEST_SIDE, 8 * round(sides[len(sides) // 2] / 8)))
    return side, side, channels


def preset(name: str, size: tuple[int, int, int], count: int) -> tuple[ImageSizes, Recipe, Augmentation]:
    """Network, recipe and augmentation for images of (height, width, channels) and this many of them to train on."""
    height, width, channels = size
    side = min(height, width)
    stride = 2 if side > 64 else 1
    halvings = max(1, min(3, round(math.log2(max(2.0, side / stride / 4)))))
    first = {"fast": 16, "auto": 32, "best": 48}[name]
    widths = tuple(first * 2**stage for stage in range(halvings + 1))
    sizes = ImageSizes(height, width, channels, widths, 1 if name == "fast" else 2, stride, 0.1)
    seen = {"fast": 25_000, "auto": 80_000, "best": 160_000}[name]
    least, most = {"fast": (8, 20), "auto": (20, 60), "best": (40, 120)}[name]
    batch = min(256, max(16, 1 << max(0, (count // 20).bit_length() - 1)))
    recipe = Recipe(
        epochs=min(most, max(least, round(seen / max(1, count)))),
        batch_size=batch,
        learning_rate=4e-3,
        weight_decay=5e-2,
        warmup=0.1,
        patience=max(10, most // 3),
        ema_decay=0.99,
        refit=name != "fast" and count <= SMALL_COUNT,
        small=batch * height * width * first // stride**2 <= ONE_THREAD_VALUES,
    )
    # Mirrored letters and digits are other signs; photographs have no handedness, and are the ones with colour.
    augmentation = Augmentation(rotation=10, shift=0.08, zoom=0.1, light=0.1, mirror=channels == 3)
    return sizes, recipe, augmentation
