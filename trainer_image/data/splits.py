"""The splits that a dataset brings: which files train, validate and test.

`train`, `validation` (also val, valid, dev) and `test` are files (`train.csv`, `train.csv.gz`, `train.parquet`) or
folders at the top of the dataset. A lone table of any name is the training split. What is missing is held out of the
training split, by its rows (`rows/division.py`): a figure that is reported must come from rows that took no part in the
training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
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
_WORDS = {**NAMES, "testing": "test"}
# What systems leave in folders, in small letters.
LEFT_BEHIND = frozenset({"__macosx", "@eadir", "@__thumb", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found"})
# The last is a workbook's that is open in Excel.
HIDDEN = (".", "_", "~$")
# Folders that are called so, and numbered, hold parts of a dataset; those that are called so, a picture and its mask.
_PARTS = frozenset({"part", "parts", "fold", "batch", "shard", "chunk", "images", "split", "set"})
_SHARDS = frozenset({"part", "parts", "shard", "chunk", "train", "training"})
_OF_MASKS = frozenset({"images", "image", "imgs", "img", "jpegimages", "masks", "mask", "labels", "annotations", "gt"})
_SHOWN = ("train", "validation", "test")
# Kaggle's example of an answer lies beside its tables.
NO_DATA = re.compile(r"submission")


@dataclass(frozen=True)
class Found:
    """The files of each split's table, in order of their names. guessed: those that only a word in their name says a
    split of; beside: tables that are of none"""

    train: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    guessed: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What is to be said about how they were found."""
        alike_ = len({path.name for path in self.guessed}) < len(self.guessed)
        found = [
            [f"{path.parent.name}/{path.name}" if alike_ else path.name for path in files if path in self.guessed]
            for files in self.splits.values()
        ]
        of_columns = [path.parent.name for path in self.train if "=" in path.parent.name]
        more = [f"The names of folders such as '{name}' were read as columns." for name in of_columns[:1]]
        if self.beside:
            names = ", ".join(path.name for path in self.beside[:5]) + (", …" if len(self.beside) > 5 else "")
            were = "was" if len(self.beside) == 1 else "were"
            more.append(f"{names} {were} not used: files of splits are named for them, like {'/'.join(_SHOWN)}.")
        return more + [
            note for split, names in zip(self.splits, found, strict=True) for note in taken_for(split, names)
        ]

    @property
    def splits(self) -> dict[str, tuple[Path, ...]]:
        """The files of each split that the dataset brings."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: files for split, files in found.items() if files}


def visible(folder: Path) -> list[Path]:
    """What lies in the folder, by name, without hidden entries and what systems and programs leave behind."""
    return sorted(p for p in folder.iterdir() if not (p.name.startswith(HIDDEN) or p.name.lower() in LEFT_BEHIND))


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
    while data.is_dir() and len(found := visible(data)) == 1 and found[0].is_dir() and stem(found[0].name) not in NAMES:
        data = found[0]
    return data


def alike(names: Sequence[str]) -> dict[str, list[str]]:
    """The names of each split, of those that differ in nothing else but numbers: wiki.train.tokens and
    wiki.test.tokens, animals_train and animals_test, train-00000-of-00002 and validation-00000-of-00001. None where no
    name is of the training split, or all are.
    """
    found: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in names:
        words = words_of(name)
        if split := split_by_word(name):
            pattern = tuple("" if word in _WORDS else word for word in words)
            found.setdefault(pattern, {}).setdefault(split, []).append(name)
    several = [splits for splits in found.values() if "train" in splits and len(splits) > 1]
    return several[0] if len(several) == 1 else {}


def split_by_word(name: str) -> str | None:
    """The one split that a word of the name says; None: no word says one, or words say several."""
    said = {_WORDS[word] for word in words_of(name) if word in _WORDS}
    return said.pop() if len(said) == 1 else None


def says_splits(values: Collection[str]) -> bool:
    """Whether a column's values say which split a row is of: the training one and others, and nothing else."""
    said = [_WORDS.get(value.strip().lower()) for value in values]
    return len(said) > 1 and "train" in said and None not in said


def unlike_classes(folders: Collection[str]) -> str | None:
    """Why these folders are hardly those of classes, and what to do; None where they may be."""
    named = ", ".join(f"'{folder}'" for folder in sorted(folders)[:5])
    small = [folder.lower() for folder in folders]
    if len(small) < 2:
        return None
    train, other = (any(name.startswith(begin) for name in small) for begin in ("train", ("test", "val")))
    if len(small) <= 4 and train and other:
        return f"the folders {named} look like splits, not like classes: call them train, validation and test"
    if set(small) <= _OF_MASKS:
        return (
            f"the folders {named} hold pictures and what belongs to each, not classes: segmentation and detection are"
            " no built-in tasks (see docs/bring-a-task.md)"
        )
    words = {tuple(words_of(folder)) for folder in folders}
    if len(words) == 1 and set(words_of(small[0])) & _PARTS:
        return (
            f"the folders {named} look like parts of the dataset, not like classes: put the files into a folder for"
            " each class, or name the column of their table with the labels in data.target"
        )
    return None


