"""Tables and texts: sound samples, and what reads them."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.damage import LIMITS, Damage, binary


def _rows() -> list[list[Any]]:
    return [
        [n, n / 7, f"word{n % 5}", ("yes", "no")[n % 2], f"{1 + n % 28:02}.03.2024", None if n % 3 else "ä,b"]
        for n in range(120)
    ]


NAMES = ["a", "b", "c", "y", "when", "e"]


def csv_table(delimiter: str = ",") -> bytes:
    import csv

    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(NAMES)
    writer.writerows(_rows())
    return out.getvalue().encode()


@cache
def csvs() -> Sequence[bytes]:
    return [
        csv_table(),
        b"sep=;\r\n" + csv_table(";"),
        csv_table("\t"),
        b"y,text\n" + b'yes,"two\nlines ""quoted"""\nno,x\n' * 30,
    ]


@cache
def jsonl() -> Sequence[bytes]:
    return ["".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in _rows()).encode()]


@cache
def parquets() -> Sequence[bytes]:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = dict(zip(NAMES, map(list, zip(*_rows(), strict=True)), strict=True))
    first = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    more = columns | {
        "t": [first + datetime.timedelta(hours=n) for n in range(120)],
        "d": pa.array(["x", "y"] * 60).dictionary_encode(),
        "flag": [bool(n % 2) for n in range(120)],
    }
    written = []
    for table, options in (
        (pa.table(columns), {"row_group_size": 40}),
        (pa.table(more), {"compression": "gzip", "row_group_size": 60, "use_dictionary": False}),
        (pa.table(more), {"compression": "zstd", "data_page_version": "2.0", "write_page_index": True}),
        (pa.table(columns), {"compression": "none", "column_encoding": "PLAIN", "use_dictionary": False}),
    ):
        out = io.BytesIO()
        pq.write_table(table, out, **options)
        written.append(out.getvalue())
    return written


@cache
def jsons() -> Sequence[bytes]:
    records = [dict(zip(NAMES, row, strict=True)) for row in _rows()]
    columns = {name: list(column) for name, column in zip(NAMES, zip(*_rows(), strict=True), strict=True)}
    split = {"columns": NAMES, "index": list(range(120)), "data": _rows()}
    return [json.dumps(form).encode() for form in (records, columns, split, {"n": 120, "data": records})]


@cache
def latins() -> Sequence[bytes]:
    return [csv_table().decode().encode(encoding) for encoding in ("cp1252", "utf-16", "utf-16-le")]


def _arrow() -> Any:
    import pyarrow as pa

    return pa.table(dict(zip(NAMES, map(list, zip(*_rows(), strict=True)), strict=True)))


@cache
def feathers() -> Sequence[bytes]:
    from pyarrow import feather

    outs = [io.BytesIO() for _ in range(3)]
    for out, compression in zip(outs, ("lz4", "zstd", "uncompressed"), strict=True):
        feather.write_feather(_arrow(), out, compression=compression)
    return [out.getvalue() for out in outs]


@cache
def orcs() -> Sequence[bytes]:
    from pyarrow import orc

    out = io.BytesIO()
    orc.write_table(_arrow(), out)
    return [out.getvalue()]


@cache
def workbooks() -> Sequence[bytes]:
    import tempfile

    from tests.world.workbooks import workbook

    with tempfile.TemporaryDirectory() as folder:
        sheets = {"Notes": [["by", "us"]], "Data": [["Title"], NAMES, *_rows()]}
        return [workbook(Path(folder) / "t.xlsx", sheets).read_bytes()]


def table(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        import torch

        from trainer_image.tasks.base import TaskSettings
        from trainer_image.tasks.tabular.task import Tabular

        (folder / name).write_bytes(content)
        settings = TaskSettings(target="y", limits=LIMITS)
        problem = Tabular().prepare(folder, settings)
        return problem.examples([0], torch.empty(0))

    return read


def texts(name: str, task: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.tasks import task_named
        from trainer_image.tasks.base import TaskSettings

        (folder / name).write_bytes(content)
        settings = TaskSettings(target="label" if task == "text_classification" else None, limits=LIMITS)
        return task_named(task).prepare(folder, settings).description

    return read


@cache
def labelled_texts() -> Sequence[bytes]:
    lines = [{"text": f"{('sail', 'bread')[n % 2]} number {n} Küste", "label": "ab"[n % 2], "n": n} for n in range(60)]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


@cache
def plain_texts() -> Sequence[bytes]:
    return ["".join(f"Zeile {n}: äöü 日本 and more of it\n" for n in range(200)).encode()]


def packed(inner: Callable[[], Sequence[bytes]]) -> Callable[[], Sequence[bytes]]:
    return cache(lambda: [gzip.compress(content, mtime=0) for content in inner()])


def inside(of_content: Damage) -> Damage:
    """Damage of what is packed, or of the gzip stream."""

    def either(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
        if random.random() < 0.5:
            return binary(content, samples, random)
        inner = of_content(gzip.decompress(content), [gzip.decompress(sample) for sample in samples], random)
        return gzip.compress(inner, 1, mtime=0)

    return either
