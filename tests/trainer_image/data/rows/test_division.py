"""Which rows are held out: by their content, stratified, groups and copies whole, and the same again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainer_image.data.rows.division import Division, RowHashes, divide, group_numbers
from trainer_image.data.rows.hashes import Hashes, mixed
from trainer_image.data.rows.known import Known, known
from trainer_image.errors import DatasetInvalid

CONTENT = ("a",)


def rows(count: int, first: int = 0) -> Hashes:
    return mixed(np.arange(first, first + count, dtype=np.uint64))


def split(hashes: Hashes, strata: Any = None, seed: int = 0, *, brought: tuple[str, ...] = (), **more: Any) -> Division:
    of = {"train": hashes, **{name: rows(3, 10**9) for name in brought}}
    strata = np.zeros(len(hashes), int) if strata is None else strata
    return divide(RowHashes(CONTENT, of), strata, seed, **more)


def sides(division: Division, hashes: Hashes) -> dict[str, set[int]]:
    return {name: set(hashes[index].tolist()) for name, index in division.rows.items()}


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    first, again, other = (split(rows(200), np.arange(200) % 4, seed).rows for seed in (1, 1, 2))
    for name in ("validation", "test"):
        assert first[name].tolist() == again[name].tolist()
        assert first[name].tolist() != other[name].tolist()


@pytest.mark.parametrize("count", [4, 5, 8, 20, 50, 101, 1000])
def test_every_row_is_in_exactly_one_split_and_the_parts_are_about_as_large_as_asked(count: int) -> None:
    for number in range(20):
        division = split(rows(count, 1000 * number), np.arange(count) % 3).rows
        assert sorted([*division["train"], *division["validation"], *division["test"]]) == list(range(count))
        assert all(np.diff(index).min(initial=1) > 0 for index in division.values())
        test, validation = len(division["test"]), len(division["validation"])
        # Three classes want three rows, where the rows are few.
        assert max(1, int(0.075 * count)) <= test <= max(3, 0.225 * count)
        assert max(1, int(0.075 * (count - test))) <= validation <= max(3, 0.225 * (count - test))


def test_each_class_of_a_small_set_is_in_each_split_and_one_row_of_a_class_is_trained_on() -> None:
    strata = np.array([0] * 100 + [1] * 20 + [2] * 8 + [3])
    for number in range(50):
        division = split(rows(129, 1000 * number), strata).rows
        for name in ("train", "validation", "test"):
            assert {0, 1, 2} <= set(strata[division[name]].tolist())
        assert 128 in division["train"]


def test_of_many_small_classes_some_are_held_out_and_all_are_trained_on() -> None:
    strata = np.arange(300) // 3
    division = split(rows(300), strata).rows
    assert set(strata[division["train"]]) == set(range(100))
    assert 22 <= len(division["test"]) <= 68


@pytest.mark.parametrize("classes", [1, 3])
def test_a_row_that_was_held_out_is_held_out_again_whatever_stands_before_behind_or_is_gone(classes: int) -> None:
    hashes, strata = rows(1050), np.arange(1050) % classes
    before = sides(split(hashes[50:], strata[50:]), hashes[50:])
    random = np.random.default_rng(0)
    others = [
        np.arange(1050),  # 50 in front
        np.roll(np.arange(1050), 500),
        random.permutation(1050),
        np.sort(random.choice(1050, 700, replace=False)),
        np.arange(1049, -1, -1),
    ]
    for index in others:
        now = sides(split(hashes[index], strata[index]), hashes[index])
        there = set(hashes[index].tolist())
        for name in ("train", "validation", "test"):
            assert before[name] & there <= now[name], "no row has changed sides"


def test_a_dataset_that_brings_a_test_keeps_it_and_its_validation_is_held_out_alone() -> None:
    division = split(rows(200), brought=("test",))
    assert division.rows["test"].tolist() == [0, 1, 2]
    assert division.source("test") == "test"
    assert division.source("validation") == "train"
    assert division.hashes.of["test"].tolist() == rows(3, 10**9).tolist()
    assert len(division.notes) == 1
    assert division.of({"train": 10, "test": 20}, lambda part, index: part + len(index)) == {
        "train": 10 + len(division.rows["train"]),
        "validation": 10 + len(division.rows["validation"]),
        "test": 23,
    }


def test_copies_of_a_row_lie_on_one_side() -> None:
    hashes = np.repeat(rows(200), np.arange(200) % 5 + 1)
    found = sides(split(hashes), hashes)
    assert all(found.values())
    assert sum(map(len, found.values())) == 200


def test_where_few_different_rows_are_all_there_can_be_their_copies_are_divided() -> None:
    hashes = np.tile(rows(8), 125)
    division = split(hashes, np.tile([0, 1], 500)).rows
    assert 75 <= len(division["test"]) <= 225
    for index in division.values():
        assert len(set(hashes[index].tolist())) == 8
    # And more of them change nothing for these.
    again = split(np.concatenate([rows(8), hashes])).rows["test"]
    assert set(np.unique(hashes[division["test"]])) <= set(np.unique(np.concatenate([rows(8), hashes])[again]))


def test_rows_of_a_group_stay_together_and_a_group_stays_where_it_was() -> None:
    groups = np.array([f"g{n // 5}" for n in range(500)])
    found = {name: set(groups[index]) for name, index in split(rows(500), groups=groups).rows.items()}
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set.union(*found.values()))
    more = np.concatenate([["new"] * 30, groups[::-1]])
    again = {name: set(more[index]) for name, index in split(rows(530, 10**6), groups=more).rows.items()}
    for name, before in found.items():
        assert before <= again[name], "the group decides, not its rows"


def test_a_group_that_is_larger_than_the_part_is_trained_on() -> None:
    groups = np.array(["a", "b", "c", "d", *["e"] * 100])
    for seed in range(10):
        assert set(range(4, 104)) <= set(split(rows(104), seed=seed, groups=groups).rows["train"])
    groups = np.repeat(["a", "b", "c"], 10)
    assert len(split(rows(30), groups=groups, brought=("test",)).rows["validation"]) == 10


def test_a_rare_class_within_groups_is_held_out_and_trained_on() -> None:
    strata = np.zeros(300, int)
    strata[::50] = 1
    for seed in range(10):
        division = split(rows(300), strata, seed, groups=np.repeat(np.arange(60), 5).astype(str), brought=("test",))
        assert set(strata[division.rows["train"]]) == set(strata[division.rows["validation"]]) == {0, 1}


@pytest.mark.parametrize(
    ("count", "groups", "brought", "told"),
    [
        (1, None, ("test",), "1 row is too few: .* bring at least 3, or validation and test splits of your own"),
        (3, None, (), "3 rows are too few: a part is held out for validation and test; bring at least 4"),
        (9, ["a"], (), r"the rows belong to 1 group \(data.group\), too few: .* at least 4"),
        (9, ["a", "b"], ("test",), r"the rows belong to 2 groups \(data.group\), too few: .* at least 3"),
    ],
)  # fmt: skip
def test_too_few_rows_are_counted_as_they_came(count: int, groups: list[str] | None, brought: Any, told: str) -> None:
    given = np.resize(np.array(groups), count) if groups else None
    with pytest.raises(DatasetInvalid, match=told):
        split(rows(count), groups=given, brought=brought)


def test_too_few_different_rows_are_told_as_such() -> None:
    with pytest.raises(DatasetInvalid, match=r"5 rows, of which 3 differ, are too few: .* at least 4"):
        split(np.resize(rows(3), 5))


@pytest.mark.parametrize(("brought", "least"), [((), 4), (("test",), 3)])
def test_the_least_rows_that_are_asked_for_are_enough(brought: Any, least: int) -> None:
    for strata in (np.zeros(least, int), np.arange(least)):
        division = split(rows(least), strata, brought=brought).rows
        assert len(division["train"]) == 2
        assert len(division["validation"]) == 1


def test_rows_without_a_group_are_none_together() -> None:
    groups = np.array([None if n % 4 else f"g{n // 8}" for n in range(200)], dtype=object)
    test = split(rows(200), groups=groups, brought=("validation",)).rows["test"]
    without = np.array([group is None for group in groups])
    assert 15 <= len(test) <= 45
    assert 8 <= without[test].sum() <= 40
    assert len(set(group_numbers(groups))) == 150 + 25


def test_the_note_says_the_share_that_was_held_out_and_not_the_one_that_was_wanted() -> None:
    division = split(rows(100), groups=np.repeat(["a", "b", "c", "d"], [70, 10, 10, 10]), brought=("validation",))
    count = len(division.rows["test"])
    assert f"{count} rows ({count} %)" in division.notes[0]
    assert count != 15


# What a run that begins with another one's weights remembers.


def knew(division: Division) -> Known:
    of = division.hashes.of
    return known(division.hashes.content, np.concatenate([of["train"], of["validation"]]), of["test"])


def test_what_was_tested_on_is_tested_on_again_also_where_another_seed_or_few_rows_would_change_it() -> None:
    for count in (12, 60, 300):
        hashes = rows(count + 20)
        before = split(hashes[20:], np.arange(count) % 2)
        for seed in range(10):
            now = split(hashes, np.arange(count + 20) % 2, seed, earlier=knew(before))
            tested = set(now.hashes.of["test"].tolist())
            assert set(before.hashes.of["test"].tolist()) <= tested
            assert not tested & set(knew(before).trained.tolist())
            assert not now.left_out


def test_rows_of_a_brought_test_that_were_trained_on_are_left_out_unless_that_is_all_of_them() -> None:
    test = rows(3, 10**9)
    some, whole = (known(CONTENT, trained, rows(0)) for trained in (test[1:], test))
    found = split(rows(100), brought=("test",), earlier=some)
    assert found.rows["test"].tolist() == [0]
    assert found.hashes.of["test"].tolist() == test[:1].tolist()
    assert found.left_out == 2
    found = split(rows(100), brought=("test",), earlier=whole)
    assert found.rows["test"].tolist() == [0, 1, 2]
    assert not found.left_out


def test_where_all_rows_were_trained_on_there_is_a_test_all_the_same_and_no_new_row_is_wasted() -> None:
    everything = known(CONTENT, rows(200), rows(0))
    assert 15 <= len(split(rows(200), earlier=everything).rows["test"]) <= 45
    found = split(rows(240), earlier=everything)
    assert set(found.rows["test"]) <= set(range(200, 240))
    assert len(found.rows["test"]) >= 15


def test_an_earlier_test_that_is_nearly_all_that_is_left_is_trained_on() -> None:
    found = split(rows(100), earlier=known(CONTENT, rows(0), rows(90)))
    assert 7 <= len(found.rows["test"]) <= 23


def test_rows_that_are_told_by_something_else_are_not_compared() -> None:
    other = known(("b",), rows(200), rows(0))
    assert split(rows(200), earlier=other).rows["test"].tolist() == split(rows(200)).rows["test"].tolist()
