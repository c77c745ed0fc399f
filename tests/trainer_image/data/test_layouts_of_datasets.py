"""Layouts in which known datasets and programs are handed out: read as meant, or refused."""

from __future__ import annotations

import io
import re
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.world.training_data import run_inputs
from trainer_image.engine import sizing
from trainer_image.engine.training import validate_dataset
from trainer_image.errors import DatasetInvalid

CLASSES = ("cat", "dog", "owl")
IMAGES, TEXTS, LANGUAGE, TABLE = "image_classification", "text_classification", "language_model", "tabular"
Lay = Callable[[Path], object]


class Case(NamedTuple):
    """lay: brings the dataset; said: each of them in what is found, or in the refusal; data: its section of
    config.yaml; rows: of all splits"""

    task: str
    lay: Lay
    said: tuple[str, ...]
    refused: bool = False
    data: str = ""
    rows: int = 0


def png(value: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (8, 8), value % 256).save(content, "PNG")
    return content.getvalue()


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def folders(d: Path, first: int = 0, count: int = 30, *, classes: tuple[str, ...] = CLASSES, below: str = "") -> None:
    for n in range(first, first + count):
        put(d / classes[n % len(classes)] / below / f"{n}.png", png(n))


def loose(d: Path, count: int = 30, first: int = 0, name: str = "{}.png") -> None:
    for n in range(first, first + count):
        put(d / name.format(n), png(n))


def table(header: str, row: Callable[[int], str], count: int = 30) -> str:
    return "\n".join([header, *map(row, range(count))]) + "\n"


def several(*steps: Lay) -> Lay:
    return lambda d: [step(d) for step in steps]


def each(files: Mapping[str, str]) -> Lay:
    return lambda d: [put(d / name, content) for name, content in files.items()]


