"""Which rows train, validate and test, where the dataset does not say it: HELD_OUT of the rows for each part.

A row is held out by its content: a hash of the seed and the content, read as a number from 0 to 1, lies below HELD_OUT.
So what is held out stays so, wherever the row stands and whatever comes or goes beside it; copies of a row, and the
rows of a group, lie on one side. Three things go before that number, all of them where rows are few:

- a class of which chance held out nothing, or all, gives a row, or keeps one;
- the part has half as many rows as are asked for at least, and half as many again at most;
- a group that is larger than the part stays in training.

There a row may change sides when others come or go. A run that begins with another one's weights remembers: what that
one was tested on is held out again, and what it was trained on is no test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from trainer_image.data.rows.hashes import Hashes, mixed, of_bytes
from trainer_image.data.rows.known import Known, seen
from trainer_image.errors import DatasetInvalid

HELD_OUT = 0.15
# How far a part may be from that, as a share of it, before chance is corrected.
LEAST, MOST = 0.5, 1.5
# Rows that are expected of a class from which on one has to be held out.
EXPECTED = 0.5
# Fewer different rows, each so often, are all that there can be: copies are then no leak but what the rows are like.
FEW_DIFFERENT, COPIES = 30, 3
# What an earlier test must not exceed to be held out again: the training rows may have gone.
MOST_AGAIN = 0.5
_BRING_YOUR_OWN = "validation and test splits of your own"
_SAID = {
    "test": "No test split: {} of the training split {} held out as the test.",
    "validation": "No validation split: {} of the training split {} set aside.",
}
Indices = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
T = TypeVar("T")


@dataclass(frozen=True)
class RowHashes:
    """content: what is hashed, as `Known` has it; of: a hash for each row of each split"""

    content: tuple[str, ...]
    of: Mapping[str, Hashes]


@dataclass(frozen=True)
class Division:
    """The rows of each split, and what was decided on the user's behalf.

    rows:     ascending indices, of the split that the dataset brings, else of its training split
    brought:  the splits that the dataset brings
    left_out: test rows that are none, because the model that this run begins with was trained on them
    """

    rows: Mapping[str, Indices]
    brought: frozenset[str]
    hashes: RowHashes
    notes: tuple[str, ...] = ()
    left_out: int = 0

    def source(self, split: str) -> str:
        """The split of the dataset that this one's rows come from."""
        return split if split in self.brought else "train"

    def of(self, given: Mapping[str, T], chosen: Callable[[T, Indices], T]) -> dict[str, T]:
        """What is `chosen` of the given splits of the dataset for each split."""
        return {split: chosen(given[self.source(split)], index) for split, index in self.rows.items()}


