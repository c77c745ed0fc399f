"""Inputs made to harm, through the command line as a user meets it: an exit code, one clean sentence, nothing else.

Each is made on the spot. Archives have more of them in data/test_archives.py, names of blobs in
storage/test_blob_names.py, downloads in storage/test_azure_ranges.py.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.world.training_data import IMAGES, TABULAR, class_rows, class_table, image_folder, write_csv
from trainer_image import cli, predict
from trainer_image.data import gzip_stream
from trainer_image.errors import UsageError

Maker = Callable[[Path], object]


class Touch:
    """Unpickled, it makes a file: the proof that something was executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def call(data: Path, config: str | bytes, command: str = "validate") -> Result:
    path = data.parent / "config.yaml"
    path.write_bytes(config if isinstance(config, bytes) else config.encode())
    more = ["--out", str(data.parent / "out"), "--device", "cpu"] if command == "train" else []
    return CliRunner().invoke(cli.cli, [command, "--data", str(data), "--config", str(path), *more])


def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def image(name: str, content: bytes) -> Maker:
    def make(data: Path) -> None:
        image_folder(data, 16)
        (data / "train" / "left" / name).write_bytes(content)

    return make


def frames(data: Path) -> None:
    """A GIF of a thousand frames: only the first one is looked at."""
    image_folder(data, 16)
    pictures = [Image.new("L", (8, 8), n % 256) for n in range(1000)]
    pictures[0].save(data / "train" / "left" / "many.gif", save_all=True, append_images=pictures[1:])


def tiff(data: Path) -> None:
    image_folder(data, 16)
    made = io.BytesIO()
    Image.new("L", (9, 9)).save(made, "TIFF")
    (data / "train" / "left" / "x.png").write_bytes(made.getvalue())


def zip_in_zip(data: Path) -> None:
    image_folder(data, 16)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("left/x.png", b"\0" * 10_000_000)
    with zipfile.ZipFile(data / "train" / "outer.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("left/inner.zip", inner.getvalue())


def zip_flat(data: Path) -> None:
    (data / "train").mkdir(parents=True)
    with zipfile.ZipFile(data / "train" / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("left/x.png", b"\0" * 10_000_000)


def tar_link(data: Path) -> None:
    (data / "train").mkdir(parents=True)
    info = tarfile.TarInfo("left/x.png")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(data / "train" / "a.tar", "w") as archive:
        archive.addfile(info)


def csv_bytes(content: bytes, name: str = "train.csv") -> Maker:
    def make(data: Path) -> None:
        data.mkdir()
        (data / name).write_bytes(content)

    return make


def columns(data: Path) -> None:
    data.mkdir()
    (data / "train.csv").write_bytes(b",".join(b"c%d" % n for n in range(1_200_000)) + b"\n1\n")


def field(data: Path) -> None:
    data.mkdir()
    with (data / "train.csv").open("wb") as file:
        file.write(b'a,y\n1,"')
        file.truncate(2**30)  # sparse: a field of a gibibyte of NUL costs no disk


def parquet_words(data: Path) -> None:
    """One word of a megabyte, said once and meant a hundred thousand times: 100 GB of text in a file of some KB."""
    data.mkdir()
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 2_000_000]))
    pq.write_table(pa.table({"a": words, "y": pa.array(["p", "q"] * 50_000)}), data / "train.parquet")


def parquet_pickle(data: Path) -> None:
    """The extension type that old Arrow unpickled when it read a file (CVE-2023-47248)."""
    data.mkdir()
    harm = pickle.dumps(Touch(data.parent / "harmed"))
    name, said = b"ARROW:extension:name", b"ARROW:extension:metadata"
    plain = pa.field("a", pa.int64(), metadata={name: b"arrow.py_extension_type", said: harm})
    pq.write_table(pa.table([pa.array(range(90))], schema=pa.schema([plain])), data / "train.parquet")


NESTED = "task: tabular\ndata: {target: " + "[" * 50 + "]" * 50 + "}\n"
LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ntask: tabular\n"

