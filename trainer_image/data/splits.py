"""Which rows train, validate and test: the dataset's own splits, and a deterministic split where it brings none.

`train`, `validation` (also val, valid, dev) and `test` are files (`train.csv`, `train.csv.gz`, `train.parquet`) or
folders at the top of the dataset. A lone table of any name is the training split. Without a validation split 15 % of
the training rows are set aside, without a test split 15 % too: a figure that is reported must come from rows that
took no part in the training.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trainer_image.data import file_kinds
from trainer_image.data.table import TABLE_SUFFIXES
from trainer_image.errors import DatasetInvalid, invalid

HELD_OUT = 0.15
# Above this many rows they are drawn by arithmetic on arrays instead of one by one.
MANY_ROWS = 100_000
NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
_BRING_YOUR_OWN = "validation and test splits of your own"
# Kaggle's example of an answer lies beside its tables.
_NO_DATA = re.compile(r"submission")
Indices = np.ndarray[Any, np.dtype[np.int64]]
T = TypeVar("T")


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


@dataclass(frozen=True)
class Assignment:
    """Row indices of each split, and what was decided on the user's behalf."""

    train: Indices
    validation: Indices
    test: Indices
    notes: tuple[str, ...] = ()

    def divided(self, given: Mapping[str, T], chosen: Callable[[Indices], T]) -> dict[str, T]:
        """Every split: as the dataset gives it, or what is `chosen` of its training split by row indices."""
        held = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            split: given[split] if split in given and split != "train" else chosen(index)
            for split, index in held.items()
        }


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


def assign(
    strata: np.ndarray[Any, Any],
    seed: int,
    *,
    has_validation: bool,
    has_test: bool,
    groups: np.ndarray[Any, Any] | None = None,
    keys: Sequence[str] | None = None,
) -> Assignment:
    """Divides the rows of the training split: `strata` (rows,) integers, `groups` and `keys` (rows,) or None.

    The order in which rows are drawn is a hash of the seed and the row's key (its number where it has none), so the
    same data and seed give the same split on every machine. Rows of one group are never divided; a row whose group is
    None is one by itself. Raises DatasetInvalid for too few of them.
    """
    groups = None if groups is None else _named(groups)
    _check_enough(strata, groups, wanted=(not has_test) + (not has_validation))
    rows = np.arange(len(strata), dtype=np.int64)
    validation = test = np.empty(0, np.int64)
    notes = []
    if not has_test:
        rows, test = _hold_out(rows, strata, f"{seed}/test", groups, keys)
        notes.append(f"No test split: {_part(test, rows)} of the training split were held out as the test.")
    if not has_validation:
        rows, validation = _hold_out(rows, strata, f"{seed}/validation", groups, keys)
        notes.append(f"No validation split: {_part(validation, rows)} of the training split were set aside.")
    return Assignment(rows, validation, test, tuple(notes))


def _part(taken: Indices, kept: Indices) -> str:
    """Whole groups, and few rows, do not divide at exactly HELD_OUT."""
    return f"{len(taken)} rows ({100 * len(taken) / (len(taken) + len(kept)):.0f} %)"


def _check_enough(strata: np.ndarray[Any, Any], groups: np.ndarray[Any, Any] | None, wanted: int) -> None:
    """Two to train on, and one for each of the `wanted` parts that are to be held out."""
    count = len(strata) if groups is None else len(set(groups.tolist()))
    if not wanted or count >= 2 + wanted:
        return
    found = f"{count} row{' is' if count == 1 else 's are'} too few"
    if groups is not None:
        found = f"the rows belong to {count} group{'' if count == 1 else 's'} (data.group), too few"
    raise DatasetInvalid(
        f"Invalid dataset: {found}: a part is held out for validation and test; bring at least {2 + wanted}, or "
        f"{_BRING_YOUR_OWN}"
    )


def group_numbers(groups: Sequence[str | None] | np.ndarray[Any, Any]) -> Indices:
    """The number of each row's group, from 0; a row without one has a number of its own."""
    _, number = np.unique(_named(np.array(groups, dtype=object)), return_inverse=True)
    return number.astype(np.int64)


def _named(groups: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The groups' names as text; a row without a group gets a name that no cell can hold."""
    without = np.flatnonzero(groups == None) if groups.dtype == object else ()  # noqa: E711 (of each element)
    if not len(without):
        return groups.astype(str)
    named = groups.astype(object)
    named[without] = [f"\0{row}" for row in without]
    return named.astype(str)


def _hold_out(
    rows: Indices,
    strata: np.ndarray[Any, Any],
    salt: str,
    groups: np.ndarray[Any, Any] | None,
    keys: Sequence[str] | None,
) -> tuple[Indices, Indices]:
    """Divides `rows` into (kept, held out), both ascending; every stratum of more than one unit gives its share."""
    if len(rows) > MANY_ROWS and groups is None and keys is None:
        return _hold_out_many(rows, strata[rows], salt)
    if groups is not None:
        names, unit = np.unique(groups[rows], return_inverse=True)
        unit_keys = [str(name) for name in names]
    else:
        unit = np.arange(len(rows))
        unit_keys = [keys[r] if keys else str(r) for r in rows]
    size = np.bincount(unit, minlength=len(unit_keys))
    # A group lies in the stratum of its first row: exact stratification of whole groups does not exist.
    first = np.full(len(unit_keys), len(rows))
    np.minimum.at(first, unit, np.arange(len(rows)))
    stratum = strata[rows][first]
    order = sorted(range(len(unit_keys)), key=lambda u: hashlib.blake2b(f"{salt}/{unit_keys[u]}".encode()).digest())
    held = np.zeros(len(unit_keys), bool)
    members: dict[Any, list[int]] = {}
    for u in order:
        members.setdefault(stratum[u], []).append(u)
    owed = 0.0  # what one stratum could not give in whole units, the next one gives
    for value in sorted(members):
        owed += HELD_OUT * float(sum(size[u] for u in members[value]))
        for u in members[value][:-1]:  # one unit of each stratum always stays in training
            if owed < size[u] / 2:
                break
            held[u] = True
            owed -= float(size[u])
    if not held.any():
        if len(unit_keys) < 3:
            raise DatasetInvalid(
                "Invalid dataset: the groups (data.group) are of so different sizes that nothing is left for the "
                f"validation split; {_BRING_YOUR_OWN}"
            )
        held[order[0]] = True
    mask = held[unit]
    return rows[~mask], rows[mask]


def _hold_out_many(rows: Indices, strata: np.ndarray[Any, Any], salt: str) -> tuple[Indices, Indices]:
    """The same for MANY_ROWS and more, without a Python object for each."""
    order = np.lexsort((_drawn(rows, salt), strata))
    _, first, count = np.unique(strata[order], return_index=True, return_counts=True)
    held = np.zeros(len(rows), bool)
    owed = 0.0
    for begin, size in zip(first.tolist(), count.tolist(), strict=True):
        owed += HELD_OUT * size
        given = min(round(owed), size - 1)
        held[order[begin : begin + given]] = True
        owed -= given
    return rows[~held], rows[held]


def _drawn(rows: Indices, salt: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A number for each row that follows from the salt alone (SplitMix64, public domain)."""
    seed = int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=8).digest(), "little")
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
