"""Tables as people have them: odd files, odd types, odd columns; used as meant, or named with file and row."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trainer_image.data.prepared import noise, prepared
from tests.world.training_data import TABULAR, class_rows, run_inputs, write_csv
from trainer_image.data import gzip_stream
from trainer_image.data.formats import cells
from trainer_image.data.table import Table, read_table
from trainer_image.engine.training import validate_dataset
from trainer_image.errors import DatasetInvalid, LimitExceeded, TrainerError
from trainer_image.limits import Limits
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.tabular.task import Tabular


def read(path: Path) -> Table:
    return read_table([(path.name, path)], Limits())


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "damaged UTF-8": (
        "train.csv",
        b"a,y\n1,\xc3\xa9\n2,caf\xe9\n",
        r"row 3 is not UTF-8 \(byte 0xe9\); save the file as UTF-8",
    ),
    "damaged UTF-8 of a Mac": ("train.csv", b"a,y\r1,\xc3\xa9\r2,caf\xe9\r", r"row 3 is not UTF-8 \(byte 0xe9\)"),
    "cut UTF-16": ("train.csv", "a,y\n1,x\n".encode("utf-16")[:-1], r"begins as UTF-16 and is none \(truncated data\)"),
    "binary": ("train.csv", b"a,y\n1,\x01\xff\n", r"row 2 is not UTF-8 \(byte 0xff\)"),
    "workbook": (
        "train.csv",
        b"PK\x03\x04\x14\0\x06\0",
        "is a zip archive, or a workbook .*; .* save it as CSV",
    ),
    "PDF": ("train.csv", b"%PDF-1.7\n%\xe2", "is a PDF, not CSV; save its text"),
    "gzip without .gz": (
        "train.csv",
        gzip.compress(b"a,y"),
        "is packed with gzip, .* a name that ends in .gz",
    ),
    "Parquet by another name": (
        "train.csv",
        b"PAR1\x15\x04",
        "is a Parquet file, .* a name that ends in .parquet",
    ),
    "picture in gzip": ("train.csv.gz", gzip.compress(b"\x89PNG\r\n\x1a\n"), "is a PNG image, not CSV; leave it out"),
    "workbook as JSON": ("train.jsonl", b"PK\x03\x04\x14\0", "is a zip archive, .*, not JSON Lines"),
    "NUL": ("train.csv", b"a,y\n1,x\n2,z\0\n", "row 3 holds a NUL byte"),
    "NUL in gzip": ("train.csv.gz", gzip.compress(b"a,y\n1,x\n2,z\0\n"), "row 3 holds a NUL byte"),
    "twice": ("train.csv", b"a,y,a\n1,x,2\n", "row 1: two columns are named 'a'"),
    "ragged of a Mac": ("train.csv", b"a,y\r1,x\r2,x,3\r", "row 3 has 3 fields where the header has 2"),
    "ragged": ("train.csv", b'a,y\r\n"1\r\n1",x\r\n2,x,3\r\n', "row 4 has 3 fields where the header has 2"),
    "quote open at the end": ("train.csv", b'y,a\n1,x\n2,"z\n3,x\n', "row 3: a quote is opened and never closed"),
    "quote open before it": ("train.csv", b'a,y\n1,x\n"2,z\n3,x\n', "row 3 has 1 field .*; is there a quote that"),
    "title": ("train.csv", b"Sales\n\na,y\n1,x\n", r"row 3 has 2 fields .* has 1 only \('Sales'\): the first row must"),
    "nameless": (
        "train.csv",
        b"a,y,\n1,x,\n2,x,5\n",
        "row 1: column 3 has no name, and row 3 holds '5' in it",
    ),
    "web page": ("train.csv", b"<!DOCTYPE html><html>", "is a web page, not CSV"),
    "LFS": ("train.csv", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS, .* `git lfs pull`"),
    "no quote": ("train.csv", b'a,y\n1,x\n2,"z\n' + b"3,x\n" * 3_000_000, "is there a quote that is never closed"),
    "not gzip": ("train.csv.gz", b"a,y\n1,x\n", "cannot be unpacked as gzip"),
    "not parquet": ("train.parquet", b"PAR1 and more", "is no readable Parquet"),
    "not JSON": ("train.jsonl", b'{"a": 1, "y": "x"}\n{"a": 1\n', "row 2: is no JSON object"),
    "JSON list": ("train.jsonl", b"[1, 2]\n", "row 1: is no JSON object"),
    "deep JSON": ("train.jsonl", b'{"a": ' + b"[" * 200_000 + b"\n", "row 1: is nested too deeply"),
    "nested": ("train.jsonl", b'{"a": [1], "y": 2}\n', "row 1: column 'a' holds a list, not a number"),
    "same key": ("train.jsonl", b'{"a": 1, "a": 2}\n', "row 1: .*a key stands there twice"),
    "half": ("train.jsonl", b'{"a": "x"}\n{"a": "\\ud800"}\n', "row 2: column 'a' holds half a character"),
    "half a key": ("train.jsonl", b'{"a": "x"}\n{"\\udfff": 1}\n', "row 2: .*a key holds half a character"),
    "damaged JSON": ("train.jsonl", '{"a": "é"}\n'.encode() + b'{"a": "\xe9"}\n', r"row 2 is not UTF-8 \(byte 0xe9\)"),
    "empty JSON": ("train.jsonl", b"\n\n", "is empty; one JSON object a line is expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_named_with_file_and_row(tmp_path: Path, case: str) -> None:
    name, content, why = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainerError, match=rf"^(Invalid dataset: )?{name}: .*{why}") as caught:
        read(tmp_path / name)
    assert caught.value.sentence.isprintable()


@pytest.mark.parametrize("delimiter", ["^", "~", ":"])
def test_a_delimiter_that_is_not_known_is_told_the_known_ones(tmp_path: Path, delimiter: str) -> None:
    rows = ["x{}target", "1{}yes", "2{}no"]
    (tmp_path / "train.csv").write_text("".join(f"{row.format(delimiter)}\n" for row in rows))
    with pytest.raises(DatasetInvalid) as told:
        Tabular().prepare(tmp_path, TaskSettings(target="target"))
    assert told.value.sentence == (
        "Invalid dataset: train.csv: has no column 'target' (data.target): the whole header "
        f"'x{delimiter}target' is one column; delimiters that are known are , ; tab |"
    )


def test_a_packed_table_that_never_ends_is_stopped_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "FREE_BYTES", 2**20)
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(b"a,y\n" + b"1,x\n" * 5_000_000))
    with pytest.raises(LimitExceeded, match="unpacks to more than 500 times its"):
        read(tmp_path / "train.csv.gz")


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"\xef\xbb\xbf" + "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def test_json_lines_are_a_table(tmp_path: Path) -> None:
    rows = [{"a": 1.50, "b": True, "c": "ü"}, {"c": "", "a": None}, {"a": 1e400, "d": 12345678901234567890}]
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines(rows)))
    table = read(tmp_path / "t.jsonl.gz")
    assert {name: cells.to_pylist() for name, cells in table.columns.items()} == {
        "a": ["1.5", None, "Infinity"],
        "b": ["true", None, None],
        "c": ["ü", None, None],
        "d": [None, None, "12345678901234567890"],
    }
    assert table.locate_all([0, 2]) == [("t.jsonl.gz", 1), ("t.jsonl.gz", 5)]


def test_quotes_line_ends_and_blank_lines_leave_every_row_where_it_is(tmp_path: Path) -> None:
    content = '\ufeffa;"b ""x"""\r\n1;"two\r\nlines; and ""more"""\r\n\r\n2;z\r\n'
    (tmp_path / "t.csv").write_bytes(content.encode())
    table = read(tmp_path / "t.csv")
    assert table.columns['b "x"'].to_pylist() == ['two\r\nlines; and "more"', "z"]
    assert table.locate_all([1, 0]) == [("t.csv", 5), ("t.csv", 2)]


