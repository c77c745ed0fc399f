"""Several processes, one for each GPU of the pod, that train one model: data-parallel, on one node.

The first process (rank 0) is the trainer itself: it alone has storage, portal, checkpoints and decisions. The others
hold the same network and optimizer and do what it tells them, a line a step (`engine_helper`); each computes the
gradients of its part of the batch, and the sum over all is what every optimizer steps on. So the state of rank 0 is the
whole state, and a checkpoint fits any number of processes.

Gradients are summed here and not by torch's DistributedDataParallel, which would sum them inside `backward`: a process
that runs out of memory there leaves the others waiting for ever, while here all first agree that everyone has its
gradients, or halve together. It also takes any loss, whichever parameters that uses. The price is that the sum does not
overlap with the backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer_image import checkpoint

if TYPE_CHECKING:
    from trainer_image.engine_state import Position, TrainingState

BUCKET_BYTES = 32 * 2**20
# The first process may validate, save or compile for long while the others wait for its next word.
PATIENCE = timedelta(days=30)
STORE = "store"


class Team:
    """One process alone. rank: 0 is the trainer itself; world: processes in the team."""

    rank, world = 0, 1

    def begin(self, state: TrainingState) -> None:
        """Everyone begins a phase at this state."""

    def tell(self, do: str, **details: Any) -> None:
        """A word of the first process to the others."""

    def any(self, happened: bool) -> bool:
        """Whether it happened to anyone. Everyone asks."""
        return happened

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Puts the sum over all processes into each tensor. Everyone adds tensors of the same shapes."""


class Member(Team):
    """A process of a larger team. store: a file that all of them see."""

    def __init__(self, rank: int, world: int, device: torch.device, store: Path) -> None:
        self.rank, self.world = rank, world
        # All are in one pod: loopback is enough, and open to nobody else.
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.FileStore(str(store), world),  # type: ignore[attr-defined]
            rank=rank,
            world_size=world,
            timeout=PATIENCE,
        )
        # On the CPU: agreeing must not wait for what the GPU still has to do.
        self._host = dist.new_group(backend="gloo", timeout=PATIENCE)

    def any(self, happened: bool) -> bool:
        flag = torch.tensor(int(happened))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._host)
        return bool(flag)

    def add(self, tensors: Sequence[Tensor]) -> None:
        under_way = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            under_way.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in under_way:
            work.wait()
            pieces = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, summed in zip(bucket, pieces, strict=True):
                tensor.copy_(summed.view(tensor.shape))

    def leave(self) -> None:
        dist.destroy_process_group()


class Lead(Member):
    """The first process of a larger team. folder: all of them see it; send: writes a word to every other one."""

    def __init__(self, world: int, device: torch.device, folder: Path, send: Callable[[dict[str, Any]], None]) -> None:
        self._folder, self._send = folder, send
        super().__init__(0, world, device, folder / STORE)

    def begin(self, state: TrainingState) -> None:
        folder = self._folder / state.at.phase
        checkpoint.write(folder, state.snapshot())
        self.tell("begin", folder=str(folder))

    def tell(self, do: str, **details: Any) -> None:
        self._send({"do": do, **details})


def step_details(at: Position, *, equal: bool) -> dict[str, Any]:
    """What another process must know to do its part of the step that comes next."""
    names = ("step", "phase_step", "planned", "epoch", "batch", "micro_batch")
    return {"equal": equal, **{name: getattr(at, name) for name in names}}


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


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """In the order given: tensors of one type, together of about BUCKET_BYTES."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or size >= BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
    if bucket:
        yield bucket
