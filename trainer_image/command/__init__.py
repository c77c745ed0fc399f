"""Task `command`: any program that the image holds, run as a child with the promises of a built-in task.

    dataset ─▶ DATASET_DIR ─┐            ┌▶ OUTPUT_DIR ─▶ checked ─▶ published like any model
    checkpoints ─▶ CHECKPOINT_DIR ─▶ program ─▶ CHECKPOINT_DIR ─▶ copied away while it runs, manifest last
                 SIGTERM ───┘            └▶ PROGRESS_FILE ─▶ portal, metrics.jsonl

Download, fencing, publication and reports are those of every task: this package has the contract of
`trainer_image.engine.training` (see contract.py), and torch is not imported.
"""

from __future__ import annotations

import logging
import shlex
import signal
import stat
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from trainer_image.command import nodes, output
from trainer_image.command.checkpoints import CheckpointFolder
from trainer_image.command.process import Program, environment
from trainer_image.command.progress import ProgressFile
from trainer_image.config.model_config import Config, format_duration
from trainer_image.contract import Progress, RunInputs, RunResult
from trainer_image.errors import (
    ConfigInvalid,
    DatasetInvalid,
    DatasetMissing,
    GpuFault,
    GpuOutOfMemory,
    LimitExceeded,
    StorageUnavailable,
    Terminated,
    TrainerError,
    TrainingDiverged,
    UserCodeFailed,
    UserCodeKilled,
)
from trainer_image.host import hidden, memory
from trainer_image.limits import Limits
from trainer_image.storage.blob_names import printable

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
# What a program may say by its exit code. The others up to 127 mean: it failed, and would fail again.
MEANT = {
    kind.exit_code: kind
    for kind in (
        DatasetInvalid,
        DatasetMissing,
        ConfigInvalid,
        TrainingDiverged,
        GpuOutOfMemory,
        LimitExceeded,
        StorageUnavailable,
        GpuFault,
    )
}


def check_config(config: Config, limits: Limits) -> None:
    """The arguments are the program's to judge."""


def validate_dataset(inputs: RunInputs) -> str:
    """The dataset is the program's to judge: this only says so."""
    return f"The program {_shown(inputs.config.command.argv)} is in the image; validating does not run it."


def train(inputs: RunInputs) -> RunResult:
    """Runs the program to its end and checks what it left in `inputs.output`. Raises a TrainerError."""
    inputs, progress, seconds, checkpoints = _run(inputs)
    return output.finish(inputs, progress, seconds, checkpoints)


def follow(inputs: RunInputs) -> None:
    """Runs the program on a further node: nothing that it leaves there is kept. Raises a TrainerError."""
    _run(inputs)


def _run(inputs: RunInputs) -> tuple[RunInputs, ProgressFile, float, CheckpointFolder]:
    began = time.monotonic()
    work = inputs.output.parent / "command"
    saved = work / "checkpoints"
    saved.mkdir(parents=True)
    inputs.output.mkdir(exist_ok=True)
    progress = ProgressFile(work / "progress", inputs.output / output.HISTORY, inputs.progress)
    every, keeps = inputs.config.checkpoint.every, inputs.place is None or inputs.place.node == 0
    checkpoints = CheckpointFolder(inputs.checkpoints, saved, work, progress.history, every, keeps=keeps)
    spent = checkpoints.restore()
    progress.step = checkpoints.step
    kills_before = memory.kills()
    inputs.progress(Progress(f"Running {_shown(inputs.config.command.argv)}", progress.step))
    left = max(1.0, float(inputs.config.train.time_budget) - spent)
    place = _identity(inputs.output)
    program = Program(inputs.config.command.argv, environment(_given(inputs, work, saved, progress, left)))
    # A program that keeps to the time has that of a stop besides, to write its model.
    latest = began + left + inputs.grace_seconds / 2 if _budgeted(inputs) else None
    try:
        code, overdue = _watch(inputs, program, progress, checkpoints, latest)
    finally:
        program.close()
        checkpoints.close()
    if _identity(inputs.output) != place:
        raise UserCodeFailed("The program put something else in the place of its folder OUTPUT_DIR")
    checkpoints.seconds = seconds = spent + time.monotonic() - began
    if overdue:
        if code != 0:
            raise _overdue(inputs, code, progress.step)
        note = f"{_budget(inputs)} ended the program: what it had left in OUTPUT_DIR by then is the model."
        inputs = replace(inputs, notes=(*inputs.notes, note))
    if code != 0:
        error = _failure(inputs.config.command.argv, code, program.tail(), progress.step)
        starved = None if code in MEANT else memory.out_of_memory(error, kills_before)
        echo = nodes.echo(error, program.lines()) if inputs.place and code not in MEANT else None
        raise starved or echo or error
    return inputs, progress, seconds, checkpoints


def _identity(folder: Path) -> tuple[int, int, bool] | None:
    """Device, inode, and whether it is a folder and no link to one; None where there is nothing."""
    try:
        found = folder.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, stat.S_ISDIR(found.st_mode)


