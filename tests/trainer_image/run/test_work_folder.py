"""A run's folder on the pod's disk: its own, and gone when the run has ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from portal_client.statuses import ProcessingStatus
from tests.trainer_image.run.local_runs import RUN, start
from tests.world.trainer_fakes import FakePortal
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.run.outcome import Outcome

S = ProcessingStatus


def test_the_work_folder_is_emptied(settings: Settings) -> None:
    start(settings, FakePortal(S.PROCESSING))
    assert settings.work_dir is not None
    assert list(settings.work_dir.iterdir()) == []


def test_a_run_that_is_started_twice_leaves_the_first_its_work_folder(settings: Settings, tmp_path: Path) -> None:
    ended: list[Outcome] = []

    def second(inputs: RunInputs) -> None:
        ended.append(start(replace(settings, termination_path=tmp_path / "second"), FakePortal(S.PROCESSING)))

    assert start(settings, FakePortal(S.PROCESSING), second).exit_code == 0
    assert (ended[0].exit_code, ended[0].code) == (204, "Fenced")
    assert ended[0].sentence == f"Another process trains run {RUN} in the work folder {settings.work_dir}"


def test_what_a_killed_attempt_left_in_the_work_folder_is_removed(settings: Settings) -> None:
    assert settings.work_dir is not None
    left = settings.work_dir / f"run-{RUN}" / "output"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    (left.parent / "loose").write_text("x")
    assert start(settings, FakePortal(S.PROCESSING)).exit_code == 0


def test_a_work_folder_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = start(replace(settings, work_dir=tmp_path / "file"), FakePortal(S.PROCESSING))
    assert outcome.exit_code == 64
    assert "WORK_DIR" in outcome.sentence
