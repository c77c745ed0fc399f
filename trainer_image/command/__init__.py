"""Task `command`: any program that the image holds, run as a child with the promises of a built-in task.

    dataset ─▶ DATASET_DIR ─┐            ┌▶ OUTPUT_DIR ─▶ checked ─▶ published like any model
    checkpoints ─▶ CHECKPOINT_DIR ─▶ program ─▶ CHECKPOINT_DIR ─▶ copied away while it runs, manifest last
                 SIGTERM ───┘            └▶ PROGRESS_FILE, or what it prints ─▶ portal, metrics.jsonl

Download, fencing, publication and reports are those of every task: this package has the contract of
`trainer_image.engine.training` (see contract.py), and torch is not imported.
"""

from __future__ import annotations

import logging
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from trainer_image.command import arguments, ends, last_words, nodes, output
from trainer_image.command.checkpoints import CheckpointFolder
from trainer_image.command.elsewhere import Elsewhere, is_empty, unnamed
from trainer_image.command.process import Program, environment
from trainer_image.command.progress import READ_AT_THE_END, PrintedProgress, ProgressFile
from trainer_image.config.model_config import Config
from trainer_image.contract import Progress, RunInputs, RunResult
from trainer_image.errors import Terminated, UserCodeFailed
from trainer_image.host import hidden, memory
from trainer_image.host.usage import Usage
from trainer_image.limits import Limits

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2


def check_config(config: Config, limits: Limits) -> None:
    """The arguments are the program's to judge, but for what is filled in. Raises ConfigInvalid."""
    arguments.check(config.command.argv)


def validate_dataset(inputs: RunInputs) -> str:
    """The dataset is the program's to judge: this says so, and what looks wrong with the arguments."""
    said = f"The program {ends.shown(inputs.config.command.argv)} is in the image; validating does not run it."
    return " ".join([said, *(f"{remark}." for remark in _remarks(inputs))])


def _remarks(inputs: RunInputs) -> list[str]:
    argv = inputs.config.command.argv
    return [*arguments.remarks(argv), *filter(None, [unnamed(argv)])]


def train(inputs: RunInputs) -> RunResult:
    """Runs the program to its end and checks what it left in `inputs.output`. Raises a TrainerError."""
    return output.finish(*_Run(inputs).to_its_end())


def follow(inputs: RunInputs) -> None:
    """Runs the program on a further node: nothing that it leaves there is kept. Raises a TrainerError."""
    _Run(inputs).to_its_end()


