"""The demo's data sets: those that ship inside scikit-learn, written as people bring theirs, and uploaded.

Tables as `train.csv` and `test.csv` with a header; images as `train/<class>/N.png` and `test/<class>/N.png`.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings
from PIL import Image
from sklearn import datasets
from sklearn.model_selection import train_test_split

TEST_SHARE = 0.2
SEED = 0
# Azurite is one process: more connections at a time only queue up in it.
UPLOAD_THREADS = 8


def write_breast_cancer(folder: Path) -> None:
    """569 rows, 30 numbers, target `diagnosis` (malignant or benign)."""
    data = datasets.load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names]
    _write_table(folder, names, "diagnosis", data.data, data.target_names[data.target], stratify=True)


def write_wine(folder: Path) -> None:
    """178 rows, 13 numbers, target `cultivar` of three classes."""
    data = datasets.load_wine()
    _write_table(folder, data.feature_names, "cultivar", data.data, data.target_names[data.target], stratify=True)


def write_diabetes(folder: Path) -> None:
    """442 rows, 10 numbers, target `progression`, a number: a regression."""
    data = datasets.load_diabetes(scaled=False)
    _write_table(folder, data.feature_names, "progression", data.data, data.target, stratify=False)


def write_digits(folder: Path, per_class: int | None = None) -> None:
    """Handwritten digits: 8 × 8 grey PNG files, a folder a class, at most `per_class` of each; all: 1797."""
    data = datasets.load_digits()
    chosen = np.concatenate([np.flatnonzero(data.target == digit)[:per_class] for digit in range(10)])
    train, test = train_test_split(chosen, test_size=TEST_SHARE, random_state=SEED, stratify=data.target[chosen])
    for split, members in (("train", train), ("test", test)):
        for index in sorted(members):
            place = folder / split / str(data.target[index])
            place.mkdir(parents=True, exist_ok=True)
            # The set counts ink from 0 to 16.
            pixels = np.round(data.images[index] * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png")


def _write_table(folder: Path, names: Iterable[str], target: str, rows: Any, labels: Any, *, stratify: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train, test = train_test_split(
        np.arange(len(rows)), test_size=TEST_SHARE, random_state=SEED, stratify=labels if stratify else None
    )
    for split, members in (("train", train), ("test", test)):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*names, target])
            writer.writerows([*rows[index], labels[index]] for index in sorted(members))


def create_container(service: BlobServiceClient, name: str) -> ContainerClient:
    """The container, made if it is not there."""
    container = service.get_container_client(name)
    with contextlib.suppress(ResourceExistsError):
        container.create_container()
    return container


def upload_folder(service: BlobServiceClient, container: str, folder: Path) -> int:
    """Every file of the folder as a blob of the same relative path, with its MD5. Returns their number."""
    client = create_container(service, container)
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    def upload(path: Path) -> None:
        client.upload_blob(path.relative_to(folder).as_posix(), path.read_bytes(), overwrite=True)

    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        list(pool.map(upload, files))
    return len(files)


def upload_config(service: BlobServiceClient, container: str, lines: Sequence[str]) -> None:
    """`config.yaml` of a model."""
    client = create_container(service, container)
    client.upload_blob(
        "config.yaml",
        "\n".join([*lines, ""]).encode(),
        overwrite=True,
        content_settings=ContentSettings(content_type="application/yaml"),
    )
