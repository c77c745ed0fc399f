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

HANGING = textwrap.dedent(
    """
    import time
    from trainer_image import cli
    from trainer_image.tasks.tabular.task import TabularProblem

    steps, loss = [], TabularProblem.loss

    def hang_in_the_fourth_step(self, model, batch):
        steps.append(1)
        if len(steps) == 4:
            time.sleep(3600)
        return loss(self, model, batch)

    TabularProblem.loss = hang_in_the_fourth_step
    cli.main()
    """
)


def test_a_hang_ends_with_203_a_termination_message_and_every_stack(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(TABULAR)
    done = subprocess.run(
        [sys.executable, "-c", HANGING, "train", "--data", str(class_table(tmp_path / "data")), "--device", "cpu",
         "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "HANG_SECONDS": "1", "TERMINATION_MESSAGE_PATH": str(tmp_path / "termination-message")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 203, done.stderr[-2000:]
    words = json.loads((tmp_path / "termination-message").read_text())
    # HANG_SECONDS, or more on a machine so busy that the first steps took longer than usual.
    assert re.fullmatch(r"Training hangs: no step was finished for \d+ s after step 3", words["message"])
    assert (words["code"], words["retryable"], words["step"]) == ("GpuFault", True, 3)
    assert "hang_in_the_fourth_step" in done.stderr, "where it hung"


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
    (tmp_path / "config.yaml").write_text(TABULAR)
    step = tmp_path / "step"
    sleeping = HANGING.replace("time.sleep(3600)", f"open({str(step)!r}, 'w').close(); time.sleep(0.5)")
    training = subprocess.Popen(
        [sys.executable, "-c", sleeping, "train", "--data", str(class_table(tmp_path / "data")), "--device", "cpu",
         "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "HANG_SECONDS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        wait_until(step.exists, 60, what="the fourth step")
        training.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        training.send_signal(signal.SIGCONT)
        _, said = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 0, said[-2000:]


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
