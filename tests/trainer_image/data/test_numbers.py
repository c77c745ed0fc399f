"""Numbers as spreadsheets print them: read in the one notation that fits a whole column, or told with what to write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer_image.data.prepared import noise, prepared
from tests.world.training_data import TABULAR, run_inputs, write_csv
from trainer_image.data.formats.numbers import MARKERS, PLAIN, Notation, numbers
from trainer_image.engine.training import train
from trainer_image.errors import DatasetInvalid
from trainer_image.limits import Limits
from trainer_image.predict import predict
from trainer_image.tasks.tabular.predictor import TabularPredictor
from trainer_image.tasks.tabular.target import ValueTarget
from trainer_image.tasks.tabular.task import Tabular

VALUES = np.random.default_rng(0).normal(2000, 700, 100).round(2).tolist()


def swapped(text: str) -> str:
    return text.translate(str.maketrans(",.", ".,"))


WRITTEN: dict[str, tuple[Any, Notation]] = {
    "decimal comma": (lambda x: f"{x:.2f}".replace(".", ","), Notation(",")),
    "German": (lambda x: swapped(f"{x:,.2f}"), Notation(",")),
    "English": (lambda x: f"{x:,.2f}", Notation(".")),
    "French": (lambda x: f"{x:,.2f}".replace(",", "\u202f").replace(".", ","), Notation(",")),
    "Swiss": (lambda x: f"{x:,.2f}".replace(",", "\u2019"), Notation(".")),
    "euros": (lambda x: swapped(f"{x:,.2f} €"), Notation(",", "€")),
    "dollars": (lambda x: f"${x:,.2f}", Notation(".", "$")),
    "dollars, some bare": (lambda x: f"{'$' * (x > 2000)}{x:.2f}", Notation(".", "$")),
    "debts": (lambda x: f"-€{x:,.2f}", Notation(".", "€")),
    "code": (lambda x: f"CHF {x:.2f}", Notation(".", "CHF")),
    "percent": (lambda x: f"{x / 100:.4f} %", Notation(".", "%")),
    "kilograms": (lambda x: f"{x:.1f} kg", Notation(".", "kg")),
    "areas": (lambda x: swapped(f"{x:,.2f}m²"), Notation(",", "m²")),
    "scientific": (lambda x: f"{x:.6E}".replace(".", ","), Notation(",")),
    "minus sign": (lambda x: f"\u2212{x:.2f}", Notation(".")),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_numbers_as_spreadsheets_print_them_are_numbers_and_noted(tmp_path: Path, case: str) -> None:
    write, notation = WRITTEN[case]
    problem = prepared(tmp_path, {"x": [write(x) for x in VALUES], "y": noise(100)})
    (column,) = problem.predictor.preprocessing.numbers
    assert column.notation == notation
    assert not column.strays
    scale = {"percent": 0.01, "debts": -1, "minus sign": -1}.get(case, 1)
    values, bad = column.values(pa.array([write(x) for x in VALUES], pa.large_string()))
    assert not bad.any()
    assert np.allclose(values, np.array(VALUES) * scale, rtol=1e-3)
    (note,) = [note for note in problem.notes if "'x'" in note]
    assert note.startswith(f"Column 'x' was read as numbers: '{write(VALUES[0])}', in train.csv, row 2, is ")
    assert problem.warnings == []


UNCLEAR: dict[str, tuple[list[str], str]] = {
    "a comma before three digits": (
        [f"{x:,.0f}" for x in VALUES],
        f"holds numbers that can be read in two ways: '{VALUES[0]:,.0f}', in train.csv, row 2, may be "
        f"{VALUES[0]:.0f} or {VALUES[0] / 1000:.3f}; write them with a decimal point and nothing between thousands",
    ),
    "two currencies": (
        [f"{'$€'[n % 2]}{x:.2f}" for n, x in enumerate(VALUES)],
        "holds numbers with '$' and '€' beside them; bring one unit and leave its sign out",
    ),
    "percents and shares": (
        [f"{x:.2f}{' %' * (n % 2)}" for n, x in enumerate(VALUES)],
        "holds numbers with '%' and nothing beside them; bring one unit",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_numbers_that_may_mean_two_things_are_told_and_never_guessed(tmp_path: Path, case: str) -> None:
    cells, why = UNCLEAR[case]
    columns = {"x": cells, "z": VALUES, "y": noise(100)}
    problem = prepared(tmp_path, columns)
    (warning,) = problem.warnings
    assert warning.startswith(f"Column 'x' {why}")
    assert warning.endswith("; left out.")
    assert "x" not in problem.predictor.preprocessing.columns
    with pytest.raises(DatasetInvalid) as told:
        prepared(tmp_path, columns, types={"x": "number"})
    assert told.value.sentence.startswith(f"Invalid dataset: train.csv: column 'x' {why}")
    with pytest.raises(DatasetInvalid) as told:
        prepared(tmp_path, {"y": cells, "z": VALUES}, types={})
    assert told.value.sentence.startswith(f"Invalid dataset: train.csv: the target column 'y' {why}")


def test_one_cell_decides_what_a_comma_means(tmp_path: Path) -> None:
    cells = [f"{x:,.0f}" for x in VALUES]
    for last, notation in (("1,5", Notation(",")), ("1,234.5", Notation(".")), ("1,234,567", Notation("."))):
        problem = prepared(tmp_path, {"x": [*cells[:-1], last], "y": noise(100)})
        assert problem.predictor.preprocessing.numbers[0].notation == notation


def test_plain_numbers_stay_plain_whatever_else_would_fit(tmp_path: Path) -> None:
    problem = prepared(tmp_path, {"x": [f"{x / 1000:.3f}" for x in VALUES], "y": noise(100)})
    assert problem.predictor.preprocessing.numbers[0].notation == PLAIN
    assert [note for note in problem.notes if "'x'" in note] == []


def test_codes_with_commas_are_categories_where_the_configuration_says_so(tmp_path: Path) -> None:
    cells = ["3,14", "2,71"] * 50
    problem = prepared(tmp_path, {"x": cells, "y": noise(100)}, types={"x": "category"})
    assert [c.categories for c in problem.predictor.preprocessing.categories] == [("2,71", "3,14")]


@pytest.mark.parametrize("cells", [["12A", "7B", "30"], ["1st", "2nd", "3rd"], ["10 kg", "20 g", "5 kg"]])
def test_codes_and_mixed_units_stay_words(tmp_path: Path, cells: list[str]) -> None:
    problem = prepared(tmp_path, {"x": cells * 30, "y": noise(90)})
    assert [sorted(c.categories) for c in problem.predictor.preprocessing.categories] == [sorted(cells)]


def test_slips_among_numbers_with_a_comma_are_told_and_missing(tmp_path: Path) -> None:
    cells = [swapped(f"{x:,.2f}") for x in VALUES]
    problem = prepared(tmp_path, {"x": [*cells[:98], "n/k", "~3"], "y": noise(100)})
    assert problem.warnings == [
        "Column 'x' holds 2 cells that are no number, the first in train.csv, row 100: 'n/k'; they are treated as"
        " missing."
    ]
    assert problem.predictor.preprocessing.numbers[0].notation == Notation(",")


@pytest.mark.parametrize("marker", ["-", "?", "None", "n.a.", "#DIV/0!", "\\N", " -- "])
@pytest.mark.parametrize("comma", [False, True])
def test_words_for_no_value_among_numbers_are_missing_however_many_there_are(
    tmp_path: Path, marker: str, comma: bool
) -> None:
    cells = [str(x).replace(".", "," if comma else ".") for x in VALUES]
    cells = [marker if n % 4 == 1 else cell for n, cell in enumerate(cells)]
    problem = prepared(tmp_path, {"x": cells, "y": noise(100)})
    (column,) = problem.predictor.preprocessing.numbers
    assert (column.indicator, column.strays, column.notation.decimal) == (True, False, "," * comma)
    assert any(
        f"holds 25 cells that say that there is no value, the first in train.csv, row 3: '{marker}'" in note
        for note in problem.notes
    )
    assert problem.warnings == []


@pytest.mark.parametrize("marker", ["-", "?", "n.a."])
def test_words_for_no_value_among_dates_are_missing_however_many_there_are(tmp_path: Path, marker: str) -> None:
    cells = [marker if n % 4 == 1 else f"{1 + n % 28:02d}.{1 + n % 12:02d}.{1924 + n}" for n in range(100)]
    problem = prepared(tmp_path, {"x": cells, "y": noise(100)})
    (column,) = problem.predictor.preprocessing.dates
    assert (column.indicator, column.strays) == (True, False)
    assert (
        "Column 'x' holds 25 cells that say that there is no value, the first in train.csv, row 3: "
        f"'{marker}'; they are treated as missing."
    ) in problem.notes
    assert problem.warnings == []
    assert problem.description.startswith("A table with 1 date column, ")


def test_dates_that_are_not_read_are_told_beside_many_words_for_no_value(tmp_path: Path) -> None:
    cells = ["-" if n % 4 == 1 else f"{1 + n % 28}.1.{10 + n % 80}" for n in range(100)]
    problem = prepared(tmp_path, {"x": cells, "z": VALUES, "y": noise(100)})
    (warning,) = problem.warnings
    assert warning.startswith("Column 'x' holds dates that are not written in one form that is known")


def test_words_for_no_value_beside_few_words_are_no_dates(tmp_path: Path) -> None:
    problem = prepared(tmp_path, {"x": ["-"] * 97 + ["rent", "own", "let"], "y": noise(100)})
    (column,) = problem.predictor.preprocessing.categories
    assert column.categories[0] == "-"
    assert not any("'x'" in note for note in problem.notes)


def test_a_dash_among_words_for_yes_and_no_keeps_case_from_mattering(tmp_path: Path) -> None:
    problem = prepared(tmp_path, {"x": ["Yes", "no", "yes", "-", "NO"] * 20, "y": noise(100)})
    (column,) = problem.predictor.preprocessing.categories
    assert (sorted(column.categories), column.folded) == (["-", "no", "yes"], True)


def test_words_for_no_value_among_words_are_categories(tmp_path: Path) -> None:
    cells = ["-", "rent", "own", "none"] * 25
    problem = prepared(tmp_path, {"x": cells, "y": noise(100)})
    (column,) = problem.predictor.preprocessing.categories
    assert sorted(column.categories) == ["-", "none", "own", "rent"]
    assert not any("'x'" in told for told in [*problem.notes, *problem.warnings])


def test_a_target_with_a_decimal_comma_is_a_number_for_training_and_prediction_alike(tmp_path: Path) -> None:
    rows = [[swapped(f"{x:,.2f}"), swapped(f"{x / 7:.2f} €")] for x in VALUES]
    write_csv(tmp_path / "data" / "train.csv", ["x", "y"], rows)
    train(run_inputs(tmp_path / "data", tmp_path / "out", TABULAR))
    described = json.loads((tmp_path / "out" / "model.json").read_text())["model"]
    assert described["target"]["notation"] == {"decimal": ",", "unit": "€"}
    assert described["preprocessing"]["numbers"][0]["notation"] == {"decimal": ",", "unit": ""}
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["dataset"]["notes"]
    assert any(note.startswith("Column 'y' was read as numbers: '") for note in notes)
    told = predict(tmp_path / "out", tmp_path / "data" / "train.csv", None)
    assert told["metrics"]["rmse"] < 200, "labels of some hundreds, not of thousands"
    write_csv(tmp_path / "new.csv", ["x"], [["2.000,5"], ["2000.5"]])
    with pytest.raises(DatasetInvalid) as refused:
        predict(tmp_path / "out", tmp_path / "new.csv", None)
    assert refused.value.sentence == (
        "Invalid dataset: new.csv: row 3: column 'x' holds '2000.5', which is no number written as in training, like"
        " 1.234,5"
    )


def test_a_model_of_before_notations_is_read_as_plain(tmp_path: Path) -> None:
    problem = prepared(tmp_path, {"x": VALUES, "y": VALUES})
    described = problem.model_description()
    described["target"].pop("notation")
    for column in described["preprocessing"]["numbers"]:
        column.pop("notation")
    restored = Tabular().restore(described)
    assert isinstance(restored, TabularPredictor)
    assert isinstance(restored.target, ValueTarget)
    assert restored.target.notation == PLAIN
    assert restored.read(tmp_path / "train.csv", Limits()).labelled


def test_a_word_among_a_hundred_target_numbers_makes_no_hundred_classes(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid) as told:
        prepared(tmp_path, {"x": VALUES, "y": [*VALUES[:80], *["-"] * 20]})
    assert told.value.sentence == (
        "Invalid dataset: train.csv: row 82: the target column 'y' holds '-', which is no number; the others are: "
        "correct it or leave the row out (data.types: {y: category} makes a class of each value)"
    )
    as_classes = prepared(tmp_path, {"x": VALUES, "y": [*VALUES[:80], *["-"] * 20]}, types={"y": "category"})
    assert "classification" in as_classes.description


@given(st.floats(-1e12, 1e12).map(lambda x: round(x, 3)), st.sampled_from([",", " ", "'", ""]), st.booleans())
def test_what_is_written_with_separators_is_read_as_it_was(value: float, between: str, comma: bool) -> None:
    text = f"{value:,.3f}".replace(",", "\0").replace(".", "," if comma else ".")
    text = text.replace("\0", "." if comma and between == "," else between)
    values, bad = numbers(pa.array([text], pa.large_string()), Notation("," if comma else "."))
    assert not bad[0], text
    assert values[0] == value


@given(st.text(st.characters(codec="utf-8"), max_size=12), st.sampled_from([".", ","]), st.sampled_from(["", "%", "€"]))
def test_no_cell_stops_the_reading_of_a_column(text: str, decimal: str, unit: str) -> None:
    values, bad = numbers(pa.array([text, None], pa.large_string()), Notation(decimal, unit))
    assert np.isnan(values[1])
    assert not bad[1]
    assert bad[0] == (np.isnan(values[0]) and text.strip().lower() not in MARKERS)
