"""Splits: deterministic, stratified, groups whole."""

from __future__ import annotations

import numpy as np
import pytest

from trainer_image.errors import DatasetInvalid
from trainer_image.splits import assign


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


def test_too_few_rows_to_hold_out_are_a_sentence() -> None:
    with pytest.raises(DatasetInvalid, match="too few to hold out"):
        assign(np.zeros(1, int), 0, has_validation=False, has_test=True)
