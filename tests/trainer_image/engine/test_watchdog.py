"""A training that hangs ends by itself, with its stacks in the log and a termination message for Kubernetes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from local_stack.processes import wait_until
from tests.world.repository import ROOT
from tests.world.training_data import TABULAR, class_table
from trainer_image.engine.watchdog import PATIENCE, Watchdog
from trainer_image.errors import GpuFault, TrainerError

# Of the worker alone: where it stands, PYTHONPATH has it run in every process.
HANGING = textwrap.dedent(
    """
    import os, sys, time

    if "trainer_image.worker" in sys.orig_argv:
        from trainer_image.tasks.tabular.task import TabularProblem

        steps, loss = [], TabularProblem.loss

        def hang_in_the_fourth_step(self, model, batch):
            steps.append(1)
            if len(steps) == 4:
                time.sleep(3600)
            return loss(self, model, batch)

        TabularProblem.loss = hang_in_the_fourth_step
    """
)


def training(folder: Path, hanging: str, **environment: str) -> subprocess.Popen[str]:
    """A training whose worker runs `hanging` first, with HANG_SECONDS=1."""
    (folder / "config.yaml").write_text(TABULAR)
    (folder / "first").mkdir()
    (folder / "first" / "sitecustomize.py").write_text(hanging)
    return subprocess.Popen(
        [sys.executable, "-m", "trainer_image", "train", "--data", str(class_table(folder / "data")), "--device", "cpu",
         "--config", str(folder / "config.yaml"), "--out", str(folder / "out")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder / "first"), "HANG_SECONDS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_a_hang_ends_with_203_a_termination_message_and_every_stack(tmp_path: Path) -> None:
    with training(tmp_path, HANGING, TERMINATION_MESSAGE_PATH=str(tmp_path / "termination-message")) as process:
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 203, said[-2000:]
    words = json.loads((tmp_path / "termination-message").read_text())
    # HANG_SECONDS, or more on a machine so busy that the first steps took longer than usual.
    assert re.fullmatch(r"Training hangs: no step was finished for \d+ s after step 3", words["message"])
    assert (words["code"], words["retryable"], words["step"]) == ("GpuFault", True, 3)
    assert "hang_in_the_fourth_step" in said, "where it hung"


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set instead of the process's end."""
    event = threading.Event()
    monkeypatch.setattr("trainer_image.engine.watchdog.os._exit", lambda code: event.set())
    return event


def test_what_takes_long_on_purpose_is_no_hang(ended: threading.Event) -> None:
    dog = Watchdog(0.2, lambda error: None)
    with dog, dog.paused():
        assert not ended.wait(0.6)


def test_a_process_that_was_stopped_for_a_while_has_not_hung(tmp_path: Path) -> None:
    step = tmp_path / "step"
    noting = f"open({str(step) + '-'!r}, 'w').write(str(os.getpid())); os.rename({str(step) + '-'!r}, {str(step)!r})"
    with training(tmp_path, HANGING.replace("time.sleep(3600)", f"{noting}; time.sleep(0.5)")) as process:
        try:
            wait_until(step.exists, 60, what="the fourth step")
            both = [process.pid, int(step.read_text())]
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in both:
                    os.kill(pid, number)
                time.sleep(2.0 if number is signal.SIGSTOP else 0)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, said[-2000:]


def test_after_a_pause_it_watches_again(ended: threading.Event) -> None:
    told: list[TrainerError] = []
    dog = Watchdog(0.05, told.append)
    with dog:
        with dog.paused():
            pass
        assert ended.wait(10)
    assert isinstance(told[0], GpuFault)


def test_a_slow_training_gets_more_patience_and_a_zero_never_barks() -> None:
    now = [0.0]
    dog = Watchdog(3600.0, lambda error: None, clock=lambda: now[0])
    with dog:
        assert dog.limit == 3600.0
        for step in range(1, 4):
            now[0] += 50.0
            dog.beat(step)
        assert dog.limit == PATIENCE * 50.0
    before = threading.active_count()
    with Watchdog(0, lambda error: None):
        assert threading.active_count() == before
