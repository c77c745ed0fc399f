"""Layouts in which datasets are handed out, and what is to be said of them."""

from __future__ import annotations

import io
import re
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


def check(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case is read as meant, or refused with the way out."""
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
