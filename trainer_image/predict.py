"""Predictions from a published model's folder alone: model.json and model.safetensors, no training data, no network."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from trainer_image.engine import published
from trainer_image.engine.published import Published
from trainer_image.errors import TrainerError, UsageError, shown
from trainer_image.host.devices import usable_cpus
from trainer_image.limits import Limits
from trainer_image.storage import untrusted_json
from trainer_image.storage.blob_names import printable
from trainer_image.tasks import BUILT_IN, plugins, registry, task_named
from trainer_image.tasks.base import Task
from trainer_image.units import format_bytes

# What model.json may have beside four times what the tensors have: a category's name belongs to a row of a tensor. As
# Python's objects JSON may take twenty times the memory.
DESCRIPTION_BYTES = 16 * 1024**2


def task_of(model_dir: Path, description: dict[str, Any]) -> Task:
    """The task that trained the model. The description comes from a stranger: it imports nothing by itself."""
    if description["task"] not in (*BUILT_IN, "command", "custom"):
        raise UsageError(
            f"The model in {model_dir.name} is of task {printable(description['task'])[:40]}, which this trainer does"
            " not know"
        )
    if description["task"] == "command":
        raise UsageError(
            f"The model in {model_dir.name} is what a program left (task command): only a program of its author's"
            " can apply it"
        )
    if description["task"] != "custom":
        return task_named(description["task"])
    entry_point = str(description["entry_point"])
    if entry_point not in registry.registered():
        raise UsageError(
            f"The model in {model_dir.name} was trained by the task {printable(entry_point)}, which is not installed"
            " here: install the package that registers it, or use the image that trained the model"
        )
    return plugins.load(entry_point)


def load(model_dir: Path) -> tuple[dict[str, Any], Published]:
    """(model.json, the model). UsageError when the folder holds no model of ours."""
    try:
        description = _described(model_dir)
        predictor = task_of(model_dir, description).restore(description["model"])
        own = description["task"] == "custom"  # whose network may need real tensors while it is built
        return description, published.read(model_dir, description, predictor, trusted=own)
    except FileNotFoundError as error:
        raise UsageError(f"No model in {model_dir.name}: {Path(str(error.filename)).name} is missing") from None
    except TrainerError:
        raise
    except KeyError as error:
        raise UsageError(f"The model in {model_dir.name} cannot be read: model.json lacks {error}") from None
    except Exception as error:  # whatever a stranger's description makes a network stumble over
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"The model in {model_dir.name} cannot be read: {why}") from None


def _described(model_dir: Path) -> dict[str, Any]:
    """model.json, as far as every task's is the same. Raises UsageError, ValueError."""
    with (model_dir / "model.json").open("rb") as file:
        tensors = (model_dir / "model.safetensors").stat().st_size
        content = file.read(most := DESCRIPTION_BYTES + 4 * tensors)
    if len(content) == most:
        raise ValueError(f"model.json is far too long for {format_bytes(tensors)} of tensors")
    try:
        description = untrusted_json.loads(content)
    except ValueError as error:
        raise ValueError(f"model.json: {error}") from None
    if not isinstance(description, dict):
        raise ValueError("model.json is no JSON object")
    if description["format"] not in (1, published.FORMAT):
        found = printable(str(description["format"]))[:40]
        raise UsageError(f"{model_dir.name}/model.json has format {found}; this trainer reads 1 and {published.FORMAT}")
    if not isinstance(description["task"], str):
        raise ValueError("model.json names no task")
    return description


def predict(model_dir: Path, data: Path, out: Path | None) -> dict[str, Any]:
    """Predicts every row of `data` (a file, or a dataset folder: its test split where it has one).

    Writes one line a row to `out`, JSON lines where its name ends in .jsonl, else CSV; or returns the rows under
    "predictions" when there is none. The result has task, rows, the figures under "metrics" when the data brings its
    labels, and under "notes" what is odd about the rows. Raises UsageError, DatasetInvalid, LimitExceeded.
    """
    torch.set_num_threads(usable_cpus())
    description, model = load(model_dir)
    predictor = model.predictor
    if not data.exists():
        raise UsageError(f"There is no {data}: a file or folder to predict is expected")
    with plugins.blames(description["entry_point"] if description["task"] == "custom" else None):
        rows = predictor.read(data, Limits())
        outputs = model.outputs(rows.tensors, torch.device("cpu"))
        header, cells = predictor.predictions(outputs)
        result: dict[str, Any] = {"task": description["task"], "rows": len(rows.names)}
        if rows.labelled:
            result["metrics"] = predictor.score(outputs, rows.tensors)
        if rows.notes:
            result["notes"] = list(rows.notes)
    lines = ([name, *line] for name, line in zip(rows.names, cells, strict=True))
    if out is None:
        result["predictions"] = [dict(zip(["row", *header], line, strict=True)) for line in lines]
        return result
    try:
        _write(out, ["row", *header], lines)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}") from None
    return result


def write(model_dir: Path, prompt: str, length: int, temperature: float, seed: int) -> str:
    """What a model that writes goes on with after the prompt: see `Predictor.continuation`. Raises UsageError where the
    model is of a task that writes nothing."""
    torch.set_num_threads(usable_cpus())
    description, model = load(model_dir)
    with plugins.blames(description["entry_point"] if description["task"] == "custom" else None):
        written = model.predictor.continuation(model.foremost, prompt, length, temperature, seed)
    if written is None:
        raise UsageError(
            f"The model in {model_dir.name} is of task {description['task']}, which writes no text: --prompt is for"
            " models of task language_model; others take --data"
        )
    return written


def show_predictions(model_dir: Path, data: Path, out: Path | None) -> None:
    """As the command does it: `predict`, and what is to be read about it on stdout."""
    found = predict(model_dir, data, out)
    if out is None:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for note in found.get("notes", ()):
        click.echo(shown(note), err=True)
    click.echo(f"{found['rows']} predictions: {out}")
    for name, value in found.get("metrics", {}).items():
        click.echo(f"  {name}: {value:.4g}")


def show_continuation(model_dir: Path, prompt: str, length: int, temperature: float, seed: int) -> None:
    click.echo(prompt + write(model_dir, prompt, length, temperature, seed))


def _write(out: Path, header: Sequence[str], lines: Iterable[Sequence[str | float]]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        if out.suffix.lower() == ".jsonl":
            file.writelines(
                json.dumps(dict(zip(header, line, strict=True)), ensure_ascii=False) + "\n" for line in lines
            )
            return
        writer = csv.writer(file)
        writer.writerow([inert(cell) for cell in header])
        writer.writerows([inert(cell) for cell in line] for line in lines)


def inert(cell: str | float) -> str | float:
    """The cell as a spreadsheet shows it instead of running it: an apostrophe before text that would be a formula.

    Labels and file names come from a dataset. Numbers stay numbers, also those that are labels ("-1"). The characters
    are those that OWASP's page on CSV injection names.
    """
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
