"""Several processes, one for each GPU of the pod, that train one model: data-parallel, on one node.

The first process (rank 0) is the trainer itself: it alone has storage, portal, checkpoints and decisions. The others
hold the same network and optimizer and do what it tells them, a word a step (`engine_helper`); each computes the
gradients of its part of the batch, and the sum over all is what every optimizer steps on. So the state of rank 0 is the
whole state, and a checkpoint fits any number of processes.

All of it goes through torch.distributed: gloo on the CPU, NCCL for what lies on a GPU. Only the sum of the gradients is
taken after `backward` and not within, as torch's DistributedDataParallel takes it: a process that runs out of memory
there leaves the others waiting for ever in a sum that it no longer joins, while here all first agree that everyone has
its gradients, or halve together. The price is that the sum does not overlap with the backward pass;
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

# The first process may validate, save or compile for long while the others wait for its next word.
PATIENCE = timedelta(days=30)
# What the first process says, and what it says of the position with it.
WORDS = ("begin", "probe", "step", "compile", "eager", "end")
NUMBERS = ("step", "phase_step", "planned", "epoch", "batch", "micro_batch")


class Word(NamedTuple):
    """What the first process said. equal: the step's rows are to be of equal number; at: NUMBERS of its position."""

    do: str
    equal: bool
    at: dict[str, int]


class Team:
    """One process alone. rank: 0 is the trainer itself; world: processes in the team."""

    rank, world = 0, 1

    def begin(self, state: TrainingState) -> None:
        """Everyone begins a phase at this state."""

    def tell(self, do: str, at: Position | None = None, *, equal: bool = False) -> None:
        """A word of the first process to the others, who `hear` it."""

    def any(self, happened: bool) -> bool:
        """Whether it happened to anyone. Everyone asks."""
        return happened

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Puts the sum over all processes into each tensor. Everyone adds tensors of the same shapes."""


class Member(Team):
    """A process of a larger team. store: where they find each other; folder: all of them see it."""

    def __init__(self, store: Store, rank: int, world: int, device: torch.device, folder: Path) -> None:
        self.rank, self.world = rank, world
        self._folder, self._begun = folder, 0
        # All are in one pod: loopback is enough, and open to nobody else.
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Words and agreements are tensors on the CPU: they must not wait for what the GPU still has to do.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=world,
            timeout=PATIENCE,
        )

    def begin(self, state: TrainingState) -> None:
        # A folder of its own each time: another process may still read the one before.
        self._begun += 1
        folder = self._folder / f"begin-{self._begun}"
        if self.rank == 0:
            checkpoint.write(folder, state.snapshot())
            self.tell("begin", state.at)
        else:
            state.load(checkpoint.read(folder))

    def tell(self, do: str, at: Position | None = None, *, equal: bool = False) -> None:
        numbers = [getattr(at, name) for name in NUMBERS] if at else [0] * len(NUMBERS)
        dist.broadcast(torch.tensor([WORDS.index(do), equal, *numbers]), src=0)

    def hear(self) -> Word:
        """The next word of the first process."""
        said = torch.zeros(2 + len(NUMBERS), dtype=torch.int64)
        dist.broadcast(said, src=0)
        do, equal, *numbers = said.tolist()
        return Word(WORDS[do], bool(equal), dict(zip(NUMBERS, numbers, strict=True)))

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
    """(buffer, this process's summand of its common value) of every buffer that training changes.

    Batch norm's running statistics are the mean over all rows; any other buffer is the first process's.
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
