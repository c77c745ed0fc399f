"""Several processes train as one: the same batches and quality, checkpoints that fit either, failures that end all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from local_stack.processes import wait_until
from tests.world.processes import alive, children
from tests.world.training_data import TABULAR, FolderStore, class_table, run_inputs
from trainer_image.config.model_config import ConfigProblems
from trainer_image.engine import helper, rendezvous
from trainer_image.engine import processes as engine_processes
from trainer_image.engine.loop import Engine
from trainer_image.engine.plan import Plan
from trainer_image.engine.preparing import prepare
from trainer_image.engine.steps.state import TrainingState
from trainer_image.engine.steps.step import Stepper
from trainer_image.engine.team import Member, Team, shared_buffers
from trainer_image.engine.training import train
from trainer_image.errors import (
    ConfigInvalid,
    DatasetInvalid,
    GpuFault,
    LimitExceeded,
    OutOfMemory,
    Terminated,
    TrainerError,
    TrainingDiverged,
    UsageError,
)
from trainer_image.tasks.base import Recipe

pytestmark = pytest.mark.long

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


def test_out_of_memory_in_the_midst_of_one_process_s_gradients_halves_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate, calls = Stepper._accumulate, [0]

    def starve(self: Stepper, *arguments: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == 3:
            raise torch.OutOfMemoryError
        return accumulate(self, *arguments)

    # The other process is of its own and has memory enough.
    monkeypatch.setattr(Stepper, "_accumulate", starve)
    trained = train(replace(run_inputs(class_table(tmp_path / "data"), tmp_path / "out"), processes=2))
    report = json.loads((tmp_path / "out" / "report.json").read_text())["training"]
    assert any("Out of GPU memory" in note for note in report["notes"])
    assert report["rows_at_a_time"] < report["recipe"]["batch_size"] / 2
    assert trained.steps == calls[0] - 1, "every step was taken, the starved one in halves"


def _listening(pid: int) -> set[str]:
    """The local addresses (as /proc/net has them, in hex) on which a process accepts connections."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets}


