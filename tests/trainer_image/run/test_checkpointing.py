"""Which checkpoints a training goes on with: of the same configuration, dataset and code, and no ended run's."""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path

import pytest

from portal_client.statuses import ProcessingStatus
from tests.trainer_image.run.local_runs import Finding, dying, save, start
from tests.world.trainer_fakes import FakeBackend, FakePortal, write_config
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.run import code
from trainer_image.storage.container import Disk, Full
from trainer_image.storage.local import LocalContainer
from trainer_image.storage.manifest import fingerprint
from trainer_image.transfer import lease
from trainer_image.transfer.checkpoint_store import STAY_SECONDS, ContainerCheckpoints

S = ProcessingStatus
SECOND, THIRD, FOURTH = (f"20261123t08150{number}-1a2b3c4d" for number in (1, 2, 3))


def trained(settings: Settings, during: Callable[[RunInputs], None], run_id: str | None = None) -> int:
    given = settings if run_id is None else replace(settings, run_id=run_id)
    return start(given, FakePortal(S.PROCESSING), during).exit_code


def stored(settings: Settings) -> set[str]:
    assert settings.out is not None
    return {blob.name for blob in LocalContainer(settings.out).list("checkpoints/")}


@pytest.fixture
def program(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a training by `python3 train.py`, in a folder where that lies beside a module of its own."""
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "train.py").write_text("import model\n")
    (folder / "model.py").write_text("WIDTH = 1\n")
    monkeypatch.chdir(folder)
    config = write_config(tmp_path, "task: command\ncommand: {argv: [python3, train.py, --lr, '0.1']}\n")
    return replace(settings, config=config, allow_command="on")


def test_an_unchanged_program_goes_on_from_the_checkpoint_of_another_run(program: Settings) -> None:
    found = Finding()
    assert trained(program, dying) == 143
    assert trained(program, found, SECOND) == 0
    assert (found.found, found.notes) == (["step-7"], [])


@pytest.mark.parametrize("file", ["train.py", "model.py"])
def test_a_program_that_was_fixed_trains_anew_and_says_what_has_changed(program: Settings, file: str) -> None:
    found = Finding()
    assert trained(program, dying) == 143
    Path(file).write_text("WIDTH = 2\n")
    assert trained(program, found, SECOND) == 0
    assert found.found == []
    assert found.notes == [f"There are checkpoints of other code ({file}): this training starts afresh."]


def writes_code(number: int) -> None:
    """What a program does that keeps a copy of itself for each run, and makes a module."""
    for name in (f"runs/{number}/train.py", "made/step.py", "__pycache__/train.pyc"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"RUN = {number}\n")


@pytest.mark.parametrize("most", [code.MOST_ENTRIES, 7], ids=["few files", "more than are looked at"])
def test_a_program_that_writes_sources_below_its_own_folder_goes_on_and_one_that_was_fixed_as_well_does_not(
    program: Settings, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    Path("lib").mkdir()
    Path("lib/loss.py").write_text("")
    monkeypatch.setattr(code, "MOST_ENTRIES", most)
    found, fixed = Finding(), Finding()

    def during(inputs: RunInputs, number: int = 1) -> None:
        writes_code(number)
        dying(inputs)

    assert trained(program, during) == 143

    def again(inputs: RunInputs) -> None:
        found(inputs)
        during(inputs, 2)

    assert trained(program, again, SECOND) == 143
    assert (found.found, found.notes) == (["step-7"], [])
    assert trained(program, again, THIRD) == 143
    assert (found.found, found.notes) == (["step-7"], [])
    Path("lib/loss.py").write_text("WIDTH = 2\n")
    assert trained(program, fixed, FOURTH) == 0
    assert fixed.found == []
    [said] = fixed.notes
    assert "lib/loss.py" in said


def test_a_training_that_was_published_leaves_no_checkpoint(settings: Settings) -> None:
    found = Finding()
    assert trained(settings, lambda inputs: save(inputs, 3)) == 0
    assert stored(settings) == set()
    assert trained(settings, found, SECOND) == 0
    assert (found.found, found.notes) == ([], []), "the same configuration once more is a training, not a copy"


def test_a_run_that_died_before_it_could_remove_its_checkpoints_is_not_published_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Finding()
    with monkeypatch.context() as dies:
        dies.setattr(ContainerCheckpoints, "done", lambda self: None)
        assert trained(settings, lambda inputs: save(inputs, 3)) == 0
    assert stored(settings)
    assert trained(settings, found, SECOND) == 0
    assert found.found == []


def test_checkpoints_of_other_keys_go_when_they_are_old_and_a_model_is_published(settings: Settings) -> None:
    assert settings.out is not None
    for key, age in (("old", STAY_SECONDS + 60), ("young", 60.0)):
        path = settings.out / "checkpoints" / key / "step-1" / "MANIFEST.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (time.time() - age,) * 2)
    assert trained(settings, lambda inputs: None) == 0
    assert stored(settings) == {"checkpoints/young/step-1/MANIFEST.json"}


@pytest.mark.parametrize("how", ["flag", "message"])
def test_who_asks_to_start_afresh_goes_on_from_no_earlier_run_but_from_its_own_attempt(
    settings: Settings, how: str
) -> None:
    asked = replace(settings, fresh=True) if how == "flag" else replace(settings, request={"fresh": True})
    first, second, third = Finding(), Finding(), Finding()
    assert trained(settings, dying) == 143

    def anew(inputs: RunInputs) -> None:
        first(inputs)
        dying(inputs)

    assert trained(asked, anew, SECOND) == 143
    assert first.found == []
    assert first.notes == [
        "The checkpoints of earlier runs were removed, as was asked for: this training starts afresh."
    ]

    def again(inputs: RunInputs) -> None:
        second(inputs)
        dying(inputs)

    assert trained(asked, again, SECOND) == 143
    assert (second.found, second.notes) == (["step-7"], []), "the Job's next pod"
    assert trained(settings, third, THIRD) == 0
    assert third.found == ["step-7"]


def test_a_training_started_beside_another_one_neither_stops_it_nor_goes_on_from_it(
    standalone: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "take", functools.partial(lease.take, wait_seconds=0.0))
    second = FakeBackend()
    ends = []

    def during(inputs: RunInputs) -> None:
        save(inputs, 7)
        ends.append(start(replace(standalone, run_id=SECOND), FakePortal(), backend=second))

    assert start(standalone, FakePortal(), during).exit_code == 0
    assert (ends[0].exit_code, second.inputs) == (204, [])
    assert f"Another training of this model is under way (run {standalone.run_id})" in ends[0].sentence


def test_a_training_that_waited_for_another_one_does_not_publish_the_same_again(standalone: Settings) -> None:
    second, ends = FakeBackend(), []

    def wait() -> None:
        ends.append(start(replace(standalone, run_id=SECOND), FakePortal(), backend=second))

    waiting = threading.Thread(target=wait)

    def during(inputs: RunInputs) -> None:
        save(inputs, 7)
        waiting.start()
        assert standalone.work_dir is not None
        place = standalone.work_dir / f"run-{SECOND}"
        assert any(place.exists() or inputs.stop.wait(0.01) for _ in range(1000))
        inputs.stop.wait(0.3)  # it has asked for the lease by now, or finds the model published without a wait

    assert start(standalone, FakePortal(), during).exit_code == 0
    waiting.join()
    assert (ends[0].exit_code, second.inputs) == (204, [])
    assert f"(run {standalone.run_id}) has published" in ends[0].sentence
    assert standalone.out is not None
    assert json.loads((standalone.out / "latest.json").read_text())["run_id"] == standalone.run_id


class SmallDisk:
    """A disk of so many bytes for every LocalContainer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        upload = LocalContainer.upload

        def free(container: LocalContainer) -> int:
            return size - sum(path.stat().st_size for path in container.root.rglob("*") if path.is_file())

        def checked(self: LocalContainer, name: str, content: BufferedIOBase, etag: str | None = "*") -> str:
            length = content.seek(0, os.SEEK_END)
            there = self.root / name
            if length > free(self) + (there.stat().st_size if there.exists() else 0):
                raise Full("its disk is full")
            return upload(self, name, content, etag)

        monkeypatch.setattr(LocalContainer, "upload", checked)
        monkeypatch.setattr(LocalContainer, "disk", lambda self: Disk(self.root.stat().st_dev, free(self)))


def large(inputs: RunInputs, step: int, size: int = 30_000) -> None:
    (inputs.output.parent / "checkpoint-x" / f"step-{step}").mkdir(parents=True)
    (inputs.output.parent / "checkpoint-x" / f"step-{step}" / "tensors").write_bytes(bytes(size))
    folder = inputs.output.parent / "checkpoint-x" / f"step-{step}"
    (folder / "MANIFEST.json").write_text(json.dumps({"files": {"tensors": fingerprint(folder / "tensors")}}))
    assert inputs.checkpoints is not None
    inputs.checkpoints.keep(folder)


def test_on_a_full_disk_older_checkpoints_make_room_for_a_newer_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    SmallDisk(monkeypatch, 80_000)
    found = Finding()

    def during(inputs: RunInputs) -> None:
        for step in (1, 2, 3):
            large(inputs, step)
        found(inputs)

    assert trained(settings, during) == 0
    assert found.found == ["step-3", "step-2"], "step-1 went before step-3 came"


def test_on_a_full_disk_the_last_checkpoint_goes_where_the_model_fits_then(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    SmallDisk(monkeypatch, 80_000)

    def during(inputs: RunInputs) -> None:
        large(inputs, 1)
        large(inputs, 2)
        (inputs.output / "weights").write_bytes(bytes(60_000))

    assert trained(settings, during) == 0
    assert settings.out is not None
    assert (settings.out / "runs" / settings.run_id / "weights").stat().st_size == 60_000
    assert stored(settings) == set()


def test_a_model_that_does_not_fit_at_all_leaves_the_checkpoint_to_go_on_from(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Finding()

    def during(inputs: RunInputs) -> None:
        large(inputs, 1)
        large(inputs, 2)
        (inputs.output / "weights").write_bytes(bytes(90_000))

    with monkeypatch.context() as full:
        SmallDisk(full, 80_000)
        outcome = start(settings, FakePortal(S.PROCESSING), during)
    assert (outcome.exit_code, outcome.code) == (82, "LimitExceeded")
    assert outcome.sentence.startswith("Failed to upload model to container: ")
    assert "its disk is full" in outcome.sentence
    assert settings.out is not None
    assert not (settings.out / "runs" / settings.run_id / "weights").exists(), "half a model takes no room"
    assert trained(settings, found) == 0
    assert found.found == ["step-2"]