def divide(
    hashes: RowHashes,
    strata: np.ndarray[Any, Any],
    seed: int,
    *,
    groups: np.ndarray[Any, Any] | None = None,
    earlier: Known | None = None,
    told: Mapping[str, Mask] | None = None,
) -> Division:
    """Divides the rows of the training split as far as the dataset brings no other one.

    hashes: of the splits that it brings; strata: (rows,) integers, of the training split as `groups` is; a row whose
    group is None is one by itself; earlier: what the run knew whose weights this one begins with; told: which rows of
    the training split are another split's, bool (rows,), where something else than chance says it. Raises
    DatasetInvalid for too few rows.
    """
    rows = {split: np.flatnonzero(those) for split, those in (told or {}).items()}
    rest = np.setdiff1d(np.arange(len(strata)), np.concatenate([*rows.values()])) if rows else np.arange(len(strata))
    train = hashes.of["train"][rest]
    held = [split for split in ("test", "validation") if split not in hashes.of and split not in rows]
    if earlier is not None and earlier.content != hashes.content:
        earlier = None
    units = _Units.of(train, strata[rest], None if groups is None else groups[rest])
    _check_enough(units, groups is not None, wanted=len(held))
    left = np.ones(len(units.size), bool)
    notes = []
    for split in held:
        again = trained = np.zeros_like(left)
        if earlier is not None and split == "test":
            again, trained = units.holding(earlier.had(train)), units.holding(seen(train, earlier))
            again &= units.size[again].sum() <= MOST_AGAIN * units.size.sum()
        later = held.index("validation") - held.index(split) if "validation" in held else 0
        taken = units.held_out(left, f"{seed}/{split}", again, trained & ~again, later)
        left &= ~taken
        rows[split] = rest[taken[units.of_row]]
        notes.append(_SAID[split].format(*_part(len(rows[split]), int(units.size[left].sum()))))
    rows["train"] = rest[left[units.of_row]]
    rows |= {split: np.arange(len(of)) for split, of in hashes.of.items() if split != "train"}
    ordered = {split: rows[split] for split in ("train", "validation", "test")}
    division = Division(ordered, frozenset(hashes.of), hashes, tuple(notes))
    of = division.of(hashes.of, lambda of, index: of[index])
    division = replace(division, hashes=RowHashes(hashes.content, of))
    if earlier is None:
        return division
    known = seen(of["test"], earlier)
    if not known.any() or known.all():
        return division
    return replace(
        division,
        rows=ordered | {"test": ordered["test"][~known]},
        hashes=RowHashes(hashes.content, of | {"test": of["test"][~known]}),
        left_out=int(known.sum()),
    )


def group_numbers(groups: Sequence[str | None] | np.ndarray[Any, Any]) -> Indices:
    """The number of each row's group, from 0; a row without one has a number of its own."""
    named = np.array(groups, dtype=object)
    without = np.flatnonzero(named == None)  # noqa: E711 (of each element)
    named[without] = [f"\0{row}" for row in without]  # a name that no cell can hold
    _, number = np.unique(named.astype(str), return_inverse=True)
    return number.astype(np.int64)


@dataclass(frozen=True)
class _Units:
    """What is never divided: a row with its copies, or a group.

    keys: what it is drawn by; size: its rows; stratum: of its rows' the rarest one (each of these: (units,))
    of_row: the unit of each row
    """

    keys: Hashes
    size: Indices
    stratum: Indices
    of_row: Indices

    @classmethod
    def of(cls, hashes: Hashes, strata: np.ndarray[Any, Any], groups: np.ndarray[Any, Any] | None) -> _Units:
        keys = hashes if groups is None else _of_groups(hashes, groups)
        unique, unit, size = np.unique(keys, return_inverse=True, return_counts=True)
        if groups is None and len(unique) < FEW_DIFFERENT and len(keys) >= COPIES * len(unique):
            unique, unit, size = np.unique(_apart(keys), return_inverse=True, return_counts=True)
        _, number, count = np.unique(strata, return_inverse=True, return_counts=True)
        # From the most frequent to the rarest: exact stratification of whole groups does not exist.
        rank = np.empty(len(count), np.int64)
        rank[np.argsort(-count, kind="stable")] = np.arange(len(count))
        stratum = np.zeros(len(unique), np.int64)
        np.maximum.at(stratum, unit, rank[number])
        return cls(unique, size, stratum, unit)

    def holding(self, rows: Mask) -> Mask:
        """The units that hold one of these rows: (units,)."""
        found = np.zeros(len(self.size), bool)
        found[self.of_row[rows]] = True
        return found

    def held_out(self, left: Mask, salt: str, again: Mask, trained: Mask, later: int) -> Mask:
        """Those of the units that are `left` which make a part: bool (units,), at least one.

        again: belong to it; trained: do not, while there are others; later: parts that are to be held out afterwards
        """
        draw = mixed(self.keys ^ of_bytes([salt.encode()])[0])
        order = np.argsort(draw, kind="stable")
        asked = HELD_OUT * float(self.size[left].sum())
        may = left & (self.size <= max(1.0, asked))
        if again.any() or (may & ~trained).any():
            may &= ~trained
        held = again | (may & (draw < np.uint64(int(HELD_OUT * 2**64))))
        whole = self._counted(left & ~held) == 0
        held[self._first(order[::-1], held & ~again & whole[self.stratum])] = False
        owed = HELD_OUT * np.bincount(self.stratum, self.size * left) >= EXPECTED
        owed &= (self._counted(held) == 0) & (self._counted(left) > 1)
        held[self._first(order, may & owed[self.stratum])] = True
        self._correct(held, left, order, may, again, asked, most=int(left.sum()) - 2 - later)
        if not held.any():
            # Classes of one row each, or groups that are all larger than the part: the largest stays in training.
            largest = int(np.argmax(self.size * left))
            held[next(unit for unit in order.tolist() if left[unit] and unit != largest)] = True
        return held

    def _correct(self, held: Mask, left: Mask, order: Indices, may: Mask, again: Mask, asked: float, most: int) -> None:
        """Takes and gives back units until the part is as large as it may be, the nearest to the threshold first; a
        class keeps one on each side where it can. most: units"""
        size, count = int(self.size[held].sum()), int(held.sum())
        here, there = self._counted(held), self._counted(left & ~held)
        for unit in order[(may & ~held)[order]]:
            if size >= LEAST * asked:
                break
            if there[self.stratum[unit]] > 1:
                held[unit] = True
                size, count = size + int(self.size[unit]), count + 1
                here[self.stratum[unit]] += 1
                there[self.stratum[unit]] -= 1
        last_first = order[::-1]
        for unit in np.concatenate([last_first[(held & ~again)[last_first]], last_first[again[last_first]]]):
            if count <= most and (size <= max(1.0, MOST * asked) or again[unit]):
                break
            if count > most or here[self.stratum[unit]] > 1:
                held[unit] = False
                size, count = size - int(self.size[unit]), count - 1
                here[self.stratum[unit]] -= 1

    def _counted(self, which: Mask) -> Indices:
        """How many of these units each stratum has."""
        return np.bincount(self.stratum, which).astype(np.int64)

    def _first(self, order: Indices, which: Mask) -> Indices:
        """The first of these units of each stratum."""
        inside = order[which[order]]
        return inside[np.unique(self.stratum[inside], return_index=True)[1]]


