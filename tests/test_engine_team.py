"""Several processes train as one: the same batches and quality, checkpoints that fit either, failures that end all."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training_data import TABULAR, FolderStore, class_table, run_inputs
from trainer_image import engine_processes
from trainer_image.engine import Engine
from trainer_image.engine_plan import Plan
from trainer_image.engine_step import Stepper
from trainer_image.engine_team import Team, shared_buffers
from trainer_image.errors import GpuFault, Terminated, TrainingDiverged, UsageError
from trainer_image.tasks.base import Recipe
from trainer_image.training import prepare, train

CONFIG = TABULAR.replace("epochs: 3", "epochs: 8")


def at_step(monkeypatch: pytest.MonkeyPatch, wanted: int, act: Callable[[], object]) -> None:
    """Calls `act` once after that optimizer step."""
    after_step, done = Engine._after_step, [False]

    def step(self: Engine, per_epoch: int) -> None:
        if self.state.at.step >= wanted and not done[0]:
            done[0] = True
            act()
        after_step(self, per_epoch)

    monkeypatch.setattr(Engine, "_after_step", step)


def test_checkpoints_move_between_numbers_of_processes_and_the_quality_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = class_table(tmp_path / "data", 240)
    whole = train(run_inputs(data, tmp_path / "whole", CONFIG))
    store = FolderStore(tmp_path / "store")
    stopped_at = []
    for number, (processes, step) in enumerate(((1, 15), (2, 30))):
        stop = threading.Event()
        inputs = run_inputs(data, tmp_path / f"part-{number}", CONFIG, store=store, stop=stop)
        with monkeypatch.context() as patch:
            at_step(patch, step, stop.set)
            with pytest.raises(Terminated) as stopped:
                train(replace(inputs, processes=processes))
        stopped_at.append(stopped.value.step)
    moved = train(run_inputs(data, tmp_path / "moved", CONFIG, store=store))
    assert stopped_at == [15, 30]
    assert moved.steps == whole.steps
    assert moved.metrics["accuracy"] == whole.metrics["accuracy"]
    assert moved.metrics["log_loss"] == pytest.approx(whole.metrics["log_loss"], abs=0.02)
    ours, theirs = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("moved", "whole"))
    assert ours["training"]["resumed_from_step"] == 30
    losses = [[record["loss"] for record in report["history"]] for report in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05), "each step saw the same rows, whoever computed them"


def _other_process() -> int:
    """The pid of the one process that we started for the team."""
    (pid,) = (
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
        if "trainer_image\0train" in Path(f"/proc/{pid}/cmdline").read_text()
    )
    return pid


def test_a_process_that_dies_ends_the_training_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = class_table(tmp_path / "data")
    at_step(monkeypatch, 3, lambda: os.kill(_other_process(), signal.SIGKILL))
    with pytest.raises(GpuFault, match="Process 1 of the training was ended by SIGKILL"):
        train(replace(run_inputs(data, tmp_path / "out"), processes=2))
    assert [path.name for path in tmp_path.glob("team-*")] == []


class OneOfTwo(Team):
    """The first of two processes; what the other one would say is the test's."""

    world = 2

    def __init__(self, *, out_of_memory: Sequence[bool] = (), adds: float = 0.0) -> None:
        self.out_of_memory = list(out_of_memory)
        self.adds = adds

    def any(self, happened: bool) -> bool:
        return happened or (self.out_of_memory.pop(0) if self.out_of_memory else False)

    def add(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor.add_(self.adds)


def stepper(tmp_path: Path, team: Team) -> tuple[Stepper, Any, dict[str, Tensor]]:
    """A stepper on a small table, its first state, and half a batch of 32 rows."""
    problem = prepare(run_inputs(class_table(tmp_path / "data"), tmp_path / "out"))
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=1e-3)
    plan = Plan(recipe, seed=0, time_budget=60, device=torch.device("cpu"))
    model = problem.predictor.build_model()
    made = Stepper(problem, plan, model, team, [])
    state = made.fresh_state(model)
    state.at.planned = 10
    return made, state, {name: tensor[:16] for name, tensor in problem.splits["train"].items()}


def test_a_loss_that_is_not_finite_in_another_process_names_its_step(tmp_path: Path) -> None:
    made, state, half = stepper(tmp_path, OneOfTwo(adds=float("nan")))
    made.step(state, half, 0.5)
    with pytest.raises(TrainingDiverged, match="at step 1"):
        made.check()


def test_out_of_memory_in_another_process_halves_ours_too(tmp_path: Path) -> None:
    made, state, half = stepper(tmp_path, OneOfTwo(out_of_memory=[True, True]))
    made.step(state, half, 0.5)
    assert state.at.micro_batch == 4
    assert state.at.step == 1


def test_batch_norm_s_figures_are_those_of_all_rows_and_other_buffers_the_first_process_s() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1))
    model.register_buffer("constant", torch.tensor([0.1]))
    statistics = model[0].running_mean
    statistics.fill_(4.0)
    summands = {id(buffer): ours for buffer, ours in shared_buffers(OneOfTwo(), model, 0.25)}
    assert summands[id(statistics)].item() == 1.0
    assert summands[id(model.get_buffer("constant"))].item() == model.get_buffer("constant").item()
    other = OneOfTwo()
    other.rank = 1
    assert {id(b): s for b, s in shared_buffers(other, model, 0.25)}[id(model.get_buffer("constant"))].item() == 0.0


@pytest.mark.parametrize(
    ("processes", "asked", "batch", "small", "used", "said"),
    [
        (1, 0, 16, True, 1, ""),
        (4, 0, 1024, True, 1, "so little work"),
        (4, 4, 1024, True, 4, ""),
        (4, 0, 1024, False, 4, ""),
        (8, 0, 32, False, 4, "4 of 8 processes train"),
        (2, 2, 8, False, 1, "1 of 2 processes train"),
    ],
)
def test_no_more_processes_train_than_the_batch_has_work_for(
    processes: int, asked: int, batch: int, small: bool, used: int, said: str
) -> None:
    recipe = Recipe(epochs=1, batch_size=batch, learning_rate=1e-3, small=small)
    count, notes = engine_processes.useful(processes, asked, recipe)
    assert count == used
    assert said in "".join(notes)
    assert bool(notes) == (used < processes)


@pytest.mark.parametrize(("device", "asked", "expected"), [("cuda", 0, 4), ("cuda:1", 0, 1), ("auto", 2, 2)])
def test_every_visible_gpu_trains_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    inputs: Any = SimpleNamespace(device=device, processes=asked)
    assert engine_processes.wanted(inputs, torch.device("cuda", 0)) == expected
    with pytest.raises(UsageError, match=r"5 processes were asked for \(PROCESSES\), but 4"):
        engine_processes.wanted(SimpleNamespace(device=device, processes=5), torch.device("cuda", 0))  # type: ignore[arg-type]