def test_line_ends_of_a_mac_are_line_ends(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'a;y\r1,5;"x\ry"\r\r2,5;z\r')
    table = read(tmp_path / "t.csv")
    assert {name: cells.to_pylist() for name, cells in table.columns.items()} == {
        "a": ["1,5", "2,5"],
        "y": ["x\ry", "z"],
    }
    assert table.locate_all([0, 1]) == [("t.csv", 2), ("t.csv", 5)]


@pytest.mark.parametrize("told", ["sep=;\r\n", '"sep=;"\r\n', "\ufeffSEP=;\n"])
def test_excel_s_line_about_the_delimiter_is_no_header(tmp_path: Path, told: str) -> None:
    (tmp_path / "t.csv").write_bytes(f'{told}a;y\r\n"1\r\n";x\r\n2,5;"a,b"\r\n'.encode())
    table = read(tmp_path / "t.csv")
    found = {name: cells.to_pylist() for name, cells in table.columns.items()}
    assert found == {"a": ["1\r\n", "2,5"], "y": ["x", "a,b"]}
    assert table.locate_all([0, 1]) == [("t.csv", 3), ("t.csv", 5)]


@pytest.mark.parametrize("sign", ["\xe9", "\0", "\u2028", "\U0001f600", '"', "\x7f", "\x1b"])
def test_a_named_delimiter_that_no_reader_takes_is_a_sentence(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"sep={sign}\na{sign}y\n" + f"1{sign}yes\n2{sign}no\n" * 20, encoding="utf-8", newline="")
    with pytest.raises(DatasetInvalid, match=r"Invalid dataset: train\.csv: "):
        Tabular().prepare(tmp_path, TaskSettings(target="y"))


