"""Every format that strangers hand to the trainer: sound samples of it, and what reads them.

A reader takes a folder that holds nothing but what it writes itself, and damaged bytes. It returns, or raises one of
the trainer's errors with the file's name in its sentence; anything else is a finding.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import damaged, lying
from trainer_image.errors import ConfigInvalid, DatasetInvalid, LimitExceeded, TrainerError, UsageError
from trainer_image.limits import Limits

LIMITS = Limits(dataset_bytes=64 * 1024**2, dataset_files=1000, table_columns=200, field_bytes=64 * 1024)
OF_DATA = (DatasetInvalid, LimitExceeded)
OF_MODELS = (UsageError, ConfigInvalid)

Damage = Callable[[bytes, Sequence[bytes], Random], bytes]


@dataclass(frozen=True)
class Format:
    """read: (folder, damaged bytes); named: what the sentence of an error has to contain; rows: the same for errors of
    the dataset, where that is not what is damaged"""

    samples: Callable[[], Sequence[bytes]]
    damage: Damage
    read: Callable[[Path, bytes], object]
    errors: tuple[type[TrainerError], ...] = OF_DATA
    named: str = ""
    rows: str = ""


def _binary(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    return damaged(content, samples, random, text=False)


def _text(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    return damaged(content, samples, random, text=random.random() < 0.7)


def _json(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    if random.random() < 0.2:
        return _text(content, samples, random)
    return lying(json.loads(content), random).encode("utf-8", "surrogatepass")


def _lines(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    """JSON Lines: some of them lying."""
    if random.random() < 0.5:
        return _text(content, samples, random)
    lines = content.splitlines()
    lines[random.randrange(len(lines))] = lying(json.loads(random.choice(lines)), random).encode()
    return b"\n".join(lines) + b"\n"


# Tables and texts


def _rows() -> list[list[Any]]:
    return [
        [n, n / 7, f"word{n % 5}", ("yes", "no")[n % 2], f"{1 + n % 28:02}.03.2024", None if n % 3 else "ä,b"]
        for n in range(120)
    ]


NAMES = ["a", "b", "c", "y", "when", "e"]


def _csv(delimiter: str = ",") -> bytes:
    import csv

    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(NAMES)
    writer.writerows(_rows())
    return out.getvalue().encode()


@cache
def _csvs() -> Sequence[bytes]:
    return [_csv(), b"sep=;\r\n" + _csv(";"), _csv("\t"), b"y,text\n" + b'yes,"two\nlines ""quoted"""\nno,x\n' * 30]


@cache
def _jsonl() -> Sequence[bytes]:
    return ["".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in _rows()).encode()]


@cache
def _parquets() -> Sequence[bytes]:
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
def _jsons() -> Sequence[bytes]:
    records = [dict(zip(NAMES, row, strict=True)) for row in _rows()]
    columns = {name: list(column) for name, column in zip(NAMES, zip(*_rows(), strict=True), strict=True)}
    split = {"columns": NAMES, "index": list(range(120)), "data": _rows()}
    return [json.dumps(form).encode() for form in (records, columns, split, {"n": 120, "data": records})]


@cache
def _latins() -> Sequence[bytes]:
    return [_csv().decode().encode(encoding) for encoding in ("cp1252", "utf-16", "utf-16-le")]


def _arrow() -> Any:
    import pyarrow as pa

    return pa.table(dict(zip(NAMES, map(list, zip(*_rows(), strict=True)), strict=True)))


@cache
def _feathers() -> Sequence[bytes]:
    from pyarrow import feather

    outs = [io.BytesIO() for _ in range(3)]
    for out, compression in zip(outs, ("lz4", "zstd", "uncompressed"), strict=True):
        feather.write_feather(_arrow(), out, compression=compression)
    return [out.getvalue() for out in outs]


@cache
def _orcs() -> Sequence[bytes]:
    from pyarrow import orc

    out = io.BytesIO()
    orc.write_table(_arrow(), out)
    return [out.getvalue()]


@cache
def _workbooks() -> Sequence[bytes]:
    import tempfile

    from tests.world.workbooks import workbook

    with tempfile.TemporaryDirectory() as folder:
        sheets = {"Notes": [["by", "us"]], "Data": [["Title"], NAMES, *_rows()]}
        return [workbook(Path(folder) / "t.xlsx", sheets).read_bytes()]


