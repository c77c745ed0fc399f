"""From a dataset folder to pairs of an image and its mask, and from these to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer_image.errors import DatasetInvalid, LimitExceeded
from trainer_image.limits import Limits
from trainer_image.tasks.base import TaskSettings

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# Pixels of a mask that belong to no class, as in Pascal VOC and Cityscapes: they are neither trained on nor counted.
VOID = 255
# Of 256, how many images are held out for a split that the dataset does not bring.
HELD_OUT = 38


@dataclass(frozen=True)
class Sample:
    """mask: None where there is none, as of images to predict"""

    image: Path
    mask: Path | None

    @property
    def name(self) -> str:
        return self.image.name


def samples(folder: Path) -> list[Sample]:
    """folder/images/x.jpg with folder/masks/x.png, or images only: a folder of them, or one file."""
    inside = folder / "images" if (folder / "images").is_dir() else folder
    files = [folder] if folder.is_file() else sorted(p for p in inside.iterdir() if p.suffix.lower() in SUFFIXES)
    masks = {path.stem: path for path in sorted((folder / "masks").glob("*.png"))}
    found = {file.stem: Sample(file, masks.get(file.stem)) for file in files}
    if not found:
        raise DatasetInvalid(f"Invalid dataset: {folder.name}: no images, which are files in {', '.join(SUFFIXES)}")
    if len(found) < len(files):
        raise DatasetInvalid(f"Invalid dataset: {inside.name}: two images differ only in what their names end in")
    return list(found.values())


def splits(data: Path) -> dict[str, list[Sample]]:
    """ "train", "validation" and "test", each image with its mask. Raises DatasetInvalid.

    What the dataset does not bring is held out of train by a hash of the image: an image that was held out once is held
    out again, whatever comes or goes beside it.
    """
    if not (data / "train").is_dir():
        raise DatasetInvalid("Invalid dataset: there is no folder train with the folders images and masks")
    found = {name: samples(data / name) for name in ("train", "validation", "test") if (data / name).is_dir()}
    for sample in (sample for split in found.values() for sample in split):
        if sample.mask is None:
            raise DatasetInvalid(f"Invalid dataset: {sample.name}: there is no masks/{sample.image.stem}.png")
    for byte, name in enumerate(("validation", "test")):
        if name not in found:
            held = [sha256(sample.image.read_bytes()).digest()[byte] < HELD_OUT for sample in found["train"]]
            found[name] = [sample for sample, out in zip(found["train"], held, strict=True) if out]
            found["train"] = [sample for sample, out in zip(found["train"], held, strict=True) if not out]
    for name, split in found.items():
        if not split:
            raise DatasetInvalid(f"Invalid dataset: no image is left for {name}; more images are needed")
    return found


def tensors(found: Sequence[Sample], size: int, classes: int, settings: TaskSettings) -> dict[str, Tensor]:
    """All images at one size. Raises DatasetInvalid, LimitExceeded.

    pixels: uint8 (rows, 3, size, size); shape: int32 (rows, 2), height and width of the file; mask, where every image
    has one: uint8 (rows, size, size)
    """
    pixels = settings.scratch.array((len(found), 3, size, size), np.uint8)
    masks = settings.scratch.array((len(found), size, size), np.uint8)
    shape = torch.empty((len(found), 2), dtype=torch.int32)
    for row, sample in enumerate(found):
        image = _opened(sample.image, settings.limits).convert("RGB")
        shape[row] = torch.tensor([image.height, image.width])
        pixels[row] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        if sample.mask is not None:
            mask = _opened(sample.mask, settings.limits)
            if mask.size != image.size or mask.mode not in ("L", "P"):
                raise DatasetInvalid(
                    f"Invalid dataset: masks/{sample.mask.name}: it must be as large as its image, and have 8 bits a"
                    f" pixel, grey or with a palette; it is {mask.width} by {mask.height} of mode {mask.mode}"
                )
            masks[row] = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))
            unknown = np.setdiff1d(np.asarray(mask), [*range(classes), VOID])
            if unknown.size:
                raise DatasetInvalid(
                    f"Invalid dataset: masks/{sample.mask.name}: a pixel is {unknown[0]}; custom.params.classes has"
                    f" {classes} classes, from 0 to {classes - 1}, and {VOID} is none of them"
                )
    made = {"pixels": torch.from_numpy(pixels), "shape": shape}
    labelled = all(sample.mask is not None for sample in found)
    return made | ({"mask": torch.from_numpy(masks)} if labelled else {})


def _opened(path: Path, limits: Limits) -> Image.Image:
    """The decoded image."""
    try:
        with Image.open(path) as image:
            if limits.image_pixels and image.width * image.height > limits.image_pixels:
                raise LimitExceeded(f"{path.name} has more than {limits.image_pixels} pixels")
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetInvalid(f"Invalid dataset: {path.name}: it cannot be read as an image: {error}") from None
