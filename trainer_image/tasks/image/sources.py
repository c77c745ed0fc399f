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
from trainer_image.data.splits import LEFT_BEHIND, NAMES, alike, split_by_word, taken_for
from trainer_image.data.table import TABLE_SUFFIXES
from trainer_image.errors import DatasetInvalid, LimitExceeded, invalid
from trainer_image.limits import Limits

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp"})
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
    files = sorted(_all(data, limits, scratch, notes), key=lambda stored: (stored.place, stored.name))
    if limits.dataset_files and len(files) > limits.dataset_files:
        raise LimitExceeded(f"The dataset holds more than {limits.dataset_files} files (MAX_DATASET_FILES)")
    files = _splits_outside(_passed_through(files, notes), notes)
    guessed = _guessed({stored.place[0] for stored in files if len(stored.place) > 1}, notes)
    splits: dict[str, list[Stored]] = {}
    named: dict[str, str] = {}
    rest: list[Stored] = []
    for stored in files:
        folder = stored.place[0]
        split = (split_of(folder) or guessed.get(folder)) if len(stored.place) > 1 else None
        if split is None:
            rest.append(stored)
            continue
        if named.setdefault(split, folder) != folder:
            raise invalid(folder, f"is a second {split} split beside {named[split]}; keep one of them")
        splits.setdefault(split, []).append(replace(stored, place=stored.place[1:]))
    splits = {split: _passed_through(inside, notes, named[split]) for split, inside in splits.items()}
    of = {
        replace(stored, above=True): split_by_word(stored.place[0])
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


def split_of(folder: str) -> str | None:
    """The split that a folder is named for: train, valid, test_images, training_set; None: for none."""
    match = _SPLIT.match(folder.lower())
    return _NAMES[match[1]] if match and _COLLECTION.fullmatch(folder[match.end() :].lower()) else None


def _guessed(names: set[str], notes: list[str]) -> dict[str, str]:
    """The split of each folder whose name only has a word for one: animals_train beside animals_test."""
    found = {split: names for split, names in alike(sorted(names)).items() if not any(map(split_of, names))}
    if any(len(names) > 1 for names in found.values()):
        return {}
    for split, of in found.items():
        notes += taken_for(split, of)
    return {name: split for split, of in found.items() for name in of}


def _splits_outside(files: list[Stored], notes: list[str]) -> list[Stored]:
    """Folders of splits within those of classes, cat/train and cat/test, as if it were the other way round."""
    images = [stored for stored in files if stored.suffix in IMAGE_SUFFIXES]
    if not images or any(len(stored.place) < 3 or not split_of(stored.place[1]) for stored in images):
        return files
    if len({stored.place[0] for stored in images}) < 2 or any(split_of(stored.place[0]) for stored in images):
        return files
    notes.append("The folders of the splits lie in those of the classes.")
    return [
        replace(stored, place=(stored.place[1], stored.place[0], *stored.place[2:]))
        if len(stored.place) > 2
        else stored
        for stored in files
    ]


def is_table(stored: Stored) -> bool:
    """By its name; a submission's example of a contest is none."""
    name = stored.place[-1].lower()
    return name.endswith(TABLE_SUFFIXES) and "submission" not in name


def _passed_through(files: list[Stored], notes: list[str], of: str | None = None) -> list[Stored]:
    """The files seen from the innermost folder that all images share and that has folders or a table of its own.

    of: the folder of a split; None: the dataset, where a folder that is named for a split is one
    """
    # Tables above folders of splits say what is in them: ILSVRC/train and LOC_val_solution.csv.
    split_below = of is None and any(split_of(folder) == "train" for stored in files for folder in stored.place[1:-1])
    while True:
        content = [
            stored
            for stored in files
            if stored.suffix in IMAGE_SUFFIXES or (is_table(stored) and not (len(stored.place) == 1 and split_below))
        ]
        folders = {stored.place[0] for stored in content if len(stored.place) > 1}
        if len(folders) != 1 or any(len(stored.place) == 1 for stored in content):
            return files
        [folder] = folders
        if not any(len(stored.place) > 2 or is_table(stored) for stored in content):
            return files
        if of is None and split_of(folder):
            return files
        notes.append(f"{'The dataset' if of is None else f'{of}/'} was read from its only folder '{folder}'.")
        inside = [replace(stored, place=stored.place[1:]) for stored in files if stored.place[0] == folder]
        files = [stored for stored in files if split_below and len(stored.place) == 1 and is_table(stored)] + inside


def _all(data: Path, limits: Limits, scratch: Scratch, notes: list[str]) -> Iterator[Stored]:
    walked = [(data, (data.name,))] if data.is_file() else list(_walk(data))
    archives = sorted(_stem(path) for path, parts in walked if len(parts) == 1 and is_archive(path))
    shards = {} if any(map(_SHARD.fullmatch, archives)) else alike(archives)
    notes += [note for split, names in shards.items() for note in taken_for(split, names)]
    guessed = {name: split for split, names in shards.items() for name in names}
    for path, parts in walked:
        name = "/".join(parts)
        if not is_archive(path):
            yield Stored(name, parts, path)
            continue
        folder = parts[:-1]
        shard = _SHARD.fullmatch(_stem(path)) if not folder else None
        if shard:
            folder = (shard[1],)
        elif not folder and _stem(path) in guessed:
            folder = (guessed[_stem(path)],)
        inside = [
            (member, tuple(member.name.split("/")))
            for member in members(name, path, limits, scratch)
            if not any(segment.startswith(".") or segment.lower() in LEFT_BEHIND for segment in member.name.split("/"))
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
        below[:] = sorted(
            name
            for name in below
            if not (name.startswith(hidden) or name.lower() in LEFT_BEHIND or _leads_back(Path(folder, name)))
        )
        for name in names:
            if not (name.startswith(hidden) or name.lower() in LEFT_BEHIND):
                yield Path(folder, name), (*parts, name)


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in, whose files would come again and again."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _stem(path: Path, suffixes: Sequence[str] = SUFFIXES) -> str:
    name = path.name.lower()
    return name[: -len(max((suffix for suffix in suffixes if name.endswith(suffix)), key=len))]
