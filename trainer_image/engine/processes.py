"""Starts, watches and ends the helpers of a training on several GPUs.

They are started as torchrun starts its own, and where torchrun has started the trainer they are there already. Not by
torchrun itself, because rank 0 is the trainer: its exit code, its termination message and its answer to SIGTERM are the
contract with the Job, and torchrun replaces them with its own (every failure is exit code 1). Nor by the functions
below it (`torch.distributed.elastic.multiprocessing`): they take SIGTERM over, pass on the whole environment with its
secrets, and wait half a minute for the others before they report that one failed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore, rendezvous  # type: ignore[attr-defined]

from trainer_image import errors
from trainer_image.contract import RunInputs
from trainer_image.engine.plan import Plan
from trainer_image.engine.rendezvous import JOIN, ORDER, READY, failure_in, identity, order_for
from trainer_image.engine.team import PATIENCE, Member, Team
from trainer_image.errors import GpuFault, Terminated, TrainerError, UsageError
from trainer_image.host import child_environment, memory
from trainer_image.host.devices import usable_cpus
from trainer_image.tasks.base import Problem, Recipe

log = logging.getLogger(__name__)

# With fewer rows a process batch norm's statistics are noise, and most of the time goes into communication.
FEWEST_ROWS = 8
LOOK_SECONDS = 0.1
# How long rank 0 may take to notice that a helper is gone; it may be stuck in a call that waits for that one.
NOTICE_SECONDS = 30.0


def asked(inputs: RunInputs) -> int:
    """How many processes were asked for, by torchrun or by PROCESSES; 0: by neither. Raises UsageError."""
    if not dist.is_torchelastic_launched():
        return inputs.processes
    world = int(os.environ["WORLD_SIZE"])
    if world != int(os.environ["LOCAL_WORLD_SIZE"]):
        raise UsageError("torchrun was given several nodes (--nnodes); the trainer trains on one")
    return world


def wanted(inputs: RunInputs, device: torch.device) -> int:
    """How many processes may train: the number asked for, else one for each visible GPU. Raises UsageError."""
    count = asked(inputs)
    if device.type != "cuda":
        return count or 1
    visible = torch.cuda.device_count()
    if count > 1 and ":" in inputs.device:
        raise UsageError(f"{count} processes were asked for (PROCESSES), but {inputs.device} (DEVICE) is one GPU")
    if count > visible:
        raise UsageError(f"{count} processes were asked for (PROCESSES), but {visible} GPU(s) are visible")
    return count or (1 if ":" in inputs.device else visible)


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
    """The helpers, from `with` to its end. They read the dataset while rank 0 does so.

    count: number of processes that read it, rank 0 included
    """

    def __init__(self, inputs: RunInputs, device: torch.device) -> None:
        self._inputs, self._device = inputs, device
        self.count = wanted(inputs, device)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._failure: TrainerError | None = None
        self._failed, self._over = threading.Event(), threading.Event()
        self._kills = memory.kills()
        self._member: Member | None = None

    def __enter__(self) -> Self:
        if self.count > 1:
            self._folder = Path(tempfile.mkdtemp(prefix="team-", dir=self._inputs.output.parent))
            if dist.is_torchelastic_launched():
                self._store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
            else:
                self._store = self._start()
            self._store.set(ORDER, order_for(self._inputs, self.count, self._device))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends them. What failed here because a helper failed is raised as the helper's failure."""
        another = isinstance(error, RuntimeError | OSError) and self._failed.wait(5.0 if self._running else 0.0)
        self._end(in_peace=error is None)
        if another:
            assert self._failure is not None
            raise self._failure from error

    def team(self, problem: Problem, plan: Plan) -> tuple[Team, list[str]]:
        """The team for this problem, and notes for the report. Raises a helper's failure."""
        count, notes = useful(self.count, asked(self._inputs), plan.recipe)
        for rank in range(count, self.count):
            if spare := self._running.pop(rank, None):
                spare.kill()
                spare.wait()
        if self.count == 1:
            return Team(), notes
        others = [READY.format(rank) for rank in range(1, count)]
        while others and not self._store.check(others):
            if self._failure:
                raise self._failure
            if self._inputs.stop.wait(LOOK_SECONDS):
                raise Terminated("Stopped on request before the first step", step=0)
        ours = identity(problem, plan)
        if any(self._store.get(other).decode() != ours for other in others):
            raise errors.UserCodeFailed("The task prepares other data in every process: it must depend on nothing else")
        threads = max(1, usable_cpus() // count)
        self._store.set(JOIN, json.dumps({"world": count, "threads": threads, "folder": str(self._folder)}))
        if count == 1:
            return Team(), notes
        torch.set_num_threads(threads)
        self._member = Member(self._store, 0, count, self._device, self._folder)
        log.info("%d processes train together", count)
        return self._member, notes

    def _start(self) -> Store:
        """Starts the helpers as torchrun would. Returns the store that they connect to."""
        # A socket that TCPStore opened would listen on every interface.
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        store = TCPStore(
            "127.0.0.1",
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=PATIENCE,
            master_listen_fd=listener.detach(),
        )
        kept = child_environment.without_credentials()
        for rank in range(1, self.count):
            environment = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": self.count,
                "LOCAL_WORLD_SIZE": self.count,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "TORCHELASTIC_RUN_ID": self._inputs.run_id,
                "TORCHELASTIC_USE_AGENT_STORE": True,
                "TORCHELASTIC_ERROR_FILE": self._error_file(rank),
            }
            self._running[rank] = subprocess.Popen(
                [sys.executable, "-m", "trainer_image.engine.helper"],
                stdin=subprocess.DEVNULL,
                env=kept | {name: str(value) for name, value in environment.items()},
            )
        threading.Thread(target=self._watch, name="helpers", daemon=True).start()
        return store

    def _error_file(self, rank: int) -> Path:
        return self._folder / f"error-{rank}.json"

    def _watch(self) -> None:
        while not self._failure:
            if self._over.wait(LOOK_SECONDS):
                return
            for rank, process in list(self._running.items()):
                code = process.poll()
                if code is not None and rank in self._running and not self._failure:
                    self._failure = failure_in(self._error_file(rank)) or self._silent_failure(rank, code)
        self._failed.set()
        if not self._over.wait(NOTICE_SECONDS):
            log.error("Rank 0 waits for a helper that is gone: %s", self._failure.sentence)
            self._inputs.last_resort(self._failure)

    def _silent_failure(self, rank: int, code: int) -> TrainerError:
        if code == -signal.SIGKILL:
            starved = memory.out_of_memory(ChildProcessError(f"process {rank} was killed"), self._kills)
            if starved:
                return starved
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return GpuFault(f"Process {rank} of the training {how}")

    def _end(self, *, in_peace: bool) -> None:
        self._over.set()
        if self._member and in_peace:
            with contextlib.suppress(RuntimeError):  # a helper is gone, but the training is done
                self._member.broadcast("end")
        for process in self._running.values():
            if not in_peace:
                process.kill()  # it holds nothing worth keeping
        # After a failure NCCL may wait for those that are gone; this process ends soon after.
        if self._member and (in_peace or self._device.type == "cpu"):
            self._member.leave()
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5.0)
            process.kill()
            process.wait()
        if self.count > 1:
            shutil.rmtree(self._folder, ignore_errors=True)
