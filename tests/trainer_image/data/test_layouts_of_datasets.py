"""Layouts in which known datasets and programs are handed out, but for images: read as meant, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import layouts
from tests.world.layouts import (
    LANGUAGE,
    TABLE,
    TEXTS,
    Case,
    each,
    nfd,
    parquet_of_hub,
    put,
    sentence,
    several,
    table,
    texts,
    zipped,
)

BOOK = "".join(f"Line {n} of a long and winding story.\n" for n in range(200))
CASES = {
    "newsgroups by date": Case(
        TEXTS,
        several(
            lambda d: texts(d / "20news-bydate-train", encoding="cp1252"),
            lambda d: texts(d / "20news-bydate-test", 30, 9),
        ),
        ("in 3 classes (cat, dog, owl)", "9 test.", "letters look wrong. So were 29 other files."),
    ),
    "shards of a hub": Case(
        TEXTS,
        parquet_of_hub,
        (
            "in 3 classes (0, 1, 2)",
            "20 test.",
            "train-00000-of-00002.parquet and 1 more were taken for the train split.",
        ),
    ),
    "quotes that are text, between tabs": Case(
        TEXTS,
        lambda d: put(d / "train.tsv", table("text\tlabel", lambda n: f'"{sentence(n)}\t{n % 3}', 60)),
        ("in 3 classes (0, 1, 2)",),
        rows=60,
    ),
    "a quote that swallows rows behind many that have none": Case(
        TEXTS,
        lambda d: put(
            d / "train.tsv",
            table("text\tlabel", lambda n: f"{sentence(n)} {'x' * 60}\t{n % 3}", 1200) + '"a\t1\n"b\t2\n"c\t1\n"d\t2\n',
        ),
        ("train.tsv: row 1202: a field in quotes holds tabs and line ends",),
        True,
    ),
    "a list of one label": Case(
        TEXTS,
        lambda d: put(
            d / "all.jsonl", "".join(f'{{"text": "{sentence(n)}", "label": ["{n % 3}"]}}\n' for n in range(30))
        ),
        ("in 3 classes (0, 1, 2)",),
    ),
    "quantities for classes of texts": Case(
        TEXTS,
        lambda d: put(d / "a.csv", table("text,label", lambda n: f"{sentence(n)},{n / 7:.3f}")),
        ("different numbers",),
        True,
    ),
    "what Windows leaves between texts": Case(
        TEXTS,
        several(
            lambda d: texts(d / "train"),
            lambda d: put(d / "train/cat/Thumbs.db", b"\xd0\xcf\x11\xe0"),
            lambda d: put(d / "train/cat/desktop.ini", "x"),
        ),
        ("in 3 classes (cat, dog, owl)",),
        rows=30,
    ),
    "fastText": Case(
        TEXTS,
        lambda d: put(d / "train.txt", "__label__a b\n"),
        ("train.txt is a file of fastText: write it as CSV",),
        True,
    ),
    "columns of CoNLL": Case(
        TEXTS, lambda d: put(d / "a.conll", "EU B-ORG\n"), ("a.conll is a text in columns",), True
    ),
    "a file for each class with a text in each line": Case(
        TEXTS,
        each({"pos.txt": "fine\ngood\n", "neg.txt": "bad\npoor\n"}),
        ("neg.txt is a text: write it as CSV with the columns text and label, or each of its texts",),
        True,
    ),
    "a table of texts that is of no split": Case(
        TEXTS,
        each({f"{name}.csv": table("text,label", lambda n: f"{sentence(n)},{n % 3}") for name in ("train", "eval")}),
        ("eval.csv was not used: files of splits are named for them, like train/validation/test.",),
        rows=30,
    ),
    "documents in folders": Case(
        TEXTS,
        several(lambda d: put(d / "a/1.docx", b"PK\3\4"), lambda d: put(d / "b/1.docx", b"PK\3\4")),
        ("a/1.docx: is a document, not a text; save its text as a text file",),
        True,
    ),
    "a book": Case(LANGUAGE, lambda d: put(d / "b.epub", b"PK\3\4"), ("b.epub: is a book, not a text",), True),
    "a word between the name and the suffix": Case(
        LANGUAGE,
        each({f"wiki.{split}.tokens": f"{split} {BOOK}" for split in ("train", "valid", "test")}),
        ("documents: 1 train", "1 validation", "1 test", "wiki.valid.tokens was taken for the validation split."),
    ),
    "books named for trains and tests": Case(
        LANGUAGE,
        each({name: f"{name} {BOOK}" for name in ("train station.txt", "test match.txt")}),
        ("2 documents are few",),
    ),
    "a column of splits": Case(
        TABLE,
        lambda d: put(d / "a.csv", table("a,split,y", lambda n: f"{n % 7},{'train' if n % 4 else 'test'},{n % 2}", 60)),
        ("A table with 1 numeric column", "data.split: {by: column, column: split}"),
        data="target: y",
    ),
    "folders that are columns": Case(
        TABLE,
        each({f"train/city={city}/0.csv": table("a,y", lambda n: f"{n % 7},{n % 2}") for city in (1, 2)}),
        ("A table with 2 numeric columns", "The names of folders such as 'city=1' were read as columns."),
        data="target: y",
        rows=60,
    ),
    "folders that are columns at the top, one of them dropped": Case(
        TABLE,
        each(
            {
                f"year={year}/city={city}/0.csv": table("a,y", lambda n: f"{n % 7},{n % 2}")
                for year in (1, 2)
                for city in "ab"
            }
        ),
        ("A table with 1 numeric and 1 categorical columns", "were read as columns."),
        data="target: y, drop: [year]",
        rows=120,
    ),
    "a header of a Mac": Case(
        TABLE,
        lambda d: put(d / "a.csv", table(f"a,{nfd('Größe')}", lambda n: f"{n % 7},{n % 2}")),
        ("of 'Größe'",),
        data="target: Größe",
    ),
    "a column of splits beside texts": Case(
        TEXTS,
        lambda d: put(
            d / "a.csv", table("text,label,split", lambda n: f"{sentence(n)},{n % 3},{('dev', 'train')[n % 4 > 0]}")
        ),
        ("in 3 classes (0, 1, 2)", "a.csv: the column 'split' was not used"),
    ),
    "archives with a word for their split": Case(
        TEXTS,
        several(zipped("news-train.zip", range(30)), zipped("news-test.zip", range(30, 39))),
        ("in 3 classes (cat, dog, owl)", "9 test.", "news-test was taken for the test split."),
        rows=39,
    ),
    "parts of one table in a folder of its name, as Spark and Dask write it": Case(
        TABLE,
        each(
            {f"sales.csv/part-{k}.csv": table("a,y", lambda n: f"{n % 7},{n % 2}") for k in range(2)}
            | {"sales.csv/_SUCCESS": "", "~$sales.xlsx": "of an open workbook"}
        ),
        ("part-0.csv and 1 more were taken for the train split.",),
        data="target: y",
        rows=60,
    ),
    "a split as such a folder": Case(
        TABLE,
        each({f"train.csv/{k}.csv": table("a,y", lambda n: f"{n % 7},{n % 2}") for k in range(2)}),
        ("A table with 1 numeric column",),
        data="target: y",
        rows=60,
    ),
    "numbered parts of a table": Case(
        TABLE,
        each({f"part-{k}.csv": table("a,y", lambda n: f"{n % 7},{n % 2}") for k in range(2)}),
        ("part-0.csv and 1 more were taken for the train split.",),
        data="target: y",
        rows=60,
    ),
    "years that nobody calls parts": Case(
        TABLE,
        each({f"sales_{year}.csv": "a,y\n" for year in (2024, 2025)}),
        ("call the one to train on train, with its ending, or put the parts of one table into a folder of this name",),
        True,
        "target: y",
    ),
    "inputs and answers in files of their own": Case(
        TABLE,
        each({"X_train.csv": "a\n1\n", "y_train.csv": "y\n1\n"}),
        ("bring the columns of a table and what is to be predicted in one file, train.csv",),
        True,
        "target: y",
    ),
    "a table that is of no split": Case(
        TABLE,
        each({f"{name}.csv": table("a,y", lambda n: f"{n % 7},{n % 2}") for name in ("train", "eval")}),
        ("eval.csv was not used: files of splits are named for them, like train/validation/test.",),
        data="target: y",
        rows=30,
    ),
    "a test whose target is in capitals": Case(
        TABLE,
        each({"train.csv": table("a,y", lambda n: f"{n % 7},{n % 2}"), "test.csv": "a,Y\n1,0\n"}),
        ("test.csv: has no column 'y' (data.target); did you mean 'Y'?",),
        True,
        "target: y",
    ),
    "a test whose answers are written otherwise": Case(
        TABLE,
        each({"train.csv": table("a,y", lambda n: f"{n % 7},{n % 2 > 0}"), "test.csv": "a,y\n1,true\n"}),
        ("holds the label 'true', which no training row has; training has 'True': write them alike",),
        True,
        "target: y",
    ),
    "folders of splits with files of one name": Case(
        TABLE,
        each({f"{split}_Data/a.csv": table("a,y", lambda n: f"{n % 7},{n % 2}") for split in ("Train", "Test")}),
        ("Train_Data/a.csv was taken for the train split. Test_Data/a.csv was taken for the test split.",),
        data="target: y",
        rows=60,
    ),
    "an archive of nothing": Case(
        TABLE,
        zipped("data.zip", range(0)),
        ("data.zip: holds no files",),
        True,
        "target: y",
    ),
    "an archive of documents": Case(
        TABLE,
        zipped("data.zip", range(2)),
        ("data.zip: holds nothing that is read here: it holds 'news/cat/0.txt', 'news/dog/1.txt'; 0.txt is a text: a",),
        True,
        "target: y",
    ),
    "a text without an ending": Case(
        TABLE,
        each({"houses": "a,y\n1,2\n"}),
        ("houses is a text: a table as text needs a name like train.csv",),
        True,
        "target: y",
    ),
    "a download that broke off": Case(
        TABLE,
        each({"a.csv.crdownload": "a,y\n"}),
        ("is a download that did not end: fetch it again",),
        True,
        "target: y",
    ),
    "a packed file that only says so": Case(
        TABLE,
        lambda d: put(d / "houses.gz", b"\x1f\x8b\x08"),
        ("houses.gz is packed with gzip: unpack it, or name it for what it holds, like train.csv.gz",),
        True,
        "target: y",
    ),
    "two tables and none to train on": Case(
        TABLE,
        several(lambda d: put(d / "a.csv", "a,y\n"), lambda d: put(d / "b.csv", "a,y\n")),
        ("found a.csv, b.csv; call the one to train on train",),
        True,
        "target: y",
    ),
    "a link to a sheet": Case(
        TABLE, lambda d: put(d / "a.gsheet", "{}"), ("download the sheet as CSV or Excel",), True, "target: y"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_as_meant_or_refused_with_the_way_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.check(CASES[name], tmp_path, monkeypatch)