def test_a_delimiter_at_the_rows_ends_makes_no_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;y;;\n1;x;;\n2;z; ;NA\n")
    table = read(tmp_path / "t.csv")
    assert {name: cells.to_pylist() for name, cells in table.columns.items()} == {"a": ["1", "2"], "y": ["x", "z"]}


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_last_field_of_several_lines_is_whole(tmp_path: Path, end: str) -> None:
    (tmp_path / "t.csv").write_bytes(f'a,y,z\n1,x,"5"\n2,"p\nq ""r""",3{end}'.encode())
    assert read(tmp_path / "t.csv").columns["y"].to_pylist() == ["x", 'p\nq "r"']


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,Target\n1,2\n", "did you mean 'Target'?"),
        ("0.5,1.5,yes\n", "its first row is 0.5, 1.5, yes: does it lack a header that names the columns?"),
        ("2019,2020,targets\n", "did you mean 'targets'?"),
    ],
)
def test_a_column_that_is_missing_is_told_the_likely_cause(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(DatasetInvalid) as refused:
        Tabular().prepare(tmp_path, TaskSettings(target="target"))
    assert refused.value.sentence.endswith(told)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("data.txt", "found data.txt; data.txt is a text: a table as text needs a name like train.csv"),
        (
            "train.xlsx",
            "train.xlsx: is no workbook, whatever its name says; save it as .xlsx, or name it as what it is",
        ),
        ("train.zip", "train.zip: is no readable zip archive (it does not end as one)"),
        (
            "train.feather",
            "train.feather: is no readable Arrow or Feather (Corrupted message, only 1 bytes available)",
        ),
    ],
)
def test_what_is_brought_instead_of_a_table_is_told_what_to_make_of_it(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DatasetInvalid) as refused:
        Tabular().prepare(tmp_path, TaskSettings(target="y"))
    assert refused.value.sentence.endswith(told)


PARQUET: dict[str, tuple[pa.Array, list[str | None]]] = {
    "decimal": (pa.array([decimal.Decimal("1.50"), None]), ["1.50", None]),
    "timestamp": (pa.array([datetime.datetime(2026, 1, 2, 3, 4), None]), ["2026-01-02 03:04:00.000000", None]),
    "date": (pa.array([datetime.date(2026, 1, 2), None]), ["2026-01-02", None]),
    "boolean": (pa.array([True, None]), ["true", None]),
    "dictionary": (pa.array(["a", None]).dictionary_encode(), ["a", None]),
    "nothing": (pa.array([None, None]), [None, None]),
    "text as bytes": (pa.array([b"ab", None]), ["ab", None]),
    "large numbers": (pa.array([2**63 - 1, None]), ["9223372036854775807", None]),
}


