"""Two versions work on the same objects: the one that was released before, and this one, in both directions."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from local_stack.processes import Service, bare_environment, free_port
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage
from tests.world.repository import ROOT

# The version before this one; with each release the one that it replaces.
BEFORE = "a2484c89073af6947763add68bbbbe1bbd1808b5"
PARTS = ("dispatcher", "portal_client", "training_common")

WAITS = r"""
while [ ! -e "$GO_ON" ]; do sleep 0.05; done
printf '{"message":"Model training completed successfully","code":"Completed","exit":0}' > "$TERMINATION_MESSAGE_PATH"
"""

Start = Callable[[], Service]


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the version before, to be put in front of ours by PYTHONPATH."""
    archive = subprocess.run(["git", "archive", BEFORE, *PARTS], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the commit {BEFORE[:12]} of the version before is not here, as in a shallow clone")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    found = subprocess.run(
        [sys.executable, "-c", "import dispatcher; print(dispatcher.__file__)"],
        env=bare_environment() | {"PYTHONPATH": str(folder)},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(folder)), "else this version would be tried beside itself"
    return folder


@pytest.fixture
def waiting(stage: Stage) -> Stage:
    """A stage whose trainings wait for the file go_on."""
    container = stage.template["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["sh", "-c", WAITS]
    container["env"] = [{"name": "GO_ON", "value": str(stage.folder / "go_on")}]
    return stage


def starts(stage: Stage, before: Path, order: str) -> list[Start]:
    """How to start each version, in this order of "before" and "now"."""
    versions: list[Start] = [partial(stage.start, PYTHONPATH=str(before)), stage.start]
    return versions if order == "before, now" else versions[::-1]


def told(stage: Stage, model: str) -> list[str]:
    return [entry.status for entry in stage.portal.model(model).history]


@pytest.mark.parametrize("order", ["before, now", "now, before"])
def test_what_one_version_launched_the_other_reports(waiting: Stage, before: Path, order: str) -> None:
    first, second = starts(waiting, before, order)
    running = first()
    model = waiting.submit("any")
    waiting.wait(lambda: waiting.running(model))
    assert running.stop() == 0
    second()
    (waiting.folder / "go_on").touch()
    waiting.wait_status(model, "Completed")
    waiting.wait(lambda: objects.is_reported(waiting.job(model) or {}))
    assert told(waiting, model) == ["Created", "Processing", "Completed"]
    assert len(waiting.pods(model)) == 1


@pytest.mark.parametrize("order", ["before, now", "now, before"])
def test_what_one_version_launched_by_half_the_other_launches(waiting: Stage, before: Path, order: str) -> None:
    (waiting.folder / "go_on").touch()
    waiting.settings["VISIBILITY_TIMEOUT_SECONDS"] = "10"
    first, second = starts(waiting, before, order)
    running = first()
    waiting.portal.add_fault("hang", method="PUT", count=None)
    model = waiting.submit("any")
    waiting.wait(lambda: waiting.job(model))
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    waiting.portal.clear_faults()
    second()
    waiting.wait_status(model, "Completed", 60)
    waiting.wait(waiting.drained, 60)
    assert told(waiting, model).count("Completed") == 1
    assert len(waiting.pods(model)) == 1


def test_two_versions_at_once_train_each_model_once(waiting: Stage, before: Path) -> None:
    """As during each rollout."""
    (waiting.folder / "go_on").touch()
    waiting.start(PYTHONPATH=str(before))
    waiting.start(HEALTH_PORT=str(free_port()))
    models = [waiting.submit("any") for _ in range(12)]
    for model in models:
        waiting.wait_status(model, "Completed", 60)
    waiting.wait(waiting.drained, 60)
    assert [told(waiting, model) for model in models] == [["Created", "Processing", "Completed"]] * 12
    assert [len(waiting.pods(model)) for model in models] == [1] * 12
    assert waiting.poison() == []
