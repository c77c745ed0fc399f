"""Small datasets on disk, run inputs, and a checkpoint store in a folder, for the tests of the trainer's inside."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer_image.config.model_config import parse_config
from trainer_image.contract import CheckpointStore, Progress, RunInputs
from trainer_image.limits import Limits

TABULAR = "task: tabular\ndata: {target: y}\nmodel: {preset: fast, candidates: [network]}\ntrain: {epochs: 3}\n"
IMAGES = "task: image_classification\nmodel: {preset: fast}\ntrain: {epochs: 2}\n"
TEXTS = "task: text_classification\nmodel: {preset: fast}\ntrain: {epochs: 2}\n"
LANGUAGE = "task: language_model\nmodel: {preset: fast}\ntrain: {epochs: 1}\n"


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)


def class_rows(count: int = 120, seed: int = 0) -> list[list[object]]:
    """Rows of a, b, colour, y: y is "yes" where a + b is positive, mostly."""
    random = np.random.default_rng(seed)
    rows: list[list[object]] = []
    for a, b in random.normal(size=(count, 2)).round(4):
        colour = ("red", "green", "blue")[int(random.integers(3))]
        rows.append([a, b, colour, "yes" if a + b + random.normal(0, 0.2) > 0 else "no"])
    return rows


def class_table(folder: Path, count: int = 120) -> Path:
    write_csv(folder / "train.csv", ["a", "b", "colour", "y"], class_rows(count))
    return folder


def value_table(folder: Path, count: int = 120) -> Path:
    rows = [[a, b, c, round(3 * a - b + 10, 3) if c != "blue" else 0.5] for a, b, c, _ in class_rows(count)]
    write_csv(folder / "train.csv", ["a", "b", "colour", "y"], rows)
    return folder


def image_folder(folder: Path, count: int = 48, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    """Bright on the left or on the right, with noise."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 120, size=(size[1], size[0], 3)).astype(np.uint8)
        label = ("left", "right")[number % 2]
        half = slice(0, size[0] // 2) if label == "left" else slice(size[0] // 2, None)
        pixels[:, half] += 120
        place = folder / "train" / label
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(place / f"{number:03}.png")
    return folder


def write_jsonl(path: Path, records: Iterable[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def text_records(count: int = 120, seed: int = 0) -> list[dict[str, str]]:
    """Sentences about ships or about bread, with words that both use."""
    random = np.random.default_rng(seed)
    words = {"sea": ["sail", "harbour", "anchor", "Küste"], "kitchen": ["flour", "yeast", "oven", "Brötchen"]}
    both = ["the", "a", "old", "with", "near", "and"]
    records = []
    for number in range(count):
        label = ("sea", "kitchen")[number % 2]
        chosen = [*random.choice(both, 6), *random.choice(words[label], 2)]
        records.append({"text": " ".join(random.permutation(chosen).tolist()), "label": label})
    return records


def text_rows(folder: Path, count: int = 120) -> Path:
    write_jsonl(folder / "train.jsonl", text_records(count))
    return folder


def documents(folder: Path, count: int = 24) -> Path:
    """Plain files of such sentences; the second half of each says the first once more."""
    (folder / "train").mkdir(parents=True)
    for number in range(count):
        half = "".join(f"{record['text']}.\n" for record in text_records(8, number))
        (folder / "train" / f"{number:02}.txt").write_text(half + half, encoding="utf-8")
    return folder


class FolderStore:
    """A CheckpointStore in a local folder; remembers the order in which checkpoints came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[Path] = []

    def newest_first(self) -> list[Path]:
        return list(reversed(self.kept))

    def keep(self, folder: Path) -> None:
        target = self.folder / folder.name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        self.kept = [path for path in self.kept if path != target] + [target]

    def make_room(self) -> bool:
        return False


class StopAtStep(threading.Event):
    """Looks set once the engine has asked `asks` times, i.e. about that many steps into the run."""

    def __init__(self, asks: int) -> None:
        super().__init__()
        self.left = asks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def run_inputs(
    data: Path,
    output: Path,
    config: str = TABULAR,
    *,
    store: CheckpointStore | None = None,
    stop: threading.Event | None = None,
    said: list[Progress] | None = None,
    initial: Path | None = None,
    limits: Limits | None = None,
    device: str = "cpu",
) -> RunInputs:
    settings: dict[str, Any] = {
        "config": parse_config(config.encode()),
        "data": data,
        "output": output,
        "run_id": "20261123t081500-1a2b3c4d",
        "run_key": "key",
        "dataset_fingerprint": "0" * 64,
    }
    return RunInputs(
        **settings,
        device=device,
        limits=limits or Limits(),
        stop=stop or threading.Event(),
        progress=(said if said is not None else []).append,
        checkpoints=store,
        initial=initial,
    )
