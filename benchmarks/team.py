"""What summing gradients after `backward` costs beside torch's DistributedDataParallel (DDP), and what it is good for.

python -m benchmarks.team                     every task, two processes on the CPU, over gloo
python -m benchmarks.team --task tabular      one task; may be repeated
python -m benchmarks.team --device cuda       two GPUs, over NCCL
python -m benchmarks.team --nodes 2           as many nodes, one process each, and what a lost one costs

Both train the same network on the same rows, a step of ours and a step with DDP in turn, with the same optimizer. On
the CPU one process then runs out of memory in the midst of its gradients, with either; exits 1 where ours does not go
on.

Nodes are started by torchrun, each by one of its own, and one process alone takes the whole batch in turn with the two;
all are on this machine, speak over loopback, and have one thread. Then node 2 of a real training is killed and started
anew, again and again: see lost_node.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed import FileStore, Store, rendezvous  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from benchmarks import lost_node
from benchmarks.resume import CASES
from trainer_image.config.model_config import parse_config
from trainer_image.contract import RunInputs
from trainer_image.engine.preparing import make_plan, prepare
from trainer_image.engine.steps.state import TrainingState
from trainer_image.engine.steps.step import Stepper, on_device
from trainer_image.engine.team import Member, Team
from trainer_image.limits import Limits
from trainer_image.tasks.base import Batch, Problem, rows_in, take

PROCESSES = 2
# Steps that are not measured; how long one waits for another that has no memory.
WARM_UP, WAIT_SECONDS = 5, 5


class LossOf(nn.Module):
    """A problem's loss as a module: wrapped as a whole, it may use the network in any way."""

    def __init__(self, problem: Problem, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._problem = problem

    def forward(self, batch: Batch) -> Tensor:
        return self._problem.loss(self.network, batch)


class Timed(Member):
    """A member with a clock."""

    def __init__(self, store: Store, rank: int, world: int, device: torch.device) -> None:
        super().__init__(store, rank, world, device)
        self._device = device

    def time(self, work: Callable[[], object]) -> float:
        """Milliseconds of a piece of work that everyone begins at once."""
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return (time.perf_counter() - began) * 1000

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.any(False)


class Trainee:
    """A task's network in both ways: a stepper of ours, and wrapped with DDP."""

    def __init__(self, name: str, place: Path, member: Member, device: torch.device) -> None:
        inputs = RunInputs(
            config=parse_config(CASES[name].config.encode()),
            data=place / name,
            output=place / "output",
            run_id="run",
            run_key="key",
            dataset_fingerprint="",
            device=device.type,
            limits=Limits(),
            stop=threading.Event(),
            progress=lambda progress: None,
        )
        problem = prepare(inputs)
        plan = make_plan(inputs, problem.recipe, device)
        torch.set_num_threads(1)
        self._member, self._device, self._problem = member, device, problem
        self.stepper = Stepper(problem, plan, self._network(), member, [])
        self._single = Stepper(problem, plan, self._network(), Team(), [])
        self.state, self.other = self._fresh(self.stepper), self._fresh(self.stepper)
        self.single = self._fresh(self._single)
        train = problem.splits["train"]
        part = min(plan.recipe.batch_size, rows_in(train)) // member.world
        self.rows = self._on_device(take(train, slice(member.rank * part, (member.rank + 1) * part)))
        self._all = self._on_device(take(train, slice(0, member.world * part)))

    def _on_device(self, rows: Batch) -> Batch:
        return {name: tensor.to(self._device) for name, tensor in rows.items()}

    def _network(self) -> nn.Module:
        torch.manual_seed(0)
        return on_device(self._problem.predictor.build_model(), self._device).train()

    def _fresh(self, stepper: Stepper) -> TrainingState:
        state = stepper.fresh_state(self._network())
        state.at.planned = 10_000
        return state

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.state.model.parameters())

    def wrapped(self, group: dist.ProcessGroup | None = None) -> DistributedDataParallel:
        """Around the network of `other`. Any loss may leave parameters unused."""
        loss = LossOf(self._problem, self.other.model)
        return DistributedDataParallel(
            loss, process_group=group, find_unused_parameters=True, gradient_as_bucket_view=True
        )

    def alone(self) -> None:
        """The whole batch, in the first process."""
        if self._member.rank == 0:
            self._single.compiling.network = self.single.model
            self._single.step(self.single, self._all)

    def ours(self) -> None:
        if self._member.rank == 0:
            self._member.broadcast("step", self.state.at)
        else:
            self._member.receive()
        self.stepper.compiling.network = self.state.model
        self.stepper.step(self.state, self.rows, 1 / self._member.world)

    def theirs(self, wrapped: DistributedDataParallel) -> None:
        self.other.model.zero_grad()
        wrapped(self.rows).backward()
        nn.utils.clip_grad_norm_(self.other.model.parameters(), 1.0)
        self.other.optimizers.step(1.0)
        self.other.update_average(0.99)


def measure(trainee: Trainee, member: Timed, steps: int) -> tuple[float, float, float, float]:
    """Medians in milliseconds: a step of ours, the sum alone, a step with DDP, a step of one process."""
    wrapped = trainee.wrapped()
    times = []
    for _ in range(WARM_UP + steps):
        ours = member.time(trainee.ours)
        gradients = [p.grad for p in trainee.state.model.parameters() if p.grad is not None]
        summing = member.time(lambda: member.add(gradients))  # noqa: B023 (called at once)
        times.append((ours, summing, member.time(lambda: trainee.theirs(wrapped)), member.time(trainee.alone)))
    ours, summing, ddp, alone = (statistics.median(column) for column in zip(*times[WARM_UP:], strict=True))
    return ours, summing, ddp, alone