# What it is → (maker, configuration, exit code, what the sentence says)
HOSTILE: dict[str, tuple[Maker, str | bytes, int, str]] = {
    "aliases": (class_table, LAUGHS, 78, "anchors (&a) are not accepted"),
    "deep": (class_table, NESTED, 78, "nested deeper than 20 levels"),
    "huge": (class_table, b"task: tabular #" + b"x" * 300_000, 78, "at most 262144 are read"),
    "object": (class_table, "task: !!python/object/apply:os.system [id]\n", 78, "tags ("),
    "pixels": (image("bomb.png", png(100_000, 100_000)), IMAGES, 82, "has 100000 x 100000 pixels; the limit is"),
    "promise": (image("bomb.png", png(3000, 3000, b"\0" * 99)), IMAGES, 65, "train/left/bomb.png: does not decode"),
    "svg": (image("x.png", b"<svg onload='alert(1)'/>"), IMAGES, 65, "is no image that can be decoded"),
    "html": (image("x.gif", b"<html><script>alert(1)</script>"), IMAGES, 65, "is no image that can be decoded"),
    "tiff": (tiff, IMAGES, 65, "is no image that can be decoded"),
    "pickle": (image("x.png", pickle.dumps({"a": 1})), IMAGES, 65, "is no image that can be decoded"),
    "flat zip": (zip_flat, IMAGES, 82, "unpacks to more than 500 times its size"),
    "link in tar": (tar_link, IMAGES, 65, "'left/x.png' is a symbolic link"),
    "columns": (columns, TABULAR, 82, "a row is longer than"),
    "10001 columns": (csv_bytes(b",".join(b"c%d" % n for n in range(10_001)) + b"\n"), TABULAR, 82, "limit is 10000"),
    "field": (field, TABULAR, 65, "row 2 holds a NUL byte"),
    "long field": (csv_bytes(b"a,y\n" + b"x" * 2_000_000 + b",z\n"), TABULAR, 82, "has 2000000 bytes; the limit is"),
    "one line": (csv_bytes(b"a,y\n" + b"x" * 20_000_000), TABULAR, 82, "a row is longer than"),
    "gzip": (csv_bytes(gzip.compress(b"a,y\n" + b"1,x\n" * 5_000_000), "train.csv.gz"), TABULAR, 82, "unpacks to more"),
    "words": (parquet_words, TABULAR, 82, "column 'a' has 2000000 bytes; the limit is 1048576"),
    "deep JSON": (csv_bytes(b'{"a":' * 100_000, "train.jsonl"), TABULAR, 65, "row 1: is nested too deeply"),
    "case": (csv_bytes(b"a,y\n1,x\n", "Train.csv"), TABULAR, 65, "differs from"),
    "control": (csv_bytes(b"a,y\n1,x\n", "tr\x1b[31main.csv"), TABULAR, 65, "the name contains a control character"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_input_is_one_clean_sentence(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "FREE_BYTES", 2**20)
    make, config, code, sentence = HOSTILE[case]
    data = tmp_path / "d"
    make(data)
    if case == "case":
        (data / "train.csv").write_bytes(b"a,y\n1,x\n")
    result = call(data, config)
    assert sentence in result.stderr
    assert result.exit_code == code, result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert said
    assert all(line.isprintable() for line in said)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("make", [frames, zip_in_zip])
def test_what_hides_in_an_honest_wrapper_is_not_looked_at(tmp_path: Path, make: Maker) -> None:
    make(tmp_path / "d")
    result = call(tmp_path / "d", IMAGES)
    assert result.exit_code == 0, result.output


def test_a_pickle_in_a_table_s_metadata_is_not_unpacked(tmp_path: Path) -> None:
    parquet_pickle(tmp_path / "d")
    call(tmp_path / "d", TABULAR)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("where", ["model.safetensors", "model.json"])
def test_a_pickle_in_the_place_of_a_model_is_not_unpacked(tmp_path: Path, where: str) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "model.json").write_text(json.dumps({"format": 1, "task": "tabular", "model": {}}))
    (model / where).write_bytes(pickle.dumps(Touch(tmp_path / "harmed")))
    with pytest.raises(UsageError, match=r"The model in m cannot be read|No model in m"):
        predict.load(model)
    assert not (tmp_path / "harmed").exists()
    pickle.loads((model / where).read_bytes())
    assert (tmp_path / "harmed").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder without its manifest: whoever lies would write a fitting one."""
    folder = tmp_path_factory.mktemp("trained")
    result = call(class_table(folder / "d"), TABULAR.replace("epochs: 3", "epochs: 1"), "train")
    assert result.exit_code == 0, result.output
    (run,) = (folder / "out" / "runs").iterdir()
    (run / "MANIFEST.json").unlink()
    return run


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ({"architecture": {"width": 10**6}}, "model.json describes shape"),
        ({"architecture": {"members": 10**6}}, "model.json describes shape"),
        ({"architecture": {"members": "x"}}, "cannot be read"),
        ({"architecture": {"evil": 1}}, "unexpected keyword argument 'evil'"),
        (
            {"preprocessing": {"numbers": [{"name": "a", "centre": 0, "scale": 1, "indicator": False, "evil": 1}]}},
            "unexpected keyword argument 'numbers.0.evil'",
        ),
        ({"target": {"labels": ["a"] * 10**5}}, "model.json describes shape"),
        ({"preprocessing": None}, "cannot be read"),
    ],
)
def test_a_description_that_lies_takes_no_memory_for_it(
    trained: Path, tmp_path: Path, lie: dict[str, Any], told: str
) -> None:
    model = tmp_path / "m"
    shutil.copytree(trained, model)
    description = json.loads((model / "model.json").read_text())
    for name, change in lie.items():
        whole = change if change is None else description["model"][name] | change
        description["model"][name] = whole
    (model / "model.json").write_text(json.dumps(description))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=told):
        predict.load(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_weights_of_another_network_are_named(trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    shutil.copytree(trained, model)
    tensors = load_file(model / "model.safetensors")
    tensors["more"] = tensors.pop("skip.bias")[:1].clone()
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(UsageError, match=r"holds a tensor of shape \(1,\) 'more'; model.json describes none"):
        predict.load(model)


NESTED = "[" * 30_000 + "]" * 30_000


@pytest.mark.parametrize("name", ["model.json", "MANIFEST.json", "latest.json"])
def test_json_nested_deeper_than_the_stack_is_a_sentence(trained: Path, tmp_path: Path, name: str) -> None:
    model = tmp_path / "m"
    shutil.copytree(trained, model)
    (model / name).write_text(NESTED)
    result = CliRunner().invoke(cli.cli, ["predict", "--model", str(model), "--data", str(tmp_path)])
    assert result.exit_code in (64, 78)
    assert "read" in result.output
    assert "Traceback" not in result.output


def test_a_latest_json_of_any_size_is_a_sentence(trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    shutil.copytree(trained, model)
    (model / "latest.json").write_text(" " * 100_000)
    result = CliRunner().invoke(cli.cli, ["predict", "--model", str(model), "--data", str(tmp_path)])
    assert result.exit_code == 78
    assert "latest.json is not readable: no model can be found by it" in result.output


SCRIPT = "<script>alert(1)</script>"
MARKDOWN = "[x](javascript:alert(1)) | ![](http://tracker.example/x.png)"


def test_labels_columns_and_file_names_do_nothing_in_the_reports(tmp_path: Path) -> None:
    names = {"yes": SCRIPT, "no": MARKDOWN}
    rows = [[*row[:3], names[str(row[3])]] for row in class_rows(90)]
    write_csv(tmp_path / "d" / "train.csv", [f"a{SCRIPT}", "b", "colour", "y"], rows)
    result = call(tmp_path / "d", TABULAR, "train")
    assert result.exit_code == 0, result.output
    (run,) = (tmp_path / "out" / "runs").iterdir()
    page, card = (run / "report.html").read_text(), (run / "README.md").read_text()
    assert "alert(1)" in page, "the label is shown"
    assert SCRIPT not in page
    assert "<script>alert" not in page.lower()
    assert 'href="javascript' not in page
    assert SCRIPT not in card
    assert MARKDOWN not in card