def _watch(
    inputs: RunInputs, program: Program, progress: ProgressFile, checkpoints: CheckpointFolder, latest: float | None
) -> tuple[int, bool]:
    """(the program's exit code, negative for a signal; whether it ran out of time and was asked to end).

    latest: when it is asked to end, by `time.monotonic`; None: never. Raises Terminated when it was ended on request.
    """
    overdue = False
    while (code := program.wait(POLL_SECONDS)) is None:
        progress.poll()
        checkpoints.save_if_due(progress.step)
        if inputs.stop.is_set():
            _stop(inputs.grace_seconds, program, progress, checkpoints)
        if latest is not None and time.monotonic() >= latest:
            if overdue:
                code = -signal.SIGKILL
                break
            log.warning("%s is over: the program is asked to end", _budget(inputs))
            program.terminate()
            overdue, latest = True, time.monotonic() + inputs.grace_seconds / 2
    program.kill()
    progress.drain()
    # A pod that dies while it uploads the model goes on from here. A program that was killed may have been writing.
    if code == 0 or code > 127:
        checkpoints.save_now(progress.step, within=None)
    return code, overdue


def _budgeted(inputs: RunInputs) -> bool:
    """Whether train.time_budget ends the program. The default is passed on only: who set none asked for no end."""
    return "time_budget" in inputs.config.train.model_fields_set


def _budget(inputs: RunInputs) -> str:
    return f"train.time_budget ({format_duration(float(inputs.config.train.time_budget))})"


def _overdue(inputs: RunInputs, code: int, step: int) -> TrainerError:
    """No other attempt would have more time: what was spent counts."""
    how = f"ended with exit code {code} instead of 0"
    if code < 0:
        how = "was ended by SIGTERM" if code == -signal.SIGTERM else "had to be killed"
    return UserCodeFailed(
        f"The program {_shown(inputs.config.command.argv)} ran beyond {_budget(inputs)} and {how}, so there is no"
        " model; give it more time, or let it keep to TIME_BUDGET_SECONDS and end with exit code 0",
        step=step,
    )


def _stop(grace: float, program: Program, progress: ProgressFile, checkpoints: CheckpointFolder) -> NoReturn:
    """SIGTERM, half of the grace period for the program, most of the rest for its last checkpoint; then Terminated."""
    end = time.monotonic() + 0.9 * grace
    program.terminate()
    code = program.wait(grace / 2)
    program.kill()
    if code is None:
        checkpoints.close(within=end - time.monotonic())
        how = f"the program did not end within {grace / 2:g} s and was killed; its last stored checkpoint stays"
    else:
        progress.drain()
        stored = code >= 0 and checkpoints.save_now(progress.step, within=end - time.monotonic())
        how = "the program ended, " + (
            "its checkpoint is stored" if stored else "no checkpoint of its last steps is stored"
        )
    raise Terminated(f"Stopped on request; {how}", step=progress.step)


def _given(inputs: RunInputs, work: Path, saved: Path, progress: ProgressFile, left: float) -> dict[str, str]:
    """The variables of the program's environment. Folders and files are absolute paths."""
    config = work / "config.yaml"
    config.write_text(inputs.config.resolved_yaml(), encoding="utf-8")
    given = {
        "DATASET_DIR": str(inputs.data.absolute()),
        "OUTPUT_DIR": str(inputs.output.absolute()),
        "CHECKPOINT_DIR": str(saved.absolute()),
        "PROGRESS_FILE": str(progress.path.absolute()),
        "CONFIG_FILE": str(config.absolute()),
        "RUN_ID": inputs.run_id,
        "SEED": str(inputs.config.train.seed),
        "DEVICE": inputs.device,
        "TIME_BUDGET_SECONDS": f"{left:.0f}",
        "GRACE_SECONDS": f"{inputs.grace_seconds / 2:g}",
    }
    if inputs.initial is not None:
        given["LATEST_MODEL_DIR"] = str(inputs.initial.absolute())
    return given | nodes.environment(inputs)


def _failure(argv: Sequence[str], code: int, tail: str, step: int) -> TrainerError:
    """What an exit code other than 0 means: permanent up to 127, to be tried again from 128 on and by a signal."""
    said = f": {tail}" if tail else "; it printed nothing"
    program = f"The program {_shown(argv)}"
    if code < 0:
        return UserCodeKilled(f"{program} was killed by signal {-code}{said}", step=step)
    if code in MEANT:
        return MEANT[code](f"{program} ended with exit code {code} ({MEANT[code].code}){said}", step=step)
    kind = UserCodeFailed if code <= 127 else UserCodeKilled
    return kind(f"{program} ended with exit code {code}{said}", step=step)


def _shown(argv: Sequence[str]) -> str:
    text = printable(shlex.join(hidden.command(argv)))
    return text if len(text) <= 80 else text[:79] + "…"
