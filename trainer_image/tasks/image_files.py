"""Reading image folders: `train/<class>/x.png`, or `metadata.csv` / `metadata.jsonl` with file_name and label.

Images are untrusted: only the named formats are decoded, the pixel limit is checked before the first pixel is, and what
does not decode is an error that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from trainer_image.contract import Limits
from trainer_image.errors import LimitExceeded
from trainer_image.splits import visible
from trainer_image.tables import invalid, read_table

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
GREY_MODES = frozenset({"1", "L", "I;16", "I;16B", "I", "LA"})
READERS = 4

# Ours is stricter and an error: `_opened` looks at the size that the header claims before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Sample:
    """One image: its name within the dataset, its path, its label (None: unlabelled), its group (None: of its own)."""

    name: str
    path: Path
    label: str | None
    group: str | None = None


@dataclass(frozen=True)
class Header:
    """What an image's header says: pixels across and down, and whether it has one channel only."""

    width: int
    height: int
    grey: bool


def list_samples(
    folder: Path, root: Path, limits: Limits, *, label: str = "label", group: str | None = None
) -> list[Sample]:
    """All images of a split in order of their names. Raises DatasetInvalid for metadata that does not fit the files."""
    for name in ("metadata.csv", "metadata.jsonl"):
        if (folder / name).is_file():
            return _from_metadata(folder, folder / name, root, limits, label, group)
    samples = []
    for entry in visible(folder):
        if entry.is_dir():
            samples += [Sample(_name(p, root), p, entry.name) for p in _images(entry)]
        elif entry.suffix.lower() in SUFFIXES:
            samples.append(Sample(_name(entry, root), entry, None))
    return samples


def _images(folder: Path) -> Iterable[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _from_metadata(folder: Path, path: Path, root: Path, limits: Limits, label: str, group: str | None) -> list[Sample]:
    name = _name(path, root)
    records = _jsonl(path, name) if path.suffix == ".jsonl" else _csv(path, name, limits)
    samples = []
    inside = folder.resolve()
    for row, record in records:
        for column in ("file_name", label, *([group] if group else [])):
            if record.get(column) in (None, ""):
                raise invalid(name, f"row {row}: has no '{column}'; file_name and {label} are expected")
        file = folder / str(record["file_name"])
        if not file.resolve().is_relative_to(inside):
            raise invalid(name, f"row {row}: file_name '{record['file_name']}' leaves the folder")
        if not file.is_file():
            raise invalid(name, f"row {row}: there is no file '{record['file_name']}'")
        of = str(record[group]) if group else None
        samples.append(Sample(_name(file, root), file, str(record[label]), of))
    return samples


def _csv(path: Path, name: str, limits: Limits) -> Iterable[tuple[int, dict[str, Any]]]:
    table = read_table([(name, path)], limits)
    columns = {column: cells.to_pylist() for column, cells in table.columns.items()}
    for index in range(table.rows):
        yield index + 2, {column: cells[index] for column, cells in columns.items()}


def _jsonl(path: Path, name: str) -> Iterable[tuple[int, dict[str, Any]]]:
    for row, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise invalid(name, f"row {row}: is no JSON object")
        yield row, record


def _opened(sample: Sample, limits: Limits) -> Image.Image:
    try:
        image = Image.open(sample.path, formats=FORMATS)
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
        with _opened(sample, limits) as image:
            return Header(image.width, image.height, image.mode in GREY_MODES)

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(header, samples))


def read_pixels(
    samples: Sequence[Sample], size: tuple[int, int], channels: int, limits: Limits
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """All images as uint8 (n, channels, height, width), resized to `size` (height, width) where they differ."""
    pixels = np.empty((len(samples), channels, *size), np.uint8)

    def decode(index: int) -> None:
        with _opened(samples[index], limits) as image:
            try:
                pixels[index] = _array(image, size, channels)
            except Exception as error:
                raise invalid(samples[index].name, _why(error)) from None

    with ThreadPoolExecutor(READERS) as pool:  # Pillow decodes without holding the interpreter's lock
        for _ in pool.map(decode, range(len(samples))):
            pass
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