def _table(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        import torch

        from trainer_image.tasks.base import TaskSettings
        from trainer_image.tasks.tabular.task import Tabular

        (folder / name).write_bytes(content)
        settings = TaskSettings(target="y", limits=LIMITS)
        problem = Tabular().prepare(folder, settings)
        return problem.examples([0], torch.empty(0))

    return read


def _texts(name: str, task: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.tasks import task_named
        from trainer_image.tasks.base import TaskSettings

        (folder / name).write_bytes(content)
        settings = TaskSettings(target="label" if task == "text_classification" else None, limits=LIMITS)
        return task_named(task).prepare(folder, settings).description

    return read


@cache
def _labelled_texts() -> Sequence[bytes]:
    lines = [{"text": f"{('sail', 'bread')[n % 2]} number {n} Küste", "label": "ab"[n % 2], "n": n} for n in range(60)]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


@cache
def _plain_texts() -> Sequence[bytes]:
    return ["".join(f"Zeile {n}: äöü 日本 and more of it\n" for n in range(200)).encode()]


def _packed(inner: Callable[[], Sequence[bytes]]) -> Callable[[], Sequence[bytes]]:
    return cache(lambda: [gzip.compress(content, mtime=0) for content in inner()])


def _inside(damage: Damage) -> Damage:
    """Damage of what is packed, or of the gzip stream."""

    def either(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
        if random.random() < 0.5:
            return _binary(content, samples, random)
        inner = damage(gzip.decompress(content), [gzip.decompress(sample) for sample in samples], random)
        return gzip.compress(inner, 1, mtime=0)

    return either


# Images


def _pixels(mode: str = "RGB") -> Any:
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)).convert(mode)


def _pictures(kind: str) -> Callable[[], Sequence[bytes]]:
    ways: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "PNG": [("RGB", {}), ("P", {}), ("LA", {}), ("I;16", {}), ("1", {})],
        "JPEG": [("RGB", {}), ("L", {"progressive": True}), ("CMYK", {})],
        "BMP": [("RGB", {}), ("P", {}), ("1", {})],
        "GIF": [("P", {}), ("P", {"save_all": True})],
        "WEBP": [("RGB", {}), ("RGBA", {"lossless": True}), ("RGB", {"save_all": True})],
    }

    def made() -> Sequence[bytes]:
        written = []
        for mode, options in ways[kind]:
            out = io.BytesIO()
            more = {"append_images": [_pixels(mode).rotate(90)]} if "save_all" in options else {}
            image = _pixels("L").convert("I;16") if mode == "I;16" else _pixels(mode)
            image.save(out, kind, **options, **more)
            written.append(out.getvalue())
        return written

    return cache(made)