@pytest.mark.parametrize("case", PARQUET)
def test_parquet_s_types_are_read_as_what_they_say(tmp_path: Path, case: str) -> None:
    array, cells = PARQUET[case]
    pq.write_table(pa.table({"a": array}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").columns["a"].to_pylist() == cells


@pytest.mark.parametrize(
    ("array", "kind"),
    [(pa.array([[1]]), "list<"), (pa.array([{"x": 1}]), "struct<"), (pa.array([b"\xff"]), "binary")],
)
def test_parquet_s_other_types_are_named(tmp_path: Path, array: pa.Array, kind: str) -> None:
    pq.write_table(pa.table({"ok": pa.array([1]), "a": array}), tmp_path / "t.parquet")
    with pytest.raises(DatasetInvalid, match=rf"t\.parquet: column 'a' holds .*{kind}"):
        read(tmp_path / "t.parquet")


DATES: dict[str, tuple[Callable[[datetime.datetime], str], str]] = {
    "ISO": (lambda day: day.strftime("%Y-%m-%dT%H:%M:%S.500Z"), "year-month-day"),
    "zone": (lambda day: day.strftime("%Y-%m-%d %H:%M:%S+02:00"), "year-month-day"),
    "slashes": (lambda day: day.strftime("%Y/%m/%d"), "year-month-day"),
    "German": (lambda day: f"{day.day}.{day.month}.{day.year}", "day.month.year"),
    "American": (lambda day: day.strftime("%m/%d/%Y"), "month/day/year"),
    "British": (lambda day: day.strftime("%d/%m/%Y"), "day/month/year"),
    "Dutch": (lambda day: day.strftime("%d-%m-%Y"), "day-month-year"),
}


@pytest.mark.parametrize("case", DATES)
def test_dates_in_every_usual_form_give_the_same_days(tmp_path: Path, case: str) -> None:
    written, form = DATES[case]
    days = [datetime.datetime(2024, 1, 1, 6) + datetime.timedelta(days=3 * n) for n in range(120)]
    problem = prepared(tmp_path, {"day": [written(day) for day in days], "y": noise(120)})
    assert f"Column 'day' was read as dates ({form})." in problem.notes
    (column,) = problem.predictor.preprocessing.dates
    rows = problem.splits["train"]["dense"].numpy()
    # Three days on in the file are three days on in the input, and a week later the week's sine is the same.
    passed = np.unique(np.round(rows[:, 0] / column.scale, 2))
    assert set(np.round(np.diff(passed)).astype(int)) <= {3, 6, 9, 12, 15}
    assert np.allclose(rows[:, 3] ** 2 + rows[:, 4] ** 2, 1, atol=1e-5)


def test_dates_that_could_be_two_are_told(tmp_path: Path) -> None:
    cells = [f"{n % 12 + 1:02}/{(n // 12) % 12 + 1:02}/2025" for n in range(144)]
    problem = prepared(tmp_path, {"day": cells, "y": noise(144)})
    assert any("month/day or day/month; they were read as month/day/year" in told for told in problem.warnings)


@pytest.mark.parametrize(
    "form",
    ["%d.%m.%y", "%Y-%m-%d 10:00 CET", ("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y")],
    ids=str,
)
def test_dates_that_are_not_read_are_told_as_dates_and_not_as_ids(tmp_path: Path, form: str | tuple[str, ...]) -> None:
    forms = [form] if isinstance(form, str) else form
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=3 * n) for n in range(120)]
    cells = [day.strftime(forms[n % len(forms)]) for n, day in enumerate(days)]
    (told,) = prepared(tmp_path, {"day": cells, "x": list(range(60)) * 2, "y": noise(120)}).warnings
    assert told == (
        f"Column 'day' holds dates that are not written in one form that is known, like '{cells[0]}' in train.csv, row"
        " 2; write them all like 2026-01-31; left out."
    )


def test_a_date_that_does_not_exist_is_told_and_missing(tmp_path: Path) -> None:
    cells = [f"2024-{n % 12 + 1:02}-{n % 27 + 1:02}" for n in range(100)]
    cells[40] = "2023-02-29"
    problem = prepared(tmp_path, {"day": cells, "y": noise(100)})
    assert (
        "Column 'day' holds 1 cell that is no date, in train.csv, row 42: '2023-02-29'; it is treated as missing."
    ) in problem.warnings


def test_words_for_yes_and_no_are_one_pair_in_any_case(tmp_path: Path) -> None:
    cells = [("Yes", "no", "YES ", "No")[n % 4] for n in range(80)]
    problem = prepared(tmp_path, {"paid": cells, "x": list(range(40)) * 2, "y": noise(80)})
    (column,) = problem.predictor.preprocessing.categories
    assert column.folded
    assert sorted(column.categories) == ["no", "yes"]


def test_thousands_of_categories_share_a_bucket_for_the_rare(tmp_path: Path) -> None:
    often = [f"c{n % 2000}" for n in range(4000)]
    problem = prepared(tmp_path, {"shop": [*often, *(f"once{n}" for n in range(500))], "y": noise(4500)})
    assert any("rare ones are treated as one" in note for note in problem.notes)
    (count,) = problem.predictor.preprocessing.cardinalities
    codes = problem.splits["train"]["codes"]
    assert 500 < count <= 2001
    assert (codes == 0).sum() > 200, "the unknown category has rows to learn from"