def words_of(name: str) -> list[str]:
    """In small letters, without numbers: "train", "labels" of trainLabels_2.csv, and "csv"."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def taken_for(split: str, names: Sequence[str]) -> list[str]:
    """A note about what a word in its name said a split of."""
    if not names:
        return []
    more = f" and {len(names) - 1} more were" if len(names) > 1 else " was"
    return [f"{names[0]}{more} taken for the {split} split."]


def find_tables(data: Path, *, to_predict: bool = False) -> Found:
    """The tables of each split: `train.csv`, a folder `train/` of shards, or one lone table.

    to_predict: rows of one split are wanted, the test where there is one

    Raises DatasetInvalid when there is none, or when two different things claim to be the same split.
    """
    if data.is_file():
        return Found((data,))
    data = top_of(data)
    splits, rest, guessed = by_split(
        data,
        lambda path: [p for p in (sorted(path.rglob("*")) if path.is_dir() else [path]) if is_table(p)],
        lambda path: stem(path.name),
    )
    lone = tuple(path for path in rest if not NO_DATA.search(path.name.lower()))
    if "train" not in splits and (len(lone) == 1 or _one_table(data, lone)):
        splits["train"] = lone
        guessed = lone if len(lone) > 1 else guessed
    elif "train" not in splits and (named := _named_for(lone)):
        splits = named | splits
        guessed = tuple(path for files in named.values() for path in files)
    if to_predict and "test" in splits:
        return Found((), test=splits["test"], guessed=tuple(path for path in guessed if path in splits["test"]))
    if to_predict and "train" in splits:
        return Found(splits["train"])
    if "train" not in splits:
        found = visible(data)
        names = ", ".join(p.name for p in found[:5]) or "nothing"
        hint = next((f"; {said}" for p in found if (said := file_kinds.unread(p))), "")
        if to_predict:
            hint = "; name one of them" if len(lone) > 1 else hint
            raise DatasetInvalid(
                f"Invalid dataset: no table to predict found: expected one table, or test.csv, found {names}{hint}"
            )
        if len(lone) > 1:
            hint = _of_several(lone)
        raise DatasetInvalid(
            f"Invalid dataset: no training table found: expected train.csv, train.csv.gz, train.parquet, train.xlsx or "
            f"a folder train/ with them, found {names}{hint}"
        )
    used = {path for files in splits.values() for path in files}
    return Found(**splits, guessed=guessed, beside=tuple(path for path in lone if path not in used))


def _one_table(data: Path, files: Sequence[Path]) -> bool:
    """Whether these are the parts of a table: all of a folder `sales.parquet`, as Spark and Dask write it, all of
    folders like `city=Bonn`, or files like part-0.csv and part-1.csv, which are called so and differ in numbers alone.
    """
    if len(files) < 2 or is_table_name(data.name) or all("=" in path.parent.name for path in files):
        return len(files) > 1
    words = {tuple(words_of(stem(path.name))) for path in files}
    return len(words) == 1 and bool(set(words.pop()) & _SHARDS)


def _of_several(files: Sequence[Path]) -> str:
    """What to do with files of which none is said to be trained on."""
    words = {word for path in files for word in re.findall(r"[a-z]+", path.name.lower())}
    if {"x", "y"} <= words or {"features", "labels"} <= words:
        return "; bring the columns of a table and what is to be predicted in one file, train.csv"
    return "; call the one to train on train, with its ending, or put the parts of one table into a folder of this name"


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
) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, ...], tuple[Path, ...]]:
    """(the files of each split that something in the folder is named for, all other files, those of the splits that
    only a word in the name says a split of).

    Raises DatasetInvalid when two things claim to be the same split.
    """
    found = {path: files for path in visible(data) if (files := tuple(files_of(path)))}
    splits: dict[str, tuple[Path, ...]] = {}
    for path, files in found.items():
        split = NAMES.get(stem_of(path))
        if split in splits:
            raise invalid(path.name, f"is a second {split} split beside {splits[split][0].name}; keep one of them")
        if split is not None:
            splits[split] = files
    taken = {path for files in splits.values() for path in files}
    guessed: tuple[Path, ...] = ()
    for split, names in alike([path.name for path in found]).items():
        if split not in splits:
            splits[split] = tuple(file for path, files in found.items() if path.name in names for file in files)
            guessed += splits[split]
    taken.update(guessed)
    return splits, tuple(path for files in found.values() for path in files if path not in taken), guessed
