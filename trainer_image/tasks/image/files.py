"""Reading images: what their headers say, and their pixels.

Images are untrusted: only the named formats are decoded, the pixel limit is checked before the first pixel is, and what
does not decode is an error that names the file.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from trainer_image.data import reading
from trainer_image.data.spill import Scratch
from trainer_image.errors import LimitExceeded, TrainerError, invalid
from trainer_image.limits import Limits
from trainer_image.tasks.image.labels import Sample

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
GREY_MODES = frozenset({"1", "L", "I;16", "I;16B", "I", "LA"})
READERS = 4
# A decoded image takes up to 20 bytes a pixel for a moment: of those with more pixels one is decoded at a time.
LARGE_PIXELS = 16_000_000
_one_at_a_time = threading.Lock()

# Ours is stricter and an error: `_opened` looks at the size that the header claims before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Header:
    """What an image's header says: pixels across and down, and whether it has one channel only."""

    width: int
    height: int
    grey: bool


def _opened(sample: Sample, limits: Limits) -> Image.Image:
    try:
        stored = sample.stored
        image = Image.open(stored.path if stored.member is None else stored.open(), formats=FORMATS)
    except TrainerError:
        raise
    except Exception as error:  # Pillow raises whatever a broken header makes it stumble over
        raise invalid(sample.name, _why(error)) from None
    pixels = image.width * image.height
    if limits.image_pixels and pixels > limits.image_pixels:
        raise LimitExceeded(
            f"{sample.name} has {image.width} x {image.height} pixels; the limit is {limits.image_pixels} pixels"
        )
    return image


def _why(error: Exception) -> str:
    if "cannot identify" in str(error):
        return f"is no image that can be decoded ({', '.join(FORMATS)} are)"
    return f"does not decode ({' '.join(str(error).split())[:120] or type(error).__name__})"


def read_headers(samples: Sequence[Sample], limits: Limits) -> list[Header]:
    """The headers of all images, in order."""

    def header(sample: Sample) -> Header:
        with reading.of(sample.name), _opened(sample, limits) as image:
            return Header(image.width, image.height, image.mode in GREY_MODES)

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(header, samples))


def read_pixels(
    samples: Sequence[Sample],
    size: tuple[int, int],
    channels: int,
    limits: Limits,
    scratch: Scratch,
    *,
    over_white: bool = True,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """All images as uint8 (n, channels, height, width), resized to `size` (height, width) where they differ.

    over_white: what is transparent becomes white; False: whatever colour lies under it
    """
    pixels = scratch.array((len(samples), channels, *size), np.uint8)

    def decode(index: int) -> None:
        with reading.of(samples[index].name), _opened(samples[index], limits) as image:
            try:
                with _one_at_a_time if image.width * image.height > LARGE_PIXELS else nullcontext():
                    pixels[index] = _array(image, size, channels, over_white=over_white)
            except Exception as error:
                raise invalid(samples[index].name, _why(error)) from None

    with ThreadPoolExecutor(READERS) as pool:  # Pillow decodes without holding the interpreter's lock
        list(pool.map(decode, range(len(samples))))
    return pixels


def _array(
    image: Image.Image, size: tuple[int, int], channels: int, *, over_white: bool
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I"):  # 16 bits a pixel: Pillow's own conversion would clip, not scale
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if over_white and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image, np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
