"""Where the images of each split lie: in folders, in tar and zip archives, or both, seen as one tree of files.

An archive in a folder stands for its members there; at the top of the dataset, `train.tar` or `train-0001.tar` stands
for the folder `train`, and any other one for the dataset itself.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from trainer_image.data.archives import SUFFIXES, Member, copied, is_archive, members
from trainer_image.data.spill import Scratch
from trainer_image.data.splits import NAMES
from trainer_image.errors import DatasetInvalid, LimitExceeded, invalid
from trainer_image.limits import Limits

_SHARD = re.compile(rf"({'|'.join(NAMES)})(?:[-_.]?\d+)*(?:-of-\d+)?")


@dataclass(frozen=True)
class Stored:
    """One file, by itself or within an archive.

    name:   for messages, e.g. "train/cat/1.png" or "train/0.tar/cat/1.png"
    place:  the folders below the split's and the file's own name, e.g. ("cat", "1.png")
    origin: the archive's name, "" for a file by itself
    """

    name: str
    place: tuple[str, ...]
    path: Path
    origin: str = ""
    member: Member | None = None

    @property
    def suffix(self) -> str:
        return Path(self.place[-1]).suffix.lower()

    def open(self) -> BinaryIO:
        return self.path.open("rb") if self.member is None else io.BytesIO(self.member.read())

    def local(self, scratch: Scratch) -> Path:
        """A path of its own."""
        return self.path if self.member is None else copied(self.member, scratch)


def find_images(data: Path, limits: Limits, scratch: Scratch) -> dict[str, list[Stored]]:
    """The files of "train", and of "validation" and "test" where there are any, in order of their places.

    The whole dataset is the training split when no folder (or archive) is named for a split. Raises DatasetInvalid.
    """
    files = sorted(_all(data, limits, scratch), key=lambda stored: (stored.place, stored.name))
    if limits.dataset_files and len(files) > limits.dataset_files:
        raise LimitExceeded(f"The dataset holds more than {limits.dataset_files} files (MAX_DATASET_FILES)")
    splits: dict[str, list[Stored]] = {}
    named: dict[str, str] = {}
    for stored in files:
        folder = stored.place[0]
        split = NAMES.get(folder.lower()) if len(stored.place) > 1 else None
        if split is None:
            continue
        if named.setdefault(split, folder) != folder:
            raise invalid(folder, f"is a second {split} split beside {named[split]}; keep one of them")
        splits.setdefault(split, []).append(replace(stored, place=stored.place[1:]))
    if "train" in splits:
        return splits
    if splits:
        raise DatasetInvalid("Invalid dataset: there is no folder train/ beside the other splits")
    return {"train": files}


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
            if not any(segment.startswith(".") or segment == "__MACOSX" for segment in member.name.split("/"))
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
        below[:] = sorted(name for name in below if not name.startswith(hidden))
        for name in names:
            if not name.startswith(hidden):
                yield Path(folder, name), (*parts, name)


def _stem(path: Path) -> str:
    name = path.name.lower()
    return name[: -len(next(suffix for suffix in SUFFIXES if name.endswith(suffix)))]
