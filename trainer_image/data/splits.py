"""The splits that a dataset brings: which files train, validate and test.

`train`, `validation` (also val, valid, dev) and `test` are files (`train.csv`, `train.csv.gz`, `train.parquet`) or
folders at the top of the dataset. A lone table of any name is the training split. What is missing is held out of the
training split, by its rows (`rows/division.py`): a figure that is reported must come from rows that took no part in the
training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer_image.data import file_kinds
from trainer_image.data.table import TABLE_SUFFIXES
from trainer_image.errors import DatasetInvalid, invalid

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
# Kaggle's example of an answer lies beside its tables.
_NO_DATA = re.compile(r"submission")


@dataclass(frozen=True)
class Found:
    """The files of each split's table, in order of their names. guessed: those that only a word in their name says a
    split of"""

    train: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    guessed: tuple[Path, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What is to be said about how they were found."""
        found = [(split, path) for split, files in self.splits.items() for path in files if path in self.guessed]
        return [f"{path.name} was taken for the {split} split." for split, path in found]

    @property
    def splits(self) -> dict[str, tuple[Path, ...]]:
        """The files of each split that the dataset brings."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: files for split, files in found.items() if files}


def visible(folder: Path) -> list[Path]:
    """What lies in the folder, by name, without hidden entries."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith((".", "_")))


def is_table(path: Path) -> bool:
    return path.is_file() and is_table_name(path.name)


def is_table_name(name: str) -> bool:
    return name.lower().endswith(TABLE_SUFFIXES)


def stem(name: str) -> str:
    """The file's name in small letters, without what says that it is a table."""
    name = name.lower()
    for suffix in sorted(TABLE_SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def top_of(data: Path) -> Path:
    """The folder that holds the dataset: of one folder in another, and nothing else, the inner one."""
    while (
        data.is_dir() and len(found := visible(data)) == 1 and found[0].is_dir() and found[0].name.lower() not in NAMES
    ):
        data = found[0]
    return data


def find_tables(data: Path) -> Found:
    """The tables of each split: `train.csv`, a folder `train/` of shards, or one lone table.

    Raises DatasetInvalid when there is none, or when two different things claim to be the same split.
    """
    if data.is_file():
        return Found((data,))
    data = top_of(data)
    splits, rest = by_split(
        data,
        lambda path: [p for p in (sorted(path.rglob("*")) if path.is_dir() else [path]) if is_table(p)],
        lambda path: stem(path.name),
    )
    lone = tuple(path for path in rest if not _NO_DATA.search(path.name.lower()))
    guessed: tuple[Path, ...] = ()
    if "train" not in splits and len(lone) == 1:
        splits["train"] = lone
    elif "train" not in splits and (named := _named_for(lone)):
        splits = named | splits
        guessed = tuple(path for files in named.values() for path in files)
    if "train" not in splits:
        found = visible(data)
        names = ", ".join(p.name for p in found[:5]) or "nothing"
        hint = next((f"; {said}" for p in found if (said := file_kinds.unread(p))), "")
        raise DatasetInvalid(
            f"Invalid dataset: no training table found: expected train.csv, train.csv.gz, train.parquet, train.xlsx or "
            f"a folder train/ with them, found {names}{hint}"
        )
    return Found(**splits, guessed=guessed)


def _named_for(files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """The splits of files like titanic_train.csv and titanic-test.csv; none where two are of one."""
    found: dict[str, list[Path]] = {}
    for path in files:
        words = re.split(r"[-_. ]+", stem(path.name))
        for split in {NAMES[word] for word in words if word in NAMES}:
            found.setdefault(split, []).append(path)
    alone = {split: tuple(paths) for split, paths in found.items() if len(paths) == 1}
    return alone if "train" in alone and len(alone) == len(found) else {}


def by_split(
    data: Path, files_of: Callable[[Path], Sequence[Path]], stem_of: Callable[[Path], str]
) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, ...]]:
    """(the files of each split that something in the folder is named for, all other files).

    Raises DatasetInvalid when two things claim to be the same split.
    """
    splits: dict[str, tuple[Path, ...]] = {}
    rest: list[Path] = []
    for path in visible(data):
        files = files_of(path)
        split = NAMES.get(stem_of(path))
        if split is None:
            rest += files
        elif files:
            if split in splits:
                raise invalid(path.name, f"is a second {split} split beside {splits[split][0].name}; keep one of them")
            splits[split] = tuple(files)
    return splits, tuple(rest)
