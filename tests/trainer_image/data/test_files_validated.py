"""A hundred files as other programs write them, through `validate`: read whole, or refused by a sentence that names the
file; never an internal error."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as pafeather
import pyarrow.orc as paorc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.world.training_data import run_inputs
from tests.world.workbooks import workbook
from trainer_image.engine import sizing
from trainer_image.engine.training import validate_dataset
from trainer_image.errors import TrainerError

ROWS = 24
WORDS = ["Zürich", "Köln", "Málaga"]
RECORDS: list[dict[str, Any]] = [
    {"a": n * 7 % 11, "city": WORDS[n % 3], "y": "no" if n % 2 else "yes"} for n in range(ROWS)
]
SENTENCES: list[dict[str, Any]] = [
    {"text": f"the {'old ship' if n % 2 else 'brown bread'} of {WORDS[n % 3]} {n}", "label": "sea" if n % 2 else "oven"}
    for n in range(ROWS)
]
Build = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """What lies in the dataset, for which task, and whether it is read (its rows counted) or refused by a sentence."""

    task: str
    build: Build
    refused: str = ""
    rows: int = ROWS
    said: str = ""


def csv(records: list[dict[str, Any]] = RECORDS, delimiter: str = ",", end: str = "\n", quote: str = "") -> str:
    lines = [list(records[0]), *(record.values() for record in records)]
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) + end for line in lines)


def wrote(name: str, content: bytes | str) -> Build:
    return lambda folder: lay(folder, {name: content})


def lay(folder: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(files: Mapping[str, bytes | str], mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return packed.getvalue()


def arrow(records: list[dict[str, Any]] = RECORDS) -> pa.Table:
    return pa.Table.from_pylist(records)


def parquet(records: list[dict[str, Any]] = RECORDS) -> bytes:
    sink = io.BytesIO()
    pq.write_table(arrow(records), sink)
    return sink.getvalue()


def image(kind: str, mode: str = "RGB", number: int = 0, high: int = 65535) -> bytes:
    random = np.random.default_rng(number)
    if mode == "I;16":
        picture = Image.fromarray(random.integers(0, high, (12, 12)).astype(np.uint16))
    else:
        picture = Image.fromarray(random.integers(0, 255, (12, 12, 3)).astype(np.uint8)).convert(mode)
    content = io.BytesIO()
    picture.save(content, kind)
    return content.getvalue()


def pictures(suffix: str, kind: str, mode: str = "RGB", high: int = 65535) -> dict[str, bytes | str]:
    return {f"{('cat', 'dog')[n % 2]}/{n}{suffix}": image(kind, mode, n, high) for n in range(ROWS)}


def loose_pictures() -> dict[str, bytes | str]:
    return {f"images/{n}.png": image("PNG", "L", n) for n in range(ROWS)}


def text_files(around: str = "", suffix: str = ".txt", encoding: str = "utf-8") -> dict[str, bytes | str]:
    return {f"{around}{row['label']}/{n}{suffix}": row["text"].encode(encoding) for n, row in enumerate(SENTENCES)}


def loose_texts(around: str = "texts/") -> dict[str, bytes | str]:
    return {f"{around}{n:02}.txt": row["text"] for n, row in enumerate(SENTENCES)}


def label_table(form: str = "{:02}.txt", header: str = "file,label") -> str:
    return "\n".join([header, *(f"{form.format(n)},{row['label']}" for n, row in enumerate(SENTENCES))]) + "\n"


BOOK = "".join(f"Line {n} of a long and winding story about {WORDS[n % 3]}.\n" for n in range(400))


def tables() -> dict[str, Case]:
    found: dict[str, Case] = {}

    def add(name: str, build: Build, **how: Any) -> None:
        found[f"table: {name}"] = Case("tabular", build, **how)

    delimiters = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
    encodings = ("utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
    for called, delimiter in delimiters.items():
        for encoding in encodings if called == "semicolon" else encodings[:1]:
            add(f"{encoding}, {called}", wrote("train.csv", csv(delimiter=delimiter, end="\r\n").encode(encoding)))
    add("sep= of Excel", wrote("train.csv", "sep=;\r\n" + csv(delimiter=";", end="\r\n")))
    add("every cell in quotes", wrote("train.csv", csv(quote='"')))
    add("a cell of two lines", wrote("train.csv", csv().replace("Köln", '"Köln\nDeutz"')))
    add("a delimiter at the end", wrote("train.csv", csv(end=",\n")))
    add("old Mac's line ends", wrote("train.csv", csv(end="\r")))
    add("a file of tabs", wrote("train.tsv", csv(delimiter="\t")))
    add("an index of pandas", wrote("train.csv", csv([{"": n, **row} for n, row in enumerate(RECORDS)])))
    add("decimal commas", wrote("train.csv", csv([{**r, "a": f"{r['a']},5"} for r in RECORDS], delimiter=";")))
    add("gzip", wrote("train.csv.gz", gzip.compress(csv().encode())))
    add("zstd", wrote("train.csv.zst", pa.compress(csv().encode(), "zstd", asbytes=True)))
    add("zip", wrote("train.zip", zipped({"train.csv": csv()})))
    add("a Mac's zip", wrote("data.zip", zipped({"data/train.csv": csv(), "__MACOSX/data/._train.csv": b"\0\5"})))
    add("tar", wrote("data.tar", tarred({"d/train.csv": csv()}, "w")))
    add("tar.gz", wrote("data.tar.gz", tarred({"d/train.csv": csv()}, "w:gz")))
    add("tgz", wrote("data.tgz", tarred({"./train.csv": csv()}, "w:gz")))
    add("shards in a folder", lambda d: lay(d, {"train/0.csv": csv(RECORDS[:12]), "train/1.csv": csv(RECORDS[12:])}))
    add(
        "Kaggle's three",
        lambda d: lay(d, {"train.csv": csv(), "test.csv": "a,city\n1,Bonn\n", "sample_submission.csv": "id,y\n1,no\n"}),
        said="was not used",
    )
    add("JSON records", wrote("train.json", json.dumps(RECORDS)))
    add("JSON under a key", wrote("train.json", json.dumps({"data": RECORDS, "count": ROWS})))
    add("JSON by columns", wrote("train.json", json.dumps({key: [r[key] for r in RECORDS] for key in RECORDS[0]})))
    add("JSON Lines", wrote("train.jsonl", "".join(json.dumps(row) + "\n" for row in RECORDS)))
    add("ndjson", wrote("train.ndjson", "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in RECORDS)))
    add("Parquet", wrote("train.parquet", parquet()))
    add("Feather", lambda d: pafeather.write_feather(arrow(), d / "train.feather"))
    add("ORC", lambda d: paorc.write_table(arrow(), d / "train.orc"))
    sheet = [list(RECORDS[0]), *(list(row.values()) for row in RECORDS)]
    add("Excel", lambda d: workbook(d / "train.xlsx", {"Sheet1": sheet}))
    add("Excel with a title", lambda d: workbook(d / "train.xlsx", {"S": [["Sales of 2024"], [], *sheet]}))
    add("no target in a row", wrote("train.csv", csv() + "3,Bonn,\n"), said="1 of 25 rows of train.csv has no 'y'")
    for suffix, told in {
        ".sav": "SPSS",
        ".dta": "Stata",
        ".rds": "a file of R",
        ".pkl": "a pickle of Python",
        ".h5": "HDF5",
        ".npy": "a NumPy array",
        ".mat": "MATLAB",
        ".sqlite": "a database",
        ".7z": "7-Zip",
        ".rar": "RAR",
        ".pdf": "a PDF",
        ".docx": "a document",
        ".html": "no table",
        ".txt": "a text",
    }.items():
        add(f"{suffix} instead", wrote(f"train{suffix}", b"\0\1\2" * 50), refused=f"train{suffix} is .*{told}")
    add("a picture called CSV", wrote("train.csv", image("PNG")), refused=r"train\.csv: is a PNG image")
    add("a web page called CSV", wrote("train.csv", "<!DOCTYPE html><p>Log in"), refused=r"train\.csv: is a web page")
    add("nothing", wrote("train.csv", ""), refused=r"train\.csv")
    add("a header alone", wrote("train.csv", "a,city,y\n"), refused=r"train\.csv|too few")
    add("no header", wrote("train.csv", csv().split("\n", 1)[1]), refused=r"train\.csv: has no column 'y'")
    add("a row too long", wrote("train.csv", csv() + "1,2,3,4,5\n"), refused=r"train\.csv: row 26")
    add("one name twice", wrote("train.csv", csv().replace("city", "a")), refused=r"two columns are named 'a'")
    add("zero bytes", wrote("train.csv", csv().replace("Köln", "\0\0")), refused=r"train\.csv")
    add("half a gzip", wrote("train.csv.gz", gzip.compress(csv().encode())[:-20]), refused=r"train\.csv\.gz")
    add("half a zip", wrote("train.zip", zipped({"train.csv": csv()})[:-30]), refused=r"train\.zip")
    add("half a Parquet", wrote("train.parquet", parquet()[:-9]), refused=r"train\.parquet")
    add("half a workbook", wrote("train.xlsx", zipped({"xl/workbook.xml": "<"})), refused=r"train\.xlsx")
    add("half a JSON", wrote("train.json", json.dumps(RECORDS)[:-9]), refused=r"train\.json")
    return found


def others() -> dict[str, Case]:
    found: dict[str, Case] = {}

    def add(task: str, name: str, build: Build, **how: Any) -> None:
        found[f"{task}: {name}"] = Case(task, build, **how)

    def put(files: Mapping[str, bytes | str]) -> Build:
        return lambda folder: lay(folder, files)

    for suffix, kind in {".png": "PNG", ".JPG": "JPEG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}.items():
        add("image_classification", suffix, put(pictures(suffix, kind)))
    for mode in ("L", "1", "P", "LA", "RGBA", "I;16"):
        add("image_classification", mode, put(pictures(".png", "PNG", mode)))
    twelve = put(pictures(".png", "PNG", "I;16", 4096))
    add("image_classification", "12 bits of 16", twelve, said="hold values of 12 bits only")
    add("image_classification", "zip", wrote("pets.zip", zipped(pictures(".png", "PNG"))))
    add("image_classification", "tar", wrote("train.tar", tarred(pictures(".png", "PNG"), "w")))
    table = label_table("{}.png", "image_id,breed")
    add("image_classification", "a table", put({"labels.csv": table, **loose_pictures()}))
    broken = put({**pictures(".png", "PNG"), "cat/x.png": image("PNG")[:60]})
    add("image_classification", "half a picture", broken, refused=r"cat/x\.png: does not decode")
    add("image_classification", "TIFF alone", put({"cat/1.tif": b"II*\0", "dog/2.tif": b"II*\0"}), refused="tif")

    add("text_classification", "folders", put(text_files("train/")))
    add("text_classification", "folders without a suffix", put(text_files(suffix="")))
    add("text_classification", "folders in Latin-1", put(text_files(encoding="latin-1")), said="Windows-1252")
    add("text_classification", "a zip of folders", wrote("reviews.zip", zipped(text_files("reviews/train/"))))
    add("text_classification", "a zip of a table", wrote("train.csv.zip", zipped({"train.csv": csv(SENTENCES)})))
    add(
        "text_classification", "a tar.gz of a table", wrote("d.tar.gz", tarred({"x/train.csv": csv(SENTENCES)}, "w:gz"))
    )
    in_cp1252 = wrote("train.csv", csv(SENTENCES, ";").encode("cp1252"))
    add("text_classification", "a table in cp1252", in_cp1252, said="is not UTF-8 and was read as Windows-1252")
    add("text_classification", "JSON Lines", wrote("a.jsonl", "".join(json.dumps(row) + "\n" for row in SENTENCES)))
    add("text_classification", "JSON", wrote("train.json", json.dumps(SENTENCES)))
    lists = parquet([{**row, "tags": ["x"]} for row in SENTENCES])
    add("text_classification", "Parquet with lists", wrote("train.parquet", lists))
    add("text_classification", "labels beside a folder", put({"labels.csv": label_table(), **loose_texts()}))
    bare = label_table("texts\\{:02}", "id,category")
    add("text_classification", "labels of bare names", put({"labels.csv": bare, **loose_texts()}))
    nested = {"train/labels.csv": label_table(), **loose_texts("train/")}
    add("text_classification", "labels in the split's folder", put(nested))
    both = zipped({"d/labels.csv": label_table(), **{f"d/{name}": content for name, content in loose_texts().items()}})
    add("text_classification", "a zip of texts and labels", wrote("d.zip", both))
    gaps = csv([*SENTENCES, {"text": "", "label": "sea"}, {"text": "the ship", "label": ""}])
    add(
        "text_classification",
        "rows with gaps",
        wrote("train.csv", gaps),
        said="1 of 26 texts of the train split was",
    )
    kaggle = put({"train.csv": csv(SENTENCES), "test.csv": "text\nthe ship\n"})
    add("text_classification", "a test without labels", kaggle, said="has no label and is not used")
    pdf = put({**text_files(), "sea/x.txt": b"%PDF-1.7\n\xe2\xe3"})
    add("text_classification", "a PDF among texts", pdf, refused=r"sea/x\.txt: is a PDF")
    add("text_classification", "no text column", wrote("train.csv", csv()), refused=r"train\.csv: has no column 'text'")

    add("language_model", "one file", wrote("book.txt", BOOK), rows=0)
    add("language_model", "gzip", wrote("book.txt.gz", gzip.compress(BOOK.encode())), rows=0)
    add("language_model", "UTF-16", wrote("book.txt", BOOK.encode("utf-16")), rows=0, said="is UTF-16")
    add("language_model", "a zip", wrote("books.zip", zipped({"books/a.md": BOOK, "books/b.md": BOOK})), rows=0)
    add(
        "language_model",
        "a table",
        wrote("train.csv", csv([{"text": BOOK[n : n + 800].replace("\n", " ")} for n in range(24)])),
        rows=24,
    )
    add(
        "language_model",
        "a document",
        wrote("a.docx", zipped({"w.xml": "<"})),
        refused=r"a\.docx: is a document, not a text",
    )
    return found


CASES = {**tables(), **others()}
CONFIG = "task: {}\nmodel: {{preset: fast}}\n"


def test_there_are_a_hundred_of_them() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_whole_or_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    # How quick this machine is says nothing of a file.
    monkeypatch.setattr(sizing, "epochs_in", lambda problem, plan: 1.0)
    data = tmp_path / "data"
    data.mkdir()
    case.build(data)
    config = CONFIG.format(case.task) + ("data: {target: y}\n" if case.task == "tabular" else "")
    inputs = run_inputs(data, tmp_path / "out", config)
    if case.refused:
        with pytest.raises(TrainerError, match=case.refused) as refusal:
            validate_dataset(inputs)
        assert refusal.value.exit_code in (65, 82)
        return
    found = validate_dataset(inputs)
    counts = [int(count) for count in re.findall(r"(\d+) (?:train|validation|test)\b", found)]
    assert sum(counts[:3]) == case.rows if case.rows else sum(counts[:3]) >= 20
    assert case.said in found