def _part(taken: int, kept: int) -> tuple[str, str]:
    """Few rows, and whole groups, do not divide at exactly HELD_OUT."""
    share = f"({100 * taken / (taken + kept):.0f} %)"
    return (f"1 row {share}", "was") if taken == 1 else (f"{taken} rows {share}", "were")


def _check_enough(units: _Units, grouped: bool, wanted: int) -> None:
    """Two to train on, and one for each of the `wanted` parts that are to be held out."""
    count, rows = len(units.size), len(units.of_row)
    if not wanted or count >= 2 + wanted:
        return
    found = f"{rows} row{' is' if rows == 1 else 's are'} too few"
    if grouped:
        found = f"the rows belong to {count} group{'' if count == 1 else 's'} (data.group), too few"
    elif count < rows:
        found = f"{rows} rows, of which {count} differ{'s' * (count == 1)}, are too few"
    raise DatasetInvalid(
        f"Invalid dataset: {found}: a part is held out for validation and test; bring at least {2 + wanted}, or "
        f"{_BRING_YOUR_OWN}"
    )


def _of_groups(hashes: Hashes, groups: np.ndarray[Any, Any]) -> Hashes:
    """A hash of each row's group, and of the row where it has none."""
    keys = hashes.copy()
    there = groups != None  # noqa: E711 (of each element)
    names, number = np.unique(groups[there].astype(str), return_inverse=True)
    keys[there] = of_bytes(name.encode() for name in names)[number]
    return keys


def _apart(keys: Hashes) -> Hashes:
    """The first copy of a row keeps its key, each other one gets one of its own."""
    order = np.argsort(keys, kind="stable")
    _, first, count = np.unique(keys[order], return_index=True, return_counts=True)
    copy = np.arange(len(keys)) - np.repeat(first, count)
    found = keys.copy()
    found[order] += copy.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return found
