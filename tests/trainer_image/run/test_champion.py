"""What becomes of a new model beside the published one, and of the published one where it is lost."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from portal_client.errors import PortalUnavailable
from portal_client.messages import COMPLETED
from portal_client.statuses import ProcessingStatus
from tests.trainer_image.run.local_runs import RUN, start, termination
from tests.world.trainer_fakes import FakeBackend, FakePortal, write_config
from trainer_image.config.settings import Settings
from trainer_image.contract import Beside, RunInputs
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer import runs

S = ProcessingStatus
SECOND, THIRD = "20261124t000000-1a2b3c4d", "20261125t000000-1a2b3c4d"
WORSE = Beside(False, f"NOT BETTER THAN THE PUBLISHED MODEL (run {RUN}): test accuracy 0.8 against 0.9.")
IF_BETTER = "task: tabular\ndata: {target: b}\npublish: if_better\n"


def latest(settings: Settings) -> str:
    assert settings.out is not None
    return str(json.loads((settings.out / "latest.json").read_text())["run_id"])


def second(settings: Settings, tmp_path: Path, config: str = IF_BETTER) -> Settings:
    return replace(settings, run_id=SECOND, config=write_config(tmp_path, config))


def test_a_model_that_is_not_better_is_stored_and_completed_and_the_published_one_stays(
    settings: Settings, tmp_path: Path
) -> None:
    start(settings, FakePortal(S.PROCESSING))
    given, portal = second(settings, tmp_path), FakePortal(S.PROCESSING)
    outcome = start(given, portal, backend=FakeBackend(beside=WORSE))
    sentence = f"{COMPLETED}; the model is stored and not published: {WORSE.sentence}"
    assert (outcome.exit_code, outcome.code, outcome.sentence) == (0, "Completed", sentence)
    assert portal.puts == [("Completed", sentence)]
    assert termination(given)["message"] == sentence
    assert latest(settings) == RUN
    assert settings.out is not None
    assert {"MANIFEST.json", "model.json", "unpublished.json"} <= {
        path.name for path in (settings.out / "runs" / SECOND).iterdir()
    }
    again = FakeBackend(beside=WORSE)
    assert start(given, FakePortal(S.PROCESSING), backend=again).sentence == sentence
    assert again.inputs == [], "the Job's next pod finds that it has ended"


def test_a_pod_that_published_and_died_unseen_does_not_have_its_jobs_next_one_undo_a_rollback(
    settings: Settings, tmp_path: Path
) -> None:
    assert settings.out is not None
    given = second(settings, tmp_path)
    for each in (settings, given):
        assert start(each, FakePortal(S.PROCESSING)).exit_code == 0
    runs.roll_back(LocalContainer(settings.out), RUN)
    moment = (settings.out / "runs" / SECOND / "MANIFEST.json").stat().st_mtime
    os.utime(settings.out / "latest.json", (moment, moment))  # as in a storage that tells whole seconds
    again, portal = FakeBackend(), FakePortal(S.PROCESSING)
    outcome = start(given, portal, backend=again)
    stored = f"{COMPLETED}; the model is stored and not published: run {RUN} has been published since"
    assert (outcome.exit_code, portal.puts) == (0, [("Completed", stored)])
    assert (again.inputs, latest(settings)) == ([], RUN)


def test_a_held_back_model_that_the_portal_was_not_told_of_is_not_called_published(
    standalone: Settings, tmp_path: Path
) -> None:
    start(standalone, FakePortal())
    portal, given = FakePortal(), second(standalone, tmp_path)

    def during(inputs: RunInputs) -> None:
        portal.down = PortalUnavailable("The portal does not answer")

    outcome = start(given, portal, backend=FakeBackend(during, beside=WORSE))
    assert outcome.exit_code == 202
    assert outcome.sentence.startswith("The model is stored and not published, and the portal was not told")
    portal.down = None
    start(given, portal)
    assert portal.puts[-1] == ("Completed", f"{COMPLETED}; the model is stored and not published: {WORSE.sentence}")


@pytest.mark.parametrize(
    ("config", "beside"),
    [
        (IF_BETTER, Beside(True, "Better than the published model.")),
        (IF_BETTER, Beside(None, "The published model was not tested beside this one.")),
        (IF_BETTER, None),
        (IF_BETTER.replace("if_better", "always"), WORSE),
        (IF_BETTER.replace("publish: if_better\n", ""), WORSE),
    ],
    ids=["better", "not comparable", "no word", "always", "by default"],
)
def test_every_other_model_takes_the_place_of_the_published_one(
    settings: Settings, tmp_path: Path, config: str, beside: Beside | None
) -> None:
    start(settings, FakePortal(S.PROCESSING))
    outcome = start(second(settings, tmp_path, config), FakePortal(S.PROCESSING), backend=FakeBackend(beside=beside))
    assert (outcome.sentence, latest(settings)) == (COMPLETED, SECOND)


@pytest.mark.parametrize("damaged", [None, b"{"], ids=["gone", "damaged"])
def test_a_model_that_is_not_better_leaves_readers_the_one_that_was_taken_for_the_published_one(
    settings: Settings, tmp_path: Path, damaged: bytes | None
) -> None:
    assert settings.out is not None
    start(settings, FakePortal(S.PROCESSING))
    pointer = settings.out / "latest.json"
    before = pointer.read_bytes()
    pointer.unlink() if damaged is None else pointer.write_bytes(damaged)
    given = second(settings, tmp_path)
    assert start(given, FakePortal(S.PROCESSING), backend=FakeBackend(beside=WORSE)).exit_code == 0
    assert pointer.read_bytes() == before, "without it nobody finds a model at all"


def champions(inputs: RunInputs) -> tuple[str, list[str]] | None:
    if inputs.champion is None:
        return None
    return inputs.champion.run_id, sorted(path.name for path in inputs.champion.folder.iterdir())


def test_the_published_model_is_there_for_the_test_and_nothing_else_of_its_run(settings: Settings) -> None:
    seen: list[object] = []
    start(settings, FakePortal(S.PROCESSING), lambda inputs: seen.append(champions(inputs)))
    start(replace(settings, run_id=SECOND), FakePortal(S.PROCESSING), lambda inputs: seen.append(champions(inputs)))
    assert seen == [None, (RUN, ["model.json", "model.safetensors"])]


def test_without_latest_json_the_run_that_ended_last_is_the_published_model_and_that_is_said(
    settings: Settings, tmp_path: Path
) -> None:
    assert settings.out is not None
    start(settings, FakePortal(S.PROCESSING))
    (settings.out / "latest.json").unlink()
    warm = second(settings, tmp_path, "task: tabular\ndata: {target: b}\ninit: {from: latest}\n")
    backend = FakeBackend()
    assert start(warm, FakePortal(S.PROCESSING), backend=backend).exit_code == 0
    [inputs] = backend.inputs
    assert inputs.champion is not None
    assert (inputs.champion.run_id, inputs.initial is not None) == (RUN, True)
    assert inputs.notes == (
        f"There is no latest.json, but one whole run lies in {settings.out}: run {RUN}, which ended last, is taken for"
        " the published model.",
    )
    assert latest(settings) == SECOND


def test_a_damaged_published_model_is_said_and_the_training_goes_on(settings: Settings) -> None:
    assert settings.out is not None
    start(settings, FakePortal(S.PROCESSING))
    (settings.out / "runs" / RUN / "model.safetensors").write_bytes(b"harmed!")
    backend = FakeBackend()
    assert start(replace(settings, run_id=SECOND), FakePortal(S.PROCESSING), backend=backend).exit_code == 0
    [inputs] = backend.inputs
    assert inputs.champion is None
    assert inputs.notes[0].startswith(f"The published model (run {RUN}) was not tested beside this one (model.safetens")
    assert latest(settings) == SECOND


def test_a_warm_start_from_a_named_run_begins_with_that_one(settings: Settings, tmp_path: Path) -> None:
    def marked(word: str) -> FakeBackend:
        return FakeBackend(lambda inputs: (inputs.output / "word").write_text(word) and None)

    for run_id in (RUN, SECOND):
        start(replace(settings, run_id=run_id), FakePortal(S.PROCESSING), backend=marked(run_id))
    named = second(settings, tmp_path, f"task: tabular\ndata: {{target: b}}\ninit: {{from: {RUN}}}\n")
    began: list[tuple[str, str]] = []

    def during(inputs: RunInputs) -> None:
        assert inputs.initial is not None
        assert inputs.champion is not None
        began.append(((inputs.initial / "word").read_text(), inputs.champion.run_id))

    assert start(replace(named, run_id=THIRD), FakePortal(S.PROCESSING), during).exit_code == 0
    assert began == [(RUN, SECOND)]


def test_a_warm_start_from_a_run_that_is_not_there_names_those_that_are(settings: Settings, tmp_path: Path) -> None:
    start(settings, FakePortal(S.PROCESSING))
    missing = second(settings, tmp_path, f"task: tabular\ndata: {{target: b}}\ninit: {{from: {THIRD}}}\n")
    outcome = start(missing, FakePortal(S.PROCESSING))
    assert (outcome.exit_code, outcome.code) == (78, "ConfigInvalid")
    assert f"there is no whole run {THIRD}; there are {RUN}" in outcome.sentence


def test_a_program_has_no_published_model_to_be_tested_beside(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(settings, FakePortal(S.PROCESSING))
    LocalContainer(settings.out).delete("latest.json")  # type: ignore[arg-type]
    program = second(settings, tmp_path, "task: command\ncommand: {argv: [python3, -c, pass]}\n")
    backend = FakeBackend()
    outcome = start(replace(program, allow_command="on"), FakePortal(S.PROCESSING), backend=backend)
    assert (outcome.exit_code, backend.inputs[0].champion, backend.inputs[0].notes) == (0, None, ())