@contextmanager
def two_processes(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A real trainer in the midst of its steps with one process more, and that one's pid."""
    (tmp_path / "config.yaml").write_text(TABULAR.replace("epochs: 3", "epochs: 100000"))
    data = class_table(tmp_path / "data")
    flags = {"data": data, "config": tmp_path / "config.yaml", "out": tmp_path / "out", "processes": 2}
    flags |= {"device": "cpu", "work-dir": tmp_path, "run-id": "mine"}
    secrets = {
        "API_KEY": "portal-secret",
        "AZURE_STORAGE_CONNECTION_STRING": "storage-secret",
        "STATUS_TRACKING": "off",
    }
    more = {"TERMINATION_MESSAGE_PATH": str(tmp_path / "words"), "LOG_LEVEL": "INFO"}
    with subprocess.Popen(
        [sys.executable, "-m", "trainer_image", "train", *(f"--{name}={value}" for name, value in flags.items())],
        env={**os.environ, **secrets, **more},
        stderr=subprocess.PIPE,
        text=True,
    ) as trainer:
        try:
            assert trainer.stderr
            assert any("Epoch 2" in line for line in trainer.stderr)
            (first,) = children(trainer.pid)
            (other,) = children(first)
            yield trainer, other
        finally:
            trainer.kill()


def test_sigterm_ends_both_processes_with_the_state_saved(tmp_path: Path) -> None:
    with two_processes(tmp_path) as (trainer, other):
        assert "secret" not in Path(f"/proc/{other}/environ").read_text()
        # 127.0.0.1, as an IPv4 address and within an IPv6 one.
        loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
        assert _listening(trainer.pid) | _listening(other) <= loopback
        trainer.send_signal(signal.SIGTERM)
        assert trainer.wait(30) == 143
    words = json.loads((tmp_path / "words").read_text())
    assert (words["code"], words["exit"]) == ("Terminated", 143)
    assert f"saved at step {words['step']}" in words["message"]
    assert len(list((tmp_path / "out" / "checkpoints").glob(f"*/step-{words['step']}/MANIFEST.json"))) == 1
    assert not Path(f"/proc/{other}").exists()


def test_no_process_outlives_a_trainer_that_is_killed(tmp_path: Path) -> None:
    with two_processes(tmp_path) as (trainer, other):
        trainer.kill()
        wait_until(lambda: not alive(other), timeout=30)


def test_torchrun_can_start_the_processes_by_hand(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TABULAR)
    flags = {"data": class_table(tmp_path / "data"), "config": tmp_path / "config.yaml", "out": tmp_path / "out"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    trainer = ["-m", "trainer_image", "train", "--device=cpu", *(f"--{name}={value}" for name, value in flags.items())]
    done = subprocess.run([*torchrun, *trainer], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 processes train together" in done.stderr


@pytest.mark.parametrize(
    ("raised", "kind", "sentence"),
    [
        (ConfigProblems(["a: b", "c: d"]), ConfigInvalid, "Invalid configuration: a: b"),
        (DatasetInvalid("Invalid dataset: train.csv: no rows"), DatasetInvalid, "train.csv: no rows"),
        (KeyError("price"), TrainerError, "Internal error: KeyError: 'price'"),
        (MemoryError(), OutOfMemory, "Out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), LimitExceeded, "The disk of the training is full"),
    ],
)
def test_what_another_process_raised_is_told_as_it_would_be_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    kind: type[TrainerError],
    sentence: str,
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert helper.recorded(fail) == kind.exit_code
    told = rendezvous.failure_in(tmp_path / "error.json")
    assert type(told) is kind
    assert sentence in told.sentence


def test_torchrun_on_several_nodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="the trainer joins them by itself"):
        engine_processes.asked(SimpleNamespace(processes=0))  # type: ignore[arg-type]


def _other_process() -> int:
    """The pid of the one process that we started for the team."""
    named = "trainer_image.engine.helper"
    (pid,) = (pid for pid in children(os.getpid()) if named in Path(f"/proc/{pid}/cmdline").read_text())
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

    def any(self, happened: Sequence[bool]) -> list[bool]:
        failed, *reached = happened
        return [failed or (self.out_of_memory.pop(0) if self.out_of_memory else False), *reached]

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


def test_a_parameter_that_no_process_s_rows_reached_is_left_as_it_is_and_one_of_another_s_is_not(
    tmp_path: Path,
) -> None:
    class Reached(OneOfTwo):
        """elsewhere: the parameter that the other process's rows have reached; neither is out of memory"""

        elsewhere = -1

        def any(self, happened: Sequence[bool]) -> list[bool]:
            return [has or place == self.elsewhere for place, has in enumerate(happened, start=-1)]

    for elsewhere in (False, True):
        made, state, half = stepper(tmp_path, team := Reached(adds=1.0))
        parameters = list(state.model.parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        team.elsewhere = len(parameters) - 1 if elsewhere else -2
        problem: Any = made._problem
        # Of all parameters the last one plays no part here.
        problem.loss = lambda model, batch: sum(p.square().sum() for p in list(model.parameters())[:-1])
        made.step(state, half, 0.5)
        changed = [not torch.equal(old, new) for old, new in zip(before, parameters, strict=True)]
        assert changed == [True] * (len(parameters) - 1) + [elsewhere]


class Told(Member):
    """A rank whose words go through a list in place of the network."""

    def __init__(self, rank: int, words: list[Any]) -> None:
        self.rank, self.words = rank, words

    def broadcast(self, *_: Any, **__: Any) -> None:
        pass

    def _share(self, tensor: Tensor) -> None:
        if self.rank == 0:
            self.words.append(tensor.clone())
        else:
            tensor.copy_(self.words.pop(0))

    def _share_json(self, said: Any) -> Any:
        if self.rank == 0:
            self.words.append(json.dumps(said))
        return said if self.rank == 0 else json.loads(self.words.pop(0))


def test_what_begin_froze_in_the_first_process_is_frozen_in_the_others() -> None:
    def state(frozen: int) -> TrainingState:
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        for parameter in list(model.parameters())[:frozen]:
            parameter.requires_grad_(requires_grad=False)
        return TrainingState(
            model, lambda of: [torch.optim.Adam(p for p in of.parameters() if p.requires_grad)], average=False
        )

    def step(state: TrainingState) -> None:
        for parameter in state.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.optimizers.step(1.0)

    first, other, words = state(frozen=2), state(frozen=0), list[Any]()
    step(first)
    Told(0, words).begin(first)
    Told(1, words).begin(other)
    step(first)
    step(other)
    pairs = list(zip(first.model.parameters(), other.model.parameters(), strict=True))
    assert [theirs.requires_grad for _, theirs in pairs] == [False, False, True, True]
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


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
    count, notes = rendezvous.useful(processes, asked > 0, recipe)
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
    told = "cuda:1 .DEVICE. is one GPU" if device == "cuda:1" else "4"
    with pytest.raises(UsageError, match=rf"5 processes were asked for \(PROCESSES\), but {told}"):
        engine_processes.wanted(SimpleNamespace(device=device, processes=5), torch.device("cuda", 0))  # type: ignore[arg-type]
