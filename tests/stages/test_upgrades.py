"""The version that landed last and this one, side by side on the same queue and the same Jobs, both ways."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from dispatcher.cluster import names
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage
from tests.world.repository import ROOT

# The commit that this version upgrades; to be raised when a version lands.
LANDED = "a2484c89073af6947763add68bbbbe1bbd1808b5"
_PACKAGES = ("dispatcher", "portal_client", "training_common")


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with that version's packages, for PYTHONPATH."""
    argv = ["git", "-C", str(ROOT), "archive", LANDED, *_PACKAGES]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    except OSError as error:
        pytest.skip(f"git cannot be run: {error}")
    if done.returncode:
        pytest.skip(f"the history has no commit {LANDED[:7]} (a shallow copy?): {done.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("landed")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    said = subprocess.run(
        [sys.executable, "-c", "import dispatcher.app; print(dispatcher.app.__file__)"],
        env={"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert Path(said.stdout.strip()).is_relative_to(folder), "else this version would be compared with itself"
    return str(folder)


@pytest.mark.parametrize("upgrade", [True, False], ids=["upgrade", "roll-back"])
def test_what_one_version_has_launched_the_other_goes_on_with_and_both_work_side_by_side(
    stage: Stage, landed: str, upgrade: bool
) -> None:
    versions: list[dict[str, str]] = [{"PYTHONPATH": landed}, {}]
    before, after = versions if upgrade else versions[::-1]
    first = stage.start(**before)
    runs = stage.submit("runs")
    stage.wait(lambda: stage.running(runs))
    uid = objects.uid_of(stage.job(runs) or {})

    stage.start(**after)
    together = [stage.submit(kind) for kind in ("done", "invalid", "done", "invalid")]
    for model in together:
        stage.wait_status(model, "Failed" if model.startswith("invalid") else "Completed")
        assert [entry.status for entry in stage.portal.model(model).history].count("Processing") == 1

    first.stop()
    # The message once more: the other version knows whose Job it is, and trains nothing twice.
    stage.send(runs)
    stage.wait(stage.drained)
    assert objects.uid_of(stage.job(runs) or {}) == uid
    assert stage.cli("cancel", runs)[0] == 0
    stage.wait_status(runs, "Failed")
    stage.wait(lambda: objects.annotation(stage.job(runs) or {}, names.REPORTED))
    assert "cancelled by the operator" in stage.message(runs)
    again = stage.submit("done")
    stage.wait_status(again, "Completed")
    for number in range(2):
        assert "Traceback" not in stage.log(number)


@pytest.mark.parametrize("upgrade", [True, False], ids=["upgrade", "roll-back"])
def test_what_one_version_launched_by_half_the_other_launches(stage: Stage, landed: str, upgrade: bool) -> None:
    stage.settings["VISIBILITY_TIMEOUT_SECONDS"] = "10"
    versions: list[dict[str, str]] = [{"PYTHONPATH": landed}, {}]
    before, after = versions if upgrade else versions[::-1]
    first = stage.start(**before)
    stage.portal.add_fault("hang", method="PUT", count=None)
    model = stage.submit("done")
    stage.wait(lambda: stage.job(model))
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    stage.portal.clear_faults()
    stage.start(**after)
    stage.wait_status(model, "Completed", 60)
    stage.wait(stage.drained, 60)
    assert [entry.status for entry in stage.portal.model(model).history].count("Completed") == 1
    assert len(stage.pods(model)) == 1
