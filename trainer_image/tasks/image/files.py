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
from trainer_image.data.file_kinds import START_BYTES, by_start
from trainer_image.data.rows.hashes import Hashes, of_bytes
from trainer_image.data.spill import Scratch
from trainer_image.errors import DatasetInvalid, LimitExceeded, TrainerError, invalid
from trainer_image.limits import Limits
from trainer_image.tasks.image.remarks import Sample

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# Of 16 bits a pixel. Pillow's own conversion to 8 would clip, not scale.
DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
GREY_MODES = frozenset({"1", "L", "LA"}) | DEEP_MODES
# Images that are looked at for how many of their bits say anything, evenly spaced.
LOOKED_AT = 200
READERS = 4
# A decoded image takes up to 20 bytes a pixel for a moment: of those with more pixels one is decoded at a time.
LARGE_PIXELS = 16_000_000
_one_at_a_time = threading.Lock()

# Ours is stricter and an error: `_opened` looks at the size that the header claims before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Header:
    """What an image's header says: pixels across and down, whether it has one channel only, and whether of 16 bits."""

    width: int
    height: int
    grey: bool
    deep: bool = False


def _opened(sample: Sample, limits: Limits) -> Image.Image:
    try:
        stored = sample.stored
        image = Image.open(stored.path if stored.member is None else stored.open(), formats=FORMATS)
    except TrainerError:
        raise
    except Exception as error:  # Pillow raises whatever a broken header makes it stumble over
        raise invalid(sample.name, _why(error) + _instead(sample)) from None
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


def _instead(sample: Sample) -> str:
    """ ": it is a web page", where the first bytes tell."""
    with sample.stored.open() as file:
        start = file.read(START_BYTES)
    if not start:
        return ": it is empty"
    kind = by_start(start)
    return f": it is {kind[0]}" if kind and kind[0] not in ("a PNG image", "a JPEG image", "a GIF image") else ""


def read_headers(samples: Sequence[Sample], limits: Limits) -> list[Header]:
    """The headers of all images, in order."""

    def header(sample: Sample) -> Header:
        with reading.of(sample.name), _opened(sample, limits) as image:
            return Header(image.width, image.height, image.mode in GREY_MODES, image.mode in DEEP_MODES)

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(header, samples))


def bits_used(samples: Sequence[Sample], headers: Sequence[Header], limits: Limits) -> int:
    """How many bits the values of those images have that are stored with 16: cameras and scanners often write 10 or 12,
    and as 16 these would be black. 16 where there are none."""
    deep = [sample for sample, header in zip(samples, headers, strict=True) if header.deep]
    most = 0
    for sample in deep[:: -(-len(deep) // LOOKED_AT) or 1]:
        with reading.of(sample.name), _opened(sample, limits) as image:
            try:
                most = max(most, int(np.asarray(image).max()))
            except Exception as error:
                raise invalid(sample.name, _why(error)) from None
    return min(16, max(8, most.bit_length())) if most else 16


def read_hashes(samples: Sequence[Sample]) -> Hashes:
    """Of the bytes of each image's file, as it is stored."""

    def hashed(sample: Sample) -> int:
        with sample.stored.open() as file:
            return int(of_bytes([file.read()])[0])

    with ThreadPoolExecutor(READERS) as pool:
        return np.fromiter(pool.map(hashed, samples), np.uint64)


def read_pixels(
    samples: Sequence[Sample],
    size: tuple[int, int],
    channels: int,
    limits: Limits,
    scratch: Scratch,
    *,
    over_white: bool = True,
    bits: int = 16,
    unread: dict[int, DatasetInvalid] | None = None,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """All images as uint8 (n, channels, height, width), resized to `size` (height, width) where they differ.

    over_white: what is transparent becomes white; False: whatever colour lies under it
    bits: that the values of images of 16 bits have
    unread: gets what does not decode, by its place; None: that is raised
    """
    pixels = scratch.array((len(samples), channels, *size), np.uint8)

    def decode(index: int) -> None:
        name = samples[index].name
        try:
            with reading.of(name), _opened(samples[index], limits) as image:
                try:
                    with _one_at_a_time if image.width * image.height > LARGE_PIXELS else nullcontext():
                        pixels[index] = _array(image, size, channels, bits, over_white=over_white)
                except Exception as error:
                    raise invalid(name, _why(error)) from None
        except DatasetInvalid as error:
            if unread is None:
                raise
            unread[index] = error

    with ThreadPoolExecutor(READERS) as pool:  # Pillow decodes without holding the interpreter's lock
        list(pool.map(decode, range(len(samples))))
    return pixels


def _array(
    image: Image.Image, size: tuple[int, int], channels: int, bits: int, *, over_white: bool
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES:
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> (bits - 8)).clip(0, 255).astype(np.uint8))
    if over_white and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image, np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
