"""Where the images of each split lie: in folders, in tar and zip archives, or both, seen as one tree of files.

An archive in a folder stands for its members there; at the top of the dataset, `train.tar` or `train-0001.tar` stands
for the folder `train`, and any other one for the dataset itself.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from trainer_image.data.archives import SUFFIXES, Member, copied, is_archive, members
from trainer_image.data.spill import Scratch
from trainer_image.data.splits import NAMES
from trainer_image.data.table import TABLE_SUFFIXES
from trainer_image.errors import DatasetInvalid, LimitExceeded, invalid
from trainer_image.limits import Limits

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp"})
# What a Mac adds to a zip.
MAC = "__MACOSX"
# What people add to a split's name: training_set, test_images, train-data.
_COLLECTION = re.compile(r"(?:[-_. ]?(?:images?|imgs?|pictures|photos|data|dataset|set|split|folder))?")
_NAMES = {**NAMES, "testing": "test"}
_SPLIT = re.compile(rf"({'|'.join(sorted(_NAMES, key=len, reverse=True))})(?![a-z])")
_SHARD = re.compile(rf"({'|'.join(NAMES)})(?:[-_.]?\d+)*(?:-of-\d+)?")


@dataclass(frozen=True)
class Stored:
    """One file, by itself or within an archive.

    name:   for messages, e.g. "train/cat/1.png" or "train/0.tar/cat/1.png"
    place:  the folders below the split's and the file's own name, e.g. ("cat", "1.png")
    origin: the archive's name, "" for a file by itself
    above:  whether it lies at the dataset's top, above the split's folder
    """

    name: str
    place: tuple[str, ...]
    path: Path
    origin: str = ""
    member: Member | None = None
    above: bool = False

    @property
    def suffix(self) -> str:
        return Path(self.place[-1]).suffix.lower()

    def open(self) -> BinaryIO:
        return self.path.open("rb") if self.member is None else io.BytesIO(self.member.read())

    def local(self, scratch: Scratch) -> Path:
        """A path of its own."""
        return self.path if self.member is None else copied(self.member, scratch)


def find_images(
    data: Path, limits: Limits, scratch: Scratch, notes: list[str] | None = None
) -> dict[str, list[Stored]]:
    """The files of "train", and of "validation" and "test" where there are any, in order of their places.

    The whole dataset is the training split when no folder, archive or table is named for a split. A table at the top is
    among the files of the split that it is named for, of every split where it is named for none. A folder that only
    holds the others is passed through; `notes` gets a sentence for what was decided. Raises DatasetInvalid.
    """
    notes = [] if notes is None else notes
    files = sorted(_all(data, limits, scratch), key=lambda stored: (stored.place, stored.name))
    if limits.dataset_files and len(files) > limits.dataset_files:
        raise LimitExceeded(f"The dataset holds more than {limits.dataset_files} files (MAX_DATASET_FILES)")
    files = _passed_through(files, notes)
    splits: dict[str, list[Stored]] = {}
    named: dict[str, str] = {}
    rest: list[Stored] = []
    for stored in files:
        folder = stored.place[0]
        split = split_of(folder) if len(stored.place) > 1 else None
        if split is None:
            rest.append(stored)
            continue
        if named.setdefault(split, folder) != folder:
            raise invalid(folder, f"is a second {split} split beside {named[split]}; keep one of them")
        splits.setdefault(split, []).append(replace(stored, place=stored.place[1:]))
    splits = {split: _passed_through(inside, notes, named[split]) for split, inside in splits.items()}
    of = {
        replace(stored, above=True): split_of(_stem(Path(stored.place[0]), TABLE_SUFFIXES), within=True)
        for stored in rest
        if len(stored.place) == 1 and is_table(stored)
    }
    images = [stored for stored in rest if not (len(stored.place) == 1 and (splits or is_table(stored)))]
    if splits and "train" not in splits:
        if not any(stored.suffix in IMAGE_SUFFIXES for stored in images):
            raise DatasetInvalid("Invalid dataset: there is no folder train/ beside the other splits")
        notes.append(f"There is no folder train/: what lies beside {', '.join(sorted(named.values()))} is trained on.")
        splits["train"] = images
    elif not splits:
        # train.csv and test.csv beside one folder of images: the tables say which image is whose.
        splits = {split: list(images) for split in {"train", *of.values()} if split}
    for table, split in of.items():
        for name, inside in splits.items():
            if split in (None, name) and table.place not in {stored.place for stored in inside}:
                inside.append(table)
    return splits


def split_of(name: str, *, within: bool = False) -> str | None:
    """The split that a folder or table is named for: train, valid, test_images, training_set; None: for none.

    within: also where more words follow, as in train_labels
    """
    match = _SPLIT.match(name.lower())
    return _NAMES[match[1]] if match and (within or _COLLECTION.fullmatch(name[match.end() :].lower())) else None


def is_table(stored: Stored) -> bool:
    """By its name; a submission's example of a contest is none."""
    name = stored.place[-1].lower()
    return name.endswith(TABLE_SUFFIXES) and "submission" not in name


def _passed_through(files: list[Stored], notes: list[str], of: str | None = None) -> list[Stored]:
    """The files seen from the innermost folder that all images share and that has folders or a table of its own.

    of: the folder of a split; None: the dataset, where a folder that is named for a split is one
    """
    while True:
        content = [stored for stored in files if stored.suffix in IMAGE_SUFFIXES or is_table(stored)]
        folders = {stored.place[0] for stored in content if len(stored.place) > 1}
        if len(folders) != 1 or any(len(stored.place) == 1 for stored in content):
            return files
        [folder] = folders
        if not any(len(stored.place) > 2 or is_table(stored) for stored in content):
            return files
        if of is None and split_of(folder):
            return files
        notes.append(f"{'The dataset' if of is None else f'{of}/'} was read from its only folder '{folder}'.")
        files = [replace(stored, place=stored.place[1:]) for stored in files if stored.place[0] == folder]


def _all(data: Path, limits: Limits, scratch: Scratch) -> Iterator[Stored]:
    for path, parts in [(data, (data.name,))] if data.is_file() else _walk(data):
        name = "/".join(parts)
        if not is_archive(path):
            yield Stored(name, parts, path)
            continue
        folder = parts[:-1]
        shard = _SHARD.fullmatch(_stem(path)) if not folder else None
        if shard:
            folder = (shard[1],)
        inside = [
            (member, tuple(member.name.split("/")))
            for member in members(name, path, limits, scratch)
            if not any(segment.startswith(".") or segment == MAC for segment in member.name.split("/"))
        ]
        # An archive of the folder train made as `tar c train` holds that folder once more.
        if folder and all(place[0] == folder[0] and len(place) > 1 for _, place in inside):
            inside = [(member, place[1:]) for member, place in inside]
        for member, place in inside:
            yield Stored(f"{name}/{member.name}", folder + place, path, name, member)


def _walk(data: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every file that is not hidden; names that begin with _ are passed over at the top and in a split's folder."""
    for folder, below, names in os.walk(data, followlinks=True):
        parts = Path(folder).relative_to(data).parts
        hidden = (".", "_") if len(parts) < 2 else (".",)
        below[:] = sorted(name for name in below if not name.startswith(hidden) and name != MAC)
        for name in names:
            if not name.startswith(hidden):
                yield Path(folder, name), (*parts, name)


def _stem(path: Path, suffixes: Sequence[str] = SUFFIXES) -> str:
    name = path.name.lower()
    return name[: -len(max((suffix for suffix in suffixes if name.endswith(suffix)), key=len))]