def test_slips_in_a_column_of_numbers_are_told_and_missing(tmp_path: Path) -> None:
    cells: list[Any] = [n * 0.37 for n in range(200)]
    for row in (10, 20, 30, 40):
        cells[row] = "n/k"
    problem = prepared(tmp_path, {"size": cells, "y": noise(200)})
    (told,) = [warning for warning in problem.warnings if "'size'" in warning]
    assert "cells that are no number, the first in train.csv, row " in told
    assert "'n/k'; they are treated as missing" in told
    (column,) = problem.predictor.preprocessing.numbers
    assert column.strays
    assert column.indicator


def test_a_column_half_numbers_half_text_is_categories_and_said(tmp_path: Path) -> None:
    cells = [str(n % 7) if n % 3 else "unit A" for n in range(150)]
    problem = prepared(tmp_path, {"code": cells, "y": noise(150)})
    (told,) = [warning for warning in problem.warnings if "'code'" in warning]
    assert "mixes numbers and text" in told
    assert "holds 'unit A'; read as categories" in told


IDS: dict[str, tuple[str, list[Any], str]] = {
    "rising": ("n", list(range(100)), "looks like a row number"),
    "shuffled": ("n", np.random.default_rng(0).permutation(100).tolist(), "like an id; list it under data.drop"),
    "by name": (
        "customer_id",
        np.random.default_rng(0).choice(10**9, 100, replace=False).tolist(),
        "like an id; list it under data.drop",
    ),
    "text": ("n", [f"u{n:04x}" for n in range(100)], "has a different value in nearly every row, like an id; left out"),
}


@pytest.mark.parametrize("case", IDS)
def test_an_id_in_disguise_is_warned_about(tmp_path: Path, case: str) -> None:
    name, cells, why = IDS[case]
    problem = prepared(tmp_path, {name: cells, "x": [n % 5 for n in range(100)], "y": noise(100)})
    assert any(f"Column '{name}'" in told and why in told for told in problem.warnings)


def test_numbers_longer_than_a_float_are_told_as_ids(tmp_path: Path) -> None:
    cells = [str(2**60 + 12345 * n) for n in np.random.default_rng(0).permutation(100)]
    problem = prepared(tmp_path, {"card": cells, "x": list(range(50)) * 2, "y": noise(100)})
    assert any("'card' has whole numbers of 19 digits, like an id, of which 15 are read" in w for w in problem.warnings)
    large = prepared(tmp_path, {"atoms": [f"{n % 7}.5e23" for n in range(100)], "y": noise(100)})
    assert large.warnings == []


def test_honest_numbers_are_no_ids(tmp_path: Path) -> None:
    prices = np.random.default_rng(0).choice(10**6, 100, replace=False).tolist()
    problem = prepared(tmp_path, {"price": prices, "y": noise(100)})
    assert problem.warnings == []


def leaks() -> dict[str, tuple[dict[str, list[Any]], str]]:
    random = np.random.default_rng(0)
    classes = [str(word) for word in random.choice(["churned", "stayed"], 300)]
    values = random.normal(50, 10, 300)
    return {
        "translation": ({"y": classes, "leak": ["gone" if c == "churned" else "here" for c in classes]}, "leak"),
        "score": ({"y": classes, "leak": [0.9 if c == "churned" else n / 3000 for n, c in enumerate(classes)]}, "leak"),
        "filled afterwards": (
            {
                "y": classes,
                "leak": [f"2025-03-{n % 28 + 1:02}" if c == "churned" else "" for n, c in enumerate(classes)],
            },
            "leak",
        ),
        "with tax": ({"y": values.round(3).tolist(), "leak": (values * 1.19).round(2).tolist()}, "leak"),
    }


@pytest.mark.parametrize("case", leaks())
def test_a_column_that_gives_the_answer_away_is_warned_about_and_kept(tmp_path: Path, case: str) -> None:
    columns, name = leaks()[case]
    honest = np.random.default_rng(1).normal(size=300).round(3).tolist()
    problem = prepared(tmp_path, {**columns, "honest": honest})
    (told,) = [warning for warning in problem.warnings if "nearly perfectly by itself" in warning]
    assert told.startswith(f"Column '{name}' predicts 'y'")
    assert name in problem.predictor.preprocessing.columns


def test_many_columns_that_give_the_answer_away_are_one_sentence(tmp_path: Path) -> None:
    classes = noise(120)
    problem = prepared(tmp_path, {**{f"c{k}": [f"{k}{word}" for word in classes] for k in range(5)}, "y": classes})
    (told,) = [warning for warning in problem.warnings if "nearly perfectly" in warning]
    assert told.startswith("5 columns predict 'y' nearly perfectly, each by itself: c0, c1, c2, c3, c4. Are they known")


