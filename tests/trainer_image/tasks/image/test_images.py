"""Image folders: what is read, and the sentence for what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.world.training_data import IMAGES, image_folder, run_inputs
from trainer_image.engine.training import validate_dataset
from trainer_image.errors import DatasetInvalid, LimitExceeded
from trainer_image.limits import Limits
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.image.task import ImageClassification


def refusal(data: Path, limits: Limits | None = None) -> str:
    with pytest.raises(DatasetInvalid) as caught:
        validate_dataset(run_inputs(data, data / "out", IMAGES, limits=limits))
    return caught.value.sentence


def test_an_image_that_is_none_is_named(tmp_path: Path) -> None:
    image_folder(tmp_path)
    (tmp_path / "train" / "left" / "zz.png").write_text("not an image")
    assert refusal(tmp_path).startswith("Invalid dataset: train/left/zz.png: is no image that can be decoded")


def test_an_image_cut_short_is_named(tmp_path: Path) -> None:
    image_folder(tmp_path, size=(64, 64))
    broken = tmp_path / "train" / "right" / "001.png"
    broken.write_bytes(broken.read_bytes()[:400])
    assert refusal(tmp_path).startswith("Invalid dataset: train/right/001.png: does not decode")


def test_another_format_under_an_image_name_is_not_decoded(tmp_path: Path) -> None:
    image_folder(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "train" / "left" / "x.tiff")
    (tmp_path / "train" / "left" / "x.tiff").rename(tmp_path / "train" / "left" / "x.png")
    assert "train/left/x.png: is no image that can be decoded" in refusal(tmp_path)


def test_more_pixels_than_the_limit_are_refused_before_decoding(tmp_path: Path) -> None:
    image_folder(tmp_path)
    Image.new("1", (4000, 4000)).save(tmp_path / "train" / "left" / "bomb.png")
    with pytest.raises(LimitExceeded, match=r"train/left/bomb\.png has 4000 x 4000 pixels"):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", IMAGES, limits=Limits(image_pixels=1_000_000)))


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "train" / "only"
    place.mkdir(parents=True)
    for number in range(10):
        Image.new("L", (8, 8), number).save(place / f"{number}.png")
    assert "all 10 training images lie in one folder ('only'), which says no class" in refusal(tmp_path)


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "train" / "a.png")
    assert "train/a.png: lies in no folder named for its class" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (("Cat", "cat", "dog"), "Classes that differ in case or spaces only: 'Cat' and 'cat'; write alike"),
        (("cat", "dog", "unknown"), "Classes that may stand for a missing label: 'unknown'; leave their rows out"),
    ],
)
def test_classes_that_may_be_one_or_none_are_warned_about(tmp_path: Path, classes: tuple[str, ...], told: str) -> None:
    for number in range(30):
        place = tmp_path / "train" / classes[number % 3] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(place)
    Image.new("L", (8, 8)).save(tmp_path / "train" / "dog" / "one.png")
    assert told in validate_dataset(run_inputs(tmp_path, tmp_path / "out", IMAGES))


def test_a_class_of_one_image_is_warned_about(tmp_path: Path) -> None:
    image_folder(tmp_path)
    (tmp_path / "train" / "rare").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "train" / "rare" / "a.png")
    assert "Classes with one training image only: 'rare'" in validate_dataset(
        run_inputs(tmp_path, tmp_path / "out", IMAGES)
    )


def test_pictures_in_formats_that_are_not_read_are_counted(tmp_path: Path) -> None:
    image_folder(tmp_path)
    for name in ("a.HEIC", "b.tif", "Thumbs.db", "notes.txt"):
        (tmp_path / "train" / "left" / name).write_bytes(b"x")
    told = validate_dataset(run_inputs(tmp_path, tmp_path / "out", IMAGES))
    assert "2 files (.heic, .tif) are in formats that are not read, and left out; convert them to PNG." in told
    for image in (tmp_path / "train").rglob("*.png"):
        image.rename(image.with_suffix(".tif"))
    assert "holds no images" in refusal(tmp_path)
    assert "(.heic, .tif) are in formats that are not read" in refusal(tmp_path)


def test_no_images_at_all_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    assert "holds no images" in refusal(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_files_give_the_labels(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    records = []
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
        records.append({"file_name": f"{number}.png", "label": "ab"[number % 2]})
    if kind == "csv":
        lines = ["file_name,label", *(f"{r['file_name']},{r['label']}" for r in records)]
    else:
        lines = [json.dumps(r) for r in records]
    (folder / f"metadata.{kind}").write_text("\n".join(lines))
    problem = ImageClassification().prepare(tmp_path, TaskSettings())
    assert "2 classes (a, b)" in problem.description
    assert "colour" in problem.description


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([{"label": ["cat"]}], "row 1: column 'label' holds a list, not a number, text, date or boolean"),
        ([{"label": "cat"}, {"label": {"name": "cat"}}], "row 2: column 'label' holds an object"),
        ([{"file_name": ["0.png"], "label": "cat"}], "row 1: column 'file_name' holds a list"),
        ([{"label": "\ud800"}], "row 1: column 'label' holds half a character"),
    ],
)
def test_a_label_that_is_no_single_text_is_refused_with_its_row(
    tmp_path: Path, records: list[dict[str, object]], told: str
) -> None:
    lines = []
    for number, record in enumerate(records):
        (tmp_path / "train").mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "train" / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", **record}))
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(lines))
    assert f"train/metadata.jsonl: {told}" in refusal(tmp_path)


def test_metadata_written_on_windows_finds_its_files(tmp_path: Path) -> None:
    lines = ["file_name,label"]
    for number in range(20):
        place = tmp_path / "train" / "pictures" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(place)
        lines.append(f".\\pictures\\{number}.png,{'ab'[number % 2]}")
    (tmp_path / "train" / "metadata.csv").write_text("\r\n".join(lines))
    assert "in 2 classes (a, b)" in validate_dataset(run_inputs(tmp_path, tmp_path / "out", IMAGES))


@pytest.mark.parametrize("named", ["../../secret.png", ".", "/secret.png", "..", "\\\\server\\secret.png"])
def test_metadata_that_points_outside_its_folder_finds_nothing(tmp_path: Path, named: str) -> None:
    image_folder(tmp_path / "data")
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "data" / "train" / "metadata.csv").write_text(f"file_name,label\n{named},a\n")
    assert f"row 2: there is no file '{named}'" in refusal(tmp_path / "data")


def test_mixed_sizes_and_modes_become_one(tmp_path: Path) -> None:
    image_folder(tmp_path)
    Image.new("RGBA", (30, 20), (9, 9, 9, 9)).save(tmp_path / "train" / "left" / "big.png")
    Image.fromarray(np.full((8, 8), 60000, np.uint16)).save(tmp_path / "train" / "left" / "deep.png")
    problem = ImageClassification().prepare(tmp_path, TaskSettings())
    assert problem.splits["train"]["pixels"].shape[1:] == (3, 8, 8)
    assert "Images were resized to 8 x 8 pixels." in problem.notes
