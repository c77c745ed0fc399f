"""Datasets of images as people have them: folders in folders, tables of labels, contests' test folders, Macs' zips."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.world.training_data import IMAGES, run_inputs
from trainer_image.data.spill import Scratch
from trainer_image.engine.training import validate_dataset
from trainer_image.errors import DatasetInvalid
from trainer_image.limits import Limits
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.image.files import read_pixels
from trainer_image.tasks.image.remarks import Sample
from trainer_image.tasks.image.sources import Stored, split_of
from trainer_image.tasks.image.task import ImageClassification, ImageProblem

CLASSES = ("cat", "dog")


def png(value: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("L", (8, 8), value).save(content, "PNG")
    return content.getvalue()


def lay(folder: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def in_classes(around: str, numbers: Iterable[int] = range(12), suffix: str = ".png") -> dict[str, bytes]:
    return {f"{around}{CLASSES[number % 2]}/{number}{suffix}": png(number) for number in numbers}


def loose(around: str, numbers: Iterable[int] = range(12)) -> dict[str, bytes]:
    return {f"{around}{number:03}.png": png(number) for number in numbers}


def table(header: str, rows: Iterable[Sequence[object]]) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def problem_of(folder: Path, **settings: object) -> ImageProblem:
    problem = ImageClassification().prepare(folder, TaskSettings(**settings))  # type: ignore[arg-type]
    assert isinstance(problem, ImageProblem)
    return problem


def rows(problem: ImageProblem) -> int:
    return sum(len(split["target"]) for split in problem.splits.values())


def refusal(folder: Path) -> str:
    with pytest.raises(DatasetInvalid) as caught:
        validate_dataset(run_inputs(folder, folder.parent / "out", IMAGES))
    return caught.value.sentence


@pytest.mark.parametrize("around", ["images/", "my data/x/", "train/images/", "training_set/training_set/", "d/train/"])
def test_a_folder_that_only_holds_the_others_is_passed_through(tmp_path: Path, around: str) -> None:
    lay(tmp_path, in_classes(around) | {"LICENSE.txt": "free", "Thumbs.db": "x"})
    problem = problem_of(tmp_path)
    assert problem.predictor.labels == CLASSES
    assert rows(problem) == 12
    assert any("was read from its only folder" in note for note in problem.notes) == (around != "train/")


def test_a_zip_of_a_mac_with_its_folder_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "Archive.zip", "w") as archive:
        for name, content in (in_classes("pets/train/") | in_classes("pets/test/", range(12, 18))).items():
            archive.writestr(name, content)
            archive.writestr("__MACOSX/" + name.replace("/", "/._"), b"resource fork")
        archive.writestr("pets/.DS_Store", b"x")
    problem = problem_of(tmp_path)
    assert problem.predictor.labels == CLASSES
    assert len(problem.splits["test"]["target"]) == 6


@pytest.mark.parametrize(
    "noise", ["train/__MACOSX/cat/x.png", "train/cat/.DS_Store", "train/cat/Thumbs.db", "__MACOSX/train/cat/._0.png"]
)
def test_what_systems_leave_in_folders_is_passed_over(tmp_path: Path, noise: str) -> None:
    lay(tmp_path, in_classes("train/") | {noise: b"x"})
    assert rows(problem_of(tmp_path)) == 12


def test_suffixes_in_any_case_are_images(tmp_path: Path) -> None:
    lay(tmp_path, in_classes("train/", range(6), ".PNG") | in_classes("train/", range(6, 12), ".Jpg"))
    assert rows(problem_of(tmp_path)) == 12


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("Training", "train"),
        ("train_images", "train"),
        ("training_set", "train"),
        ("Testing", "test"),
        ("test-images", "test"),
        ("val", "validation"),
        ("valid set", "validation"),
        ("trainers", None),
        ("test tubes", None),
        ("devices", None),
    ],
)
def test_a_folder_is_named_for_a_split_or_for_a_class(folder: str, split: str | None) -> None:
    assert split_of(folder) == split


def test_class_folders_beside_a_test_folder_are_trained_on(tmp_path: Path) -> None:
    lay(tmp_path, in_classes("") | in_classes("test/", range(12, 16)))
    problem = problem_of(tmp_path)
    assert problem.predictor.labels == CLASSES
    assert len(problem.splits["test"]["target"]) == 4
    assert "There is no folder train/: what lies beside test is trained on." in problem.notes


@pytest.mark.parametrize("place", ["test/", "test/images/", "test_images/"])
def test_a_test_folder_without_labels_is_said_and_not_used(tmp_path: Path, place: str) -> None:
    lay(tmp_path, in_classes("train/") | loose(place, range(12, 17)))
    problem = problem_of(tmp_path)
    assert rows(problem) == 12
    assert "The 5 images of the test split have no labels and are not used: `predict` labels them." in problem.notes


@pytest.mark.parametrize(
    "header", ["image_id,label", "id,breed", "Image Name,class", "filename,target", "path,category"]
)
def test_a_table_of_any_name_names_images_without_their_suffix(tmp_path: Path, header: str) -> None:
    named = table(header, ((f"{number:03}", CLASSES[number % 2]) for number in range(12)))
    lay(
        tmp_path,
        loose("train/") | loose("test/", range(20, 23)) | {"labels.csv": named, "sample_submission.csv": named},
    )
    problem = problem_of(tmp_path)
    assert problem.predictor.labels == CLASSES
    assert rows(problem) == 12


@pytest.mark.parametrize(
    "inside", ["{:03}.png", "train_images/{:03}.png", "C:\\data\\train_images\\{:03}.PNG", "/x/{:03}"]
)
def test_a_table_names_images_by_the_end_of_a_path_from_anywhere(tmp_path: Path, inside: str) -> None:
    named = table("file,label,width", ((inside.format(number), CLASSES[number % 2], 8) for number in range(12)))
    lay(tmp_path, loose("train_images/") | {"train.csv": named})
    assert rows(problem_of(tmp_path)) == 12


def test_tables_of_splits_share_a_folder_of_images(tmp_path: Path) -> None:
    def of(numbers: range) -> str:
        return table("image,label", ((f"{number:03}.png", CLASSES[number % 2]) for number in numbers))

    lay(tmp_path, loose("images/", range(20)) | {"train.csv": of(range(12)), "test.csv": of(range(12, 20))})
    problem = problem_of(tmp_path)
    assert len(problem.splits["test"]["target"]) == 8
    assert rows(problem) == 20


def test_rows_and_images_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    named = table(
        "file_name,label", ((f"{number:03}.png", CLASSES[number % 2] if number else "") for number in range(12))
    )
    lay(tmp_path, loose("train/", range(15)) | {"train/metadata.csv": named})
    problem = problem_of(tmp_path)
    assert rows(problem) == 11
    assert "train/metadata.csv: 1 row has no 'label' and was left out." in problem.notes
    assert "3 images that train/metadata.csv does not name were left out." in problem.notes


def test_the_label_s_column_is_asked_for_where_no_name_tells_it(tmp_path: Path) -> None:
    named = table("id,breed,age", ((f"{number:03}", CLASSES[number % 2], 3) for number in range(12)))
    lay(tmp_path, loose("train/") | {"train/metadata.csv": named})
    assert "has no column 'label' (found id, breed, age); name the column with the classes in data.target" in refusal(
        tmp_path
    )
    assert problem_of(tmp_path, target="breed").predictor.labels == CLASSES


def test_a_name_that_several_images_have_is_refused(tmp_path: Path) -> None:
    lay(tmp_path, loose("train/a/") | loose("train/b/") | {"train/metadata.csv": "file_name,label\n003,cat\n"})
    assert "row 2: several images are called '003'; name them with their folder" in refusal(tmp_path)


def test_a_table_beside_class_folders_changes_nothing(tmp_path: Path) -> None:
    lay(
        tmp_path,
        in_classes("train/") | {"train/sizes.csv": "id,label\n0,large\n1,small\n", "notes.csv": "a;b\n1;2;3\n"},
    )
    assert problem_of(tmp_path).predictor.labels == CLASSES


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("x.tif", "convert them to PNG"),
        ("train.npz", "write each image as a PNG"),
        ("mnist.csv", "a table of pixels is for task: tabular"),
        ("photos.rar", "pack them as .zip or .tar"),
        ("film.mp4", "write frames of the videos as PNG"),
    ],
)
def test_what_is_no_image_is_named_with_the_way_out(tmp_path: Path, name: str, advice: str) -> None:
    lay(tmp_path / "data", {name: b"\x00"})
    told = refusal(tmp_path / "data")
    assert "holds no images" in told
    assert advice in told


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    # Black ink on nothing: without its transparency all of it is black.
    image = Image.fromarray(np.zeros((8, 8, 4), np.uint8))
    image.paste((0, 0, 0, 255), (0, 0, 8, 4))
    image.convert(mode).save(tmp_path / "x.png") if mode != "P" else image.quantize(4).save(tmp_path / "x.png")
    sample = Sample(Stored("x.png", ("x.png",), tmp_path / "x.png"), None)
    pixels = read_pixels([sample], (8, 8), 1, Limits(), Scratch())
    assert pixels[0, 0, :4].max() == 0
    assert pixels[0, 0, 4:].min() == 255
    before = read_pixels([sample], (8, 8), 1, Limits(), Scratch(), over_white=False)
    assert before.max() == 0  # as models of before over_white saw it


def test_what_is_asked_about_is_predicted_but_for_files_that_are_no_images_and_that_is_said(tmp_path: Path) -> None:
    lay(tmp_path / "data", in_classes("train/"))
    predictor = problem_of(tmp_path / "data").predictor
    asked = tmp_path / "new"
    lay(asked, loose("", range(3)) | {"1b.png": b"\x89PNG\r\n\x1a\nno more", "2.tif": b"II*\0"})
    found = predictor.read(asked, Limits())
    assert list(found.names) == ["000.png", "001.png", "002.png"]
    assert len(found.tensors["pixels"]) == 3
    broken, other = sorted(found.notes)
    assert broken.startswith("1 file (.tif) is in a format that is not read")
    assert other.startswith("1 of 4 files are no images and have no prediction, the first of them: 1b.png: ")
    lay(tmp_path / "none", {"a.png": b"\x89PNG\r\n\x1a\nno more"})
    with pytest.raises(DatasetInvalid, match=r"a\.png: "):
        predictor.read(tmp_path / "none", Limits())
    lay(tmp_path, {"a.tif": b"II*\0"})
    with pytest.raises(DatasetInvalid, match=r"holds no images .*\(\.tif\) is in a format that is not read.*to PNG"):
        predictor.read(tmp_path / "a.tif", Limits())


def test_labels_that_the_model_does_not_know_leave_the_figures_out_and_that_is_said(tmp_path: Path) -> None:
    lay(tmp_path / "data", in_classes("train/"))
    predictor = problem_of(tmp_path / "data").predictor
    lay(tmp_path / "new", in_classes("", range(4)) | {"cow/9.png": png(9)})
    found = predictor.read(tmp_path / "new", Limits())
    assert not found.labelled
    assert "There are no figures: 1 of 5 images have no label that the model knows." in found.notes


@pytest.mark.parametrize(("most", "bits"), [(4095, 12), (1000, 10), (65535, 16)])
def test_images_of_16_bits_that_use_fewer_are_not_black(tmp_path: Path, most: int, bits: int) -> None:
    for number in range(12):
        path = tmp_path / CLASSES[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.linspace(0, most, 64).astype(np.uint16).reshape(8, 8)).save(path)
    problem = problem_of(tmp_path)
    assert problem.predictor.scaling.bits == bits
    assert 240 <= int(problem.splits["train"]["pixels"].max()) <= 255
    assert any(f"of {bits} bits only" in note for note in problem.notes) == (bits < 16)
    assert ImageClassification().restore(problem.model_description()).scaling == problem.predictor.scaling


def test_a_link_to_an_image_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    lay(tmp_path / "data", in_classes(""))
    (tmp_path / "data/cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    assert refusal(tmp_path / "data") == (
        "Invalid dataset: cat/gone.png: cannot be read (No such file or directory); is it a link to a file that is not"
        " there?"
    )


def test_rows_without_an_image_and_images_without_a_row_are_counted_for_a_table_above_the_images(
    tmp_path: Path,
) -> None:
    labels = [(f"{n:03}", CLASSES[n % 2]) for n in range(2, 15)]
    lay(tmp_path, {"labels.csv": table("id,label", [*labels, ("004", "dog")]), **loose("images/")})
    notes = problem_of(tmp_path).notes
    assert "labels.csv: 3 rows name no image that is there and were left out." in notes
    assert "2 images that labels.csv does not name were left out." in notes
    told = "labels.csv: 1 image has several labels, as images/004.png has 'cat' and 'dog': each row counts as an image"
    assert any(note.startswith(told) for note in notes)


def test_a_row_that_names_an_image_of_any_split_is_none_too_many(tmp_path: Path) -> None:
    names = [*(f"train/{n:03}" for n in range(12)), *(f"test/{n:03}" for n in range(20, 26))]
    labels = table("path,label", [(name, CLASSES[n % 2]) for n, name in enumerate(names)])
    lay(tmp_path, {"labels.csv": labels, **loose("train/"), **loose("test/", range(20, 26))})
    assert not any("left out" in note for note in problem_of(tmp_path).notes)


def test_several_folders_within_a_class_are_asked_about(tmp_path: Path) -> None:
    lay(tmp_path, {f"{('pet/cat', 'pet/dog', 'wild/owl')[n % 3]}/{n}.png": png(n) for n in range(24)})
    told = "What lies in pet/cat and pet/dog is of one class, 'pet': the outermost folders are the classes."
    assert told in problem_of(tmp_path).notes


def test_a_label_in_another_case_is_told_how_training_writes_it(tmp_path: Path) -> None:
    lay(tmp_path / "data", {**in_classes("train/"), "test/Cat/30.png": png(30), "test/dog/31.png": png(31)})
    assert refusal(tmp_path / "data").endswith("which no training image has; training has 'cat': write them alike")


def test_a_table_that_is_named_for_the_split_goes_before_one_about_something_else(tmp_path: Path) -> None:
    rows = [(f"Test/{n}.png", n % 2) for n in range(6)]
    lay(
        tmp_path,
        {
            **{f"Train/{n % 2}/{n}.png": png(n) for n in range(12)},
            **{f"Test/{n}.png": png(n + 20) for n in range(6)},
            "Meta.csv": table("Path,ClassId", [("Meta/0.png", 1)]),
            "Test.csv": table("Width,Height,ClassId,Path", [(8, 8, label, path) for path, label in rows]),
        },
    )
    problem = problem_of(tmp_path)
    assert problem.splits["test"]["target"].tolist() == [label for _, label in rows]


def test_images_that_are_named_as_masks_of_others_are_asked_about(tmp_path: Path) -> None:
    names = [f"{CLASSES[n % 2]}/{n}{mask}.png" for n in range(8) for mask in ("", "_mask")]
    lay(tmp_path, {name: png(n) for n, name in enumerate(names)})
    told = "8 images are named as masks of others, such as cat/0_mask.png: leave them out unless they are to be learnt"
    assert any(warning.startswith(told) for warning in problem_of(tmp_path).warnings)


def test_how_a_table_of_labels_was_read_is_said(tmp_path: Path) -> None:
    labels = table("Dateiname,Klasse", [(f"{n:03}.png", ("Zürich", "Köln")[n % 2]) for n in range(12)])
    lay(tmp_path, {"labels.csv": labels.encode("cp1252"), **loose("images/")})
    problem = problem_of(tmp_path)
    assert problem.predictor.labels == ("Köln", "Zürich")
    assert any("labels.csv is not UTF-8 and was read as Windows-1252" in note for note in problem.notes)
