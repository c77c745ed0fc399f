"""Where a table's header stands, and what its rows have more: found and said; columns are never shifted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world.workbooks import workbook
from trainer_image.data.formats.cells import Wanted
from trainer_image.data.table import Table, read_table
from trainer_image.errors import DatasetInvalid
from trainer_image.limits import Limits
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.tabular.task import TabularProblem

ROWS = [f"{n / 8},{n % 7},{('no', 'yes')[n % 3 > 0]}" for n in range(60)]


def read(path: Path, *needed: str) -> Table:
    return read_table([(path.name, path)], Limits(), wanted=Wanted(needed))


def lay(folder: Path, content: str, name: str = "train.csv") -> Path:
    (folder / name).write_bytes(content.encode())
    return folder / name


ABOVE = {
    "remarks": ("# made by us\n# 2024\n", 3),
    "names and values": ("Station,Berlin\r\nUnit,C\r\n\r\n", 4),
    "a title as wide as the table": ("Report 2024,,\n,,\n", 3),
    "a header of groups": ("group,group,out\n", 2),
    "names of the World Bank": ('\ufeff"Data Source","World Development Indicators",\n\n', 3),
    "a cell of two lines": ('"Title\nof it"\n', 3),
    "lines of a Mac": ("Title\r\r", 3),
}


@pytest.mark.parametrize("case", ABOVE)
def test_a_header_below_other_lines_is_found_by_the_target_and_said(tmp_path: Path, case: str) -> None:
    above, row = ABOVE[case]
    end = "\r" if case == "lines of a Mac" else "\n"
    table = read(lay(tmp_path, above + end.join(["a,b,y", *ROWS]) + end), "y")
    assert list(table.columns) == ["a", "b", "y"]
    assert table.rows == 60
    assert f"train.csv: row {row} was read as its header." in table.notes
    assert table.locate_all([0, 59]) == [("train.csv", row + 1), ("train.csv", row + 60)]


def test_a_delimiter_below_a_title_is_found_with_the_header(tmp_path: Path) -> None:
    table = read(lay(tmp_path, "\n".join(["Umsatz, 2024", "a;b;y", *(r.replace(",", ";") for r in ROWS)])), "y")
    assert list(table.columns) == ["a", "b", "y"]


def test_a_row_that_holds_the_targets_name_as_a_value_is_no_header(tmp_path: Path) -> None:
    lay(tmp_path, "\n".join(["c,Y", *(f"{('red', 'blue')[n % 2]},{('no', 'yes')[n % 3 > 0]}" for n in range(60))]))
    with pytest.raises(DatasetInvalid, match=r"has no column 'yes' \(data.target\)"):
        TabularProblem(tmp_path, TaskSettings(target="yes"))


def test_a_row_that_has_the_targets_name_once_below_others_is_no_header(tmp_path: Path) -> None:
    rows = [f"w{n},{'text' if n == 9 else 'image'}" for n in range(60)]
    with pytest.raises(DatasetInvalid, match=r"has no column 'text' \(data.target\)"):
        TabularProblem(lay(tmp_path, "\n".join(["content,kind", *rows])).parent, TaskSettings(target="text"))


def test_rows_of_a_sheet_that_was_chosen_by_its_columns_are_numbered_as_they_stand(tmp_path: Path) -> None:
    data = [["Sales"], [], ["a", "y"], *([n, n] for n in range(5))]
    path = workbook(tmp_path / "t.xlsx", {"About": [["k", "v"], *([n, n] for n in range(50))], "Data": data})
    assert read(path, "y").locate(4) == ("t.xlsx", 8)


def test_years_may_be_names_below_other_lines(tmp_path: Path) -> None:
    lines = ["Source: a bank", "name,2019,2020,", *(f"c{n},{n},{n * 2},".replace("c", "land ") for n in range(9))]
    table = read(lay(tmp_path, "\n".join(lines)), "2020")
    assert list(table.columns) == ["name", "2019", "2020"]


SHIFTED = {
    "quotes behind a blank": (["a,b,y", *(f'{n / 8}, "x, {n}", yes' for n in range(60))], "where no blank stands"),
    "apostrophes": (["a,b,y", *(f"{n / 8},'x, {n}',yes" for n in range(60))], "has to stand in quotes"),
    "backslashes": (["a,b,y", *(f'{n / 8},"a \\"b\\", {n}",yes' for n in range(60))], "is written twice"),
    "texts without quotes": (["text,y", *(f"a ship {n}, and so on,yes" for n in range(60))], "has to stand in quotes"),
    "a last column without a name": (["a,b,y", *(f"{row},more" for row in ROWS)], "row 2 has 4 fields"),
}  # fmt: skip


@pytest.mark.parametrize("case", SHIFTED)
def test_a_field_more_in_every_row_is_no_name_of_the_row_by_itself(tmp_path: Path, case: str) -> None:
    lines, why = SHIFTED[case]
    with pytest.raises(DatasetInvalid, match=why):
        read(lay(tmp_path, "\n".join(lines) + "\n"), "y")


@pytest.mark.parametrize("name", ["genes.tsv", "genes.tab"])
def test_names_of_rows_without_quotes_are_told_between_tabs(tmp_path: Path, name: str) -> None:
    table = read(lay(tmp_path, "x\ty\n" + "".join(f"gene {n}, a\t{n}\tyes\n" for n in range(9)), name), "y")
    assert list(table.columns) == ["Unnamed: 0", "x", "y"]
    assert table.notes == (
        f"{name}: its rows have one field more than its header; the first was read as 'Unnamed: 0'.",
    )


@pytest.mark.parametrize("target", ["y", "a"])
def test_a_header_among_the_rows_is_no_row(tmp_path: Path, target: str) -> None:
    lay(tmp_path, "\n".join(["a,b,y", *ROWS[:30], "a, b,y", *ROWS[30:]]))
    with pytest.raises(DatasetInvalid, match=r"train\.csv: row 32: repeats the header: take it out"):
        TabularProblem(tmp_path, TaskSettings(target=target))


def test_a_column_of_a_sheet_without_a_name_is_said(tmp_path: Path) -> None:
    rows = [["a", None, "y", None], *([n, n * 2, n % 2, "a remark" if n == 3 else None] for n in range(9))]
    table = read(workbook(tmp_path / "t.xlsx", {"S": rows}), "y")
    assert list(table.columns) == ["a", "y"]
    assert table.notes == ("t.xlsx: column 2 has no name in row 1 and was not read.",)


def test_commas_are_told_in_a_file_that_is_named_for_tabs(tmp_path: Path) -> None:
    assert list(read(lay(tmp_path, "\n".join(["a,b,y", *ROWS]), "train.tsv"), "y").columns) == ["a", "b", "y"]


@pytest.mark.parametrize("name", ["my\u00a0y", "\u200bmy y", "my y\ufeff"])
def test_what_nobody_sees_in_a_name_is_no_part_of_it(tmp_path: Path, name: str) -> None:
    assert list(read(lay(tmp_path, f"a,{name}\n1,2\n"), "my y").columns) == ["a", "my y"]
    assert list(read(workbook(tmp_path / "t.xlsx", {"S": [["a", name], [1, 2]]}), "my y").columns) == ["a", "my y"]


def test_a_delimiter_that_the_names_of_columns_tell_goes_before_one_that_is_as_even(tmp_path: Path) -> None:
    lines = ["Name, Vorname;y", *(f"Meier{n}, Hans;{n}" for n in range(9))]
    assert list(read(lay(tmp_path, "\n".join(lines)), "y").columns) == ["Name, Vorname", "y"]


def test_a_part_without_a_byte_is_passed_over_and_said(tmp_path: Path) -> None:
    files = [("0.csv", lay(tmp_path, "", "0.csv")), ("1.csv", lay(tmp_path, "a,y\n1,2\n", "1.csv"))]
    table = read_table(files, Limits())
    assert table.rows == 1
    assert table.notes == ("0.csv is empty and was passed over.",)
    assert table.locate(0) == ("1.csv", 2)
    with pytest.raises(DatasetInvalid, match=r"0\.csv: is empty"):
        read_table(files[:1] * 2, Limits())


def test_what_is_said_of_every_part_is_said_once(tmp_path: Path) -> None:
    files = [(f"{k}.csv", lay(tmp_path, "" if k < 3 else "title\na,y\n1,2\n", f"{k}.csv")) for k in range(9)]
    assert read_table(files, Limits(), wanted=Wanted(("y",))).notes == (
        "3.csv: row 2 was read as its header. So were 5 other files.",
        "0.csv and 2 more are empty and were passed over.",
    )


def test_a_name_that_a_reader_gave_does_not_hide_the_header(tmp_path: Path) -> None:
    path = lay(tmp_path, "\n".join(["made by us", ",a,y", *(f"w{n},{n},yes" for n in range(9))]))
    assert list(read(path, "Unnamed: 0", "a").columns) == ["Unnamed: 0", "a", "y"]
    book = workbook(tmp_path / "t.xlsx", {"About": [["k"], ["v"]], "S": [[None, "a"], ["x", 1], ["z", 2]]})
    assert list(read(book, "Unnamed: 0", "a").columns) == ["Unnamed: 0", "a"]
