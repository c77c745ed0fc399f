"""Tables as people and their programs write them: understood, asked about, or refused by a sentence that helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.trainer_image.data.prepared import noise, prepared
from trainer_image.errors import DatasetInvalid
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.tabular.columns import CategoryColumn
from trainer_image.tasks.tabular.task import TabularProblem

ROWS = 120
A = np.random.default_rng(2).normal(size=ROWS).round(3)
ID = "has a different value in nearly every row, like an id"

# A cell of row n, and what is said of its column "c".
COLUMNS: dict[str, tuple[Callable[[int], object], str]] = {
    "lakhs": (lambda n: f"{n % 90 + 1},{n % 80 + 10},{n * 7 % 900 + 100}", "was read as numbers: '1,10,100'"),
    "footnotes": (lambda n: f"{n}*" if n % 9 == 0 else n, "mixes numbers and text: 106 of its 120 values are numbers"),
    "below detection": (lambda n: f"<{n}" if n < 20 else n, "row 2 holds '<0'; left out"),
    "about": (lambda n: f"~{n}", f"{ID} (should '~"),
    "coordinates": (lambda n: f"48.{n:03d} 11.{n:03d}", f"{ID} (should '48."),
    "hours and minutes": (lambda n: f"{n}h {n % 60}m", "Column 'c' was read as durations."),
    "thousands of dollars": (lambda n: f"${n}k", f"{ID} (should '$"),
    "no measure": (lambda n: f"{n:08x}-1111-2222-3333-444444444444", f"{ID}; left out"),
    "months of Germany": (lambda n: f"{n % 28 + 1}. März {1900 + n}", "holds dates that are not written in one form"),
    "months of Spain": (lambda n: f"{n % 28 + 1} de mayo de {1900 + n}", "holds dates that are not written"),
    "dates of Java": (lambda n: f"Mon Jan {n % 28 + 1:02d} 07:{n % 60:02d}:00 CET 2024", "holds dates that are not"),
    "no date of MySQL": (
        lambda n: f"2024-{n % 12 + 1:02d}-{n % 28 + 1:02d}" if n % 8 else "0000-00-00",
        "holds 15 cells that say that there is no value, the first in train.csv, row 2: '0000-00-00'",
    ),
    "last day of SAP": (
        lambda n: f"2024-{n % 12 + 1:02d}-{n % 28 + 1:02d}" if n % 8 else "9999-12-31",
        "of its training rows, far from all others (2024-01-",
    ),
    "stand-in below": (lambda n: n % 50 if n % 8 else -999, "holds -999 in "),
    "stand-in of a sensor": (lambda n: n % 50 if n % 8 else -200, "holds -200 in "),
    "stand-in above": (lambda n: n % 50 if n % 8 else 99999, "holds 99999 in "),
    "very long ids": (lambda n: 10**24 + n, "has whole numbers of 25 digits, like an id"),
}  # fmt: skip


@pytest.mark.parametrize("case", COLUMNS)
def test_what_a_column_of_people_holds_is_understood_or_asked_about(tmp_path: Path, case: str) -> None:
    cell, said = COLUMNS[case]
    problem = prepared(tmp_path, {"a": list(A), "c": [cell(n) for n in range(ROWS)], "y": noise(ROWS)})
    found = " ".join([*problem.notes, *problem.warnings])
    assert said in found
    assert "'c' is constant" not in found


@pytest.mark.parametrize("value", [-1, 500])
def test_an_end_of_honest_numbers_is_no_stand_in(tmp_path: Path, value: int) -> None:
    cells = [n % 50 if n % 8 else value for n in range(ROWS)]
    problem = prepared(tmp_path, {"a": list(A), "c": cells, "y": noise(ROWS)})
    assert not any("far from all others" in warning for warning in problem.warnings)


LINES = [f"{a},{n % 7},{n * 1.5 + 1}" for n, a in enumerate(A)]
TOTAL = sum(n * 1.5 + 1 for n in range(ROWS))
REFUSED = {
    "remark": (["a,b,y", *LINES, "Source: an office"], "row 122 has 1 field where the header has 3 ('Source: an off"),
    "units": (["a,b,y", "mm,s,kg", *LINES], "row 2: holds 'mm' and 's' where all rows below hold numbers: take it"),
    "unit": (["a,b,y", "(mm),,", *LINES], "row 2: holds '(mm)' where all rows below hold numbers"),
    "Markdown": (["a|b|y", "---|:--:|---", *[line.replace(",", "|") for line in LINES]], "row 2: is the rule of a"),
    "quoted whole": (['"a,b,y"', *[f'"{line}"' for line in LINES]], "each row stands in quotes as a whole, as 'a,b,y'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_row_is_told_and_what_to_do(tmp_path: Path, case: str) -> None:
    lines, why = REFUSED[case]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetInvalid) as raised:
        TabularProblem(tmp_path, TaskSettings(target="y"))
    assert why in raised.value.sentence


@pytest.mark.parametrize("words", [["oops"], ["oops", "dunno"]])
def test_slips_in_the_first_row_are_no_second_header(tmp_path: Path, words: list[str]) -> None:
    names = ["c", "d"][: len(words)]
    lines = [",".join([*names, "a,b,y"]), ",".join([*words, "1,2,3"])]
    lines += [",".join([*(str(n / 2 + k) for k in range(len(words))), line]) for n, line in enumerate(LINES)]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    problem = TabularProblem(tmp_path, TaskSettings(target="y"))
    assert all(any(f"'{word}'" in warning for warning in problem.warnings) for word in words)


@pytest.mark.parametrize("last", [f",,{TOTAL}", f"Total,360,{TOTAL}"])
def test_a_row_of_totals_is_left_out_and_said(tmp_path: Path, last: str) -> None:
    (tmp_path / "train.csv").write_text("\ufeff\ufeff" + "\n".join(["a,b,y", *LINES, last]) + "\n", encoding="utf-8")
    made = TabularProblem(tmp_path, TaskSettings(target="y"))
    assert "The last row of train.csv, row 122, has the sum of all others as 'y': it was left out." in made.notes
    assert sum(len(split["target"]) for split in made.splits.values()) == ROWS
    assert made.predictor.preprocessing.columns == ["a", "b"]  # and no mark of a file's begin in a name


def test_a_target_that_stands_in_for_no_label_is_asked_about(tmp_path: Path) -> None:
    cells = [n % 50 if n % 8 else -999 for n in range(ROWS)]
    problem = prepared(tmp_path, {"a": list(A), "y": cells})
    assert any("The target 'y' is -999 in 12" in w or "The target 'y' is -999 in 1" in w for w in problem.warnings)


def test_one_value_far_from_all_others_is_asked_about_with_its_row(tmp_path: Path) -> None:
    values = [n % 50 + 0.5 for n in range(ROWS)]
    told = {
        warning
        for row in range(3)  # one of them may be held out
        for warning in prepared(
            tmp_path, {"a": list(A), "y": [1e6 if n == row else v for n, v in enumerate(values)]}
        ).warnings
    }
    assert any(
        warning.startswith("The target 'y' is 1e+06 in train.csv, row ")
        and warning.endswith("(0.5 to 49.5): is it a slip?")
        for warning in told
    )
    spread = [float(np.exp(n / 8)) for n in range(ROWS)]
    assert not any("slip" in warning for warning in prepared(tmp_path, {"a": list(A), "y": spread}).warnings)


def test_true_and_false_of_another_program_are_one_and_zero() -> None:
    import pyarrow as pa

    cells = pa.array(["1", "0.0", "TRUE", "false", "2"], pa.large_string())
    assert CategoryColumn("c", ("true", "false"), folded=True).codes(cells).tolist() == [0, 1, 0, 1, -1]
    assert CategoryColumn("c", ("yes", "no"), folded=True).codes(cells).tolist() == [-1] * 5