class _Run:
    """One run of the program, with all that looks after it."""

    def __init__(self, inputs: RunInputs) -> None:
        self._began = time.monotonic()
        self._inputs = inputs
        self._work = inputs.output.parent / "command"
        self._saved = self._work / "checkpoints"
        self._saved.mkdir(parents=True)
        inputs.output.mkdir(exist_ok=True)
        self._first = inputs.place is None or inputs.place.node == 0
        self._progress = ProgressFile(self._work / "progress", inputs.output / output.HISTORY, inputs.progress)
        self._checkpoints = CheckpointFolder(
            inputs.checkpoints,
            self._saved,
            self._work,
            self._progress.history,
            inputs.config.checkpoint.every,
            keeps=self._first,
        )
        self._notes: list[str] = []

    def to_its_end(self) -> tuple[RunInputs, output.Ended]:
        """Raises what its end means, where that is a failure."""
        inputs, progress, checkpoints = self._inputs, self._progress, self._checkpoints
        argv = inputs.config.command.argv
        spent = checkpoints.restore()
        progress.step = checkpoints.step
        self._printed = PrintedProgress(progress)
        for remark in _remarks(inputs):
            log.warning("%s", remark)
        kills_before = memory.kills()
        inputs.progress(Progress(f"Running {ends.shown(argv)}", progress.step))
        left = max(1.0, float(inputs.config.train.time_budget) - spent)
        given = self._given(left)
        places = {
            "its working directory": Path.cwd(),
            "CHECKPOINT_DIR,": self._saved,
            "DATASET_DIR,": inputs.data.absolute(),
        }
        self._elsewhere = Elsewhere(places, (inputs.run_id, inputs.run_key), self._work / "config.yaml")
        secret = hidden.taken_out(argv, inputs.shown["command"]["argv"])
        program = Program(arguments.filled(argv, given | nodes.alone(inputs)), environment(given), secret=secret)
        usage = Usage(program.pid)
        # A program that keeps to the time has that of a stop besides, to write its model.
        latest = self._began + left + inputs.grace_seconds / 2 if ends.budgeted(inputs) else None
        try:
            code, overdue = self._watch(program, latest)
        finally:
            program.close()
            usage.close()
            checkpoints.close()
        if _in_place_of(inputs.output):
            raise UserCodeFailed(_EXCHANGED)
        checkpoints.seconds = seconds = spent + time.monotonic() - self._began
        if overdue:
            if code != 0:
                raise ends.overdue(inputs, code, progress.step)
            self._notes.append(
                f"{ends.budget(inputs)} ended the program: what it had left in OUTPUT_DIR by then is the model."
            )
        if code != 0:
            why = last_words.why(program.lines(), self._work / "error.json", nodes.LOST)
            why = hidden.text(why, secret)
            error = ends.failure(argv, code, why, progress.step)
            starved = None if code in ends.MEANT else memory.out_of_memory(error, kills_before)
            echo = nodes.echo(error, program.lines()) if inputs.place and code not in ends.MEANT else None
            raise starved or echo or error
        if self._first and is_empty(inputs.output):
            # Some programs print what went wrong and end with 0 all the same.
            said = output.nothing_left(self._elsewhere.found())
            raise UserCodeFailed(f"{said}{hidden.text(last_words.swallowed(program.lines()), secret)}")
        self._notes += filter(None, [program.left_out()])
        return (
            replace(inputs, notes=(*inputs.notes, *self._notes)),
            output.Ended(progress, seconds, checkpoints, program.lines(), self._printed.figures(), usage.series()),
        )

    def _watch(self, program: Program, latest: float | None) -> tuple[int, bool]:
        """(the program's exit code, negative for a signal; whether it ran out of time and was asked to end).

        latest: when it is asked to end, by `time.monotonic`; None: never. Raises Terminated when it was ended on
        request.
        """
        inputs, progress, checkpoints, overdue = self._inputs, self._progress, self._checkpoints, False
        while (code := program.wait(POLL_SECONDS)) is None:
            progress.poll()
            self._printed.take(program.news())
            checkpoints.save_if_due(progress.step)
            self._look_after_the_output()
            if inputs.stop.is_set():
                self._stop(program)
            if latest is not None and time.monotonic() >= latest:
                if overdue:
                    code = -signal.SIGKILL
                    break
                log.warning("%s is over: the program is asked to end", ends.budget(inputs))
                program.terminate()
                overdue, latest = True, time.monotonic() + inputs.grace_seconds / 2
        program.close()
        progress.drain()
        self._printed.take(program.news(), READ_AT_THE_END)
        # A pod that dies while it uploads the model goes on from here. A program that was killed may have been writing.
        if code == 0 or code > 127:
            checkpoints.save_now(progress.step, within=None)
        return code, overdue

    def _look_after_the_output(self) -> None:
        """What would be found after the last step is found while there is time. Raises UserCodeFailed."""
        if _in_place_of(self._inputs.output):
            raise UserCodeFailed(_EXCHANGED)
        if self._first and not self._notes and (elsewhere := self._elsewhere.due(self._inputs.output)):
            log.warning("OUTPUT_DIR is empty, and the program wrote %s: that is no part of the model", elsewhere)
            self._notes.append(f"While it ran the program wrote {elsewhere}: that is no part of the model.")

    def _stop(self, program: Program) -> NoReturn:
        """SIGTERM, half of the grace period for the program, most of the rest for its last checkpoint; then
        Terminated."""
        grace, progress = self._inputs.grace_seconds, self._progress
        end = time.monotonic() + 0.9 * grace
        still = self._checkpoints.standing_still()
        program.terminate()
        code = program.wait(grace / 2)
        program.kill()
        if code is None:
            self._checkpoints.close(within=end - time.monotonic())
            how = f"the program did not end within {grace / 2:g} s and was killed; its last stored checkpoint stays"
        else:
            progress.drain()
            self._printed.take(program.news(), READ_AT_THE_END)
            # Most scripts do not listen for SIGTERM: it ends them wherever they are, in a file just begun, say.
            deaf = code == -signal.SIGTERM and still is not None and self._checkpoints.is_still(still)
            stored = (code >= 0 or deaf) and self._checkpoints.save_now(progress.step, within=end - time.monotonic())
            how = "the program ended, " + (
                "its checkpoint is stored" if stored else "no checkpoint of its last steps is stored"
            )
        raise Terminated(f"Stopped on request; {how}", step=progress.step)

    def _given(self, left: float) -> dict[str, str]:
        """The variables of the program's environment. Folders and files are absolute paths."""
        inputs = self._inputs
        config = self._work / "config.yaml"
        config.write_text(inputs.config.resolved_yaml(), encoding="utf-8")
        given = {
            "DATASET_DIR": str(inputs.data.absolute()),
            "OUTPUT_DIR": str(inputs.output.absolute()),
            "CHECKPOINT_DIR": str(self._saved.absolute()),
            "PROGRESS_FILE": str(self._progress.path.absolute()),
            "CONFIG_FILE": str(config.absolute()),
            "RUN_ID": inputs.run_id,
            "SEED": str(inputs.config.train.seed),
            "DEVICE": inputs.device,
            "TIME_BUDGET_SECONDS": f"{left:.0f}",
            "GRACE_SECONDS": f"{inputs.grace_seconds / 2:g}",
            last_words.ERROR_FILE: str((self._work / "error.json").absolute()),
        }
        if inputs.initial is not None:
            given["LATEST_MODEL_DIR"] = str(inputs.initial.absolute())
        return given | nodes.environment(inputs)


_EXCHANGED = "The program put something else in the place of its folder OUTPUT_DIR"


def _in_place_of(folder: Path) -> bool:
    """Whether something else stands where the folder was: a link, which leads elsewhere, or a file. A folder that the
    program has made anew is as good, and may be missing for a moment."""
    try:
        return not stat.S_ISDIR(folder.lstat().st_mode)
    except OSError:
        return False
