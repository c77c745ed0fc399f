"""What summing gradients after `backward` costs beside torch's DistributedDataParallel (DDP), and what it is good for.

python -m benchmarks.team                     every task, two processes on the CPU, over gloo
python -m benchmarks.team --task tabular      one task; may be repeated
python -m benchmarks.team --device cuda       two GPUs, over NCCL

Both train the same network on the same rows, a step of ours and a step with DDP in turn, with the same optimizer. On
the CPU one process then runs out of memory in the midst of its gradients, with either; exits 1 where ours does not go
on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
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
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from benchmarks.resume import CASES
from trainer_image.config.model_config import parse_config
from trainer_image.contract import RunInputs
from trainer_image.engine.preparing import make_plan, prepare
from trainer_image.engine.state import TrainingState
from trainer_image.engine.step import Stepper, on_device
from trainer_image.engine.team import Member
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

    def __init__(self, store: FileStore, rank: int, device: torch.device) -> None:
        super().__init__(store, rank, PROCESSES, device)
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
        self.state, self.other = self._fresh(), self._fresh()
        train = problem.splits["train"]
        part = min(plan.recipe.batch_size, rows_in(train)) // PROCESSES
        rows = take(train, slice(member.rank * part, (member.rank + 1) * part))
        self.rows = {name: tensor.to(device) for name, tensor in rows.items()}

    def _network(self) -> nn.Module:
        torch.manual_seed(0)
        return on_device(self._problem.predictor.build_model(), self._device).train()

    def _fresh(self) -> TrainingState:
        state = self.stepper.fresh_state(self._network())
        state.at.planned = 10_000
        return state

    def wrapped(self, group: dist.ProcessGroup | None = None) -> DistributedDataParallel:
        """Around the network of `other`. Any loss may leave parameters unused."""
        loss = LossOf(self._problem, self.other.model)
        return DistributedDataParallel(
            loss, process_group=group, find_unused_parameters=True, gradient_as_bucket_view=True
        )

    def ours(self) -> None:
        self.stepper.compiling.network = self.state.model
        self.stepper.step(self.state, self.rows, 1 / PROCESSES)

    def theirs(self, wrapped: DistributedDataParallel) -> None:
        self.other.optimizer.zero_grad()
        wrapped(self.rows).backward()
        nn.utils.clip_grad_norm_(self.other.model.parameters(), 1.0)
        self.other.optimizer.step()
        self.other.update_average(0.99)


def measure(trainee: Trainee, member: Timed, name: str, steps: int) -> str:
    """A row of the table."""
    ours, theirs, sums = [], [], []
    wrapped = trainee.wrapped()
    for _ in range(WARM_UP + steps):
        ours.append(member.time(trainee.ours))
        gradients = [p.grad for p in trainee.state.model.parameters() if p.grad is not None]
        sums.append(member.time(lambda: member.add(gradients)))  # noqa: B023 (called at once)
        theirs.append(member.time(lambda: trainee.theirs(wrapped)))
    step, summing, ddp = (statistics.median(times[WARM_UP:]) for times in (ours, sums, theirs))
    parameters = sum(p.numel() for p in trainee.state.model.parameters())
    return f"| {name} | {parameters:,} | {step:.1f} ms | {summing:.1f} ms | {ddp:.1f} ms | {step / ddp:.2f} |"


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
    member = Timed(FileStore(str(place / "store"), PROCESSES), rank, device)
    say = partial(print, flush=True) if rank == 0 else lambda line: None
    say(
        "| network | parameters | step | the sum alone | step with DDP | ratio |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name in names:
        trainee = Trainee(name, place, member, device)
        say(measure(trainee, member, name, steps))
    if kind == "cpu":
        ours, theirs = out_of_memory(trainee, member)
        say(f"\nThe second process out of memory in the midst of its gradients:\nours: {ours}\nDDP:  {theirs}")
        # torch aborts where it takes a group down whose other end had a time-out.
        os._exit(0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=tuple(CASES), help="only this task; may be repeated")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (cpu)")
    parser.add_argument("--steps", type=int, default=30, help="steps that are measured (30)")
    options = parser.parse_args(arguments)
    names = options.task or list(CASES)
    with tempfile.TemporaryDirectory(prefix="team-") as folder:
        for name in names:
            CASES[name].write(Path(folder) / name)
        multiprocessing.spawn(work, (names, options.device, options.steps, Path(folder)), PROCESSES)  # type: ignore[no-untyped-call]
    return 0


if __name__ == "__main__":
    sys.exit(main())
