"""data.split: the newest rows, or those that a column names, are tested on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.world.training_data import write_csv
from trainer_image.config.model_config import ConfigProblems, parse_config
from trainer_image.errors import DatasetInvalid
from trainer_image.tasks.base import Split, TaskSettings
from trainer_image.tasks.tabular.task import Tabular, TabularProblem

TIME = Split("time", "when")


def days(count: int, first: str = "2026-01-01") -> list[str]:
    return [str(np.datetime64(first) + number) for number in range(count)]


def problem(
    folder: Path, when: list[object], split: Split = TIME, rows: list[int] | None = None, **more: object
) -> TabularProblem:
    """n: the number of the row; y: of no meaning."""
    order = rows or list(range(len(when)))
    cells = [[n, when[n], ("yes", "no")[(n * 7) % 3 == 0]] for n in order]
    write_csv(folder / "train.csv", ["n", split.column, "y"], cells)
    made = Tabular().prepare(folder, TaskSettings(target="y", types={"n": "number"}, split=split, **more))  # type: ignore[arg-type]
    assert isinstance(made, TabularProblem)
    return made


def numbers(made: TabularProblem, split: str) -> list[int]:
    """Which rows, by their numbers."""
    [column] = [column for column in made.predictor.preprocessing.numbers if column.name == "n"]
    first = made.places()["n"]["dense"][0]
    values = made.splits[split]["dense"][:, first].double()
    return sorted(round(float(value)) for value in values / column.scale + column.centre)


@pytest.mark.parametrize(
    "when",
    [
        days(40), list(range(1000, 1040)), [f"{d[8:]}.{d[5:7]}.{d[:4]} 17:05" for d in days(40)],
        [1.5e9 + n for n in range(40)],
    ],
    ids=["dates", "numbers", "other dates", "seconds"],
)  # fmt: skip
def test_the_newest_rows_are_the_test_and_those_before_validate_in_whatever_order_they_stand(
    when: list[object], tmp_path: Path
) -> None:
    made = problem(tmp_path, when, rows=[n * 7 % 40 for n in range(40)])
    assert numbers(made, "test") == list(range(34, 40))
    assert numbers(made, "validation") == list(range(29, 34))
    assert numbers(made, "train") == list(range(29))
    assert "By 'when' the newest 6 rows are the test split: those from " + str(when[34]) in " ".join(made.notes)


def test_rows_of_one_moment_lie_on_one_side(tmp_path: Path) -> None:
    made = problem(tmp_path, [day for day in days(8) for _ in range(5)])
    assert numbers(made, "test") == list(range(35, 40))
    assert numbers(made, "validation") == list(range(30, 35))


def test_a_time_that_is_dropped_still_divides_and_is_no_input(tmp_path: Path) -> None:
    made = problem(tmp_path, days(40), drop=("when",))
    assert numbers(made, "test") == list(range(34, 40))
    assert "when" not in made.predictor.preprocessing.columns
    assert "when" in problem(tmp_path, days(40)).predictor.preprocessing.columns


def test_rows_without_a_time_are_trained_on_and_said(tmp_path: Path) -> None:
    made = problem(tmp_path, [None, None, *days(38)])
    assert {0, 1} <= set(numbers(made, "train"))
    assert "2 rows have no 'when' (data.split): they are trained on." in made.notes


def test_only_what_the_dataset_does_not_bring_is_divided(tmp_path: Path) -> None:
    write_csv(tmp_path / "test.csv", ["n", "when", "y"], [[100, "2020-01-01", "yes"]])
    made = problem(tmp_path, days(40))
    assert numbers(made, "test") == [100]
    assert numbers(made, "validation") == list(range(34, 40))
    write_csv(tmp_path / "validation.csv", ["n", "when", "y"], [[200, "2020-01-01", "yes"]])
    made = problem(tmp_path, days(40))
    assert len(numbers(made, "train")) == 40
    assert any("'when' (data.split) divides nothing" in note for note in made.notes)


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ([*days(39), "soon"], r"train\.csv: row 41: 'when' \(data\.split\) holds 'soon'; times are expected"),
        ([f"0{n % 9 + 1}/0{n % 8 + 1}/2026" for n in range(40)], "could be month/day or day/month"),
        (["2026-01-01"] * 40, "too few different times to hold the newest rows out for the test"),
        (["2026-01-01"] * 39 + ["2026-01-02"], "too few different times to hold .* for the validation"),
    ],
)  # fmt: skip
def test_times_that_cannot_divide_are_a_sentence(when: list[object], told: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=told):
        problem(tmp_path, when)


FOLD = Split("column", "fold")


def test_a_column_with_the_splits_names_divides_and_is_no_input(tmp_path: Path) -> None:
    fold: list[object] = [("train", "train", "Valid", "TEST ")[n % 4] for n in range(40)]
    made = problem(tmp_path, fold, FOLD)
    assert numbers(made, "test") == [n for n in range(40) if n % 4 == 3]
    assert numbers(made, "validation") == [n for n in range(40) if n % 4 == 2]
    assert made.predictor.preprocessing.columns == ["n"]
    assert "'fold' says which 10 rows are the test split." in made.notes


def test_values_that_are_listed_are_held_out_and_what_is_not_listed_is_by_content(tmp_path: Path) -> None:
    year: list[object] = [2020 + n % 4 for n in range(80)]
    made = problem(tmp_path, year, Split("column", "year", test=("2023",)))
    assert numbers(made, "test") == [n for n in range(80) if n % 4 == 3]
    assert 4 <= len(numbers(made, "validation")) <= 14
    made = problem(tmp_path, [f"{value}.0" for value in year], Split("column", "year", ("2021", "2022"), ("2023",)))
    assert len(numbers(made, "train")) == 20
    assert len(numbers(made, "validation")) == 40


@pytest.mark.parametrize(
    ("fold", "split", "told"),
    [
        (["train"] * 39 + ["rest"], FOLD, r"train\.csv: row 41: 'fold' \(data\.split\) holds 'rest'; train, valid"),
        (["test"] * 40, FOLD, r"'fold' \(data\.split\) leaves no row to train on"),
        ([2020] * 40, Split("column", "fold", test=("2023",)), r"no row has '2023' in 'fold' \(data\.split\.test\)"),
    ],
)  # fmt: skip
def test_values_that_cannot_divide_are_a_sentence(fold: list[object], split: Split, told: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=told):
        problem(tmp_path, fold, split)


def test_a_split_that_is_named_twice_or_a_column_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    write_csv(tmp_path / "test.csv", ["n", "fold", "y"], [[100, "test", "yes"]])
    with pytest.raises(DatasetInvalid, match="names rows for the test split, which the dataset brings already"):
        problem(tmp_path, ["train", "test"] * 20, FOLD)
    with pytest.raises(DatasetInvalid, match=r"has no column 'date' \(data\.split\.column\)"):
        Tabular().prepare(tmp_path, TaskSettings(target="y", split=Split("time", "date")))


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("{by: tine, column: a}", "data.split.by: must be time or column; it is 'tine'"),
        ("{by: time}", "data.split.column: is required"),
        ("{by: time, colum: a}", "data.split.colum: unknown key; did you mean data.split.column?"),
        ("{by: time, column: y}", "data.split.column: is the target 'y': it cannot say which rows are held out"),
        ("{by: time, column: a, test: [1]}", "data.split.test: belongs to by: column"),
        ("{by: column, column: a, test: [1], validation: [1]}", "data.split: a value is both among validation and"),
        ("{by: time, column: a}, group: g", "data.split: by time divides the groups of data.group"),
        ("time", "data.split: must hold keys and values"),
    ],
)
def test_what_is_wrong_with_the_section_is_a_sentence(split: str, told: str) -> None:
    with pytest.raises(ConfigProblems) as raised:
        parse_config(f"task: tabular\ndata: {{target: y, split: {split}}}".encode())
    assert told in " ".join(raised.value.problems)


def test_other_tasks_say_whose_it_is() -> None:
    with pytest.raises(ConfigProblems, match=r"data\.split: belongs to task tabular, not to text_classification"):
        parse_config(b"task: text_classification\ndata: {split: {by: time, column: a}}")


def test_a_column_whose_doubtful_numbers_are_one_in_training_is_no_mixture(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "c": ["1.234"] * 80 + [f"{n}.345" for n in range(1, 21)],
        "fold": ["train"] * 80 + ["test"] * 20,
        "x": [n % 7 for n in range(100)],
        "y": [("no", "yes")[n % 3 > 0] for n in range(100)],
    }
    write_csv(tmp_path / "train.csv", list(columns), zip(*columns.values(), strict=True))
    made = TabularProblem(tmp_path, TaskSettings(target="y", split=Split("column", "fold")))
    assert "Column 'c' is constant and was left out." in made.notes
