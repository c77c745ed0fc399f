"""Columns as people mean them: times, months, codes, brackets around what is negative, texts; and what is no target."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.trainer_image.data.prepared import noise, prepared
from trainer_image.data.formats.cells import TEXT
from trainer_image.data.formats.numbers import Notation, numbers
from trainer_image.errors import DatasetInvalid
from trainer_image.tasks.tabular.dates import days
from trainer_image.tasks.tabular.task import TabularProblem

ROWS = 120
FIRST = datetime.datetime(2024, 1, 1, 6, 30)


def moments(step: datetime.timedelta) -> list[datetime.datetime]:
    return [FIRST + n * step for n in range(ROWS)]


def kinds(problem: TabularProblem) -> dict[str, str]:
    columns = problem.predictor.preprocessing
    return {c.name: kind for kind in ("numbers", "dates", "categories", "texts") for c in getattr(columns, kind)}


Written = Callable[[datetime.datetime], object]
TIMES: dict[str, tuple[str, Written, str]] = {
    "time of day": ("t", lambda at: at.strftime("%H:%M"), "hour:minute"),
    "time of day with seconds": ("t", lambda at: at.strftime("%H:%M:%S"), "hour:minute"),
    "half a day": ("t", lambda at: at.strftime("%I:%M %p"), "hour:minute"),
    "date and half a day": ("t", lambda at: at.strftime("%m/%d/%Y %I:%M:%S %p"), "month/day/year"),
    "month in words": ("t", lambda at: at.strftime("%b %Y"), "Jan 2026"),
    "month of Excel": ("t", lambda at: at.strftime("%b-%y"), "Jan 2026"),
    "month": ("t", lambda at: at.strftime("%Y-%m"), "year-month"),
    "month with a slash": ("t", lambda at: at.strftime("%m/%Y"), "month/year"),
    "ISO week": ("t", lambda at: at.strftime("%G-W%V"), "year-Wweek"),
    "quarter": ("t", lambda at: f"{at.year}-Q{(at.month + 2) // 3}", "year-Qquarter"),
    "day of Excel": ("t", lambda at: at.strftime("%d-%b-%y"), "31 Jan 2026"),
    "day of SAS": ("t", lambda at: at.strftime("%d%b%Y").upper(), "31 Jan 2026"),
    "day in words": ("t", lambda at: at.strftime("%d %B %Y"), "31 Jan 2026"),
    "American in words": ("t", lambda at: at.strftime("%b %d, %Y"), "Jan 31, 2026"),
    "mail": ("t", lambda at: at.strftime("%a, %d %b %Y %H:%M:%S +0000"), "31 Jan 2026"),
    "yyyymmdd": ("t", lambda at: at.strftime("%Y%m%d"), "yearmonthday"),
    "yyyymmdd as a float": ("t", lambda at: at.strftime("%Y%m%d.0"), "yearmonthday"),
    "yyyymm": ("t", lambda at: at.strftime("%Y%m"), "yearmonth"),
    "epoch seconds": ("created_at", lambda at: int(at.timestamp()), "epoch seconds"),
    "epoch with fractions": ("timestamp", lambda at: at.timestamp() + 0.25, "epoch seconds"),
    "day of the week and date": ("t", lambda at: at.strftime("%a %Y-%m-%d"), "year-month-day"),
    "Japanese": ("t", lambda at: at.strftime("%Y年%m月%d日"), "year-month-day"),
    "hours of half a day": ("t", lambda at: f"{at.strftime('%I').lstrip('0')}{at.strftime('%p').lower()}", "9 PM"),
    "log of Apache": ("t", lambda at: at.strftime("%d/%b/%Y:%H:%M:%S +0000"), "31 Jan 2026"),
    "datetime of SAS": ("t", lambda at: at.strftime("%d%b%Y:%H:%M:%S").upper(), "31 Jan 2026"),
    "ISO without signs": ("t", lambda at: at.strftime("%Y%m%dT%H%M%S"), "20260131T170500"),
    "zone of Postgres": ("t", lambda at: at.strftime("%Y-%m-%d %H:%M:%S+05"), "year-month-day"),
    "day number of Excel": ("sale_date", lambda at: (at - datetime.datetime(1899, 12, 30)).days, "days of Excel"),
    "epoch microseconds": ("time", lambda at: int(at.timestamp() * 10**6), "epoch microseconds"),
    "epoch nanoseconds": ("time", lambda at: int(at.timestamp()) * 10**9, "epoch nanoseconds"),
    "beside NaT of pandas": ("t", lambda at: at.date() if at.day % 9 else "NaT", "year-month-day"),
    "durations": ("t", lambda at: f"{at.hour + 20}:{at.minute:02}:{at.day:02}", "hours:minutes"),
    "durations of pandas": ("t", lambda at: f"{at.day} days {at.hour:02}:{at.minute:02}:00", "hours:minutes"),
    "durations in words": ("t", lambda at: f"{at.hour}h {at.minute}m" if at.hour else f"{at.minute}m", "2h 5m"),
    "durations of ISO 8601": ("t", lambda at: f"PT{at.hour}H{at.minute}M{at.day}S", "2h 5m"),
    "epoch milliseconds": ("event_time", lambda at: int(at.timestamp() * 1000), "epoch milliseconds"),
}


@pytest.mark.parametrize("case", TIMES)
def test_times_in_every_usual_form_are_times_and_said(tmp_path: Path, case: str) -> None:
    name, written, form = TIMES[case]
    cells = [written(at) for at in moments(datetime.timedelta(days=5, minutes=17))]
    problem = prepared(tmp_path, {name: cells, "x": list(range(60)) * 2, "y": noise(ROWS)})
    (column,) = problem.predictor.preprocessing.dates
    assert (column.name, column.form) == (name, form)
    assert any(note.startswith(f"Column '{name}' was read as ") for note in problem.notes)
    assert not problem.warnings


@pytest.mark.parametrize(
    ("cell", "form", "day"),
    [
        ("2024-W01", "year-Wweek", "2024-01-01"),
        ("2021W01-3", "year-Wweek", "2021-01-06"),
        ("2026-W53", "year-Wweek", "2026-12-28"),
        ("2024Q3", "year-Qquarter", "2024-07-01"),
        ("Q4 2023", "Qquarter year", "2023-10-01"),
        ("5-Jan-68", "31 Jan 2026", "2068-01-05"),
        ("5-Jan-69", "31 Jan 2026", "1969-01-05"),
        ("1st of May", "31 Jan 2026", None),
        ("Sept. 2024", "Jan 2026", "2024-09-01"),
        ("20240230", "yearmonthday", None),
        ("13:00 PM", "hour:minute", None),
        ("12:00 am", "hour:minute", "1970-01-01"),
        ("2024-W54", "year-Wweek", None),
        ("2024-01-05 03:00:00+03", "year-month-day", "2024-01-05"),
        ("2024-01-05 00:30:00+0030", "year-month-day", "2024-01-05"),
        ("20240105T000000Z", "20260131T170500", "2024-01-05"),
        ("24:00", "hours:minutes", "1970-01-02"),
        ("1 day, 24:00:00", "hours:minutes", "1970-01-03"),
        ("1:75", "hours:minutes", None),
        ("1440 min", "2h 5m", "1970-01-02"),
        ("1d 24h", "2h 5m", "1970-01-03"),
        ("P1DT86400S", "2h 5m", "1970-01-03"),
        ("soon", "2h 5m", None),
        ("P", "2h 5m", None),
        ("PT", "2h 5m", None),
    ],
)
def test_a_time_is_the_day_that_it_says(cell: str, form: str, day: str | None) -> None:
    values, bad = days(pa.array([cell], TEXT), form)
    assert bad[0] == (day is None)
    if day is not None:
        assert values[0] == np.datetime64(day).astype("datetime64[D]").astype(np.int64)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("amount", [int(at.timestamp()) for at in moments(datetime.timedelta(days=5))]),
        ("code", [20240100 + n for n in range(ROWS)]),
        ("year", [1990 + n % 30 for n in range(ROWS)]),
        ("updates", [45000 + n % 30 for n in range(ROWS)]),
        ("candidate_nr", [45000 + n % 30 for n in range(ROWS)]),
    ],
)
def test_numbers_that_only_could_be_times_stay_numbers(tmp_path: Path, name: str, cells: list[int]) -> None:
    assert kinds(prepared(tmp_path, {name: cells, "y": noise(ROWS)}))[name] == "numbers"


def test_data_types_says_that_a_column_holds_dates(tmp_path: Path) -> None:
    cells = [int(at.timestamp()) for at in moments(datetime.timedelta(days=5))]
    assert kinds(prepared(tmp_path, {"n": cells, "y": noise(ROWS)}, types={"n": "date"})) == {"n": "dates"}
    with pytest.raises(DatasetInvalid, match=r"column 'n' holds no dates in one form .* its first value is 'w0'"):
        prepared(tmp_path, {"n": [f"w{n}" for n in range(ROWS)], "y": noise(ROWS)}, types={"n": "date"})


def test_negative_numbers_of_accountants_are_negative(tmp_path: Path) -> None:
    cells = [f"({n + 1},234.50)" if n % 3 else f"{n}.00" for n in range(ROWS)]
    problem = prepared(tmp_path, {"a": cells, "y": noise(ROWS)})
    (column,) = problem.predictor.preprocessing.numbers
    values, bad = numbers(pa.array(["(1,234.50)", "$(5)", "($5)", "1,000-", "7", "(x)"], TEXT), column.notation)
    assert values[:1].tolist() == [-1234.5]
    assert values[3:5].tolist() == [-1000, 7]
    assert bad.tolist() == [False, True, True, False, False, True]
    values, _ = numbers(pa.array(["$(5)", "($5)"], TEXT), Notation(".", "$"))
    assert values.tolist() == [-5, -5]


def test_a_point_that_may_stand_between_thousands_is_asked_about(tmp_path: Path) -> None:
    cells = ["2.033" if n == 7 else "1.250" if n == 9 else str(100 + n) for n in range(60)] * 2
    problem = prepared(tmp_path, {"a": cells, "x": list(range(60)) * 2, "y": noise(ROWS)})
    (told,) = problem.warnings
    assert told.startswith(
        "Column 'a' holds numbers that can be read in two ways: '2.033', in train.csv, row 9, may be 2033 or 2.033"
    )
    assert kinds(problem)["a"] != "numbers"
    assert kinds(prepared(tmp_path, {"a": cells, "y": noise(ROWS)}, types={"a": "number"})) == {"a": "numbers"}


@pytest.mark.parametrize("other", ["2.5", "0.125", "1033"])
def test_one_other_cell_says_that_a_point_is_a_point(tmp_path: Path, other: str) -> None:
    cells = ["2.033" if n == 7 else "1.250" if n == 9 else str(100 + n) for n in range(ROWS - 1)]
    assert kinds(prepared(tmp_path, {"a": [*cells, other], "y": noise(ROWS)})) == {"a": "numbers"}


def test_a_target_whose_points_may_stand_between_thousands_is_refused(tmp_path: Path) -> None:
    cells = ["2.033" if n == 7 else "1.250" if n == 9 else str(100 + n) for n in range(ROWS)]
    with pytest.raises(
        DatasetInvalid, match=r"the target column 'y' holds numbers that can be read in two ways: '2.033'"
    ):
        prepared(tmp_path, {"a": list(range(ROWS)), "y": cells})


def test_codes_with_leading_zeros_are_categories(tmp_path: Path) -> None:
    cells = [f"{n % 13 + 90:05}" if n % 2 else f"{n % 13 + 10_115}" for n in range(ROWS)]
    problem = prepared(tmp_path, {"zip": cells, "y": noise(ROWS)})
    assert kinds(problem) == {"zip": "categories"}
    assert "Column 'zip' has leading zeros, like a code, and was read as categories." in problem.notes
    assert kinds(prepared(tmp_path, {"zip": cells, "y": noise(ROWS)}, types={"zip": "number"})) == {"zip": "numbers"}


def sentences(seed: int = 0) -> tuple[list[str], list[str]]:
    """Reviews, of which one word says whether they are good, and what they say."""
    random = np.random.default_rng(seed)
    labels = [str(label) for label in random.choice(["no", "yes"], ROWS)]
    common = ["the", "room", "was", "near", "sea", "with", "breakfast", "and", "parking"]
    return [
        " ".join([*random.choice(common, 6), "lovely" if label == "yes" else "dirty", f"Nr{n}"])
        for n, label in enumerate(labels)
    ], labels


def test_a_column_of_texts_is_used_by_its_telling_words(tmp_path: Path) -> None:
    texts, labels = sentences()
    problem = prepared(tmp_path, {"review": texts, "y": labels})
    (column,) = problem.predictor.preprocessing.texts
    assert {"lovely", "dirty"} <= set(column.words[:4])
    assert column.width <= 16
    assert any(note.startswith("Column 'review' was read as text, by the ") for note in problem.notes)
    dense = problem.splits["train"]["dense"].numpy()
    assert dense.shape[1] == column.width
    assert np.array_equal(dense[:, column.words.index("lovely")] == 1, problem.splits["train"]["target"].numpy() == 1)


def test_texts_tell_of_numbers_and_in_scripts_without_blanks(tmp_path: Path) -> None:
    texts = [f"{'大' if n % 2 else '小'}部屋 {n} 海 の近く" for n in range(ROWS)]
    values = [100 * (n % 2) + n / 10 for n in range(ROWS)]
    problem = prepared(tmp_path, {"t": texts, "y": values})
    (column,) = problem.predictor.preprocessing.texts
    assert {"大", "小"} & set(column.words[:2])


def test_data_types_decides_what_is_a_text(tmp_path: Path) -> None:
    texts, labels = sentences()
    few = [texts[n % 10] for n in range(ROWS)]
    assert kinds(prepared(tmp_path, {"t": few, "y": labels}, types={"t": "text"})) == {"t": "texts"}
    assert kinds(prepared(tmp_path, {"t": few, "y": labels})) == {"t": "categories"}


@pytest.mark.parametrize(
    "written",
    [
        lambda at: at.strftime("%Y-%m-%d"),
        lambda at: at.strftime("%d.%m.%Y %H:%M"),
        lambda at: at.strftime("%b %d, %Y"),
        lambda at: at.strftime("%H:%M"),
        lambda at: at.strftime("%Y%m%d"),
    ],
    ids=["ISO", "German", "words", "time of day", "number"],
)
def test_dates_as_a_target_are_refused_and_never_hundreds_of_classes(tmp_path: Path, written: Written) -> None:
    cells = [written(at) for at in moments(datetime.timedelta(days=1, minutes=7))]
    with pytest.raises(DatasetInvalid, match=r"the target column 'y' holds (dates|times of day) .*neither classes nor"):
        prepared(tmp_path, {"a": list(range(ROWS)), "y": cells})


def test_texts_as_a_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"'y' holds 120 different texts in 120 rows, .* too many for classes"):
        prepared(tmp_path, {"a": list(range(ROWS)), "y": sentences()[0]})


@pytest.mark.parametrize(
    "written", [lambda n: f"{n}/10", lambda n: f"{n} / 10", lambda n: f"{n} stars", lambda n: f"{n} out of 10", str]
)
def test_ratings_as_a_target_are_numbers(tmp_path: Path, written: Callable[[float], str]) -> None:
    problem = prepared(tmp_path, {"a": list(range(ROWS)), "y": [written((n % 33) / 4 + 1) for n in range(ROWS)]})
    assert problem.description.startswith("A table with 1 numeric column, regression of 'y'")


def test_a_duration_has_no_place_in_the_year_or_the_week(tmp_path: Path) -> None:
    problem = prepared(tmp_path, {"t": [f"{n}:{n % 60:02}" for n in range(ROWS)], "y": noise(ROWS)})
    assert "Column 't' was read as durations." in problem.notes
    assert problem.predictor.preprocessing.dense_width == 1


def test_durations_as_a_target_are_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"'y' holds durations \('0h 0m'\), .* as a number, minutes for instance"):
        prepared(tmp_path, {"a": list(range(ROWS)), "y": [f"{n}h {n % 60}m" for n in range(ROWS)]})


def test_codes_as_a_target_are_classes_however_many(tmp_path: Path) -> None:
    problem = prepared(tmp_path, {"a": list(range(ROWS)), "y": [f"{n % 30:03}" for n in range(ROWS)]})
    assert "classification of 'y' into 30 classes" in problem.description
    assert any("begin with a zero, as codes do" in note for note in problem.notes)


def test_numbers_of_more_digits_than_are_computed_with_are_no_hundred_classes(tmp_path: Path) -> None:
    problem = prepared(tmp_path, {"a": list(range(ROWS)), "y": [10**17 + n for n in range(ROWS)]})
    assert "regression of 'y'" in problem.description


def test_one_and_the_same_word_among_numbers_says_that_there_is_none(tmp_path: Path) -> None:
    word = [n * 1.5 if n % 4 else "varies" for n in range(ROWS)]
    words = [n * 1.5 if n % 4 else ("varies", "none of it")[n // 4 % 2] for n in range(ROWS)]
    problem = prepared(tmp_path, {"word": word, "words": words, "y": noise(ROWS)})
    assert kinds(problem)["word"] == "numbers"
    assert any("'word' holds 30 cells that are no number, the first in" in warning for warning in problem.warnings)
    assert kinds(problem).get("words") != "numbers"


MEASURES: dict[str, tuple[Callable[[int], object], str]] = {
    "coordinates": (lambda n: f"48.{n:04}, 11.{n:04}", "bring each of its numbers as a column of its own); left out."),
    "deviations": (lambda n: f"{n}.5 ± 0.{n % 9}", "bring each of its numbers as a column of its own); left out."),
    "mixed units": (lambda n: f"{n % 60}{'MK'[n % 2]}", "like '0M', read as categories: should they be measures"),
    "fractions": (lambda n: f"{n % 7 + 1}/{n % 5 + 1}", "like '1/1', read as categories: should they be measures"),
}


@pytest.mark.parametrize("case", MEASURES)
def test_what_begins_with_numbers_is_neither_a_text_nor_silently_categories(tmp_path: Path, case: str) -> None:
    cell, said = MEASURES[case]
    problem = prepared(tmp_path, {"c": [cell(n) for n in range(ROWS)], "x": list(range(60)) * 2, "y": noise(ROWS)})
    assert any(said in told for told in [*problem.notes, *problem.warnings]), [*problem.notes, *problem.warnings]
    assert not problem.predictor.preprocessing.texts


@pytest.mark.parametrize("cell", ["R$ 1.234,50", "Rs. 500.25", "SEK 12.5", "12,5 zł", "–12.5"])
def test_money_of_more_countries_and_a_dash_for_a_minus_are_numbers(tmp_path: Path, cell: str) -> None:
    cells = [cell.replace("2", str(n % 7 + 1)).replace("5", str(n % 9 + 1)) for n in range(ROWS)]
    assert kinds(prepared(tmp_path, {"c": cells, "y": noise(ROWS)})) == {"c": "numbers"}


@pytest.mark.filterwarnings("error")
def test_infinite_values_in_a_row_warn_of_nothing_else(tmp_path: Path) -> None:
    cells = [("inf", "inf", "-inf", n)[n % 4] for n in range(ROWS)]
    assert kinds(prepared(tmp_path, {"c": cells, "y": noise(ROWS)})) == {"c": "numbers"}


@pytest.mark.parametrize("cell", ["{} bhp", "{}M", "$ {},50"])
def test_one_word_among_numbers_with_a_unit_says_that_there_is_none(tmp_path: Path, cell: str) -> None:
    cells = [cell.format(n) if n % 6 else "varies with device" for n in range(ROWS)]
    problem = prepared(tmp_path, {"c": cells, "y": noise(ROWS)})
    assert kinds(problem) == {"c": "numbers"}
    assert any("'c' holds 20 cells that are no number" in warning for warning in problem.warnings)


def test_a_word_for_no_date_yet_is_missing_and_several_are_told(tmp_path: Path) -> None:
    days_ = [str(at.date()) for at in moments(datetime.timedelta(days=3))]
    one = [day if n % 4 else "present" for n, day in enumerate(days_)]
    two = [day if n % 4 else ("present", "ongoing")[n // 4 % 2] for n, day in enumerate(days_)]
    problem = prepared(tmp_path, {"one": one, "two": two, "y": noise(ROWS)})
    assert kinds(problem)["one"] == "dates"
    told = "Column 'two' mixes dates and words: 90 of its 120 values are dates, train.csv, row 2 holds 'present'; leave"
    assert any(warning.startswith(told) for warning in problem.warnings), problem.warnings


def test_measures_in_mixed_units_are_no_texts(tmp_path: Path) -> None:
    cells = [f"{n} {('kg', 'g')[n % 2]}" for n in range(ROWS)]
    problem = prepared(tmp_path, {"c": cells, "x": list(range(60)) * 2, "y": noise(ROWS)})
    assert "c" not in kinds(problem)
    assert any("(should '" in warning for warning in problem.warnings)


def test_short_addresses_are_texts(tmp_path: Path) -> None:
    labels = noise(ROWS)
    streets = {"yes": ["Elm St", "Oak Way", "Lake Rd"], "no": ["Mill Ln", "High St", "Park Av"]}
    some = [f"{word} {n % 17}" for n, word in enumerate(["unit"] * ROWS)]
    cells = [f"{n} {streets[label][n % 3]} {chr(97 + n % 26)}{n % 7}" for n, label in enumerate(labels)]
    assert kinds(prepared(tmp_path, {"c": cells, "x": some, "y": labels}))["c"] == "texts"
