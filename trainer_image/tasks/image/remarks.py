"""What is to be said of a dataset's files where they are to be images with labels: what is none, what is left out, and
what folders may mean.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer_image.data.file_kinds import START_BYTES, unread
from trainer_image.data.named_files import plain
from trainer_image.data.splits import unlike_classes
from trainer_image.errors import DatasetInvalid, invalid
from trainer_image.tasks.image.sources import IMAGE_SUFFIXES, Stored

# What people take for images, or bring instead of them, and what would be read.
CONVERT = "convert them to PNG"
OTHER_SUFFIXES = {
    **dict.fromkeys((".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".svg"), CONVERT),
    **dict.fromkeys((".psd", ".dng", ".cr2", ".nef", ".arw", ".dcm", ".nii", ".tga", ".exr", ".ico"), CONVERT),
    **dict.fromkeys((".npy", ".npz", ".h5", ".hdf5", ".mat", ".pkl", ".pickle"), "write each image as a PNG"),
    **dict.fromkeys((".idx", ".tfrecord", ".mdb", ".parquet", ".arrow", ".bin"), "write each image as a PNG"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "write frames of the videos as PNG"),
    **dict.fromkeys((".rar", ".7z", ".bz2", ".xz", ".gz"), "pack them as .zip or .tar"),
    **dict.fromkeys((".zip", ".tar", ".tgz"), "unpack them: archives within archives are not looked into"),
    **dict.fromkeys((".csv", ".tsv", ".jsonl"), "a table of pixels is for task: tabular, or write each row as a PNG"),
}
# What is behind the name of an image where another one says which of its pixels are what.
_MASK = re.compile(r"(.+)[-_ .](?:mask|masks|seg|segmentation|gt|groundtruth)(?:[-_ ]?\d+)?", re.IGNORECASE)
# Files that often hold the labels, in as many ways as there are programs.
LABEL_SUFFIXES = (".json", ".xml", ".txt", ".yaml", ".yml", ".mat", ".names")
# What is passed over without a word where there are images that are read.
UNREMARKED = {".csv", ".tsv", ".jsonl", ".parquet", ".bin"}


@dataclass(frozen=True)
class Sample:
    """One image: where it is, its label (None: unlabelled), its group (None: of its own), and which row of a table
    above the splits names it."""

    stored: Stored
    label: str | None
    group: str | None = None
    row: tuple[str, int, str] | None = None

    @property
    def name(self) -> str:
        """Its name within the dataset."""
        return self.stored.name


def way_out(files: Sequence[Stored], refused: Sequence[str]) -> str:
    """What is to be said where images have no labels: why tables were not used, and how labels are brought."""
    found = sorted({stored.suffix for stored in files} & set(LABEL_SUFFIXES))
    said = [why.removeprefix("Invalid dataset: ") for why in refused]
    if found and not refused:
        said.append(f"{', '.join(found)} files beside them are not read for labels")
    return "; ".join(
        [*said, "put the images into a folder for each class, or write labels.csv with the columns file_name and label"]
    )


def unknown_files(files: Sequence[Stored]) -> str:
    """What was found where there is no image, and what the first file is, by its bytes."""
    if not files:
        return "found nothing"
    first = files[0]
    with first.open() as file:
        start = file.read(START_BYTES)
    said = unread(Path(first.place[-1]), start)
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        said = f"{first.place[-1]} is an image: give images names that end in .png or .jpg"
    return f"found {', '.join(stored.name for stored in files[:3])}" + (f"; {said}" if said else "")


def missing_images(table: str, rows: int) -> str:
    """A note about so many rows of a table."""
    said = "row names no image that is there and was" if rows == 1 else "rows name no image that is there and were"
    return f"{table}: {rows} {said} left out."


def contradictions(table: str, samples: Sequence[Sample]) -> list[str]:
    """A note where a table gives an image several labels."""
    labels: dict[str, set[str]] = {}
    for sample in samples:
        if sample.label is not None:
            labels.setdefault(sample.name, set()).add(sample.label)
    several = sorted(name for name, said in labels.items() if len(said) > 1)
    if not several:
        return []
    found = " and ".join(f"'{label}'" for label in sorted(labels[several[0]])[:3])
    many = "1 image has" if len(several) == 1 else f"{len(several)} images have"
    return [f"{table}: {many} several labels, as {several[0]} has {found}: each row counts as an image of its own."]


def unread_images(files: Sequence[Stored]) -> list[str]:
    """A warning where there are pictures in formats that are not read; none for other files."""
    found = Counter(stored.suffix for stored in files)
    several = any(found[suffix] for suffix in IMAGE_SUFFIXES)
    unread = sorted(found.keys() & OTHER_SUFFIXES.keys() - (UNREMARKED if several else set()))
    return [
        f"{_files(sum(found[s] for s in suffixes), suffixes)} not read, and left out; {advice}."
        for advice in dict.fromkeys(OTHER_SUFFIXES[suffix] for suffix in unread)
        if (suffixes := [suffix for suffix in unread if OTHER_SUFFIXES[suffix] == advice])
    ]


def _files(count: int, suffixes: Sequence[str]) -> str:
    listed = ", ".join(suffixes)
    if count == 1:
        return f"1 file ({listed}) is in a format that is"
    return f"{count} files ({listed}) are in formats that are"


def check_folders(files: Sequence[Stored], train: Sequence[Sample], refused: Sequence[str]) -> None:
    """Raises DatasetInvalid where folders that say the labels are hardly those of classes."""
    folders = {sample.label or "" for sample in train}
    if not all(len(sample.stored.place) > 1 and sample.label == plain(sample.stored.place[0]) for sample in train):
        return
    if len(folders) == 1:
        only = f"all {len(train)} training images lie in one folder ('{min(folders)}'), which says no class"
        raise invalid(train[0].name, f"{only}; {way_out(files, refused)}")
    if why := unlike_classes(folders):
        raise DatasetInvalid(f"Invalid dataset: {why}")


def below_classes(train: Sequence[Sample]) -> str | None:
    """A note where images lie in several folders within that of a class, which may be the classes that are meant."""
    below: dict[str, set[str]] = {}
    for sample in train:
        place = sample.stored.place
        if len(place) > 2 and sample.label == plain(place[0]):
            below.setdefault(place[0], set()).add(place[1])
    several = [folder for folder, inside in sorted(below.items()) if len(inside) > 1]
    if not several:
        return None
    first, second = sorted(below[several[0]])[:2]
    return (
        f"What lies in {several[0]}/{first} and {several[0]}/{second} is of one class, '{several[0]}': the outermost"
        " folders are the classes."
    )


def masks(train: Sequence[Sample]) -> list[str]:
    """A warning of images that are named as the masks of others beside them."""
    places = {(*sample.stored.place[:-1], Path(sample.stored.place[-1]).stem) for sample in train}
    found = sorted(
        sample.name
        for sample in train
        if (named := _MASK.fullmatch(Path(sample.stored.place[-1]).stem))
        and (*sample.stored.place[:-1], named[1]) in places
    )
    if len(found) < 2:
        return []
    return [
        f"{len(found)} images are named as masks of others, such as {found[0]}: leave them out unless they are to be"
        " learnt from."
    ]


def lost_classes(files: Sequence[Stored], train: Sequence[Sample]) -> str:
    """The folders beside those of the classes in which every picture is in a format that is not read."""
    known = {sample.label for sample in train}
    others = {plain(stored.place[0]) for stored in files if len(stored.place) > 1 and stored.suffix in OTHER_SUFFIXES}
    by_folder = any(plain(sample.stored.place[0]) == sample.label for sample in train)
    return ", ".join(f"'{folder}'" for folder in sorted(others - known)[:5]) if by_folder else ""
