"""Starts, watches and ends the helpers of a training on this node's GPUs, and joins those of its other nodes.

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
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore, rendezvous  # type: ignore[attr-defined]

from trainer_image import errors
from trainer_image.contract import Place, RunInputs
from trainer_image.engine.helper import help_out
from trainer_image.engine.plan import Plan
from trainer_image.engine.rendezvous import (
    JOIN,
    ORDER,
    READY,
    failure_in,
    identity,
    inputs_of,
    listening,
    order_for,
    order_of_node,
    useful,
)
from trainer_image.engine.team import PATIENCE, Member, Team, reaching_others
from trainer_image.errors import GpuFault, PeerLost, Terminated, TrainerError, UsageError
from trainer_image.host import child_environment, memory
from trainer_image.host.devices import usable_cpus
from trainer_image.tasks.base import Problem

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
# For one try to reach node 0: an address that nobody has any more answers nothing.
CONNECT_SECONDS = 2.0
# How long this process may take to notice that a helper is gone; it may be stuck in a call that waits for that one.
NOTICE_SECONDS = 30.0


def asked(inputs: RunInputs) -> int:
    """How many processes were asked for, by torchrun or by PROCESSES; 0: by neither. Raises UsageError."""
    if not dist.is_torchelastic_launched():
        return inputs.processes
    world = int(os.environ["WORLD_SIZE"])
    if world != int(os.environ["LOCAL_WORLD_SIZE"]):
        raise UsageError(
            "torchrun was given several nodes (--nnodes): the trainer joins them by itself, without torchrun"
        )
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


class Processes:
    """This node's processes, from `with` to its end. They read the dataset while this one does so.

    Ranks count through the nodes, node 0's first. Node 0's worker is rank 0 and asks for the `team`; the worker of a
    further node asks to `follow`.

    count: number of this node's processes that read the dataset, this one included
    """

    def __init__(self, inputs: RunInputs, device: torch.device) -> None:
        self._inputs, self._device = inputs, device
        self._place = inputs.place or Place(0, 1, "127.0.0.1", 0)
        self.count = wanted(inputs, device)
        self._world = self.count * self._place.nodes
        self._first = self.count * self._place.node
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._failure: TrainerError | None = None
        self._failed, self._over = threading.Event(), threading.Event()
        self._kills = memory.kills()
        self._member: Member | None = None

    def __enter__(self) -> Self:
        if self._world > 1:
            self._folder = Path(tempfile.mkdtemp(prefix="team-", dir=self._inputs.output.parent))
            try:
                self._store = self._open()
                if self._place.node == 0:
                    self._store.set(ORDER.format(0), self._order())
            except BaseException:
                self._end(in_peace=False)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends them. What failed here because a helper failed is raised as the helper's failure."""
        consequence = isinstance(error, RuntimeError | OSError | PeerLost)
        another = consequence and self._failed.wait(5.0 if self._running else 0.0)
        # Stopped between two steps, where the others listen.
        self._end(in_peace=error is None or isinstance(error, Terminated))
        if another:
            assert self._failure is not None
            raise self._failure from error

    def team(self, problem: Problem, plan: Plan, resize: Callable[[int], str]) -> tuple[Team, list[str]]:
        """The team for this problem, and notes for the report. Raises a helper's failure.

        resize: makes the problem's network as large as suits so many processes, and returns that size's name or "":
        the helpers do the same. Called when they have read the dataset and wait, so that nothing disturbs its measures
        """
        nodes = self._place.nodes
        count, notes = useful(self._world, asked(self._inputs) > 0 or nodes > 1, plan.recipe)
        self._end_spare(count)
        if self._world == 1:
            resize(1)
            return Team(), notes
        others = [READY.format(rank) for rank in range(1, count)]
        self._wait_for(others)
        ready = [json.loads(self._store.get(other)) for other in others]
        ours = identity(problem, plan)
        if any(other["identity"] != ours for other in ready):
            raise errors.UserCodeFailed("The task prepares other data in every process: it must depend on nothing else")
        threads = max(1, usable_cpus() // min(count, self.count))
        torch.set_num_threads(threads)
        size = resize(count)
        self._store.set(JOIN, json.dumps({"world": count, "threads": threads, "size": size}))
        if count == 1:
            return Team(), notes
        member = self._member = Member(self._store, 0, count, self._device, self._inputs.place)
        member.here, member.block_rows = min(count, self.count), max(other["block_rows"] for other in ready)
        on = f" on {math.ceil(count / self.count)} nodes" if nodes > 1 else ""
        log.info("%d processes train together%s", count, on)
        if nodes > 1 and plan.recipe.small:
            notes.append("A step is so little work that one node may well be faster than those that were asked for.")
        return member, notes

    def follow(self) -> None:
        """Trains along as a further node. Raises a helper's failure, and PeerLost."""
        first = ORDER.format(0)
        self._wait_for([first])
        with reaching_others():
            order = order_of_node(json.loads(self._store.get(first)), json.loads(self._order()))
            self._store.set(ORDER.format(self._place.node), order)
        help_out(self._store, self._first, inputs_of(json.loads(order)), self._device, self._joined)

    def _joined(self) -> bytes:
        self._wait_for([JOIN])
        with reaching_others():
            said: bytes = self._store.get(JOIN)
        self._end_spare(json.loads(said)["world"])
        return said

    def _order(self) -> str:
        return order_for(self._inputs, self.count, self._device)

    def _wait_for(self, names: list[str]) -> None:
        """Until all of them are in the store. Raises a helper's failure, PeerLost, Terminated."""
        while names and not self._has(names):
            self._look_around()

    def _look_around(self) -> None:
        if self._failure:
            raise self._failure
        if self._inputs.stop.wait(LOOK_SECONDS):
            raise Terminated("Stopped on request before the first step", step=0)

    def _has(self, names: list[str]) -> bool:
        with reaching_others():
            return bool(self._store.check(names))

    def _end_spare(self, count: int) -> None:
        for rank in [rank for rank in self._running if rank >= count]:
            spare = self._running.pop(rank)
            spare.kill()
            spare.wait()

    def _open(self) -> Store:
        """The store in which all find each other, which node 0 has. Starts the helpers, as torchrun would."""
        place = self._place
        if dist.is_torchelastic_launched():
            with reaching_others():
                store: Store = next(rendezvous("env://", timeout=PATIENCE))[0]
                return store
        listener = None
        if place.node == 0:
            # A socket that TCPStore opened would listen on every interface.
            listener = listening(place)
            place = replace(place, port=listener.getsockname()[1])
        else:
            self._wait_for_node_0()
        self._start(place)
        with reaching_others():
            return TCPStore(
                place.address,
                place.port,
                is_master=listener is not None,
                wait_for_workers=False,
                timeout=PATIENCE,
                master_listen_fd=None if listener is None else listener.detach(),
            )

    def _wait_for_node_0(self) -> None:
        """Until its store can be reached. Its address is looked up each time: a new pod may have another one."""
        place = self._place
        while True:
            with contextlib.suppress(OSError), socket.create_connection((place.address, place.port), CONNECT_SECONDS):
                return
            self._look_around()

    def _start(self, place: Place) -> None:
        kept = child_environment.without_credentials()
        for number in range(1, self.count):
            rank = self._first + number
            environment = {
                "RANK": rank,
                "LOCAL_RANK": number,
                "GROUP_RANK": place.node,
                "WORLD_SIZE": self._world,
                "LOCAL_WORLD_SIZE": self.count,
                "MASTER_ADDR": place.address,
                "MASTER_PORT": place.port,
                "TORCHELASTIC_RUN_ID": self._inputs.run_id,
                "TORCHELASTIC_USE_AGENT_STORE": True,
                "TORCHELASTIC_ERROR_FILE": self._error_file(rank),
            }
            self._running[rank] = subprocess.Popen(
                [sys.executable, "-m", "trainer_image.engine.helper"],
                stdin=subprocess.DEVNULL,
                env=kept | {name: str(value) for name, value in environment.items()},
            )
        if self._running:
            threading.Thread(target=self._watch, name="helpers", daemon=True).start()

    def _error_file(self, rank: int) -> Path:
        return self._folder / f"error-{rank}.json"

    def _watch(self) -> None:
        while not self._failure:
            if self._over.wait(LOOK_SECONDS):
                return
            for rank, process in list(self._running.items()):
                code = process.poll()
                if code == 0 and self._place.node > 0:
                    self._running.pop(rank, None)  # spare, or node 0 has told it the end before us
                elif code is not None and rank in self._running and not self._failure:
                    self._failure = failure_in(self._error_file(rank)) or self._silent_failure(rank, code)
        self._failed.set()
        if not self._over.wait(NOTICE_SECONDS):
            log.error("This process waits for a helper that is gone: %s", self._failure.sentence)
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
            with contextlib.suppress(PeerLost):  # a helper is gone, but the training is done
                self._member.broadcast("end")
        for process in self._running.values():
            if not in_peace:
                process.kill()  # it holds nothing worth keeping
        if self._member:
            self._member.leave(in_peace=in_peace)
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5.0)
            process.kill()
            process.wait()
        if self._world > 1:
            shutil.rmtree(self._folder, ignore_errors=True)
