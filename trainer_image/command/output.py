"""OUTPUT_DIR after the program has ended: what may be published, its figures, and the pages about it."""

from __future__ import annotations

import io
import json
import os
import platform
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer_image.command.process import plain_line
from trainer_image.command.progress import ProgressFile, is_figure
from trainer_image.contract import RunInputs, RunResult
from trainer_image.errors import LimitExceeded, UserCodeFailed
from trainer_image.host import beneath, hidden
from trainer_image.limits import Limits
from trainer_image.report import program
from trainer_image.storage.blob_names import first_problem, printable
from trainer_image.storage.manifest import write_json
from trainer_image.units import format_bytes

if TYPE_CHECKING:
    from trainer_image.command.checkpoints import CheckpointFolder

METRICS = "metrics.json"
METRICS_BYTES = 64 * 1024
MOST_METRICS = 100
MOST_FILES = 10_000
# The trainer's own; a program's file of that name is replaced. The others below are the program's if it writes them.
HISTORY = "metrics.jsonl"
OURS = ("report.json", "config.resolved.yaml", "dataset.lock.json", "environment.json", "MANIFEST.json")
OTHERS = ("model.json", "report.html", "README.md")
# Of the report: MANIFEST.json has every file, the log every line.
MOST_SHOWN = 50
LAST_LINES = 30


@dataclass(frozen=True)
class Ended:
    """A program that has ended well. seconds: of earlier attempts, too; printed, figures: its last lines and figures

    resources: see `trainer_image.host.usage.Usage.series`
    """

    progress: ProgressFile
    seconds: float
    checkpoints: CheckpointFolder
    printed: Sequence[str] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    resources: Mapping[str, Sequence[float]] = field(default_factory=dict)


def finish(inputs: RunInputs, ended: Ended) -> RunResult:
    """Checks the folder and adds model.json, report.json, report.html and README.md to it.

    Raises UserCodeFailed for a folder that is empty or holds what is no file, LimitExceeded for one that is too large.
    """
    folder, argv = inputs.output, inputs.shown["command"]["argv"]
    progress, checkpoints = ended.progress, ended.checkpoints
    secret = hidden.taken_out(inputs.config.command.argv, argv)
    names = published(folder, inputs.limits)
    notes = [
        *inputs.notes,
        *(f"{name} of the program was replaced by the trainer's own." for name in OURS if name in names),
    ]
    for name in set(OURS) & set(names):
        (folder / name).unlink()
    sizes = {name: (folder / name).stat().st_size for name in names if name not in (*OURS, HISTORY)}
    metrics, wrong = read_metrics(folder / METRICS)
    notes += [*wrong, *checkpoints.problems]
    content = {
        "format": 1,
        "run_id": inputs.run_id,
        "task": inputs.config.task,
        "dataset": {"fingerprint": inputs.dataset_fingerprint},
        "headline": next(iter(metrics), None),
        "metrics": metrics,
        "baselines": {},
        "training": {
            "program": argv,
            "steps": progress.step,
            "resumed_from_step": checkpoints.resumed_from,
            "notes": notes,
        },
        "files": {
            "count": len(sizes),
            "bytes": sum(sizes.values()),
            "largest": [
                {"name": name, "bytes": size}
                for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:MOST_SHOWN]
            ],
        },
        # What a program prints may be rows of the dataset.
        "last_lines": [hidden.text(line, secret) for line in ended.printed[-LAST_LINES:]]
        if inputs.config.report.examples
        else [],
        "printed": dict(ended.figures),
        "resources": dict(ended.resources),
        "seconds": {"train": round(ended.seconds, 3)},
        "hardware": {"processor": platform.machine(), "python": platform.python_version()},
        "config": inputs.shown,
    }
    write_json(folder / "report.json", content)
    if "model.json" not in names:
        model = {"format": 1, "task": inputs.config.task, "run_id": inputs.run_id, "program": argv}
        write_json(folder / "model.json", model)
    if "report.html" not in names:
        history = folder / HISTORY
        with history.open("rb") if history.exists() else io.BytesIO() as lines:
            (folder / "report.html").write_text(program.page(content, lines), encoding="utf-8")
    if "README.md" not in names:
        (folder / "README.md").write_text(_card(content), encoding="utf-8")
    return RunResult(inputs.config.task, metrics, {}, progress.step, ended.seconds)


