"""Predictions from a published model's folder alone: model.json and model.safetensors, no training data, no network."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from trainer_image.engine.restoring import load
from trainer_image.errors import UsageError, shown
from trainer_image.host.devices import usable_cpus
from trainer_image.limits import Limits
from trainer_image.tasks import plugins
from trainer_image.tasks.base import scored


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
            result["metrics"] = scored(predictor, outputs, rows.tensors)
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
