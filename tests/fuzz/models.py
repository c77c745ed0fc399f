"""Published models, by what `predict` reads of them."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import damage, images, tables
from tests.fuzz.damage import OF_DATA, OF_MODELS, Format
from tests.fuzz.mutations import lying


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
    rows = ("new.csv", tables.csv_table())
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
            rows = ("new.png", images.pictures("PNG")()[0])
        case "text_classification":
            sizes = TextSizes(longest=64, buckets=256, width=4, filters=8, dropout=0.1)
            predictor = TextPredictor(sizes, ("a", "b"), Fields("text", "label"))
            description = {"labels": ["a", "b"], "fields": {"text": "text", "label": "label"}}
            rows = ("new.jsonl", tables.labelled_texts()[0])
        case "language_model":
            sizes = LanguageSizes(32, 16, 1, 2, (2, 3), 64, 4, (3, 5), 0.0)
            predictor = LanguagePredictor(sizes, "text")
            description = {"text": "text"}
            rows = ("new.txt", tables.plain_texts()[0][:400])
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


def weights(task: str) -> Format:
    def read(folder: Path, content: bytes) -> object:
        return _applied(folder, model(task), json.dumps(model(task).description).encode(), content)

    return Format(cache(lambda: [model(task).tensors]), tensor_damage, read, OF_MODELS, "the-model")


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


def of_model(task: str) -> Format:
    samples = cache(lambda: [json.dumps(model(task).description).encode()])
    # A model that lies about its columns or labels may not fit the rows.
    return Format(samples, damage.json_text, _description(task), (*OF_MODELS, *OF_DATA), "the-model", "new.")


def tensor_damage(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    """Half of them a header of JSON that lies, with a length that fits."""
    if random.random() < 0.5:
        return damage.binary(content, samples, random)
    length = int.from_bytes(content[:8], "little")
    header = lying(json.loads(content[8 : 8 + length]), random).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


RUN_FILES = ("model.json", "model.safetensors")


def folder_file(name: str) -> Callable[[Path, bytes], object]:
    """latest.json or a manifest of a model's folder."""

    def read(folder: Path, content: bytes) -> object:
        from trainer_image.transfer.fetch_model import local_folder

        run = folder / "m" / "runs" / "r1"
        run.mkdir(parents=True, exist_ok=True)
        for file in RUN_FILES:
            (run / file).write_bytes(b"{}")
        (run / "MANIFEST.json").write_bytes(content if name == "MANIFEST.json" else manifests()[0])
        if name == "MANIFEST.json":
            return local_folder(run)
        (folder / "m" / "latest.json").write_bytes(content)
        return local_folder(folder / "m")

    return read


@cache
def manifests() -> Sequence[bytes]:
    entry = {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    return [json.dumps(dict.fromkeys(RUN_FILES, entry)).encode()]


@cache
def latests() -> Sequence[bytes]:
    return [json.dumps({"run_id": "r1", "manifest_sha256": hashlib.sha256(manifests()[0]).hexdigest()}).encode()]
