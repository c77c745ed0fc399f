"""Layouts in which known datasets of images are handed out: read as meant, or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.world import layouts
from tests.world.layouts import CLASSES, IMAGES, Case, folders, loose, nfd, put, several, shards, table

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
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_as_meant_or_refused_with_the_way_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.check(CASES[name], tmp_path, monkeypatch)