def published(folder: Path, limits: Limits) -> list[str]:
    """The names of all files in the folder, sorted. Links within it are files; any other link is refused."""
    names: list[str] = []
    size = 0
    root = folder.resolve()
    for place, folders, files in os.walk(folder):
        for entry in [*files, *(name for name in folders if (Path(place) / name).is_symlink())]:
            path = Path(place) / entry
            name = path.relative_to(folder).as_posix()
            target = path.resolve()
            if not target.is_relative_to(root):
                raise UserCodeFailed(
                    f"The program left a link in OUTPUT_DIR that leads out of it: {printable(name)}; only files"
                    " are published: copy what it points to"
                )
            if not target.is_file():
                raise UserCodeFailed(
                    f"The program left something in OUTPUT_DIR that is no file: {printable(name)}; only files are"
                    " published"
                )
            names.append(name)
            size += target.stat().st_size
            if path.is_symlink():
                _become(path, target)
    if not set(names) - {HISTORY}:
        raise UserCodeFailed(nothing_left(None))
    if len(names) > MOST_FILES:
        raise LimitExceeded(f"The program left {len(names)} files in OUTPUT_DIR; at most {MOST_FILES} are published")
    if limits.output_bytes and size > limits.output_bytes:
        raise LimitExceeded(
            f"The program left {format_bytes(size)} in OUTPUT_DIR; the limit is {format_bytes(limits.output_bytes)}"
            " (MAX_OUTPUT_BYTES)"
        )
    wrong = first_problem([*names, *(name for name in (*OURS, *OTHERS) if name not in names)])
    if wrong:
        raise UserCodeFailed(
            f"The program left a file in OUTPUT_DIR that has no usable name: {printable(wrong[0])}: {wrong[1]}"
        )
    return sorted(names)


def nothing_left(elsewhere: str | None) -> str:
    """elsewhere: where it wrote, as `elsewhere.Elsewhere` tells it"""
    said = "The program ended with exit code 0, but left nothing in OUTPUT_DIR: there is no model"
    if elsewhere is None:
        return said
    return f"{said}. It wrote {elsewhere}; write to the path that {{OUTPUT_DIR}} in an argument becomes"


def _become(link: Path, target: Path) -> None:
    """Puts the file in place of a link to it: what is published is read without following any."""
    new = link.with_name(f".{secrets.token_hex(8)}")
    os.link(target, new)
    new.replace(link)


def read_metrics(path: Path) -> tuple[dict[str, float], list[str]]:
    """(figures, the headline first; a note for what is wrong). Hours of training are not lost for a figure."""
    if not path.is_file():
        return {}, []
    try:
        with beneath.open_file(path.parent, path.name) as file:
            reported = json.loads(file.read(METRICS_BYTES + 1))
    except (OSError, ValueError, RecursionError):
        return {}, [f"{METRICS} was not read: it is not JSON of at most {METRICS_BYTES} bytes."]
    if not isinstance(reported, dict):
        return {}, [f"{METRICS} was not read: it is not an object of names and numbers."]
    figures = {
        plain_line(name)[:64]: float(value) for name, value in list(reported.items())[:MOST_METRICS] if is_figure(value)
    }
    left = len(reported) - len(figures)
    return figures, [f"{left} entries of {METRICS} are no finite numbers, or too many: left out."] if left else []


def _card(content: dict[str, Any]) -> str:
    """README.md: every text that is not ours stands in a code block, where Markdown leaves it alone."""
    figures = "\n".join(f"    {printable(name)}: {value:.6g}" for name, value in content["metrics"].items())
    notes = "\n".join(f"    {printable(note)}" for note in content["training"]["notes"])
    return (
        f"# Model of a program, run {content['run_id']}\n\nThe program:\n\n"
        f"    {printable(shlex.join(content['training']['program']))}\n\n"
        f"Figures that it reported (metrics.json):\n\n{figures or '    none'}\n\n"
        + (f"Good to know:\n\n{notes}\n\n" if notes else "")
        + "report.json has every figure, metrics.jsonl how they went. Only a program of its author's can apply it.\n"
    )
