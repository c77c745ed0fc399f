"""How large images are made, how large their network is and how it is trained: by image size and count alone.

Written down before any gate was scored, and never by data set. Muon, a cosine, label smoothing and averaged weights
are the common recipe for small residual networks trained from scratch; epochs are chosen so that a small set is
seen some 60 to 100 thousand times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer_image.tasks.base import Recipe
from trainer_image.tasks.image.files import Header
from trainer_image.tasks.image.network import MOST_SIDE, Augmentation, ImageSizes

LARGEST_SIDE = {"fast": 48, "auto": 96, "best": MOST_SIDE}
SMALLEST_SIDE = 8
SMALL_COUNT = 5_000
# Images, counted each time that they are seen, with which a network gets better than the next smaller one.
SEEN_BY_MEDIUM, SEEN_BY_LARGE = 60_000, 120_000
# Values in the first stage's activations up to which one CPU thread is nearly as fast as two. Two that sleep while they
# wait took 35 ms for 32 images of 48 x 48 (one: 49), 26 of 28 x 28 (42), 9 of 8 x 8 (12); beside three busy processes
# 112 of 48 x 48 (90), and 294 where they do not sleep.
ONE_THREAD_VALUES = 100_000
# Of them, so many at a time at most: for its gradients a step takes 33 times as much as these (measured, of 4 bytes
# each: 9.5 MiB for a row of 96 x 96, 39 of 160 x 160 with preset "best"), 1.2 GiB in all.
MOST_VALUES = 10_000_000

# The learning rate of batches of 32. In few steps a lower one comes further: in 7 epochs of 1,500 textures the small
# network came to a log loss of 1.77 (accuracy 0.359), with 4e-3 to 2.03 (0.215), and where blocks began as the identity
# to 2.16 and 2.11; of 2,000 drawn digits to 0.075 (0.978), with 4e-3 and such blocks to 0.114 (0.968).
RATE = 1.6e-3
# Times it, what weights of convolutions move by a step beside their length (`Muon`). In 20 s of one core AdamW in its
# place came on 2,250 coloured shapes to 0.27 (0.80 with Muon), of 1,800 images with lines to count to 0.86 (0.95), of
# letters in other fonts than those seen to 0.87 (0.96). Rates from 0.02 to 0.05 are as good as each other.
MUON_RATE = 25.0


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


@dataclass(frozen=True)
class Network:
    """One network that may be trained. enough: as `NetworkSize` says."""

    name: str
    sizes: ImageSizes
    recipe: Recipe
    enough: float


def networks(preset: str, size: tuple[int, int, int], count: int) -> list[Network]:
    """The networks to choose from for images of (height, width, channels) and this many of them to train on, the
    smallest first; one, unless the preset is "auto".

    Chosen on drawn letters and shapes: with the same work the smallest is best until it has seen each of 3,000 images
    20 times; large ones that see them twice guess.
    """
    height, width, _ = size
    side = min(height, width)
    stride = 2 if side > 64 else 1
    if preset != "auto":
        first, blocks = {"fast": (16, 1), "best": (48, 2)}[preset]
        return [_network(preset, size, count, first, blocks, stride)]
    halved = 2 if side >= 24 else 1
    offered = [
        _network("small", size, count, 32 if side // halved <= 16 else 16, 1, halved),
        _network("medium", size, count, 32, 2, halved, SEEN_BY_MEDIUM),
        _network("large", size, count, 32, 2, stride, SEEN_BY_LARGE),
    ]
    return offered[:2] if stride == halved else offered


def _network(
    name: str, size: tuple[int, int, int], count: int, first: int, blocks: int, stride: int, enough_seen: int = 0
) -> Network:
    height, width, channels = size
    side = min(height, width)
    halvings = max(1, min(3, round(math.log2(max(2.0, side / stride / 4)))))
    widths = tuple(first * 2**stage for stage in range(halvings + 1))
    sizes = ImageSizes(height, width, channels, widths, blocks, stride, 0.1)
    seen = {"fast": 25_000, "best": 240_000}.get(name, 200_000)
    least, most = {"fast": (8, 20), "best": (40, 120)}.get(name, (20, 60))
    epochs = min(most, max(least, round(seen / max(1, count))))
    # Few rows a step: what a short time lacks is steps. Of 3,000 images, batches of 32 came as far in 11 s as of 128
    # in 25.
    batch = min(256, max(16, min(_power(count / 20), max(32, _power(count / 80)))))
    values = height * width * first // stride**2
    while batch > 16 and batch * values > MOST_VALUES:
        batch //= 2
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch,
        learning_rate=round(RATE * math.sqrt(batch / 32), 5),
        weight_decay=5e-2,
        warmup=0.1,
        patience=max(10, most // 3),
        ema_decay=0.99,
        refit=name != "fast" and count <= SMALL_COUNT,
        small=batch * values <= ONE_THREAD_VALUES,
    )
    return Network(name, sizes, recipe, min(float(epochs), enough_seen / max(1, count)))


def _power(number: float) -> int:
    """The largest power of two that is not above the number."""
    return 1 << max(0, int(number).bit_length() - 1)


def augmentation(network: str, mirror: bool) -> Augmentation:
    """How training images are changed at random. network: its name.

    What is seen a few times is not learned by heart: on drawn letters, shapes and textures the small network came to
    0.945, 0.47 and 0.79 in 8 to 10 epochs of moved images, to 0.941, 0.36 and 0.34 where they were turned, too. Of 434
    coloured shapes of five kinds at any place, turn and size, images that stay as they are were learned by heart in 16
    epochs (loss 0.31, validation at chance); moved ones came to 0.36 in 24, and were still getting better.
    """
    if network in ("fast", "small"):
        return Augmentation(rotation=0, shift=0.08, zoom=0, light=0, mirror=mirror)
    return Augmentation(rotation=10, shift=0.08, zoom=0.1, light=0.1, mirror=mirror)
