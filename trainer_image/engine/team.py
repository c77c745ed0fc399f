"""Several processes, one for each GPU of one or more nodes, that train one model: data-parallel.

Rank 0 is the worker of node 0: it alone has checkpoints and decisions. The other ranks are helpers (helper.py): they
hold the same network and optimizer and follow the commands that rank 0 broadcasts, one a step. Each rank computes the
gradients of its part of the batch, and every optimizer steps on the sum over all ranks. So the state of rank 0 is the
whole state, and a checkpoint fits any number of processes and nodes.

Communication is torch.distributed's: gloo on the CPU, NCCL on GPUs. Unlike DistributedDataParallel, gradients are
all-reduced after `backward`, not within it: there, a rank that runs out of memory leaves the others waiting for ever in
an all-reduce that it no longer joins; here all ranks first agree that everyone has its gradients, or halve the batch
together. The price is that communication does not overlap with the backward pass;
`python -m benchmarks.team` measures it, and shows what DistributedDataParallel does out of memory.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.nn.modules.batchnorm import _BatchNorm

from trainer_image.contract import Place
from trainer_image.engine.checkpoint import Snapshot
from trainer_image.errors import PeerLost
from trainer_image.host import gpu_faults
from trainer_image.host.network import interface_towards

if TYPE_CHECKING:
    from trainer_image.engine.steps.position import Position
    from trainer_image.engine.steps.state import TrainingState

# Rank 0 may validate, save or compile for long while the helpers wait for its next command. Whoever is gone closes its
# connections; a node that falls silent is noticed between the pods, which end their workers.
PATIENCE = timedelta(days=30)
# Of the state, what is sent at a time.
PIECE_BYTES = 64 * 1024**2
# What rank 0 broadcasts: a command, and these numbers of its position.
COMMANDS = ("begin", "probe", "step", "compile", "eager", "end")
NUMBERS = ("step", "phase_step", "planned", "cycle", "epoch", "batch", "micro_batch")


class Command(NamedTuple):
    """A command of rank 0. equal: every rank's part of the batch has the same number of rows; at: NUMBERS of its
    position."""

    name: str
    equal: bool
    at: dict[str, int]


# Before what gloo says: the file of its own that says it. After the first sentence follows advice for others.
_WHERE = re.compile(r"^\[[^\]]*:\d+\] ")


@contextmanager
def reaching_others() -> Iterator[None]:
    """What torch raises when another process is gone, or out of reach, is raised as PeerLost.

    Only around what speaks with others: whatever torch raises there is meant, but a failure of this process's GPU,
    which shows at whatever comes next.
    """
    try:
        yield
    except RuntimeError as error:
        if gpu_faults.of_this_process(error):
            raise
        said = _WHERE.sub("", next(iter(str(error).splitlines()), type(error).__name__)).partition(". ")[0]
        raise PeerLost(f"The others of the training are out of reach: {said}") from error


class Team:
    """One process alone. rank: 0 is the first node's worker; world: number of processes

    here: how many of them share this node's memory; block_rows: what other nodes need (see `row_order.block_rows`)
    """

    rank, world, here, block_rows = 0, 1, 1, 0

    def begin(self, state: TrainingState) -> None:
        """Every rank begins a phase at rank 0's state."""

    def broadcast(self, command: str, at: Position | None = None, *, equal: bool = False) -> None:
        """Sends a command of rank 0 to the helpers, which `receive` it."""

    def any(self, happened: Sequence[bool]) -> list[bool]:
        """Of each, whether it happened on any rank. Every rank has to call this, with as many."""
        return list(happened)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over all ranks, which pass tensors of the same shapes."""


class Member(Team):
    """One rank of several. store: where the ranks find each other; place: where they are on several nodes."""

    def __init__(self, store: Store, rank: int, world: int, device: torch.device, place: Place | None = None) -> None:
        self.rank, self.world = rank, world
        _choose_network(place)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Commands and agreements are tensors on the CPU: they must not wait for what the GPU still has to do.
        with reaching_others():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=rank,
                world_size=world,
                timeout=PATIENCE,
            )

    def begin(self, state: TrainingState) -> None:
        # Tensor by tensor into memory of its own: neither side holds the state twice.
        if self.rank == 0:
            snapshot = state.snapshot()
            self.broadcast("begin", state.at)
            tensors = snapshot.tensors
            layout = {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
            # `Problem.begin`, which may freeze parameters, ran here only.
            trained = [parameter.requires_grad for parameter in state.model.parameters()]
            self._share_json({"step": snapshot.step, "scalars": snapshot.scalars, "layout": layout, "trained": trained})
        else:
            told = self._share_json(None)
            tensors = {
                name: torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
                for name, (dtype, shape) in told["layout"].items()
            }
        for tensor in tensors.values():
            self._share(tensor)
        if self.rank != 0:
            state.train_only(told["trained"])
            state.load(Snapshot(told["step"], tensors, told["scalars"]))

    def broadcast(self, command: str, at: Position | None = None, *, equal: bool = False) -> None:
        numbers = [getattr(at, name) for name in NUMBERS] if at else [0] * len(NUMBERS)
        self._share(torch.tensor([COMMANDS.index(command), equal, *numbers]))

    def receive(self) -> Command:
        """The next command of rank 0."""
        message = torch.zeros(2 + len(NUMBERS), dtype=torch.int64)
        self._share(message)
        command, equal, *numbers = message.tolist()
        return Command(COMMANDS[command], bool(equal), dict(zip(NUMBERS, numbers, strict=True)))

    def any(self, happened: Sequence[bool]) -> list[bool]:
        flags = torch.tensor(happened, dtype=torch.uint8)
        with reaching_others():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return [bool(flag) for flag in flags.tolist()]

    def add(self, tensors: Sequence[Tensor]) -> None:
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            ours = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in ours])
            with reaching_others():
                dist.all_reduce(flat)
            for tensor, summed in zip(ours, torch.split(flat, [tensor.numel() for tensor in ours]), strict=True):
                tensor.copy_(summed.view(tensor.shape))

    def leave(self, *, in_peace: bool) -> None:
        """The others notice. After a failure NCCL may wait for those that are gone; this process ends soon after."""
        if in_peace or "nccl" not in dist.get_backend_config():
            dist.destroy_process_group()

    def _share(self, tensor: Tensor) -> None:
        """Every rank's tensor on the CPU, of the same shape and type, becomes rank 0's."""
        with reaching_others():
            for piece in torch.split(tensor.view(-1).view(torch.uint8), PIECE_BYTES):
                if len(piece):
                    dist.broadcast(piece, src=0)

    def _share_json(self, said: Any) -> Any:
        """What rank 0 says; None from the others."""
        content = torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8)
        size = torch.tensor(len(content))
        self._share(size)
        if self.rank != 0:
            content = torch.empty(int(size), dtype=torch.uint8)
        self._share(content)
        return json.loads(content.numpy().tobytes())


def _choose_network(place: Place | None) -> None:
    """Loopback where that is enough: nobody else can reach it. Else gloo takes the network that leads to node 0: by
    itself it would take that of the machine's name, which may be loopback. NCCL chooses well, and knows faster ones.

    What the environment says already is the operator's word.
    """
    towards: str | None = "lo"
    if place is not None:
        try:
            towards = interface_towards(place.address, place.port)
        except OSError:  # the name is not known just now
            towards = None
    if towards is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", towards)
    if towards == "lo":
        os.environ.setdefault("NCCL_SOCKET_IFNAME", towards)


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
