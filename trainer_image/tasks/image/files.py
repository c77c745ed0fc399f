"""Reading images: `<class>/x.png`, `metadata.csv` / `metadata.jsonl` with file_name and label, or x.png beside x.cls.

Images are untrusted: only the named formats are decoded, the pixel limit is checked before the first pixel is, and what
does not decode is an error that names the file.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from trainer_image.data import reading
from trainer_image.data.jsonl_reader import cell, objects
from trainer_image.data.spill import Scratch
from trainer_image.data.table import read_table
from trainer_image.errors import LimitExceeded, TrainerError, invalid
from trainer_image.limits import Limits
from trainer_image.tasks.image.sources import Stored

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp"})
# What people take for images, and we do not read.
OTHER_SUFFIXES = frozenset({".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef"})
GREY_MODES = frozenset({"1", "L", "I;16", "I;16B", "I", "LA"})
READERS = 4
# A decoded image takes up to 20 bytes a pixel for a moment: of those with more pixels one is decoded at a time.
LARGE_PIXELS = 16_000_000
_one_at_a_time = threading.Lock()
# A label beside an image; what is longer is none.
LABEL_BYTES = 64 * 1024

# Ours is stricter and an error: `_opened` looks at the size that the header claims before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Sample:
    """One image: where it is, its label (None: unlabelled), its group (None: of its own)."""

    stored: Stored
    label: str | None
    group: str | None = None

    @property
    def name(self) -> str:
        """Its name within the dataset."""
        return self.stored.name


@dataclass(frozen=True)
class Header:
    """What an image's header says: pixels across and down, and whether it has one channel only."""

    width: int
    height: int
    grey: bool


def list_samples(
    files: Sequence[Stored], limits: Limits, scratch: Scratch, *, label: str = "label", group: str | None = None
) -> list[Sample]:
    """All images of a split in the order of its files. Raises DatasetInvalid for metadata that does not fit the files.

    A metadata file describes the archive, or the plain files, that it lies among.
    """
    origins: dict[str, dict[tuple[str, ...], Stored]] = {}
    for stored in files:
        origins.setdefault(stored.origin, {})[stored.place] = stored
    samples: list[Sample] = []
    for inside in origins.values():
        given = next((inside[(name,)] for name in ("metadata.csv", "metadata.jsonl") if (name,) in inside), None)
        if given is not None:
            samples += _from_metadata(given, inside, limits, scratch, label, group)
        else:
            images = (stored for stored in inside.values() if stored.suffix in SUFFIXES)
            samples += [Sample(stored, _label(stored, inside, label)) for stored in images]
    return samples if len(origins) == 1 else sorted(samples, key=lambda sample: (sample.stored.place, sample.name))


def unread_images(files: Sequence[Stored]) -> list[str]:
    """A warning where there are pictures in formats that are not read; none for other files."""
    found = Counter(stored.suffix for stored in files)
    unread = sorted(found.keys() & OTHER_SUFFIXES)
    if not unread:
        return []
    count = sum(found[suffix] for suffix in unread)
    return [f"{count} files ({', '.join(unread)}) are in formats that are not read, and left out; convert them to PNG."]


def _label(stored: Stored, inside: Mapping[tuple[str, ...], Stored], label: str) -> str | None:
    """The class folder, or in an archive without folders what the file of the same name with .cls or .json says."""
    if len(stored.place) > 1:
        return stored.place[0]
    stem = Path(stored.place[0]).stem
    if (f"{stem}.cls",) in inside:
        return _small(inside[(f"{stem}.cls",)]).strip() or None
    if (f"{stem}.json",) in inside:
        beside = inside[(f"{stem}.json",)]
        try:
            record = json.loads(_small(beside), parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            raise invalid(beside.name, "is no JSON object") from None
        text = cell(beside.name, 1, label, record.get(label)) if isinstance(record, dict) else None
        if not text:
            raise invalid(beside.name, f"has no '{label}'")
        return text
    return None


def _small(stored: Stored) -> str:
    with stored.open() as file:
        try:
            return file.read(LABEL_BYTES).decode()
        except UnicodeDecodeError:
            raise invalid(stored.name, "is not UTF-8") from None


def _from_metadata(
    given: Stored,
    inside: Mapping[tuple[str, ...], Stored],
    limits: Limits,
    scratch: Scratch,
    label: str,
    group: str | None,
) -> list[Sample]:
    path = given.local(scratch)
    records = objects(given.name, path, limits) if path.suffix == ".jsonl" else _csv(path, given.name, limits)
    columns = ("file_name", label, *([group] if group else []))
    samples = []
    for row, record in records:
        cells = {column: cell(given.name, row, column, record.get(column)) for column in columns}
        for column, text in cells.items():
            if not text:
                raise invalid(given.name, f"row {row}: has no '{column}'; file_name and {label} are expected")
        named = str(cells["file_name"])
        # As Windows writes it; a backslash is in no name of a dataset's file.
        place = tuple(part for part in named.replace("\\", "/").split("/") if part != ".")
        if not place or not place[0] or ".." in place:
            raise invalid(given.name, f"row {row}: file_name '{named}' leaves the folder")
        if place not in inside:
            raise invalid(given.name, f"row {row}: there is no file '{named}'")
        samples.append(Sample(inside[place], cells[label], cells[group] if group else None))
    return samples


def _csv(path: Path, name: str, limits: Limits) -> Iterable[tuple[int, dict[str, Any]]]:
    table = read_table([(name, path)], limits)
    columns = {column: cells.to_pylist() for column, cells in table.columns.items()}
    for index, (_, row) in enumerate(table.locate_all(range(table.rows))):
        yield row, {column: cells[index] for column, cells in columns.items()}


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
    samples: Sequence[Sample], size: tuple[int, int], channels: int, limits: Limits, scratch: Scratch
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """All images as uint8 (n, channels, height, width), resized to `size` (height, width) where they differ."""
    pixels = scratch.array((len(samples), channels, *size), np.uint8)

    def decode(index: int) -> None:
        with reading.of(samples[index].name), _opened(samples[index], limits) as image:
            try:
                with _one_at_a_time if image.width * image.height > LARGE_PIXELS else nullcontext():
                    pixels[index] = _array(image, size, channels)
            except Exception as error:
                raise invalid(samples[index].name, _why(error)) from None

    with ThreadPoolExecutor(READERS) as pool:  # Pillow decodes without holding the interpreter's lock
        list(pool.map(decode, range(len(samples))))
    return pixels


def _array(image: Image.Image, size: tuple[int, int], channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I"):  # 16 bits a pixel: Pillow's own conversion would clip, not scale
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image, np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
