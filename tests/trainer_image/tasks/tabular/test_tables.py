"""Tables: what is read as what, and the sentence for what cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.world.training_data import TABULAR, class_rows, class_table, run_inputs, value_table, write_csv
from trainer_image.data.formats.csv_dialect import sniff_delimiter
from trainer_image.data.table import read_table
from trainer_image.engine.training import validate_dataset
from trainer_image.errors import ConfigInvalid, DatasetInvalid, LimitExceeded
from trainer_image.limits import Limits
from trainer_image.tasks.base import Problem, TaskSettings, joined, rows_in
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.tabular import task
from trainer_image.tasks.tabular.presets import networks
from trainer_image.tasks.tabular.task import Tabular


def prepare(data: Path, target: str = "y") -> Problem:
    return Tabular().prepare(data, TaskSettings(target=target))


HEADER = ["a", "b", "colour", "y"]


def refusal(data: Path, config: str = TABULAR) -> str:
    with pytest.raises(DatasetInvalid) as caught:
        validate_dataset(run_inputs(data, data / "out", config))
    return caught.value.sentence


def with_cell(tmp_path: Path, row: int, column: int, cell: object) -> Path:
    rows = class_rows()
    rows[row][column] = cell
    write_csv(tmp_path / "train.csv", HEADER, rows)
    return tmp_path


@pytest.mark.parametrize("cell", ["", "NaN", "nan", "NA", "null"])
def test_a_row_without_a_label_is_left_out_and_named(tmp_path: Path, cell: str) -> None:
    problem = prepare(with_cell(tmp_path, 15, 3, cell))
    said = f"1 of {len(class_rows())} rows of train.csv has no 'y' and was left out: row 17 of train.csv"
    word = ", which holds 'NA': should that be a class, write it otherwise" if cell == "NA" else ""
    assert f"{said}{word}." in problem.notes
    assert sum(rows_in(split) for split in problem.splits.values()) == len(class_rows()) - 1


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e400"])
def test_an_infinite_target_names_its_row(tmp_path: Path, cell: str) -> None:
    value_table(tmp_path)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    lines[4] = ",".join([*lines[4].split(",")[:3], cell])
    (tmp_path / "train.csv").write_text("\n".join(lines))
    assert refusal(tmp_path).startswith("Invalid dataset: train.csv: row 5: the target column 'y' holds")


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", HEADER, [[1, 2, "red", "yes"]] * 30)
    assert "one class only ('yes')" in refusal(tmp_path)


def test_a_missing_target_names_the_nearest_column(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["a", "price", "c"], [[1, 2, 3]] * 30)
    sentence = refusal(tmp_path, "task: tabular\ndata: {target: prize}\n")
    assert sentence == "Invalid dataset: train.csv: has no column 'prize' (data.target); did you mean 'price'?"


def test_other_columns_in_the_test_split_are_named(tmp_path: Path) -> None:
    class_table(tmp_path)
    write_csv(tmp_path / "test.csv", ["a", "color", "b", "y"], [[1, "red", 2, "yes"]])
    sentence = refusal(tmp_path)
    assert sentence == (
        "Invalid dataset: test.csv: lacks the column 'colour' that train.csv has and has 'color' instead"
    )


def test_a_ragged_row_is_named_despite_blank_lines_before_it(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('a,y\n1,x\n\n"2\n2",y\n3\n')
    assert refusal(tmp_path).startswith("Invalid dataset: train.csv: row 6 has 1 field where the header has 2 ('3')")


def test_text_that_is_not_utf_8_names_its_row(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("a,y\n1,é\n".encode() + b"2,caf\xe9\n")
    assert "train.csv: row 3 is not UTF-8 (byte 0xe9)" in refusal(tmp_path)


def test_bytes_that_are_not_utf_8_beyond_the_first_block_are_found_too(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("a,é\n".encode() + b"1,x\n" * 600_000 + b"1,\xff\n")
    assert "row 600002 is not UTF-8" in refusal(tmp_path)


@pytest.mark.parametrize(("content", "why"), [("", "is empty"), ("a,b,y\n", "no rows"), ("a,,y\n1,2,3\n", "column 2")])
def test_a_table_without_rows_or_names_is_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    assert why in refusal(tmp_path)


def test_a_text_in_a_numeric_column_of_the_test_split_names_row_and_column(tmp_path: Path) -> None:
    class_table(tmp_path)
    write_csv(tmp_path / "test.csv", HEADER, [[1, 2, "red", "yes"], [1, "many", "red", "no"]])
    assert refusal(tmp_path) == "Invalid dataset: test.csv: row 3: column 'b' holds 'many', which is no number"


def test_a_label_that_training_never_saw_is_refused(tmp_path: Path) -> None:
    class_table(tmp_path)
    write_csv(tmp_path / "test.csv", HEADER, [[1, 2, "red", "perhaps"]])
    assert "test.csv: row 2: column 'y' holds the label 'perhaps'" in refusal(tmp_path)


def test_a_broken_gzip_file_is_no_traceback(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,y\n" + b"1,x\n2,y\n" * 50_000)
    (tmp_path / "train.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "cannot be unpacked as gzip" in refusal(tmp_path)


def test_no_training_table_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "expected train.csv" in refusal(tmp_path)


def test_two_training_splits_are_refused(tmp_path: Path) -> None:
    class_table(tmp_path)
    write_csv(tmp_path / "val.csv", HEADER, class_rows(10))
    write_csv(tmp_path / "dev.csv", HEADER, class_rows(10))
    assert "second validation split" in refusal(tmp_path)


def test_more_columns_than_the_limit_are_a_limit_exceeded(tmp_path: Path) -> None:
    class_table(tmp_path)
    with pytest.raises(LimitExceeded):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", limits=Limits(table_columns=2)))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_usual_delimiter_is_found(delimiter: str) -> None:
    quoted = f'name{delimiter}text\nx{delimiter}"a, b; c"\ny{delimiter}"d, e; f"\n'
    assert sniff_delimiter(quoted) == delimiter


def test_gzip_byte_order_mark_and_quotes_read_as_the_plain_file(tmp_path: Path) -> None:
    plain = 'a;b\n1;"x; y"\n2;z\n'
    (tmp_path / "p.csv").write_text(plain)
    (tmp_path / "g.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.encode()))
    tables = [read_table([(n, tmp_path / n)], Limits()) for n in ("p.csv", "g.csv.gz")]
    assert tables[0].columns == tables[1].columns
    assert tables[0].columns["b"].to_pylist() == ["x; y", "z"]


def test_shards_and_parquet_are_one_table(tmp_path: Path) -> None:
    rows = class_rows(90)
    write_csv(tmp_path / "train" / "1.csv", HEADER, rows[:45])
    columns = list(zip(*rows[45:], strict=True))
    pq.write_table(pa.table(dict(zip(HEADER, map(list, columns), strict=True))), tmp_path / "train" / "2.parquet")
    problem = Tabular().prepare(tmp_path, TaskSettings(target="y"))
    assert sum(len(split["dense"]) for split in problem.splits.values()) == 90


def test_how_the_target_is_read_is_said(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["a", "y"], [[n, n % 5] for n in range(60)])
    as_class = validate_dataset(run_inputs(tmp_path, tmp_path / "out"))
    assert "'y' is predicted as a class: it has 5 different values, all whole numbers" in as_class
    declared = TABULAR.replace("{target: y}", "{target: y, types: {y: number}}")
    assert "regression of 'y'" in validate_dataset(run_inputs(tmp_path, tmp_path / "out", declared))


def test_ids_constants_and_dates_are_recognised(tmp_path: Path) -> None:
    rows = [[f"u{n}", 7, f"2026-01-{n % 28 + 1:02}", n % 3, "ab"[n % 2]] for n in range(80)]
    write_csv(tmp_path / "train.csv", ["user", "same", "day", "x", "y"], rows)
    problem = Tabular().prepare(tmp_path, TaskSettings(target="y"))
    assert "Column 'user' has a different value in nearly every row, like an id; left out." in problem.warnings
    assert "Column 'same' is constant and was left out." in problem.notes
    assert "Column 'day' was read as dates (year-month-day)." in problem.notes


def test_unknown_categories_and_missing_values_are_no_error(tmp_path: Path) -> None:
    rows = [[None if n % 7 == 0 else n * 0.5, f"c{n % 12}", "ab"[n % 2]] for n in range(120)]
    write_csv(tmp_path / "train.csv", ["x", "many", "y"], rows)
    write_csv(tmp_path / "test.csv", ["x", "many", "y"], [["", "new", "a"], [1, "", "b"]])
    problem = Tabular().prepare(tmp_path, TaskSettings(target="y"))
    test = problem.splits["test"]
    assert test["codes"].tolist() == [[0], [0]]
    assert test["dense"].shape == (2, 2)
    assert test["dense"][0].tolist() == [0.0, 1.0]


def test_a_column_that_the_configuration_names_must_exist(tmp_path: Path) -> None:
    class_table(tmp_path)
    config = TABULAR.replace("{target: y}", "{target: y, drop: [colr]}")
    assert "has no column 'colr' (data.drop)" in refusal(tmp_path, config)


def test_a_figure_of_the_other_kind_is_a_configuration_error(tmp_path: Path) -> None:
    class_table(tmp_path)
    with pytest.raises(ConfigInvalid, match=r"train\.metric: 'rmse' is no figure of this task"):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TABULAR.replace("epochs: 3", "metric: rmse")))


def test_what_a_candidate_says_of_rows_for_the_choice_knows_neither_them_nor_their_copies(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(60, 40))
    header = [*(f"x{n}" for n in range(39)), "y"]
    write_csv(tmp_path / "train.csv", header, np.concatenate([rows, rows, rows]).round(6).tolist())
    problem = prepare(tmp_path)
    linear, *_ = problem.candidates()
    allowance = Allowance(60.0, 1, 0, Event(), lambda: None)
    fitted = linear.fit(("train", "validation"), allowance, {})
    assert fitted is not None
    every = joined(problem.splits["train"], problem.splits["validation"])
    seen = problem.predictor.score(problem.predictor.outputs(fitted[0], every), every)
    fold_of = problem.folds(0)
    assert fold_of is not None
    found = linear.unseen(problem.predictor, allowance, {}, fold_of)
    assert found is not None
    assert seen["r2"] > 0.2
    assert problem.predictor.score(found, every)["r2"] < 0


def test_rows_that_are_alike_by_chance_are_no_copies_for_the_choice(tmp_path: Path) -> None:
    """Fits without all rows of a town and a mood would say nothing of any model."""
    random = np.random.default_rng(0)
    towns = ["north", "south", "east", "west"]
    cells = [[towns[random.integers(4)], ["good", "bad"][n % 2], n % 3] for n in range(90)]
    write_csv(tmp_path / "train.csv", ["town", "mood", "y"], cells)
    problem = prepare(tmp_path)
    fold_of = problem.folds(0)
    assert fold_of is not None
    dense = joined(problem.splits["train"], problem.splits["validation"])["dense"]
    alike = (dense == dense[0]).all(1)
    assert len(fold_of[alike].unique()) == 4


def test_rows_that_belong_together_are_not_divided_for_the_choice(tmp_path: Path) -> None:
    data = value_table(tmp_path / "data")
    grouped = Tabular().prepare(data, TaskSettings(target="y", group="a"))
    assert prepare(data).folds(0) is not None
    assert grouped.folds(0) is None


def test_validation_rows_choose_among_models_of_classes_where_values_need_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "FEW_ROWS", 10)
    assert prepare(value_table(tmp_path / "values")).folds(0) is not None
    assert prepare(class_table(tmp_path / "classes")).folds(0) is None
    monkeypatch.setattr(task, "FEW_VALUES", 10)
    assert prepare(tmp_path / "values").folds(0) is None


def test_a_network_sees_waves_of_few_numbers_and_is_larger_only_where_steps_are_measured() -> None:
    sizes = [(each.size.name, each.sizes.waves > 0) for each in networks("auto", 1_000, 8)]
    assert sizes == [("small", True), ("medium", True)]
    assert [each.sizes.waves for each in networks("auto", 1_000, 40)] == [0]
    assert len(networks("auto", 10_000, 40)) == 3
    assert len(networks("fast", 1_000, 8)) == len(networks("best", 1_000, 8)) == 1
    assert networks("auto", 100, 8)[0].size.recipe.epochs > networks("auto", 5_000, 8)[0].size.recipe.epochs
