"""A training by the command line whose worker dies or stands still: exit code, last words, and nothing left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local_stack.processes import wait_until
from tests.world.processes import alive, children
from tests.world.repository import ROOT
from tests.world.trainer_fakes import write_dataset

PROGRAM = "import os, time; open('{started}', 'w').write(str(os.getpid())); time.sleep(600)"


@pytest.fixture
def trainer(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A training whose program runs."""
    write_dataset(tmp_path)
    argv = [sys.executable, "-c", PROGRAM.format(started=tmp_path / "started")]
    (tmp_path / "config.yaml").write_text(json.dumps({"task": "command", "command": {"argv": argv}}))
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer_image", "train", "--data=data", "--config=config.yaml", "--out=out"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "ALLOW_COMMAND": "on",
            "GRACE_SECONDS": "2",
            "TERMINATION_MESSAGE_PATH": str(tmp_path / "words"),
        },
    )
    wait_until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text(), 60)
    return process


def words(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "words").read_text())
    return read


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_is_told_and_its_program_ends(
    trainer: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals
) -> None:
    (worker,) = children(trainer.pid)
    os.kill(worker, number)
    assert trainer.wait(60) == 203
    said = words(tmp_path)
    assert (said["code"], said["retryable"]) == ("GpuFault", True)
    assert said["message"].startswith(f"The process of the training was ended by {number.name}")
    assert "it was at: Running " in said["message"]
    wait_until(lambda: not alive(int((tmp_path / "started").read_text())))


def test_a_stop_is_obeyed_beside_a_worker_that_stands_still(trainer: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (worker,) = children(trainer.pid)
    os.kill(worker, signal.SIGSTOP)
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(60) == 143
    assert words(tmp_path)["message"].startswith("Stopped on request; the training did not end within 2 s")
    wait_until(lambda: not alive(worker))
    wait_until(lambda: not alive(int((tmp_path / "started").read_text())))
