"""Every format that strangers hand to the trainer: sound samples of it, and what reads them.

A reader takes a folder that holds nothing but what it writes itself, and damaged bytes. It returns, or raises one of
the trainer's errors with the file's name in its sentence; anything else is a finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.fuzz import checkpoints, damage, images, models, tables
from tests.fuzz.damage import OF_MODELS, Format
from trainer_image.errors import ConfigInvalid


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


TEXT_TASK, LANGUAGE_TASK = "text_classification", "language_model"

FORMATS: dict[str, Format] = {
    "parquet": Format(tables.parquets, damage.binary, tables.table("train.parquet"), named="train.parquet"),
    "csv": Format(tables.csvs, damage.text, tables.table("train.csv"), named="train.csv"),
    "csv.gz": Format(
        tables.packed(tables.csvs), tables.inside(damage.text), tables.table("train.csv.gz"), named="train.csv.gz"
    ),
    "jsonl": Format(tables.jsonl, damage.lines, tables.table("train.jsonl"), named="train.jsonl"),
    "json": Format(tables.jsons, damage.json_text, tables.table("train.json"), named="train.json"),
    "latin-1": Format(tables.latins, damage.text, tables.table("train.csv"), named="train.csv"),
    "feather": Format(tables.feathers, damage.binary, tables.table("train.feather"), named="train.feather"),
    "orc": Format(tables.orcs, damage.binary, tables.table("train.orc"), named="train.orc"),
    "xlsx": Format(tables.workbooks, damage.binary, tables.table("train.xlsx"), named="train.xlsx"),
    "texts": Format(tables.labelled_texts, damage.lines, tables.texts("train.jsonl", TEXT_TASK), named="train.jsonl"),
    "plain": Format(tables.plain_texts, damage.text, tables.texts("train.txt", LANGUAGE_TASK), named="train.txt"),
    "zip": Format(images.zips, damage.binary, images.archive("train.zip"), named="train.zip"),
    "tar": Format(images.tars, images.tar_damage, images.archive("train.tar"), named="train.tar"),
    "tar.gz": Format(
        tables.packed(images.tars),
        tables.inside(images.tar_damage),
        images.archive("train.tar.gz"),
        named="train.tar.gz",
    ),
    "metadata.jsonl": Format(
        images.metadata_lines, damage.lines, images.metadata("metadata.jsonl"), named="metadata.jsonl"
    ),
    "metadata.csv": Format(images.metadata_tables, damage.text, images.metadata("metadata.csv"), named="metadata.csv"),
    "png": Format(images.pictures("PNG"), images.png_damage, images.picture(".png"), named="x.png"),
    "jpeg": Format(images.pictures("JPEG"), damage.binary, images.picture(".jpg"), named="x.jpg"),
    "bmp": Format(images.pictures("BMP"), damage.binary, images.picture(".bmp"), named="x.bmp"),
    "gif": Format(images.pictures("GIF"), damage.binary, images.picture(".gif"), named="x.gif"),
    "webp": Format(images.pictures("WEBP"), damage.binary, images.picture(".webp"), named="x.webp"),
    "config.yaml": Format(_configurations, damage.text, _configuration, (ConfigInvalid,)),
    "latest.json": Format(
        models.latests, damage.json_text, models.folder_file("latest.json"), OF_MODELS, "latest.json"
    ),
    "MANIFEST.json": Format(
        models.manifests, damage.json_text, models.folder_file("MANIFEST.json"), OF_MODELS, "MANIFEST.json"
    ),
    "model.safetensors": models.weights("tabular"),
    "model.safetensors language_model": models.weights(LANGUAGE_TASK),
    **{
        f"model.json {task}": models.of_model(task)
        for task in ("tabular", "tabular_values", "image_classification", TEXT_TASK, LANGUAGE_TASK)
    },
    "state.json": Format(checkpoints.scalar_files, damage.json_text, checkpoints.checkpoint(tensors=False), ()),
    "checkpoint": Format(checkpoints.tensor_files, models.tensor_damage, checkpoints.checkpoint(tensors=True), ()),
    "warm start": Format(checkpoints.warm_tensors, models.tensor_damage, checkpoints.warm, ()),
}
