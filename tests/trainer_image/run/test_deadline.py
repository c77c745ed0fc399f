"""SIGTERM in phases that do not look at it: the end comes within the grace period, in words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from local_stack.processes import wait_until
from tests.world.repository import ROOT

TRAINING = textwrap.dedent(
    """
    import os, sys, threading
    from pathlib import Path
    from portal_client.statuses import ProcessingStatus
    from tests.world.trainer_fakes import FakeBackend, FakePortal, write_config, write_dataset
    from trainer_image.config.settings import Settings
    from trainer_image.run import lifecycle
    from trainer_image.run.signals import stops_on_signals
    from trainer_image.stop import Stop
    from trainer_image.transfer import lease

    folder, hangs, dispatched = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "dispatched"

    waiting, let_go = threading.Event(), threading.Event()

    def hang(*_):
        (folder / "hangs").touch()
        let_go.wait(3600)

    if hangs == "clean-up":
        lease.RunLease.release = hang
    speak = lifecycle.write_termination

    def said(path, words):
        speak(path, words)
        if let_go.is_set():
            waiting.set()

    lifecycle.write_termination = said

    class Portal(FakePortal):
        def update_model_status(self, model_id, status, message):
            if hangs == "report":
                hang()
            super().update_model_status(model_id, status, message)
            if hangs == "until it is too late" and status is ProcessingStatus.FAILED:
                let_go.set()
                waiting.wait(0.5)
            (folder / "portal").write_text(self.status.title)

    portal = Portal(ProcessingStatus.PROCESSING if dispatched else ProcessingStatus.CREATED)
    backend = FakeBackend(hang if hangs in ("training", "until it is too late") else lambda inputs: None)
    settings = Settings(
        run_id="run", dispatched=dispatched, tracking=True, model_container="model-123", device="cpu",
        api_base_url="https://portal.example.com", api_key="key-of-the-portal", grace_seconds=1.0,
        termination_path=folder / "termination-message", data=write_dataset(folder), config=write_config(folder),
        out=folder / "out",
    )
    stop = Stop()
    with stops_on_signals(stop):
        outcome = lifecycle.run(settings, stop, backend=lambda: backend, connect=lambda settings: portal)
    os._exit(outcome.exit_code)
    """
)


def stopped(folder: Path, *what: str) -> tuple[int, dict[str, Any]]:
    """(exit code, termination message) of a training that gets SIGTERM while it hangs."""
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(folder), *what], cwd=ROOT)
    try:
        wait_until((folder / "hangs").exists, 60, what="the training to hang")
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    finally:
        process.kill()
    return code, json.loads((folder / "termination-message").read_text())


def test_what_hangs_when_the_pod_is_stopped_ends_as_terminated_and_not_as_killed(tmp_path: Path) -> None:
    code, words = stopped(tmp_path, "training", "dispatched")
    assert (code, words["code"], words["retryable"]) == (143, "Terminated", True)
    assert words["message"].startswith("Stopped on request; the training did not end within 1 s")
    assert not (tmp_path / "portal").exists()


def test_what_hangs_on_a_laptop_is_told_to_the_portal(tmp_path: Path) -> None:
    assert stopped(tmp_path, "training", "standalone")[0] == 143
    assert (tmp_path / "portal").read_text() == "Failed"


def test_a_model_that_is_published_stays_completed_when_the_portal_hangs_at_a_stop(tmp_path: Path) -> None:
    code, words = stopped(tmp_path, "report", "dispatched")
    assert (code, words["code"]) == (0, "Completed")


@pytest.mark.parametrize("how", ["dispatched", "standalone"])
def test_a_model_that_is_published_is_completed_also_when_the_clean_up_hangs(how: str, tmp_path: Path) -> None:
    code, words = stopped(tmp_path, "clean-up", how)
    assert (code, words["code"]) == (0, "Completed")
    assert (tmp_path / "portal").exists() == (how == "standalone")
    assert how == "dispatched" or (tmp_path / "portal").read_text() == "Completed"


def test_a_training_that_comes_through_while_it_is_ended_takes_no_word_back(tmp_path: Path) -> None:
    code, words = stopped(tmp_path, "until it is too late", "standalone")
    assert (code, words["code"], (tmp_path / "portal").read_text()) == (143, "Terminated", "Failed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_training_has_begun_ends_it_without_a_traceback(number: int, tmp_path: Path) -> None:
    # The last thing that is imported holds the process there: an import of ours that waits.
    (tmp_path / "click.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(3600)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer_image"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, said) == (128 + number, "")
