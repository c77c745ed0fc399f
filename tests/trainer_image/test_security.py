"""Inputs made to harm, through the command line as a user meets it: an exit code, one clean sentence, nothing else.

Each is made on the spot. Archives have more of them in data/test_archives.py, names of blobs in
storage/test_blob_names.py, downloads in storage/test_azure_ranges.py.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
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

from tests.fuzz.models import model
from tests.world.training_data import IMAGES, TABULAR, class_rows, class_table, image_folder, write_csv
from trainer_image import cli, predict
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
    "words": (parquet_words, TABULAR, 82, "column 'a' has 2000000 bytes; the limit is 1048576"),
    "deep JSON": (csv_bytes(b'{"a":' * 100_000, "train.jsonl"), TABULAR, 65, "row 1: is nested too deeply"),
    "case": (csv_bytes(b"a,y\n1,x\n", "Train.csv"), TABULAR, 65, "differs from"),
    "control": (csv_bytes(b"a,y\n1,x\n", "tr\x1b[31main.csv"), TABULAR, 65, "the name contains a control character"),
}


@pytest.mark.usefixtures("without_worker")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_input_is_one_clean_sentence(tmp_path: Path, case: str) -> None:
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


@pytest.mark.usefixtures("without_worker")
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
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"format": 1, "task": "tabular", "model": {}}))
    (folder / where).write_bytes(pickle.dumps(Touch(tmp_path / "harmed")))
    with pytest.raises(UsageError, match=r"The model in m cannot be read|No model in m"):
        predict.load(folder)
    assert not (tmp_path / "harmed").exists()
    pickle.loads((folder / where).read_bytes())
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
    folder = tmp_path / "m"
    shutil.copytree(trained, folder)
    description = json.loads((folder / "model.json").read_text())
    for name, change in lie.items():
        whole = change if change is None else description["model"][name] | change
        description["model"][name] = whole
    (folder / "model.json").write_text(json.dumps(description))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=told):
        predict.load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


LIES = {
    "no number": ("image_classification", ("preprocessing", "mean"), [float("nan")] * 3, "NaN is no number"),
    "an infinity": ("tabular_values", ("target", "spread"), float("inf"), "Infinity is no number"),
    "half a character": ("text_classification", ("labels",), ["a", "\ud800"], "half of a surrogate pair"),
    "a window without an end": ("language_model", ("architecture", "context"), 10**9, "less than or equal to 1024"),
    "no heads": ("language_model", ("architecture", "heads"), 0, "greater than or equal to 1"),
    "heads that do not fit": ("language_model", ("architecture", "heads"), 3, "no even multiple of the heads"),
    "an endless context": ("language_model", ("architecture", "orders"), [2, 10**9], "less than or equal to 64"),
    "endless blocks": ("language_model", ("architecture", "depth"), 10**9, "less than or equal to 256"),
    "a wall of pixels": ("image_classification", ("architecture", "height"), 10**18, "less than or equal to 160"),
    "two channels": ("image_classification", ("architecture", "channels"), 2, "one channel or three"),
    "a scaling too few": ("image_classification", ("preprocessing", "spread"), [1.0], "each of 3 channels"),
    "division by nothing": ("image_classification", ("preprocessing", "spread"), [0, 1, 1], "greater than 0"),
    "no stages": ("image_classification", ("architecture", "widths"), [], "at least 1 item"),
    "endless texts": ("text_classification", ("architecture", "longest"), 10**9, "less than or equal to 4096"),
    "odd filters": ("text_classification", ("architecture", "filters"), 7, "multiple of 2"),
    "labels that are a word": ("text_classification", ("labels",), "ab", "valid"),
    "a field that is none": ("text_classification", ("fields", "text"), ["text"], "valid string"),
    "no labels": ("tabular", ("target", "labels"), [], "at least 1 item"),
    "a truth for a size": ("tabular", ("architecture", "width"), True, "valid integer"),
    "layers below nothing": ("tabular", ("architecture", "depth"), -1, "greater than or equal to 1"),
    "an unknown form": ("tabular", ("preprocessing", "dates", 0, "form"), "(.*)+", "match pattern"),
    "a decimal sign": ("tabular", ("preprocessing", "numbers", 0, "notation", "decimal"), "[", "match pattern"),
    "a missing part": ("tabular", ("architecture",), None, "lacks 'architecture'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_any_task_is_a_sentence_and_takes_no_memory(tmp_path: Path, lie: str) -> None:
    task, place, value, told = LIES[lie]
    published = model(task)
    description = json.loads(json.dumps(published.description))
    part = description["model"]
    for key in place[:-1]:
        part = part[key]
    if value is None:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    (tmp_path / "model.json").write_text(json.dumps(description))
    (tmp_path / "model.safetensors").write_bytes(published.tensors)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=f"The model in {tmp_path.name} cannot be read: .*{told}"):
        predict.load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"format": 1, "format": 1}', "model.json: a key stands there twice"),
        (b"[]", "model.json is no JSON object"),
        (b'{"format": 1, "task": ["tabular"]}', "model.json names no task"),
        (b'{"format": 1, "task": "sorcery"}', "is of task sorcery, which this trainer does not know"),
        (b'{"format": 1}', "model.json lacks 'task'"),
        (b'{"format": 1e999}', "1e999 is no number"),
        (b"[" + b"{}," * 6_000_000 + b"{}]", "model.json is far too long for"),
    ],
)
def test_a_description_that_is_none_is_a_sentence(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "model.json").write_bytes(content)
    (tmp_path / "model.safetensors").write_bytes(model("tabular").tensors)
    with pytest.raises(UsageError, match=re.escape(told)):
        predict.load(tmp_path)


def test_weights_of_another_network_are_named(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["network/more"] = tensors.pop("network/skip.bias")[:1].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"holds a tensor of shape \(1,\) 'more'; model.json describes none"):
        predict.load(folder)


NESTED = "[" * 30_000 + "]" * 30_000


@pytest.mark.usefixtures("without_worker")
@pytest.mark.parametrize("name", ["model.json", "MANIFEST.json", "latest.json"])
def test_json_nested_deeper_than_the_stack_is_a_sentence(trained: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained, folder)
    (folder / name).write_text(NESTED)
    result = CliRunner().invoke(cli.cli, ["predict", "--model", str(folder), "--data", str(tmp_path)])
    assert result.exit_code in (64, 78)
    assert "read" in result.output
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("without_worker")
def test_a_latest_json_of_any_size_is_a_sentence(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained, folder)
    (folder / "latest.json").write_text(" " * 100_000)
    result = CliRunner().invoke(cli.cli, ["predict", "--model", str(folder), "--data", str(tmp_path)])
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
