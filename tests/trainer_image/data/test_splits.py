"""Splits: deterministic, stratified, groups whole."""

from __future__ import annotations

import numpy as np
import pytest

from trainer_image.data.splits import assign, group_numbers
from trainer_image.errors import DatasetInvalid


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    strata = np.arange(200) % 4
    first, again, other = (assign(strata, s, has_validation=False, has_test=False) for s in (1, 1, 2))
    assert first.validation.tolist() == again.validation.tolist()
    assert first.test.tolist() == again.test.tolist()
    assert first.validation.tolist() != other.validation.tolist()


def test_every_row_is_in_exactly_one_split() -> None:
    parts = assign(np.arange(101) % 3, 0, has_validation=False, has_test=False)
    assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(101))
    assert len(parts.test) == 15


def test_each_class_gives_its_share_and_a_rare_one_keeps_a_row_to_train_on() -> None:
    strata = np.array([0] * 100 + [1] * 20 + [2])
    parts = assign(strata, 0, has_validation=False, has_test=True)
    assert np.bincount(strata[parts.validation], minlength=3).tolist() == [15, 3, 0]


def test_rows_of_a_group_stay_together() -> None:
    groups = np.array([f"g{n // 5}" for n in range(100)])
    parts = assign(np.zeros(100, int), 0, has_validation=False, has_test=False, groups=groups)
    sides = [set(groups[rows]) for rows in (parts.train, parts.validation, parts.test)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides))


@pytest.mark.parametrize(
    ("rows", "groups", "has_test", "told"),
    [
        (1, None, True, "1 row is too few: .* bring at least 3, or validation and test splits of your own"),
        (3, None, False, "3 rows are too few: a part is held out for validation and test; bring at least 4"),
        (9, ["a"], False, r"the rows belong to 1 group \(data.group\), too few: .* at least 4"),
        (9, ["a", "b"], True, r"the rows belong to 2 groups \(data.group\), too few: .* at least 3"),
    ],
)
def test_too_few_rows_are_counted_as_they_came(rows: int, groups: list[str] | None, has_test: bool, told: str) -> None:
    given = np.resize(np.array(groups), rows) if groups else None
    with pytest.raises(DatasetInvalid, match=told):
        assign(np.zeros(rows, int), 0, has_validation=False, has_test=has_test, groups=given)


def test_groups_that_leave_nothing_for_validation_are_told_as_groups() -> None:
    groups = np.array(["a", "b", "c", *["d"] * 100])
    with pytest.raises(DatasetInvalid, match="different sizes"):
        assign(np.zeros(103, int), 5, has_validation=False, has_test=False, groups=groups)


@pytest.mark.parametrize(("missing", "least"), [(2, 4), (1, 3)])
def test_the_least_rows_that_are_asked_for_are_enough(missing: int, least: int) -> None:
    parts = assign(np.zeros(least, int), 0, has_validation=missing < 1, has_test=missing < 2)
    assert len(parts.train) >= 2
    assert len(parts.validation) >= 1


def test_rows_without_a_group_are_none_together() -> None:
    groups = np.array([None if n % 4 else f"g{n // 8}" for n in range(200)], dtype=object)
    parts = assign(np.zeros(200, int), 0, has_validation=True, has_test=False, groups=groups)
    without = np.array([group is None for group in groups])
    assert 25 <= len(parts.test) <= 35
    assert 10 <= without[parts.test].sum() <= 30
    assert len(set(group_numbers(groups))) == 150 + 25


def test_the_note_says_the_share_that_was_held_out_and_not_the_one_that_was_wanted() -> None:
    groups = np.repeat(["a", "b", "c", "d"], [70, 10, 10, 10])
    assignment = assign(np.zeros(100, np.int64), 0, has_validation=True, has_test=False, groups=groups)
    assert f"{len(assignment.test)} rows ({len(assignment.test)} %)" in assignment.notes[0]
    assert len(assignment.test) != 15


def test_the_rows_that_are_asked_for_are_enough() -> None:
    def split(rows: int) -> None:
        assign(np.zeros(rows, np.int64), has_validation=False, has_test=False, seed=0)

    with pytest.raises(DatasetInvalid, match="bring at least 4"):
        split(3)
    split(4)