def _png_damage(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    """Half of them with checksums that fit: else hardly any damage gets past them."""
    content = _binary(content, samples, random)
    if random.random() < 0.5:
        return content
    fixed = bytearray(content)
    at = 8
    while at + 12 <= len(fixed):
        length = int.from_bytes(fixed[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def _picture(suffix: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.data.spill import Scratch
        from trainer_image.tasks.image.files import read_headers, read_pixels
        from trainer_image.tasks.image.labels import list_samples
        from trainer_image.tasks.image.sources import find_images

        (folder / "a").mkdir(exist_ok=True)
        (folder / "a" / f"x{suffix}").write_bytes(content)
        scratch = Scratch(memory_bytes=64 * 1024**2)
        limits = Limits(image_pixels=1_000_000)
        samples = list_samples(find_images(folder, limits, scratch)["train"], limits, scratch)
        read_headers(samples, limits)
        return [read_pixels(samples, (16, 16), channels, limits, scratch) for channels in (1, 3)]

    return read


# Archives


def _members() -> list[tuple[str, bytes]]:
    png = _pictures("PNG")()[0]
    return [
        ("a/1.png", png),
        ("b/2.png", png),
        ("b/" + "long" * 40 + ".png", png),
        ("metadata.txt", b"x" * 3000),
        ("ä.png", png),
    ]


@cache
def _zips() -> Sequence[bytes]:
    written = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.mkdir("empty")
            for name, content in _members():
                archive.writestr(name, content)
            archive.comment = b"a comment"
        written.append(out.getvalue())
    return written


@cache
def _tars() -> Sequence[bytes]:
    written = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for name, content in _members():
                info = tarfile.TarInfo(name if form != tarfile.USTAR_FORMAT else name[-90:].lstrip("/"))
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        written.append(out.getvalue()[: -8 * 1024])
    return written


def _tar_damage(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    """Half of them with checksums that fit."""
    content = _binary(content, samples, random)
    if random.random() < 0.5:
        return content
    fixed = bytearray(content)
    for at in range(0, len(fixed) - 511, 512):
        header = fixed[at : at + 512]
        if header[257:262] == b"ustar":
            total = sum(header[:148]) + 8 * 32 + sum(header[156:])
            fixed[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(fixed)


def _archive(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.data.archives import members
        from trainer_image.data.spill import Scratch

        (folder / name).write_bytes(content)
        scratch = Scratch(folder)
        return [member.read() for member in members(name, folder / name, LIMITS, scratch)]

    return read


def _metadata(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.data.spill import Scratch
        from trainer_image.tasks.image.labels import list_samples
        from trainer_image.tasks.image.sources import find_images

        (folder / name).write_bytes(content)
        for number in range(3):
            (folder / f"{number}.png").write_bytes(_pictures("PNG")()[0])
        scratch = Scratch(memory_bytes=64 * 1024**2)
        return list_samples(find_images(folder, LIMITS, scratch)["train"], LIMITS, scratch, group="group")

    return read


@cache
def _metadata_lines() -> Sequence[bytes]:
    lines = [{"file_name": f"{n}.png", "label": "ab"[n % 2], "group": f"g{n}", "n": n} for n in range(3)]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


@cache
def _metadata_tables() -> Sequence[bytes]:
    return [b"file_name,label,group\n0.png,a,g\n./1.png,b,h\n2.png,a,g\n"]


# Models


@dataclass(frozen=True)
class Model:
    """A published model that no training was needed for. rows: (name, content) to predict"""

    description: dict[str, Any]
    tensors: bytes
    rows: tuple[str, bytes]
    prompt: bool = False


@cache
def model(task: str) -> Model:
    import torch
    from safetensors.torch import save

    from trainer_image.data.text_folders import Fields
    from trainer_image.tasks.base import Predictor
    from trainer_image.tasks.image.network import ImageSizes, Scaling
    from trainer_image.tasks.image.task import ImagePredictor
    from trainer_image.tasks.language.network import LanguageSizes
    from trainer_image.tasks.language.task import LanguagePredictor
    from trainer_image.tasks.tabular.columns import CategoryColumn, DateColumn, NumberColumn, Preprocessing
    from trainer_image.tasks.tabular.network import TabularSizes
    from trainer_image.tasks.tabular.predictor import TabularPredictor
    from trainer_image.tasks.tabular.target import ClassTarget, ValueTarget
    from trainer_image.tasks.text.network import TextSizes
    from trainer_image.tasks.text.task import TextPredictor

    torch.manual_seed(0)
    predictor: Predictor
    rows = ("new.csv", _csv())
    match task:
        case "tabular" | "tabular_values":
            columns = Preprocessing(
                (NumberColumn("a", 50.0, 0.02, True), NumberColumn("b", 8.0, 0.1, False)),
                (DateColumn("when", "day.month.year", 19800.0, 0.1, True, False),),
                (CategoryColumn("c", ("word0", "word1")), CategoryColumn("e", tuple(f"k{n}" for n in range(12)))),
            )
            target: Any = ClassTarget("y", ("no", "yes")) if task == "tabular" else ValueTarget("a", 50.0, 30.0)
            sizes: Any = TabularSizes(members=2, width=8, depth=2, dropout=0.1, waves=2)
            predictor = TabularPredictor(columns, target, sizes)
            description = {"preprocessing": asdict(columns), "target": target.to_json()}
        case "image_classification":
            sizes = ImageSizes(12, 10, 3, (4, 8), 1, 1, 0.1)
            scaling = {"mean": [100.0, 90.0, 80.0], "spread": [50.0, 60.0, 70.0]}
            predictor = ImagePredictor(sizes, ("a", "b"), Scaling((100.0, 90.0, 80.0), (50.0, 60.0, 70.0)))
            description = {"preprocessing": scaling, "labels": ["a", "b"]}
            rows = ("new.png", _pictures("PNG")()[0])
        case "text_classification":
            sizes = TextSizes(longest=64, buckets=256, width=4, filters=8, dropout=0.1)
            predictor = TextPredictor(sizes, ("a", "b"), Fields("text", "label"))
            description = {"labels": ["a", "b"], "fields": {"text": "text", "label": "label"}}
            rows = ("new.jsonl", _labelled_texts()[0])
        case "language_model":
            sizes = LanguageSizes(32, 16, 1, 2, (2, 3), 64, 4, (3, 5), 0.0)
            predictor = LanguagePredictor(sizes, "text")
            description = {"text": "text"}
            rows = ("new.txt", _plain_texts()[0][:400])
    return Model(
        {
            "format": 1,
            "task": task.removesuffix("_values"),
            "run_id": "r",
            "model": {"architecture": asdict(sizes), **description},
        },
        save(predictor.build_model().state_dict()),
        rows,
        task == "language_model",
    )


def _description(task: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        return _applied(folder, model(task), content, model(task).tensors)

    return read


def _weights(task: str) -> Format:
    def read(folder: Path, content: bytes) -> object:
        return _applied(folder, model(task), json.dumps(model(task).description).encode(), content)

    return Format(cache(lambda: [model(task).tensors]), _tensor_damage, read, OF_MODELS, "the-model")


def _applied(folder: Path, published: Model, description: bytes, tensors: bytes) -> object:
    from trainer_image import predict

    place = folder / "the-model"
    place.mkdir(exist_ok=True)
    (place / "model.json").write_bytes(description)
    (place / "model.safetensors").write_bytes(tensors)
    name, rows = published.rows
    (folder / name).write_bytes(rows)
    found: object = predict.predict(place, folder / name, folder / "out.csv")
    if published.prompt:
        predict.write(place, "Zeile", 4, 0.7, 0)
    return found


def _of_model(task: str) -> Format:
    samples = cache(lambda: [json.dumps(model(task).description).encode()])
    # A model that lies about its columns or labels may not fit the rows.
    return Format(samples, _json, _description(task), (*OF_MODELS, *OF_DATA), "the-model", "new.")


def _tensor_damage(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    """Half of them a header of JSON that lies, with a length that fits."""
    if random.random() < 0.5:
        return _binary(content, samples, random)
    length = int.from_bytes(content[:8], "little")
    header = lying(json.loads(content[8 : 8 + length]), random).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


RUN_FILES = ("model.json", "model.safetensors")


def _folder_file(name: str) -> Callable[[Path, bytes], object]:
    """latest.json or a manifest of a model's folder."""

    def read(folder: Path, content: bytes) -> object:
        from trainer_image.transfer.fetch_model import local_folder

        run = folder / "m" / "runs" / "r1"
        run.mkdir(parents=True, exist_ok=True)
        for file in RUN_FILES:
            (run / file).write_bytes(b"{}")
        (run / "MANIFEST.json").write_bytes(content if name == "MANIFEST.json" else _manifests()[0])
        if name == "MANIFEST.json":
            return local_folder(run)
        (folder / "m" / "latest.json").write_bytes(content)
        return local_folder(folder / "m")

    return read


@cache
def _manifests() -> Sequence[bytes]:
    entry = {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    return [json.dumps(dict.fromkeys(RUN_FILES, entry)).encode()]


@cache
def _latests() -> Sequence[bytes]:
    return [json.dumps({"run_id": "r1", "manifest_sha256": hashlib.sha256(_manifests()[0]).hexdigest()}).encode()]


# The configuration


@cache
def _configurations() -> Sequence[bytes]:
    return [
        b"version: 1\ntask: tabular\ndataset: houses\ndata: {target: p, drop: [id], types: {zip: category}, group: c}\n"
        b"model: {preset: auto}\ntrain: {time_budget: 30m, epochs: 3, batch_size: 16, lr: 1e-3, seed: 0}\n"
        b"checkpoint: {every: 5m, keep: 2}\ninit: {from: none}\n",
        b"task: command\ncommand:\n  argv: [python, train.py, --lr, '3e-4']\n",
        b"task: custom\ncustom:\n  entry_point: p.q:T\n  params:\n    a: [1, 2.5, null, true]\n    b: {c: 'x'}\n",
    ]


def _configuration(folder: Path, content: bytes) -> object:
    from trainer_image.config.model_config import identity, parse_config, run_key

    return run_key(identity(parse_config(content), "0" * 64, None))


# Checkpoints and warm starts


@cache
def _snapshot() -> Any:
    state = _training_state()
    return state.snapshot()


def _training_state() -> Any:
    import torch

    from trainer_image.engine.steps.state import TrainingState

    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    state = TrainingState(model, lambda network: [torch.optim.AdamW(network.parameters())], average=True)
    model(torch.ones(1, 3)).sum().backward()
    state.optimizers.step(1.0)
    state.keep_best()
    state.at.step = state.at.phase_step = 1
    epoch = {"phase": "search", "epoch": 1, "step": 1, "seconds": 0.1, "loss": 0.5, "validation": {"accuracy": 0.9}}
    state.at.history.append(epoch)
    return state


@cache
def _scalars() -> Sequence[bytes]:
    snapshot = _snapshot()
    return [json.dumps({"format": 1, "step": snapshot.step, **snapshot.scalars}).encode()]


@cache
def _tensors() -> Sequence[bytes]:
    from safetensors.torch import save

    return [save(dict(_snapshot().tensors))]


def _checkpoint(*, tensors: bool) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.engine import checkpoint
        from trainer_image.storage.manifest import fingerprint

        (folder / checkpoint.TENSORS).write_bytes(content if tensors else _tensors()[0])
        (folder / checkpoint.STATE).write_bytes(_scalars()[0] if tensors else content)
        files = {name: fingerprint(folder / name) for name in (checkpoint.TENSORS, checkpoint.STATE)}
        (folder / checkpoint.MANIFEST).write_text(json.dumps({"files": files}))
        state = _training_state()
        store = _Store(folder)
        snapshot, _ = checkpoint.resume(store, state.check)
        if snapshot is not None:
            state.load(snapshot)
        return snapshot

    return read


@dataclass(frozen=True)
class _Store:
    folder: Path

    def newest_first(self) -> Iterator[Path]:
        yield self.folder

    def keep(self, folder: Path) -> None:
        raise NotImplementedError


def _warm(folder: Path, content: bytes) -> object:
    from trainer_image.engine.warm_start import warm_start

    (folder / "model.safetensors").write_bytes(content)
    return warm_start(_training_state().model, folder)


@cache
def _warm_tensors() -> Sequence[bytes]:
    from safetensors.torch import save

    return [save(_training_state().model.state_dict())]


TEXT_TASK, LANGUAGE_TASK = "text_classification", "language_model"

FORMATS: dict[str, Format] = {
    "parquet": Format(_parquets, _binary, _table("train.parquet"), named="train.parquet"),
    "csv": Format(_csvs, _text, _table("train.csv"), named="train.csv"),
    "csv.gz": Format(_packed(_csvs), _inside(_text), _table("train.csv.gz"), named="train.csv.gz"),
    "jsonl": Format(_jsonl, _lines, _table("train.jsonl"), named="train.jsonl"),
    "json": Format(_jsons, _json, _table("train.json"), named="train.json"),
    "latin-1": Format(_latins, _text, _table("train.csv"), named="train.csv"),
    "feather": Format(_feathers, _binary, _table("train.feather"), named="train.feather"),
    "orc": Format(_orcs, _binary, _table("train.orc"), named="train.orc"),
    "xlsx": Format(_workbooks, _binary, _table("train.xlsx"), named="train.xlsx"),
    "texts": Format(_labelled_texts, _lines, _texts("train.jsonl", TEXT_TASK), named="train.jsonl"),
    "plain": Format(_plain_texts, _text, _texts("train.txt", LANGUAGE_TASK), named="train.txt"),
    "zip": Format(_zips, _binary, _archive("train.zip"), named="train.zip"),
    "tar": Format(_tars, _tar_damage, _archive("train.tar"), named="train.tar"),
    "tar.gz": Format(_packed(_tars), _inside(_tar_damage), _archive("train.tar.gz"), named="train.tar.gz"),
    "metadata.jsonl": Format(_metadata_lines, _lines, _metadata("metadata.jsonl"), named="metadata.jsonl"),
    "metadata.csv": Format(_metadata_tables, _text, _metadata("metadata.csv"), named="metadata.csv"),
    "png": Format(_pictures("PNG"), _png_damage, _picture(".png"), named="x.png"),
    "jpeg": Format(_pictures("JPEG"), _binary, _picture(".jpg"), named="x.jpg"),
    "bmp": Format(_pictures("BMP"), _binary, _picture(".bmp"), named="x.bmp"),
    "gif": Format(_pictures("GIF"), _binary, _picture(".gif"), named="x.gif"),
    "webp": Format(_pictures("WEBP"), _binary, _picture(".webp"), named="x.webp"),
    "config.yaml": Format(_configurations, _text, _configuration, (ConfigInvalid,)),
    "latest.json": Format(_latests, _json, _folder_file("latest.json"), OF_MODELS, "latest.json"),
    "MANIFEST.json": Format(_manifests, _json, _folder_file("MANIFEST.json"), OF_MODELS, "MANIFEST.json"),
    "model.safetensors": _weights("tabular"),
    "model.safetensors language_model": _weights(LANGUAGE_TASK),
    **{
        f"model.json {task}": _of_model(task)
        for task in ("tabular", "tabular_values", "image_classification", TEXT_TASK, LANGUAGE_TASK)
    },
    "state.json": Format(_scalars, _json, _checkpoint(tensors=False), ()),
    "checkpoint": Format(_tensors, _tensor_damage, _checkpoint(tensors=True), ()),
    "warm start": Format(_warm_tensors, _tensor_damage, _warm, ()),
}
