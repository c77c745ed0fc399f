"""Predictions from a published model's folder alone: model.json and model.safetensors, no training data, no network."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from trainer_image.data import reading
from trainer_image.engine.restoring import load
from trainer_image.errors import LimitExceeded, UsageError, UserCodeFailed, shown
from trainer_image.host.devices import usable_cpus
from trainer_image.limits import Limits
from trainer_image.storage.blob_names import printable, problem_of
from trainer_image.tasks import hooks, plugins
from trainer_image.tasks.base import Predictor, Rows, rows_in, scored
from trainer_image.tasks.stretches import Stretches
from trainer_image.units import format_bytes

# Of the files that a model predicts.
MOST_FILES, MOST_FILES_BYTES = 1_000_000, 100 * 1024**3


def predict(model_dir: Path, data: Path, out: Path | None) -> dict[str, Any]:
    """Predicts every row of `data` (a file, or a dataset folder: its test split where it has one).

    Writes one line a row to `out`, JSON lines where its name ends in .jsonl, else CSV, and what the task predicts as
    files into a folder beside it; or returns the rows under "predictions" when there is no `out`. The result has task,
    rows, the figures under "metrics" when the data brings its labels, under "notes" what is odd about the rows, and of
    what was written "table", "files" (how many) and "folder". Raises UsageError, DatasetInvalid, LimitExceeded,
    UserCodeFailed.
    """
    torch.set_num_threads(usable_cpus())
    description, model = load(model_dir)
    predictor = model.predictor
    if not data.exists():
        raise UsageError(f"There is no {data}: a file or folder to predict is expected")
    entry_point = description["entry_point"] if description["task"] == "custom" else None
    makes_files = getattr(predictor.files, "__func__", None) is not Predictor.files
    folder = _folder_beside(out) if out and makes_files else None
    with reading.below(data), plugins.blames(entry_point):
        rows = _rows(predictor, data)
        outputs = model.outputs(rows.tensors, torch.device("cpu"))
        table = _table(predictor, outputs, rows)
        result: dict[str, Any] = {"task": description["task"], "rows": len(rows.names)}
        if rows.labelled:
            result["metrics"] = scored(predictor, outputs, rows.tensors)
    notes = list(rows.notes)
    if makes_files and out is None:
        notes.append("This model predicts files, too, which are written with --out only.")
    if notes:
        result["notes"] = notes
    if out is None:
        if table is not None:
            result["predictions"] = [dict(zip(table[0], line, strict=True)) for line in table[1]]
        return result
    try:
        if folder is not None:
            result |= {"files": _write_files(folder, _files(predictor, outputs, rows, entry_point)), "folder": folder}
        if table is not None:
            result["table"] = out
            _write(out, *table)
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
    written = [str(found["table"])] if "table" in found else []
    if "files" in found:
        written.append(f"{found['files']} file{'' if found['files'] == 1 else 's'} in {found['folder']}")
    click.echo(f"{found['rows']} predictions: {', '.join(written) or 'the task writes none'}")
    for name, value in found.get("metrics", {}).items():
        click.echo(f"  {name}: {value:.4g}")


def show_continuation(model_dir: Path, prompt: str, length: int, temperature: float, seed: int) -> None:
    click.echo(prompt + write(model_dir, prompt, length, temperature, seed))


def _rows(predictor: Predictor, data: Path) -> Rows:
    """What the task reads. Raises UserCodeFailed for rows that have not a name each."""
    rows = predictor.read(data, Limits())
    if not isinstance(rows, Rows):
        raise hooks.failed(predictor, "read", f"{type(rows).__name__}; Rows of trainer_image.tasks.base are expected")
    # Windows of a long document are rows of one name: `_table` compares it with the document's line.
    windows = isinstance(rows.tensors, Stretches)
    if len(rows.names) != (count := rows_in(rows.tensors)) and not windows:
        raise hooks.failed(predictor, "read", f"{len(rows.names)} names for {count} rows; one for each is expected")
    return rows


def _table(predictor: Predictor, outputs: Any, rows: Rows) -> tuple[list[str], list[list[str | float]]] | None:
    """Header and lines, each with its row's name first. Raises UserCodeFailed for what is no table of these rows."""
    found = predictor.predictions(outputs)
    if found is None:
        return None
    header, cells = found
    if len(cells) != len(rows.names):
        told = f"{len(cells)} lines; one for each of {len(rows.names)} rows is expected"
        raise hooks.failed(predictor, "predictions", told)
    lines = []
    for name, line in zip(rows.names, cells, strict=True):
        if len(line) != len(header):
            told = f"{len(line)} cells for {printable(name)}; the header has {len(header)}"
            raise hooks.failed(predictor, "predictions", told)
        # A number of numpy's or torch's would be text in CSV, and nothing that JSON knows.
        lines.append([name, *(cell.item() if hasattr(cell, "item") else cell for cell in line)])
    return ["row", *header], lines


def _files(predictor: Predictor, outputs: Any, rows: Rows, entry_point: str | None) -> Iterator[tuple[str, bytes]]:
    """What the task predicts as files. Raises UserCodeFailed for what is none, or has a name that no file may have."""
    with plugins.blames(entry_point):
        for found in predictor.files(outputs, rows):
            if not (isinstance(found, tuple) and list(map(type, found)) == [str, bytes]):
                raise hooks.failed(
                    predictor, "files", f"{type(found).__name__}; pairs of a name and bytes are expected"
                )
            # Rows are often named by a stranger's files: "../x" must not lead out of the folder.
            if (why := problem_of(found[0])) is not None:
                raise hooks.failed(predictor, "files", f"a file named {printable(found[0])}: {why}")
            yield found


def _folder_beside(out: Path) -> Path:
    """Where files go: predictions/ beside predictions.csv. Raises UsageError where that is taken."""
    folder = out.with_suffix("")
    if folder == out:
        raise UsageError(
            f"--out {out}: this model predicts files, too, which go into a folder of the same name without its ending:"
            f" {out.name}.csv or {out.name}.jsonl would be right"
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(
            f"--out {out}: this model predicts files, too, which go into {folder}, where something lies already:"
            " another name would be right"
        )
    return folder


def _write_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> int:
    """How many there were. The folder has its name only when all of them are in it."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed: in containers processes' ids come again
    unfinished.mkdir(parents=True)
    count = size = 0
    try:
        for name, content in files:
            count, size = count + 1, size + len(content)
            if count > MOST_FILES or size > MOST_FILES_BYTES:
                most = f"{MOST_FILES} files, and {format_bytes(MOST_FILES_BYTES)} together"
                raise LimitExceeded(f"The model predicts too many files: at most {most} are written")
            place = unfinished / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("xb") as file:
                    file.write(content)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise UserCodeFailed(f"The model predicts two files named {printable(name)}, or a folder") from None
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return count


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
