"""A worker that does anything but its work: the supervisor says what it was, and nothing of it is left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from local_stack.processes import wait_until
from tests.world.processes import alive, children
from tests.world.repository import ROOT
from tests.world.training_data import TABULAR, FolderStore, class_table, run_inputs
from trainer_image import errors
from trainer_image.contract import Progress, RunInputs
from trainer_image.host import memory
from trainer_image.worker import child
from trainer_image.worker.child import Worker

pytestmark = pytest.mark.long

ODD = "tests.world.programs.odd_worker"


@pytest.fixture
def inputs(tmp_path: Path) -> RunInputs:
    return replace(run_inputs(tmp_path, tmp_path / "work" / "output", TABULAR), hang_seconds=1.0)


@contextmanager
def odd(monkeypatch: pytest.MonkeyPatch, how: str, *, silence: float = 60.0, plugin: bool = False) -> Iterator[Worker]:
    """Nothing of the worker is left afterwards."""
    monkeypatch.setenv("HOW", how)
    monkeypatch.setattr(child, "LEAST_SILENCE", silence)
    before = set(children(os.getpid()))
    with Worker("engine", module=ODD, hang_seconds=0.1, entry_point="shop:Prices" if plugin else None) as worker:
        yield worker
    assert set(children(os.getpid())) <= before


AT = r" \(it was at: Epoch 7 of 20\)"


@pytest.mark.parametrize(
    ("how", "kind", "told"),
    [
        ("segfault", errors.GpuFault, f"The process of the training was ended by SIGSEGV{AT}"),
        ("abort", errors.GpuFault, f"was ended by SIGABRT{AT}"),
        ("crashes over a file", errors.DatasetInvalid, r"^Invalid dataset: train/0\.png: .* its reader \(SIGSEGV\)"),
        ("crashes over files", errors.DatasetInvalid, r"^Invalid dataset: one of (train/[012]\.png(, )?){3}: cannot"),
        ("killed", errors.GpuFault, f"was ended by SIGKILL, as the kernel does where .* no memory left{AT}"),
        ("exits", errors.TrainerError, f"ended with exit code 3 and no word of its own{AT}"),
        ("garbage", errors.TrainerError, f"sent what is no message .*{AT}"),
        ("nests", errors.TrainerError, "sent what is no message .*recursion"),
        ("a long message", errors.TrainerError, "sent what is no message .a message of 4294967295 bytes"),
        ("another folder", errors.TrainerError, "sent what is no message .*matching regex"),
        ("floods", errors.TrainerError, r"ended with exit code 3 .*Epoch 8 of 20"),
        ("leaves a talker", errors.GpuFault, "was ended by SIGSEGV"),
        ("another's error", errors.TrainerError, "Another pod owns this run"),
    ],
)
def test_whatever_becomes_of_the_worker_is_told_as_what_it_was(
    inputs: RunInputs, monkeypatch: pytest.MonkeyPatch, how: str, kind: type[errors.TrainerError], told: str
) -> None:
    monkeypatch.setattr(child, "LEAVE_SECONDS", 0.5)
    with odd(monkeypatch, how) as worker, pytest.raises(errors.TrainerError, match=told) as raised:
        worker.train(inputs)
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("segfault", errors.UserCodeKilled),
        ("crashes over a file", errors.UserCodeKilled),
        ("exits", errors.UserCodeFailed),
        ("garbage", errors.UserCodeFailed),
        ("closes the pipe", errors.UserCodeFailed),
    ],
)
def test_a_plug_in_is_named_where_it_ran(
    inputs: RunInputs, monkeypatch: pytest.MonkeyPatch, how: str, kind: type[errors.TrainerError]
) -> None:
    monkeypatch.setattr(child, "LEAVE_SECONDS", 0.2)
    with (
        odd(monkeypatch, how, plugin=True) as worker,
        pytest.raises(kind, match=r"The process of the task shop:Prices"),
    ):
        worker.train(inputs)


def test_no_checkpoint_is_taken_from_behind_a_link(inputs: RunInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(inputs.output.parent))
    stored = FolderStore(inputs.output.parent / "stored")
    told = "sent for a checkpoint behind a link"
    with odd(monkeypatch, "keeps behind a link") as worker, pytest.raises(errors.TrainerError, match=told):
        worker.train(replace(inputs, checkpoints=stored))
    assert not stored.newest_first()


@pytest.mark.parametrize("how", ["stops itself", "says nothing"])
def test_a_worker_that_gives_no_sign_of_life_is_ended_as_one_that_hangs(
    inputs: RunInputs, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with (
        odd(monkeypatch, how, silence=0.5) as worker,
        pytest.raises(errors.GpuFault, match=r"^Training hangs: .*Epoch 7"),
    ):
        worker.train(inputs)


def test_a_worker_that_was_killed_for_memory_ran_out_of_memory(
    inputs: RunInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([3, 4])
    monkeypatch.setattr(memory, "kills", lambda *where: next(counts))
    with odd(monkeypatch, "killed") as worker, pytest.raises(errors.OutOfMemory, match="was killed at"):
        worker.train(inputs)


def test_a_machine_that_starts_no_process_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child.sys, "executable", "/no/such/python")
    with pytest.raises(errors.OutOfMemory, match=r"no process can be started for the training \(No such file"):
        Worker("engine")


def test_a_worker_that_reads_nothing_holds_nobody_up(inputs: RunInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that is longer than any pipe; then a request to stop, and the end all the same."""
    inputs = replace(inputs, notes=("x" * 1000,) * 4000)
    with odd(monkeypatch, "says nothing", silence=0.5) as worker:
        inputs.stop.set()
        with pytest.raises(errors.GpuFault):
            worker.train(inputs)


def test_what_the_worker_left_running_ends_before_its_result_is_looked_at(
    inputs: RunInputs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(child, "LEAVE_SECONDS", 0.5)
    with odd(monkeypatch, "leaves processes") as worker:
        assert worker.train(inputs).metrics == {"accuracy": 0.5}
        left = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("left"))
        assert not alive(int(left.split()[1]))


def test_a_worker_ends_with_a_supervisor_that_is_killed() -> None:
    code = (
        "import time; from trainer_image.worker.child import Worker\n"
        "print(Worker('command')._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        supervisor.kill()
    wait_until(lambda: not alive(pid))


def test_a_real_worker_trains_keeps_checkpoints_and_resumes(tmp_path: Path) -> None:
    data = class_table(tmp_path / "data")
    store = FolderStore(tmp_path / "store")
    stop = threading.Event()
    said: list[Progress] = []
    config = TABULAR.replace("epochs: 3", "epochs: 100000")
    work = tmp_path / "work"
    (work / "output").mkdir(parents=True)
    inputs = run_inputs(data, work / "output", config, store=store, stop=stop)

    def progress(progress: Progress) -> None:
        said.append(progress)
        if progress.step > 20:
            stop.set()

    with Worker("engine") as worker:
        worker.check_config(inputs.config, inputs.limits)
        assert "classification of 'y'" in worker.validate_dataset(inputs)
        with pytest.raises(errors.Terminated, match="saved at step") as stopped:
            worker.train(replace(inputs, progress=progress))
    assert said[0].message == "Reading the dataset"
    assert any(progress.message.startswith("Epoch") for progress in said)
    assert store.kept[-1].name == f"step-{stopped.value.step}"
    resumed = stopped.value.step
    stop.clear()
    with Worker("engine") as worker, pytest.raises(errors.Terminated) as stopped:
        worker.train(replace(inputs, progress=lambda progress: progress.step > resumed and stop.set()))
    assert stopped.value.step > resumed