def shards(d: Path) -> None:
    for split, first in (("train", 0), ("train", 20), ("test", 40)):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for n in range(first, first + 20):
                for name, member in ((f"{n}.png", png(n)), (f"{n}.cls", str(n % 3).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(member)
                    archive.addfile(info, io.BytesIO(member))
        put(d / f"shapes-{split}-{first:06}.tar", content.getvalue())


def sentence(n: int) -> str:
    return f"{('fine and good', 'bad and poor', 'neither of both')[n % 3]} number {n}"


def parquet_of_hub(d: Path) -> None:
    for name, first, count in (
        ("train-00000-of-00002", 0, 30),
        ("train-00001-of-00002", 30, 30),
        ("test-00000-of-00001", 60, 20),
    ):
        rows = range(first, first + count)
        (d / "data").mkdir(exist_ok=True)
        pq.write_table(
            pa.table({"text": [sentence(n) for n in rows], "label": [n % 3 for n in rows]}), d / f"data/{name}.parquet"
        )
    pq.write_table(pa.table({"text": ["not labelled"], "label": [-1]}), d / "data/unsupervised-00000-of-00001.parquet")


def texts(d: Path, first: int = 0, count: int = 30, encoding: str = "utf-8") -> None:
    for n in range(first, first + count):
        put(d / CLASSES[n % 3] / f"{n}", f"{sentence(n)} é".encode(encoding))


def zipped(name: str, numbers: range) -> Lay:
    def lay(d: Path) -> None:
        with zipfile.ZipFile(d / name, "w") as archive:
            for n in numbers:
                archive.writestr(f"news/{CLASSES[n % 3]}/{n}.txt", sentence(n))

    return lay


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


BOOK = "".join(f"Line {n} of a long and winding story.\n" for n in range(200))
ONE_HOT = table("image_id,cat,dog,owl", lambda n: f"{n},{int(n % 3 == 0)},{int(n % 3 == 1)},{int(n % 3 == 2)}")
CASES = {
    "splits by a word, as animals_train": Case(
        IMAGES,
        several(lambda d: folders(d / "animals_train"), lambda d: folders(d / "animals_test", 30, 12)),
        ("in 3 classes (cat, dog, owl)", "12 test.", "animals_test was taken for the test split."),
    ),
    "a folder in the folder of its name, and one for neither split": Case(
        IMAGES,
        several(
            lambda d: folders(d / "seg_train/seg_train"),
            lambda d: folders(d / "seg_test/seg_test", 30, 12),
            lambda d: loose(d / "seg_pred/seg_pred", 6, 50),
        ),
        ("in 3 classes (cat, dog, owl)", "12 test."),
    ),
    "splits with a year and nothing that labels them": Case(
        IMAGES,
        several(
            lambda d: loose(d / "train2017"),
            lambda d: loose(d / "val2017", 9, 30),
            lambda d: put(d / "annotations/instances.json", "{}"),
        ),
        (
            "train2017/0.png: lies in no folder named for its class",
            "write labels.csv with the columns file_name and label",
        ),
        refused=True,
    ),
    "splits in another language": Case(
        IMAGES,
        several(lambda d: folders(d / "Trainingsdaten"), lambda d: folders(d / "Testdaten", 30, 9)),
        ("'Testdaten', 'Trainingsdaten' look like splits, not like classes: call them train",),
        refused=True,
    ),
    "splits within the classes": Case(
        IMAGES,
        several(lambda d: folders(d, below="train"), lambda d: folders(d, 30, 12, below="test")),
        ("in 3 classes (cat, dog, owl)", "12 test.", "The folders of the splits lie in those of the classes."),
    ),
    "shards named for their split behind another word": Case(
        IMAGES,
        shards,
        ("in 3 classes (0, 1, 2)", "20 test.", "shapes-train-000000 and 1 more were taken for the train split"),
    ),
    "numbered parts, and a table whose label nobody named": Case(
        IMAGES,
        several(
            lambda d: loose(d / "X_images_part_1", 15),
            lambda d: loose(d / "X_images_part_2", 15, 15),
            lambda d: put(d / "meta.csv", table("image_id,dx,age", lambda n: f"{n},{CLASSES[n % 3]},7")),
        ),
        ("'X_images_part_1', 'X_images_part_2' look like parts of the dataset", "data.target"),
        refused=True,
    ),
    "pictures and masks": Case(
        IMAGES,
        several(lambda d: loose(d / "images"), lambda d: loose(d / "masks", first=90)),
        ("'images', 'masks' hold pictures and what belongs to each, not classes",),
        refused=True,
    ),
    "a table of the training images called trainLabels": Case(
        IMAGES,
        several(
            lambda d: loose(d / "train"),
            lambda d: loose(d / "test", 9),
            lambda d: put(d / "trainLabels.csv", table("id,label", lambda n: f"{n},{CLASSES[n % 3]}")),
        ),
        ("The 9 images of the test split have no labels and are not used",),
    ),
    "a table that could be of two splits": Case(
        IMAGES,
        several(
            lambda d: loose(d / "train"),
            lambda d: loose(d / "test", 9),
            lambda d: put(d / "labels.csv", table("id,label", lambda n: f"{n},{CLASSES[n % 3]}")),
        ),
        ("is the name of an image of the train split and of one of the test split", "train_labels.csv"),
        refused=True,
    ),
    "paths that say the split": Case(
        IMAGES,
        several(
            lambda d: loose(d / "train"),
            lambda d: loose(d / "test", 9),
            lambda d: put(
                d / "labels.csv",
                table("path,label", lambda n: f"train/{n}.png,{CLASSES[n % 3]}")
                + "".join(f"test/{n}.png,{CLASSES[(n + 1) % 3]}\n" for n in range(9)),
            ),
        ),
        ("in 3 classes (cat, dog, owl)", "9 test."),
    ),
    "a table beside the folder that holds the splits": Case(
        IMAGES,
        several(
            lambda d: folders(d / "ILSVRC/Data/train"),
            lambda d: loose(d / "ILSVRC/Data/val", 9, 40),
            lambda d: put(
                d / "LOC_val_solution.csv", table("ImageId,label", lambda n: f"{n + 40},{CLASSES[n % 3]}", 9)
            ),
        ),
        ("in 3 classes (cat, dog, owl)", "9 validation"),
    ),
    "a column for each class": Case(
        IMAGES,
        several(lambda d: loose(d / "images"), lambda d: put(d / "train.csv", ONE_HOT)),
        ("in 3 classes (cat, dog, owl)", "Each of the columns cat, dog, owl is a class"),
    ),
    "several classes in one row": Case(
        IMAGES,
        several(lambda d: loose(d / "images"), lambda d: put(d / "train.csv", ONE_HOT + "0,1,1,0\n")),
        ("train.csv: has no column 'label' (found image_id, cat, dog, owl)", "data.target"),
        refused=True,
    ),
    "which split a row is of is no label": Case(
        IMAGES,
        several(
            lambda d: loose(d / "imgs"),
            lambda d: put(d / "list.csv", table("image_id,partition", lambda n: f"{n},{n % 2}")),
        ),
        ("all 30 training images lie in one folder ('imgs')", "list.csv: has no column 'label'"),
        refused=True,
    ),
    "a column that says the split, beside the labels": Case(
        IMAGES,
        several(
            lambda d: loose(d / "imgs"),
            lambda d: put(
                d / "list.csv",
                table("image,label,split", lambda n: f"{n},{CLASSES[n % 3]},{'train' if n % 4 else 'test'}"),
            ),
        ),
        ("in 3 classes (cat, dog, owl)", "list.csv: the column 'split' was not used"),
    ),
    "names that no image has": Case(
        IMAGES,
        several(
            lambda d: loose(d, name="train/{:05}.png"),
            lambda d: put(d / "labels.csv", table("id,label", lambda n: f"{n},a")),
        ),
        ("labels.csv names no image that is there", "'29'", "there is 00000.png"),
        refused=True,
    ),
    "labels as text files, as of YOLO": Case(
        IMAGES,
        several(lambda d: loose(d / "train/images"), lambda d: loose(d / "train/labels", name="{}.txt")),
        ("all 30 training images lie in one folder ('images')", ".txt files beside them are not read for labels"),
        refused=True,
    ),
    "quantities for labels": Case(
        IMAGES,
        several(
            lambda d: loose(d / "imgs"),
            lambda d: put(d / "train.csv", table("image,price", lambda n: f"{n},{n * 1.5 + 0.25}")),
        ),
        ("the labels are 30 different numbers ('0.25', '1.75', …)", "write ranges"),
        refused=True,
        data="target: price",
    ),
    "labels joined in one cell": Case(
        IMAGES,
        several(
            lambda d: loose(d / "imgs"),
            lambda d: put(
                d / "train.csv", table("image,label", lambda n: f"{n},{'cat|dog' if n % 5 == 0 else CLASSES[n % 3]}")
            ),
        ),
        ("Classes that join others: 'cat|dog'; each is a class of its own",),
    ),
    "letters of two characters in one split": Case(
        IMAGES,
        several(
            lambda d: folders(d / "train", classes=("Äpfel", "Öl")),
            lambda d: folders(d / "test", 30, 9, classes=(nfd("Äpfel"), nfd("Öl"))),
        ),
        ("in 2 classes (Äpfel, Öl)", "9 test."),
    ),
    "thumbnails of a file server": Case(
        IMAGES,
        several(lambda d: folders(d / "train"), lambda d: folders(d / "train", 60, below="@eaDir/a.png")),
        ("in 3 classes",),
        rows=30,
    ),
    "a link to a folder around it": Case(
        IMAGES, several(folders, lambda d: (d / "cat/again").symlink_to(d)), ("in 3 classes (cat, dog, owl)",), rows=30
    ),
    "no suffixes": Case(
        IMAGES, lambda d: loose(d / "cat", name="{}"), ("0 is an image: give images names that end in .png",), True
    ),
    "IDX files": Case(
        IMAGES,
        lambda d: put(d / "raw/train-images-idx3-ubyte", struct.pack(">IIII", 2051, 1, 1, 1) + b"\0"),
        ("train-images-idx3-ubyte is an IDX file of images, as of MNIST: write each image as a PNG",),
        True,
    ),
    "pickles without a suffix": Case(
        IMAGES, lambda d: put(d / "b/data_batch_1", b"\x80\x02}q\0."), ("data_batch_1 is a pickle of Python: ",), True
    ),
    "shards of TensorFlow": Case(
        IMAGES, lambda d: put(d / "a.tfrecord-00000-of-00002", b"\1" * 30), ("is a file of TensorFlow",), True
    ),
    "an archive in an archive": Case(
        IMAGES, lambda d: put(d / "cat/train.zip", b"PK\5\6" + bytes(18)), ("holds no images",), True
    ),
    "a picture of a phone under another name": Case(
        IMAGES,
        several(folders, lambda d: put(d / "cat/0.png", b"\0\0\0\x18ftypheic\0\0\0\0")),
        ("cat/0.png: is no image that can be decoded (PNG, JPEG, BMP, GIF, WEBP are): it is a HEIC image",),
        True,
    ),
    "a class whose pictures are all of a phone": Case(
        IMAGES,
        several(folders, lambda d: put(d / "cow/1.heic", b"\0")),
        ("in 3 classes (cat, dog, owl)", "1 file (.heic) is in a format", "No image is left of the class 'cow'."),
    ),
    "a page for a picture": Case(
        IMAGES,
        several(folders, lambda d: put(d / "cat/0.png", "<!DOCTYPE html>404")),
        ("are): it is a web page",),
        True,
    ),
    "an empty picture": Case(
        IMAGES, several(folders, lambda d: put(d / "cat/0.png", "")), ("are): it is empty",), True
    ),
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
    case = CASES[name]
    # How quick this machine is says nothing of a layout.
    monkeypatch.setattr(sizing, "epochs_in", lambda problem, plan: 1.0)
    data = tmp_path / "data"
    data.mkdir()
    case.lay(data)
    config = f"task: {case.task}\nmodel: {{preset: fast}}\n" + (f"data: {{{case.data}}}\n" if case.data else "")
    inputs = run_inputs(data, tmp_path / "out", config)
    if case.refused:
        with pytest.raises(DatasetInvalid) as caught:
            validate_dataset(inputs)
        found = caught.value.sentence
    else:
        found = validate_dataset(inputs)
    for said in case.said:
        assert said in found
    assert case.rows in (0, sum(map(int, re.findall(r"(\d+) (?:train|validation|test)\b", found)[:3])))