def test_a_good_column_is_no_leak(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["a", "b", "colour", "y"], class_rows(600))
    assert Tabular().prepare(tmp_path, TaskSettings(target="y")).warnings == []


@pytest.mark.parametrize(("classes", "figure"), [(["no", "yes"], "balanced_accuracy"), (list("abc"), "macro_f1")])
def test_strong_imbalance_changes_the_figure_and_says_so(tmp_path: Path, classes: list[str], figure: str) -> None:
    y = [classes[0] if n % 10 else classes[1 + n // 10 % (len(classes) - 1)] for n in range(300)]
    columns = {"x": np.random.default_rng(0).normal(size=300).round(3).tolist(), "y": y}
    problem = prepared(tmp_path, columns)
    # A figure of the few rare rows stands still for many epochs: the first would win.
    assert (problem.headline.name, problem.selection.name) == (figure, "log_loss")
    assert any("are imbalanced: " in note and figure.replace("_", " ") in note for note in problem.notes)
    chosen = prepared(tmp_path, columns, metric="accuracy")
    assert chosen.headline.name == chosen.selection.name == "accuracy"
    assert not any("imbalanced" in note for note in chosen.notes)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["yes", "Yes ", "no"], "Classes of 'y' that differ in case or spaces only: 'Yes' and 'yes'; write alike"),
        (["yes", "no", "-"], "Classes of 'y' that may stand for a missing label: '-'; leave their rows out if so."),
        ([f"u{n}" for n in range(45)] + ["v"] * 45, "Classes of 'y' with one training row only: 'u0', 'u1', "),
    ],
)
def test_classes_that_look_wrong_are_warned_about(tmp_path: Path, labels: list[str], told: str) -> None:
    problem = prepared(tmp_path, {"x": list(range(90)), "y": (labels * 90)[:90]})
    assert any(warning.startswith(told) for warning in problem.warnings), problem.warnings


def test_balanced_classes_are_judged_by_accuracy(tmp_path: Path) -> None:
    assert prepared(tmp_path, {"x": list(range(100)), "y": noise(100)}).headline.name == "accuracy"


def test_what_was_decided_reaches_whoever_validates(tmp_path: Path) -> None:
    cells = [("yes", "no")[n % 2] for n in range(100)]
    write_csv(tmp_path / "train.csv", ["leak", "same", "y"], [[c, 1, c] for c in cells])
    told = validate_dataset(run_inputs(tmp_path, tmp_path / "out", TABULAR))
    assert "Column 'same' is constant and was left out." in told
    assert "Column 'leak' predicts 'y' nearly perfectly by itself (100.0%)" in told


def test_a_table_without_a_usable_column_is_told_why_of_each(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"no usable column .*'a' is empty.*'b' has a different value") as caught:
        prepared(tmp_path, {"a": [""] * 80, "b": [f"u{n}" for n in range(80)], "y": noise(80)})
    assert caught.value.sentence.isprintable()


GENES = [f"ENSG{number:011d}" for number in range(6000)]


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz", "train.tsv"])
def test_a_header_longer_than_the_sample_is_read_whole(tmp_path: Path, name: str) -> None:
    """6000 genes are 96 KB of names; the first 64 KiB end in the middle of one."""
    delimiter = "\t" if ".tsv" in name else ","
    text = "".join(delimiter.join(row) + "\n" for row in [GENES, ["1"] * len(GENES), ["2"] * len(GENES)])
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    table = read_table([(name, tmp_path / name)], Limits())
    assert list(table.columns) == GENES
    assert table.rows == 2


def test_a_file_without_a_line_end_is_refused_by_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "BLOCK_BYTES", 100_000)
    (tmp_path / "train.csv").write_text(",".join(f"c{number}" for number in range(30_000)))
    with pytest.raises(LimitExceeded, match="a row is longer than 100000 bytes"):
        read_table([("train.csv", tmp_path / "train.csv")], Limits())


@pytest.mark.filterwarnings("error")
def test_a_label_too_large_to_compute_with_is_not_called_infinite(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["a", "y"], [[number, f"{number + 0.5}e306"] for number in range(30)])
    with pytest.raises(DatasetInvalid, match=r"row 2: the target column 'y' holds '0\.5e306', which is .*too large"):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TABULAR))
