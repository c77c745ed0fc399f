"""Several processes, one for each GPU of the pod, that train one model: data-parallel, on one node.

Rank 0 is the worker itself: it alone has the supervisor, checkpoints and decisions. The other ranks are helpers
(helper.py): they hold the same network and optimizer and follow the commands that rank 0 broadcasts, one a step. Each
rank computes the gradients of its part of the batch, and every optimizer steps on the sum over all ranks. So the state
of rank 0 is the whole state, and a checkpoint fits any number of processes.

Communication is torch.distributed's: gloo on the CPU, NCCL on GPUs. Unlike DistributedDataParallel, gradients are
all-reduced after `backward`, not within it: there, a rank that runs out of memory leaves the others waiting for ever in
an all-reduce that it no longer joins; here all ranks first agree that everyone has its gradients, or halve the batch
together. The price is that communication does not overlap with the backward pass;
`python -m benchmarks.team` measures it, and shows what DistributedDataParallel does out of memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.nn.modules.batchnorm import _BatchNorm

from trainer_image.engine import checkpoint

if TYPE_CHECKING:
    from trainer_image.engine.state import Position, TrainingState

# Rank 0 may validate, save or compile for long while the helpers wait for its next command.
PATIENCE = timedelta(days=30)
# What rank 0 broadcasts: a command, and these numbers of its position.
COMMANDS = ("begin", "probe", "step", "compile", "eager", "end")
NUMBERS = ("step", "phase_step", "planned", "epoch", "batch", "micro_batch")


class Command(NamedTuple):
    """A command of rank 0. equal: every rank's part of the batch has the same number of rows; at: NUMBERS of its
    position."""

    name: str
    equal: bool
    at: dict[str, int]


class Team:
    """One process alone. rank: 0 is the worker itself; world: number of processes."""

    rank, world = 0, 1

    def begin(self, state: TrainingState) -> None:
        """Every rank begins a phase at rank 0's state."""

    def broadcast(self, command: str, at: Position | None = None, *, equal: bool = False) -> None:
        """Sends a command of rank 0 to the helpers, which `receive` it."""

    def any(self, happened: bool) -> bool:
        """Whether it happened on any rank. Every rank has to call this."""
        return happened

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over all ranks, which pass tensors of the same shapes."""


class Member(Team):
    """One rank of several. store: where the ranks find each other; folder: one that all of them can read."""

    def __init__(self, store: Store, rank: int, world: int, device: torch.device, folder: Path) -> None:
        self.rank, self.world = rank, world
        self._folder, self._begun = folder, 0
        # All ranks are in one pod: loopback is enough, and nobody else can reach it.
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Commands and agreements are tensors on the CPU: they must not wait for what the GPU still has to do.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=world,
            timeout=PATIENCE,
        )

    def begin(self, state: TrainingState) -> None:
        # A new folder each time: a helper may still read the one before.
        self._begun += 1
        folder = self._folder / f"begin-{self._begun}"
        if self.rank == 0:
            checkpoint.write(folder, state.snapshot())
            self.broadcast("begin", state.at)
        else:
            state.load(checkpoint.read(folder))

    def broadcast(self, command: str, at: Position | None = None, *, equal: bool = False) -> None:
        numbers = [getattr(at, name) for name in NUMBERS] if at else [0] * len(NUMBERS)
        dist.broadcast(torch.tensor([COMMANDS.index(command), equal, *numbers]), src=0)

    def receive(self) -> Command:
        """The next command of rank 0."""
        message = torch.zeros(2 + len(NUMBERS), dtype=torch.int64)
        dist.broadcast(message, src=0)
        command, equal, *numbers = message.tolist()
        return Command(COMMANDS[command], bool(equal), dict(zip(NUMBERS, numbers, strict=True)))

    def any(self, happened: bool) -> bool:
        flag = torch.tensor(int(happened))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def add(self, tensors: Sequence[Tensor]) -> None:
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            ours = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in ours])
            dist.all_reduce(flat)
            for tensor, summed in zip(ours, torch.split(flat, [tensor.numel() for tensor in ours]), strict=True):
                tensor.copy_(summed.view(tensor.shape))

    def leave(self) -> None:
        dist.destroy_process_group()


def shared_buffers(team: Team, model: nn.Module, share: float) -> list[tuple[Tensor, Tensor]]:
    """(buffer, this rank's summand of the common value) of every buffer that training changes.

    Batch norm's running statistics are the mean over all rows; any other buffer is rank 0's.
    """
    if team.world == 1:
        return []
    statistics = {
        id(tensor)
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        for tensor in (module.running_mean, module.running_var)
        if tensor is not None
    }
    return [
        (tensor, tensor * (share if id(tensor) in statistics else float(team.rank == 0)))
        for tensor in model.buffers()
        if tensor.is_floating_point()
    ]