HEAD = "| network | parameters | step | the sum alone | step with DDP | ratio |\n| --- | --- | --- | --- | --- | --- |"
NODES_HEAD = (
    "| network | parameters | one process | {} nodes | torchrun with DDP | nodes : one | nodes : DDP |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def row(name: str, trainee: Trainee, found: tuple[float, float, float, float]) -> str:
    ours, summing, ddp, _ = found
    return f"| {name} | {trainee.parameters:,} | {ours:.1f} ms | {summing:.1f} ms | {ddp:.1f} ms | {ours / ddp:.2f} |"


def nodes_row(name: str, trainee: Trainee, found: tuple[float, float, float, float]) -> str:
    """In steps a second."""
    ours, ddp, alone = (1000 / found[number] for number in (0, 2, 3))
    rates = f"{alone:.1f} | {ours:.1f} | {ddp:.1f} | {ours / alone:.2f} | {ours / ddp:.2f}"
    return f"| {name} | {trainee.parameters:,} | {rates} |"


def starve(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """While this lasts, memory runs out in the midst of the network's gradients, once."""
    left = [True]

    def refuse(gradient: Tensor) -> None:
        if left.pop() if left else False:
            raise torch.OutOfMemoryError

    hook = next(p for p in model.parameters() if p.requires_grad).register_hook(refuse)
    stack = contextlib.ExitStack()
    stack.callback(hook.remove)
    return stack


def out_of_memory(trainee: Trainee, member: Member) -> tuple[str, str]:
    """What the first process sees when the second has no memory for its gradients: with ours, with DDP."""
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=WAIT_SECONDS))
    wrapped = trainee.wrapped(group)
    starved = member.rank == 1
    before, rows = trainee.state.at.step, trainee.state.at.micro_batch
    with starve(trainee.state.model) if starved else contextlib.nullcontext():
        trainee.ours()
    at = trainee.state.at
    ours = f"step {at.step} is taken by both, {at.micro_batch} rows at a time"
    assert (at.step, at.micro_batch < rows) == (before + 1, True)
    theirs = "step taken"
    try:
        with starve(trainee.other.model) if starved else contextlib.nullcontext():
            trainee.theirs(wrapped)
    except torch.OutOfMemoryError:
        time.sleep(2 * WAIT_SECONDS)
    except RuntimeError as error:
        theirs = f"waits in backward for a sum that the other never joins; time-out: {str(error).splitlines()[0]}"
    return ours, theirs


def work(rank: int, names: Sequence[str], kind: str, steps: int, place: Path) -> None:
    """One process of the two; the first one prints."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    member = Timed(FileStore(str(place / "store"), PROCESSES), rank, PROCESSES, device)
    say = partial(print, flush=True) if rank == 0 else lambda line: None
    say(HEAD)
    for name in names:
        trainee = Trainee(name, place, member, device)
        say(row(name, trainee, measure(trainee, member, steps)))
    if kind == "cpu":
        ours, theirs = out_of_memory(trainee, member)
        say(f"\nThe second process out of memory in the midst of its gradients:\nours: {ours}\nDDP:  {theirs}")
        # torch aborts where it takes a group down whose other end had a time-out.
        os._exit(0)


def work_as_node(names: Sequence[str], steps: int, place: Path) -> None:
    """The one process of a node, which torchrun has started; the first node's prints."""
    store, rank, world = next(rendezvous("env://"))
    device = torch.device("cpu")
    member = Timed(store, rank, world, device)
    say = partial(print, flush=True) if rank == 0 else lambda line: None
    say(NODES_HEAD.format(world))
    for name in names:
        trainee = Trainee(name, place, member, device)
        say(nodes_row(name, trainee, measure(trainee, member, steps)))
    member.leave(in_peace=True)


def start_nodes(count: int, names: Sequence[str], steps: int, place: Path) -> None:
    """A torchrun for each node. Raises CalledProcessError."""
    ours = ["-m", "benchmarks.team", "--as-node", str(place), f"--steps={steps}", *(f"--task={name}" for name in names)]
    port = lost_node.free_ports(1)[0]
    nodes = []
    for node in range(count):
        where = [f"--nnodes={count}", f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", *where, *ours]
        nodes.append(subprocess.Popen(torchrun, env=os.environ | {"OMP_NUM_THREADS": "1"}))
    codes = [node.wait() for node in nodes]
    if any(codes):
        raise subprocess.CalledProcessError(1, torchrun)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=tuple(CASES), help="only this task; may be repeated")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (cpu)")
    parser.add_argument("--steps", type=int, default=30, help="steps that are measured (30)")
    parser.add_argument("--nodes", type=int, help="so many nodes on this machine, beside one process")
    parser.add_argument("--lost", type=int, default=5, help="with --nodes: how often one of them is killed (5)")
    parser.add_argument("--as-node", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = options.task or list(CASES)
    if options.as_node:
        work_as_node(names, options.steps, options.as_node)
        return 0
    with tempfile.TemporaryDirectory(prefix="team-") as folder:
        for name in names:
            CASES[name].write(Path(folder) / name)
        if options.nodes:
            start_nodes(options.nodes, names, options.steps, Path(folder))
            if options.lost:
                print("\n" + lost_node.table(options.nodes, options.lost))
            return 0
        multiprocessing.spawn(work, (names, options.device, options.steps, Path(folder)), PROCESSES)  # type: ignore[no-untyped-call]
    return 0


if __name__ == "__main__":
    sys.exit(main())
