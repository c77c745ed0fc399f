"""Files as programs write them: read as meant, and what was decided is said; or refused with the way out."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as pafeather
import pyarrow.orc as paorc
import pyarrow.parquet as pq
import pytest
import torch

from tests.world.workbooks import workbook
from trainer_image.data.formats.cells import Wanted
from trainer_image.data.table import Table, read_table
from trainer_image.errors import DatasetInvalid, LimitExceeded, TrainerError
from trainer_image.limits import Limits
from trainer_image.tasks.base import TaskSettings, rows_in
from trainer_image.tasks.tabular.task import Tabular, TabularProblem


def read(path: Path, wanted: Wanted | None = None) -> Table:
    return read_table([(path.name, path)], Limits(), wanted=wanted or Wanted())


def cells(table: Table) -> dict[str, list[str | None]]:
    return {name: column.to_pylist() for name, column in table.columns.items()}


def prepare(data: Path, **settings: Any) -> TabularProblem:
    problem = Tabular().prepare(data, TaskSettings(target="y", **settings))
    assert isinstance(problem, TabularProblem)
    return problem


ROWS = 60


def lines(prefix: Callable[[int], str] = lambda n: "", header: str = "a,y") -> str:
    return "".join([f"{header}\n", *(f"{prefix(n)}{n % 7},{'no' if n % 2 else 'yes'}\n" for n in range(ROWS))])


def csv_of(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


# Index columns


INDEXES: dict[str, Callable[[Path], object]] = {
    "df.to_csv": lambda d: csv_of(d / "train.csv", lines(lambda n: f"{n},", ",a,y")),
    "df.sample.to_csv": lambda d: csv_of(d / "train.csv", lines(lambda n: f"{n * 37 % ROWS},", ",a,y")),
    "saved twice": lambda d: csv_of(d / "train.csv", lines(lambda n: f"{n},{n},", ",Unnamed: 0,a,y")),
    "write.csv": lambda d: csv_of(d / "train.csv", lines(lambda n: f'"{n + 1}",', '"","a","y"')),
    "write.table": lambda d: csv_of(d / "train.csv", lines(lambda n: f'"{n + 1}",', '"a","y"')),
    "reset_index": lambda d: csv_of(d / "train.csv", lines(lambda n: f"{n},", "index,a,y")),
    "Parquet of a shuffled frame": lambda d: pq.write_table(
        pa.table(
            {
                "a": [n % 7 for n in range(ROWS)],
                "y": ["no", "yes"] * (ROWS // 2),
                "__index_level_0__": [n * 37 % ROWS for n in range(ROWS)],
            }
        ),
        d / "train.parquet",
    ),
}


@pytest.mark.parametrize("case", INDEXES)
def test_a_column_that_only_numbers_the_rows_is_left_out_and_said(tmp_path: Path, case: str) -> None:
    INDEXES[case](tmp_path)
    problem = prepare(tmp_path)
    assert problem.predictor.preprocessing.columns == ["a"]
    assert [note for note in problem.notes if note.endswith("only numbers the rows and was left out.")]


def test_row_names_of_r_that_say_something_else_are_a_column_of_their_own(tmp_path: Path) -> None:
    csv_of(tmp_path / "t.csv", '"a","y"\n"Mazda RX4",1,x\n"Datsun",2,z\n')
    assert cells(read(tmp_path / "t.csv")) == {"Unnamed: 0": ["Mazda RX4", "Datsun"], "a": ["1", "2"], "y": ["x", "z"]}


def test_numbers_under_a_usual_name_of_an_index_stay_where_they_do_not_count_rows(tmp_path: Path) -> None:
    csv_of(tmp_path / "train.csv", lines(lambda n: f"{n * n % 11},", "index,a,y"))
    assert prepare(tmp_path).predictor.preprocessing.columns == ["index", "a"]


# Encodings


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("cp1252", "t.csv is not UTF-8 and was read as Windows-1252 (Western European); save it as UTF-8 if letters"),
        ("latin-1", "t.csv is not UTF-8 and was read as Windows-1252 (Western European); save it as UTF-8 if letters"),
        ("utf-16", "t.csv is UTF-16 and was read as that."),
        ("utf-16-le", "t.csv is UTF-16 and was read as that."),
        ("utf-16-be", "t.csv is UTF-16 and was read as that."),
        ("utf-32", "t.csv is UTF-32 and was read as that."),
        ("utf-8-sig", ""),
    ],
)
def test_texts_in_other_encodings_are_read_and_said(tmp_path: Path, encoding: str, told: str) -> None:
    csv_of(tmp_path / "t.csv", 'städt;y\r\nZürich;x\r\n\r\nKöln;"z\nz"\r\n', encoding)
    table = read(tmp_path / "t.csv")
    assert cells(table) == {"städt": ["Zürich", "Köln"], "y": ["x", "z\nz"]}
    assert [note[: len(told)] for note in table.notes] == ([told] if told else [])
    assert table.locate(1) == ("t.csv", 4)


def test_euro_signs_of_windows_are_no_controls_of_latin_1(tmp_path: Path) -> None:
    csv_of(tmp_path / "t.csv", "price,y\n5 €,x\n", "cp1252")
    assert cells(read(tmp_path / "t.csv"))["price"] == ["5 €"]


def test_json_lines_in_another_encoding_are_read_and_said(tmp_path: Path) -> None:
    csv_of(tmp_path / "t.jsonl", '{"a": "é"}\n{"a": "ü"}\n', "latin-1")
    table = read(tmp_path / "t.jsonl")
    assert cells(table) == {"a": ["é", "ü"]}
    assert "is not UTF-8 and was read as Windows-1252" in table.notes[0]


# Rows and splits without a label


def test_rows_without_a_target_are_left_out_counted_and_said(tmp_path: Path) -> None:
    csv_of(tmp_path / "train.csv", lines() + "3,\n4,NA\n" + lines().split("\n", 1)[1])
    csv_of(tmp_path / "test.csv", "a,y\n1,yes\n2,\n3,no\n4,no\n")
    problem = prepare(tmp_path)
    assert (
        f"2 of {2 * ROWS + 2} rows of train.csv have no 'y' and were left out, the first of them row {ROWS + 2} of "
        "train.csv."
    ) in problem.notes
    assert "1 of 4 rows of test.csv has no 'y' and was left out: row 3 of test.csv." in problem.notes
    assert {split: rows_in(rows) for split, rows in problem.splits.items()}["test"] == 3
    assert problem.examples([1], torch.empty(0))[0].name == "test.csv, row 4"


def test_numbers_without_a_target_are_left_out_of_every_figure(tmp_path: Path) -> None:
    csv_of(tmp_path / "train.csv", "a,y\n" + "".join(f"{n},{n * 1.5 if n % 3 else ''}\n" for n in range(90)))
    problem = prepare(tmp_path)
    targets = [value for split in problem.splits.values() for value in split["target"].tolist()]
    assert sorted(targets) == [n * 1.5 for n in range(90) if n % 3]


@pytest.mark.parametrize("header", ["a\n1\n2\n", "a,y\n1,\n2,\n"])
def test_kaggle_s_test_file_without_labels_is_said_and_a_test_split_is_held_out(tmp_path: Path, header: str) -> None:
    csv_of(tmp_path / "train.csv", lines())
    csv_of(tmp_path / "test.csv", header)
    csv_of(tmp_path / "sample_submission.csv", "a,y\n1,0\n")
    problem = prepare(tmp_path)
    assert any(note.startswith("test.csv has no ") and "was not used" in note for note in problem.notes)
    assert any(note.startswith("No test split: ") for note in problem.notes)
    assert problem.examples([0], torch.empty(0))[0].name.startswith("train.csv, row ")


def test_a_column_without_any_label_is_refused(tmp_path: Path) -> None:
    csv_of(tmp_path / "train.csv", "a,y\n1,\n2,\n3,\n")
    with pytest.raises(DatasetInvalid, match="the target column 'y' is empty: no row has a label"):
        prepare(tmp_path)


def test_a_test_file_need_not_have_what_the_model_does_not_use(tmp_path: Path) -> None:
    csv_of(tmp_path / "train.csv", lines(lambda n: "same,", "b,a,y"))
    csv_of(tmp_path / "test.csv", "y,a\nyes,1\nno,2\n")
    assert rows_in(prepare(tmp_path).splits["test"]) == 2


def test_files_named_for_their_split_among_other_words_are_found(tmp_path: Path) -> None:
    csv_of(tmp_path / "titanic_train.csv", lines())
    csv_of(tmp_path / "titanic-test.csv", lines())
    notes = prepare(tmp_path).notes
    assert "titanic_train.csv was taken for the train split." in notes
    assert "titanic-test.csv was taken for the test split." in notes


# Workbooks


def test_a_workbook_is_a_table_with_its_dates_numbers_and_gaps(tmp_path: Path) -> None:
    rows = [
        ["Sales 2024"],
        [],
        ["a", "when", "ok", "y"],
        [1, (45293,), True, "x"],
        [],
        [2.5, (45294.5,), False, None],
        ["#DIV/0!", None, None, "z"],
    ]
    table = read(workbook(tmp_path / "t.xlsx", {"Data": rows}))
    assert cells(table) == {
        "a": ["1", "2.5", None],
        "when": ["2024-01-02", "2024-01-03 12:00:00", None],
        "ok": ["true", "false", None],
        "y": ["x", None, "z"],
    }
    assert table.notes == ("t.xlsx: row 3 of the sheet 'Data' was read as its header.",)
    assert table.locate_all([0, 2]) == [("t.xlsx", 4), ("t.xlsx", 7)]


def test_of_several_sheets_the_one_with_the_target_is_read_and_said(tmp_path: Path) -> None:
    data = [["a", "y"], *([n % 7, "no" if n % 2 else "yes"] for n in range(ROWS))]
    workbook(tmp_path / "train.xlsx", {"About": [["by", "us"], ["x", "z"]], "Old": data, "Data": data}, hidden=["Old"])
    problem = prepare(tmp_path)
    told = "train.xlsx: the sheet 'Data' was read; 'About' beside it: save another one as its own file."
    assert told in problem.notes
    assert problem.examples([0], torch.empty(0))[0].name.startswith("train.xlsx, row ")


def test_a_workbook_of_old_excel_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.xls").write_bytes(zlib.decompress(base64.b64decode(XLS)))
    assert cells(read(tmp_path / "t.xls")) == {"a": ["1", "2.5"], "y": ["no", "yes"]}


def test_a_workbook_of_libreoffice_is_read(tmp_path: Path) -> None:
    names = "".join(
        f' xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{short}:1.0"' for short in ("office", "table", "text")
    )
    body = "".join(
        "<table:table-row>"
        + "".join(
            f'<table:table-cell office:value-type="string"><text:p>{cell}</text:p></table:table-cell>' for cell in row
        )
        + "</table:table-row>"
        for row in (["a", "y"], ["ü", "x"])
    )
    with zipfile.ZipFile(tmp_path / "t.ods", "w") as book:
        book.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        book.writestr("META-INF/manifest.xml", "<manifest/>")
        book.writestr(
            "content.xml",
            f'<office:document-content{names}><office:body><office:spreadsheet><table:table table:name="S">{body}'
            "</table:table></office:spreadsheet></office:body></office:document-content>",
        )
    assert cells(read(tmp_path / "t.ods")) == {"a": ["ü"], "y": ["x"]}


def test_a_workbook_that_unpacks_to_too_much_is_stopped_before_it_does(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/worksheets/sheet1.xml", b" " * 50_000_000)
    with pytest.raises(LimitExceeded, match="unpacks to more than 500 times its size"):
        read(tmp_path / "t.xlsx")


# Archives and packed files


def packed(path: Path, inside: dict[str, str]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in inside.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in inside.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    return path


@pytest.mark.parametrize(
    ("archives", "test"),
    [
        ({"train.csv.zip": {"train.csv": lines()}, "test.csv.zip": {"test.csv": "a,y\n1,yes\n2,no\n"}}, 2),
        ({"train.zip": {"__MACOSX/._x.csv": "?", "whatever.csv": lines()}}, None),
        ({"houses.zip": {"houses/train.csv": lines(), "houses/test.csv": "a,y\n1,no\n", "houses/README.md": "!"}}, 1),
        ({"houses.tar.gz": {"a/b/train/1.csv": lines(), "a/b/train/2.csv": lines()}}, None),
        ({"data.zip": {"one.csv": lines()}}, None),
    ],
    ids=["one each", "one of any name", "a folder inside", "shards in folders inside", "lone"],
)
def test_tables_in_archives_are_the_dataset(
    tmp_path: Path, archives: dict[str, dict[str, str]], test: int | None
) -> None:
    for name, inside in archives.items():
        packed(tmp_path / name, inside)
    problem = prepare(tmp_path)
    held = rows_in(problem.splits["test"])
    assert held == test if test else held > 2
    assert any("was unpacked" in note for note in problem.notes)
    assert problem.examples([0], torch.empty(0))[0].cells["a"]


def test_an_archive_beside_what_it_holds_is_not_looked_into(tmp_path: Path) -> None:
    csv_of(tmp_path / "train.csv", lines())
    packed(tmp_path / "all.zip", {"train.csv": "broken"})
    assert "all.zip was not looked into: what it is named for lies beside it." in prepare(tmp_path).notes


def test_tables_packed_with_zstd_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv.zst").write_bytes(pa.compress(b"a,y\n1,x\n", "zstd", asbytes=True))
    (tmp_path / "u.csv.zst").write_bytes(b"a,y\n1,x\n")
    assert cells(read(tmp_path / "t.csv.zst")) == {"a": ["1"], "y": ["x"]}
    with pytest.raises(DatasetInvalid, match=r"u\.csv\.zst: cannot be unpacked as zstd"):
        read(tmp_path / "u.csv.zst")


# JSON, Feather, ORC


RECORDS = [{"a": 1.50, "y": "x"}, {"y": None, "a": 2, "b": True}]
DOCUMENTS: dict[str, str] = {
    "records": json.dumps(RECORDS, indent=1),
    "data among others": json.dumps({"total": 2, "tags": [], "data": RECORDS}),
    "split": json.dumps({"columns": ["a", "y", "b"], "index": [0, 1], "data": [[1.5, "x", None], [2, None, True]]}),
    "columns": json.dumps({"a": {"0": 1.5, "1": 2}, "y": {"0": "x", "1": None}, "b": {"1": True}}),
    "rows by number": json.dumps({"0": {"a": 1.5, "y": "x"}, "1": {"a": 2, "y": None, "b": True}}),
    "lists": json.dumps({"a": [1.5, 2], "y": ["x", None], "b": [None, True]}),
    "lines": "".join(json.dumps(record) + "\n" for record in RECORDS),
}


@pytest.mark.parametrize("form", DOCUMENTS)
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_json_documents_are_tables(tmp_path: Path, form: str, suffix: str) -> None:
    content = DOCUMENTS[form].encode()
    (tmp_path / f"t{suffix}").write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    table = read(tmp_path / f"t{suffix}")
    assert cells(table) == {"a": ["1.5", "2"], "y": ["x", None], "b": [None, "true"]}
    assert table.locate(1) == (f"t{suffix}", 2)


def test_a_long_array_is_read_piece_by_piece(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([{"n": n, "text": "x" * 100} for n in range(30_000)]))
    assert read(tmp_path / "t.json").columns["n"].to_pylist() == [str(n) for n in range(30_000)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[1, 2]", "row 1: is no JSON object"),
        ('[{"a": 1}, {"a": ', "row 2: is no JSON object"),
        ('[{"a": 1}', r"row 2: is no JSON object \(the file ends before the list does\)"),
        ('{"a": {"x": [1]}, "b": 2}', "holds no table that is known"),
        ('{"a": [{"x": 1}], "b": [{"x": 2}]}', r"holds 2 lists of objects \(a, b\); bring a file for one"),
        ("{'a': 1}", "is no readable JSON"),
        ("", "is no readable JSON|is empty"),
    ],
)
def test_json_that_is_no_table_is_a_sentence(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(DatasetInvalid, match=rf"^Invalid dataset: t\.json: .*({why})"):
        read(tmp_path / "t.json")


def test_feather_arrow_and_orc_are_read(tmp_path: Path) -> None:
    table = pa.table({"a": [1.5, None], "y": pa.array(["x", "z"]).dictionary_encode(), "l": [[1], [2]]})
    pafeather.write_feather(table, tmp_path / "t.feather")
    with pa.ipc.new_stream(tmp_path / "t.arrow", table.schema) as stream:
        stream.write_table(table)
    paorc.write_table(table.set_column(1, "y", pa.array(["x", "z"])), tmp_path / "t.orc")
    for name in ("t.feather", "t.arrow", "t.orc"):
        found = read(tmp_path / name, Wanted(dropped=frozenset("l")))
        assert cells(found) == {"a": ["1.5", None], "y": ["x", "z"]}, name
        assert found.passed_over == ("l",)


def test_rows_under_ids_are_rows(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({f"id {n}": {"a": n, "y": "x"} for n in range(40)}))
    assert read(tmp_path / "t.json").columns["a"].to_pylist() == [str(n) for n in range(40)]


def test_what_folders_say_of_their_rows_is_a_column(tmp_path: Path) -> None:
    files = []
    for number, folder in enumerate(["city=Sankt%20Goar", "city=__HIVE_DEFAULT_PARTITION__", "city=Bonn"]):
        (tmp_path / folder).mkdir()
        files.append((f"{folder}/0.csv", csv_of(tmp_path / folder / "0.csv", f"a,y\n{number},x\n")))
    wanted = Wanted(("y",), ("city",), others=False)
    assert cells(read_table(files, Limits())) == {
        "a": list("012"),
        "y": ["x"] * 3,
        "city": ["Sankt Goar", None, "Bonn"],
    }
    assert cells(read_table(files, Limits(), wanted=wanted))["city"] == ["Sankt Goar", None, "Bonn"]
    assert read_table(files, Limits(), wanted=Wanted(dropped=frozenset(["city"]))).passed_over == ("city",)


# What is not read


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train.sav", b"$FL2@(#)", "train.sav is a file of SPSS: save it as CSV"),
        ("train.dta", b"<stata_dta>", "train.dta is a file of Stata: save it as CSV"),
        ("train.rds", b"\x1f\x8b", "train.rds is a file of R: in R: write.csv("),
        ("train.pkl", b"\x80\x04\x95", "train.pkl is a pickle of Python: reading one runs what it holds"),
        ("train.h5", b"\x89HDF\r\n", "train.h5 is an HDF5 file: save the table as Parquet or CSV"),
        ("train.sqlite", b"SQLite format 3\0", "train.sqlite is a database: export the table as CSV"),
        ("train.7z", b"7z\xbc\xaf", "train.7z is a 7-Zip archive: unpack it, or pack it as .zip"),
        ("train.rar", b"Rar!\x1a\x07", "train.rar is a RAR archive: unpack it"),
        ("train.pdf", b"%PDF-", "train.pdf is a PDF: bring the table that it shows as CSV"),
        ("train.doc", b"\xd0\xcf\x11\xe0", "train.doc is a document: bring the table in it as CSV"),
        ("train", b"PAR1", "train is a Parquet file: give it a name that ends in .parquet"),
        ("train.bin", b"\x80\x05\x95", "train.bin is a pickle of Python"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_the_way_out(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content + b"\0" * 40)
    with pytest.raises(DatasetInvalid) as refused:
        prepare(tmp_path)
    assert told in refused.value.sentence


# What is passed over


def test_dropped_columns_may_hold_what_cannot_be_read_and_stand_there_twice(tmp_path: Path) -> None:
    rows = [{"a": n % 7, "y": "no" if n % 2 else "yes", "tags": [n], "ünï côdé: {x}": {}} for n in range(ROWS)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = prepare(tmp_path, drop=("tags", "ünï côdé: {x}"))
    assert problem.predictor.preprocessing.columns == ["a"]
    csv_of(tmp_path / "t.csv", "b,a,y,b\n1,2,x,3\n")
    assert cells(read(tmp_path / "t.csv", Wanted(dropped=frozenset("b")))) == {"a": ["2"], "y": ["x"]}
    with pytest.raises(TrainerError, match="row 1: two columns are named 'b'"):
        read(tmp_path / "t.csv")


def test_many_equal_notes_are_one(tmp_path: Path) -> None:
    header = ",".join(f"c{n}" for n in range(40))
    csv_of(tmp_path / "train.csv", lines(lambda n: "1," * 40, f"{header},a,y"))
    told = [note for note in prepare(tmp_path).notes if "constant" in note]
    shown = ", ".join(f"c{n}" for n in range(10))
    assert told == [f"40 columns are constant and were left out: {shown}, …."]


MANY: dict[str, tuple[Callable[[int, int], object], str]] = {
    "thousands or not": (lambda n, k: f'"{n + 1},{(n * 7 + k) % 1000:03}"', "hold numbers that can be read in two"),
    "mixed dates": (lambda n, k: f"2021-0{k}-{n % 28 + 1:02}" if n % 2 else f"{n % 28 + 1}.{k}.2021", "hold dates"),
    "long numbers": (lambda n, k: 10**20 + n * 7 + k, "have more digits than the 15 that are read"),
}  # fmt: skip


@pytest.mark.parametrize("case", MANY)
def test_what_differs_in_a_cell_alone_is_said_of_many_columns_at_once(tmp_path: Path, case: str) -> None:
    cell, said = MANY[case]
    header = ",".join(f"c{k}" for k in range(1, 9))
    csv_of(tmp_path / "train.csv", lines(lambda n: "".join(f"{cell(n, k)}," for k in range(1, 9)), f"{header},a,y"))
    problem = prepare(tmp_path)
    told = [sentence for sentence in (*problem.notes, *problem.warnings) if "c1" in sentence]
    assert [sentence for sentence in told if sentence.startswith(f"8 columns {said}")], told
    assert not any("'c1'" in sentence for sentence in told)


# Written by Excel 97's own format (BIFF8): a, y; 1, no; 2.5, yes.
XLS = (
    "eNrtWE1oE0EU/maTND+06aamQlsooWDV2ot48dKuCtqTpepBEUFTm4O0JCV6iQet1hwFwZPipdCLl6oXf6gHvXkQKnoQBCHRY0+Cgoc265tvdz"
    "X9OTSgQWW+Zd68fe/Nzsu8N28z+2YpVZl71F3FOgwjhJobR0udTEmLBzc2RO+6mg36mDTX4J9CPCaBbIlgse11VMdQx7sKCw/DL4UCn6SdwTRG"
    "C/lcpok4RB+ySvswJFThnkiS6KJXHaTnSbeRPqDlc9IDlNwkHRLbijqNJWd0YL+fxaesPuqS0M99wjEfKNmLTrzSWXz1lvJsIzhYvJCd+jsVve"
    "FWzEPiNpLL54rZqQrSEsB5fHMzwNdgp77IGHlz5Qoi/75WHt1EftsKAzNwzzHBy1JcF0NegE+soAeiZJOgZ6WVJEPzBTEo5S4mdCnm1rXXbN02"
    "pnSr0Am0k08xsW0pziv3v7w9Oj7mnKVkhuXaK+o7tB9wcU2PkMFJaugKbQdI95Be51N7yHeTpiUdpe8f6/SZI7O0uUFtv8yzj3jn7KzjdwlfXj"
    "72tLf82dkt/MJI9XJ64b0zhz5ZhwkZr69ZDKpBdfeOxjMn6JVfAD6Sdm0oBjHL9n13/TdXO1aRIJsi9e706ijfXq2zv2IlKEtxXbW9+rma2t7a"
    "xN6i/XLIs/dWX6/isNWBx1oppekXEjAwMDAwMDAwMDBoMpT/Fz/knzUi/kEi6n/XWZVWM59J/lscR0GuS3IwPYy89EWUGsqf7Yio4Flqi2OC74"
    "UaJ2X2IiYxTj8mG85fOQiq+t+z5YH279tCjc5fa8TPPzz/D8mywIs="
)
