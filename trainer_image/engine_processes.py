"""Starts, watches and ends the further processes of a training on several GPUs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from trainer_image import errors, memory
from trainer_image.contract import RunInputs
from trainer_image.devices import usable_cpus
from trainer_image.engine_helper import identity, order_for
from trainer_image.engine_plan import Plan
from trainer_image.engine_team import Lead, Team
from trainer_image.errors import GpuFault, Terminated, TrainerError, UsageError
from trainer_image.tasks.base import Problem, Recipe

log = logging.getLogger(__name__)

# Fewer rows a process and batch norm's figures are noise, and most of the time goes into telling each other.
FEWEST_ROWS = 8
# How long the first process may take to notice that another is gone; it may be stuck in a call that waits for that one.
NOTICE_SECONDS = 30.0
# A task's code needs neither.
_NOT_THEIRS = ("API_KEY", "AZURE_STORAGE_CONNECTION_STRING")


def wanted(inputs: RunInputs, device: torch.device) -> int:
    """How many processes may train: as many as asked for, else one for each GPU that is visible. Raises UsageError."""
    if device.type != "cuda":
        return inputs.processes or 1
    visible = torch.cuda.device_count()
    if inputs.processes > visible:
        raise UsageError(f"{inputs.processes} processes were asked for (PROCESSES), but {visible} GPU(s) are visible")
    # "cuda:1" names one GPU.
    return inputs.processes or (1 if ":" in inputs.device else visible)


def useful(processes: int, asked: int, recipe: Recipe) -> tuple[int, list[str]]:
    """How many of the processes this recipe can use, and a note when it cannot use all."""
    if processes > 1 and recipe.small and not asked:
        return 1, [f"1 of {processes} GPUs trains: a step is so little work that dividing it would cost time."]
    most = max(1, recipe.batch_size // FEWEST_ROWS)
    if processes > most:
        rows = f"a batch of {recipe.batch_size} rows is not divided into parts of fewer than {FEWEST_ROWS}"
        return most, [f"{most} of {processes} processes train: {rows}."]
    return processes, []


class Processes:
    """The further processes, from `with` to its end. They read the dataset while the first process does so.

    count: how many read it, this one included
    """

    def __init__(self, inputs: RunInputs, device: torch.device) -> None:
        self._inputs, self._device = inputs, device
        self.count = wanted(inputs, device)
        self._running: list[subprocess.Popen[str]] = []
        self._ready: queue.Queue[int] = queue.Queue()
        self._identities: dict[int, str] = {}
        self._failure: TrainerError | None = None
        self._failed, self._over = threading.Event(), threading.Event()
        self._kills = memory.kills()
        self._team: Lead | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_THEIRS}
        for rank in range(1, self.count):
            process = subprocess.Popen(
                [sys.executable, "-m", "trainer_image.engine_helper"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                env=environment,
            )
            self._running.append(process)
            threading.Thread(target=self._watch, args=(rank, process), name=f"process {rank}", daemon=True).start()
            device = torch.device("cuda", rank) if self._device.type == "cuda" else self._device
            self._tell(process, order_for(self._inputs, rank, self.count, device))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends them. What failed here because another process did is that one's failure."""
        if isinstance(error, RuntimeError | OSError) and self._failed.wait(5.0 if self._running else 0.0):
            self._end()
            assert self._failure is not None
            raise self._failure from error
        self._end()

    def team(self, problem: Problem, plan: Plan) -> tuple[Team, list[str]]:
        """The team for this problem, and notes for the report. Raises how another process failed."""
        count, notes = useful(self.count, self._inputs.processes, plan.recipe)
        spares = self._running[count - 1 :]
        del self._running[count - 1 :]
        for spare in spares:
            spare.stdin.close()  # type: ignore[union-attr]
        if count == 1:
            return Team(), notes
        ours = identity(problem, plan)
        waiting = set(range(1, count))
        while waiting:
            with contextlib.suppress(queue.Empty):
                waiting.discard(self._ready.get(timeout=0.5))
            if self._failure:
                raise self._failure
            if self._inputs.stop.is_set():
                raise Terminated("Stopped on request before the first step", step=0)
        if any(self._identities[rank] != ours for rank in range(1, count)):
            raise errors.UserCodeFailed("The task prepares other data in every process: it must depend on nothing else")
        threads = max(1, usable_cpus() // count)
        torch.set_num_threads(threads)
        self._folder = Path(tempfile.mkdtemp(prefix="team-", dir=self._inputs.output.parent))
        self._say({"do": "join", "world": count, "threads": threads, "folder": str(self._folder)})
        log.info("%d processes train together", count)
        self._team = Lead(count, self._device, self._folder, self._say)
        return self._team, notes

    def _say(self, word: dict[str, Any]) -> None:
        for process in self._running:
            self._tell(process, word)

    @staticmethod
    def _tell(process: subprocess.Popen[str], word: dict[str, Any]) -> None:
        assert process.stdin
        process.stdin.write(json.dumps(word) + "\n")
        process.stdin.flush()

    def _watch(self, rank: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        failure: TrainerError | None = None
        for line in process.stdout:
            said = json.loads(line)
            if "ready" in said:
                self._identities[rank] = said["ready"]
                self._ready.put(rank)
            else:
                failure = _error(said["code"], said["failed"], said["step"])
        code = process.wait()
        if self._over.is_set() or process not in self._running:
            return
        self._failure = self._failure or failure or self._without_words(rank, code)
        self._failed.set()
        self._ready.put(rank)
        if not self._over.wait(NOTICE_SECONDS):
            log.error("Process %d is gone, and this one waits for it for ever: %s", rank, self._failure.sentence)
            self._inputs.last_resort(self._failure)

    def _without_words(self, rank: int, code: int) -> TrainerError:
        if code == -signal.SIGKILL:
            starved = memory.out_of_memory(ChildProcessError(f"process {rank} was killed"), self._kills)
            if starved:
                return starved
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return GpuFault(f"Process {rank} of the training {how}")

    def _end(self) -> None:
        self._over.set()
        for process in self._running:
            try:
                self._tell(process, {"do": "end"})
                process.stdin.close()  # type: ignore[union-attr]
            except OSError:
                pass  # it is gone
        # Where another is gone, NCCL would wait for it; this process ends soon after.
        if self._team and not (self._failed.is_set() and self._device.type == "cuda"):
            self._team.leave()
        for process in self._running:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _error(code: str, sentence: str, step: int | None) -> TrainerError:
    """The failure that another process told of."""
    kinds = {
        kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TrainerError)
    }
    return kinds.get(code, TrainerError)(sentence, step=step)
