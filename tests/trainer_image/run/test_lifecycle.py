"""One run with a backend that trains nothing: exit codes, reports, termination message, what is published."""

from __future__ import annotations

import errno
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portal_client import messages
from portal_client.errors import ModelUnknown, PortalUnavailable
from portal_client.messages import COMPLETED
from portal_client.statuses import ProcessingStatus
from tests.trainer_image.run.local_runs import RUN, raising, start, termination, write_metrics
from tests.world.trainer_fakes import FakeBackend, FakePortal, write_config
from trainer_image import errors
from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.host import memory
from trainer_image.limits import Limits
from trainer_image.stop import Stop
from trainer_image.storage.container import AccessDenied, Full, StorageFault, Unavailable
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer import lease
from trainer_image.transfer.download import DatasetLock
from trainer_image.transfer.sources import Dataset

S = ProcessingStatus


def plugin_failure(error: Exception) -> errors.UserCodeFailed:
    """As `plugins.blames` raises it."""
    failed = errors.UserCodeFailed(f"The task shop:Prices failed: {error}")
    failed.__cause__ = error
    return failed


def test_a_training_ends_published_reported_and_in_the_termination_message(settings: Settings) -> None:
    portal = FakePortal(S.PROCESSING)
    outcome = start(settings, portal)
    assert (outcome.exit_code, outcome.location) == (0, f"{settings.out}/runs/{RUN}")
    assert portal.puts == [("Completed", COMPLETED)]
    word = termination(settings)
    assert word.pop("seconds").keys() == {"download", "training", "upload"}
    assert word == {
        "message": COMPLETED, "code": "Completed", "exit": 0, "retryable": False, "run_id": RUN, "step": 2,
        "metrics": {"accuracy": 0.9},
    }  # fmt: skip
    assert settings.out is not None
    folder = settings.out / "runs" / RUN
    assert json.loads((settings.out / "latest.json").read_text())["run_id"] == RUN
    assert set(json.loads((folder / "MANIFEST.json").read_text())) == {
        "model.safetensors", "model.json", "config.resolved.yaml", "dataset.lock.json", "environment.json",
    }  # fmt: skip
    assert json.loads((folder / "dataset.lock.json").read_text())["blobs"][0]["name"] == "train.csv"


def test_the_standalone_flow_is_the_document_s(standalone: Settings) -> None:
    portal = FakePortal(S.CREATED)
    assert start(standalone, portal).exit_code == 0
    assert portal.puts == [("Processing", "Model training started"), ("Completed", COMPLETED)]
    assert portal.calls[:2] == ["GET", "PUT Processing"]


PERMANENT = [
    errors.DatasetInvalid("Invalid dataset: train.csv: no rows"),
    errors.UserCodeFailed("The task's code raised KeyError"),
    errors.TrainingDiverged("Training diverged at step 7", step=7),
    errors.GpuOutOfMemory("Out of GPU memory at batch size 1"),
    errors.LimitExceeded("An image has too many pixels"),
]
RETRYABLE = [
    errors.Terminated("Stopped", step=3),
    errors.StorageUnavailable("Failed to read checkpoints"),
    errors.UploadFailed("Failed to upload model to container: model-123"),
    errors.GpuFault("No GPU"),
]


@pytest.mark.parametrize("error", PERMANENT + RETRYABLE, ids=lambda error: type(error).__name__)
def test_a_dispatched_trainer_reports_what_no_retry_can_mend(settings: Settings, error: errors.TrainerError) -> None:
    portal = FakePortal(S.PROCESSING)
    outcome = start(settings, portal, raising(error))
    assert (outcome.exit_code, outcome.code) == (error.exit_code, error.code)
    assert portal.puts == ([] if error.retryable else [("Failed", messages.failed(error.sentence))])
    words = termination(settings)
    assert (words["message"], words["code"], words["exit"]) == (error.sentence, error.code, error.exit_code)
    assert words["retryable"] is error.retryable
    assert words["step"] == (error.step or 1)


@pytest.mark.parametrize("error", PERMANENT + RETRYABLE, ids=lambda error: type(error).__name__)
def test_a_standalone_trainer_reports_every_failure(standalone: Settings, error: errors.TrainerError) -> None:
    portal = FakePortal()
    assert start(standalone, portal, raising(error)).exit_code == error.exit_code
    assert portal.puts[-1] == ("Failed", error.sentence)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "report.html"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        plugin_failure(OSError(errno.ENOSPC, "No space left on device")),
    ],
    ids=["full", "too large", "in words", "in a plug-in"],
)
def test_a_full_disk_is_a_limit_that_the_operator_can_raise_and_no_defect(settings: Settings, error: Exception) -> None:
    outcome = start(settings, FakePortal(S.PROCESSING), raising(error))
    assert (outcome.exit_code, outcome.code) == (82, "LimitExceeded")
    assert "disk" in outcome.sentence
    assert "ephemeral-storage" in outcome.sentence


def a_cgroup(folder: Path, kills: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "memory.events").write_text(f"low 0\nhigh 0\nmax 7\noom 1\noom_kill {kills}\noom_group_kill 0\n")
    (folder / "memory.max").write_text("17179869184\n")
    return folder


@pytest.mark.parametrize(
    ("error", "kills", "code"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), 1, "OutOfMemory"),
        (OSError("Broken pipe"), 1, "OutOfMemory"),
        (MemoryError(), 0, "OutOfMemory"),
        (OSError("Broken pipe"), 0, "InternalError"),
    ],
    ids=["a loader", "whatever broke", "no memory", "something else"],
)
def test_a_child_that_was_killed_for_memory_is_told_as_memory(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, kills: int, code: str
) -> None:
    cgroup = a_cgroup(tmp_path / "cgroup", 0)
    monkeypatch.setattr(memory.kills, "__defaults__", (cgroup,))
    monkeypatch.setattr(memory.out_of_memory, "__defaults__", (cgroup,))

    def during(inputs: RunInputs) -> None:
        a_cgroup(cgroup, kills)
        raise error

    portal = FakePortal(S.PROCESSING)
    outcome = start(settings, portal, during)
    assert (outcome.code, outcome.exit_code) == (code, 137 if code == "OutOfMemory" else 70)
    if code == "OutOfMemory":
        assert "memory limit of 16384 MiB" in outcome.sentence
        assert termination(settings)["code"] == "OutOfMemory"
        assert portal.puts == [], "it is tried again; the dispatcher has the last word"


def test_an_uncaught_exception_is_one_sentence_and_exit_70(settings: Settings) -> None:
    portal = FakePortal(S.PROCESSING)
    outcome = start(settings, portal, raising(KeyError("column\nx")))
    assert (outcome.exit_code, outcome.code) == (70, "InternalError")
    assert portal.puts == [("Failed", messages.failed(outcome.sentence))]
    assert "KeyError" in outcome.sentence
    assert "\n" not in termination(settings)["message"]
    assert "Traceback" not in outcome.sentence


def test_a_mistake_of_the_user_brings_no_traceback(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    start(settings, FakePortal(S.PROCESSING), raising(errors.DatasetInvalid("Invalid dataset: a.csv: no rows")))
    assert "Traceback" not in caplog.text
    assert "Invalid dataset: a.csv: no rows" in caplog.text


@pytest.mark.parametrize(
    ("change", "exit_code", "sentence"),
    [
        ({"data": "none"}, 66, "Failed to download dataset from container: "),
        ({"config": "task: tabular"}, 78, "Invalid configuration: data.target: "),
        ({"limits": Limits(dataset_files=0, dataset_bytes=3)}, 82, "Dataset "),
    ],
)
def test_what_is_wrong_before_the_training_is_reported_too(
    settings: Settings, change: dict[str, Any], exit_code: int, sentence: str, tmp_path: Path
) -> None:
    if "data" in change:
        change = {"data": tmp_path / change["data"]}
    if "config" in change:
        change = {"config": write_config(tmp_path, change["config"])}
    portal = FakePortal(S.PROCESSING)
    outcome = start(replace(settings, **change), portal)
    assert outcome.exit_code == exit_code
    assert outcome.sentence.startswith(sentence)
    assert portal.puts == [("Failed", messages.failed(outcome.sentence))]


def test_a_changed_configuration_starts_afresh_and_says_so(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.out is not None
    backend = FakeBackend()
    start(settings, FakePortal(S.PROCESSING), backend=backend)
    assert backend.inputs[0].notes == ()
    manifest = settings.out / "checkpoints" / "another-key" / "step-7" / "MANIFEST.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    start(replace(settings, run_id="20261123t081501-1a2b3c4d"), FakePortal(S.PROCESSING), backend=backend)
    (note,) = backend.inputs[1].notes
    assert note == "There are checkpoints of another configuration, dataset or code: this training starts afresh."
    assert note in caplog.text


def test_a_missing_dataset_is_told_without_waiting_for_torch(settings: Settings, tmp_path: Path) -> None:
    backend = FakeBackend()
    outcome = start(replace(settings, data=tmp_path / "none"), FakePortal(S.PROCESSING), backend=backend)
    assert (outcome.exit_code, backend.checked) == (66, []), "the worker imports it meanwhile"


class Refusing(FakeBackend):
    """A task that sees at once that its parameters are wrong."""

    def check_config(self, config: Config, limits: Limits) -> None:
        raise errors.ConfigInvalid("Invalid configuration: custom.params.window: must be at least 1")


def test_wrong_parameters_are_told_before_the_download_has_ended(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(dataset: Dataset) -> DatasetLock:
        raise AssertionError("the dataset was waited for")

    monkeypatch.setattr(Dataset, "wait", never)
    outcome = start(settings, FakePortal(S.PROCESSING), backend=Refusing())
    assert (outcome.exit_code, outcome.sentence) == (
        78, "Invalid configuration: custom.params.window: must be at least 1"
    )  # fmt: skip


def test_a_model_that_is_completed_already_is_not_trained(settings: Settings) -> None:
    backend = FakeBackend()
    outcome = start(settings, FakePortal(S.COMPLETED), backend=backend)
    assert (outcome.exit_code, backend.inputs) == (0, [])
    assert termination(settings)["code"] == "Completed"


def test_a_model_that_failed_meanwhile_is_cancelled(settings: Settings) -> None:
    portal = FakePortal(S.FAILED)
    outcome = start(settings, portal)
    assert (outcome.exit_code, outcome.code, portal.puts) == (83, "Cancelled", [])


@pytest.mark.parametrize(("own", "every"), [("", 120.0), ("checkpoint: {every: 10m}\n", 600.0)])
def test_the_operator_says_how_often_a_checkpoint_is_due_unless_the_model_does(
    settings: Settings, own: str, every: float
) -> None:
    seen: list[tuple[float, str]] = []
    assert settings.config is not None
    settings.config.write_text(settings.config.read_text() + own)
    for seconds in (120.0, 240.0):
        start(
            replace(settings, checkpoint_seconds=seconds, run_id=f"run-{seconds:.0f}"),
            FakePortal(S.PROCESSING),
            lambda inputs: seen.append((float(inputs.config.checkpoint.every), inputs.run_key)),
        )
    assert seen[0][0] == every
    assert seen[0][1] == seen[1][1], "another pace is not another training: its checkpoints are found"


@pytest.mark.parametrize("moved", [S.FAILED, S.CREATED, S.RECONFIGURE, S.COMPLETED])
def test_a_model_taken_away_while_it_trains_is_cancelled_and_not_reported(
    settings: Settings, moved: ProcessingStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal_client.reporting.PLAUSIBLE_LAG", 0.05)
    portal = FakePortal(S.PROCESSING)

    def during(inputs: RunInputs) -> None:
        portal.status = moved
        assert inputs.stop.wait(10)
        raise errors.Terminated("Stopped", step=5)

    outcome = start(replace(settings, progress_seconds=0.01), portal, during)
    assert (outcome.exit_code, outcome.code, outcome.step) == (83, "Cancelled", 5)
    assert portal.status is moved
    assert settings.out is not None
    assert not (settings.out / "latest.json").exists()


def test_a_training_cancelled_at_its_very_end_publishes_nothing(settings: Settings) -> None:
    stop = Stop()
    outcome = start(settings, FakePortal(S.PROCESSING), lambda inputs: stop.set("cancelled"), stop=stop)
    assert outcome.exit_code == 83
    assert settings.out is not None
    assert not (settings.out / "latest.json").exists()


def test_a_termination_says_143_and_lets_the_job_retry(settings: Settings) -> None:
    stop, portal = Stop(), FakePortal(S.PROCESSING)

    def during(inputs: RunInputs) -> None:
        stop.set("terminated")
        raise errors.Terminated("Stopped at step 4", step=4)

    outcome = start(settings, portal, during, stop=stop)
    assert (outcome.exit_code, portal.puts) == (143, [])
    assert termination(settings)["retryable"] is True


@pytest.mark.parametrize("status", [S.PROCESSING, S.COMPLETED, S.FAILED])
def test_standalone_is_refused_by_the_status_and_changes_nothing(
    standalone: Settings, status: ProcessingStatus
) -> None:
    portal, backend = FakePortal(status), FakeBackend()
    outcome = start(standalone, portal, backend=backend)
    assert (outcome.exit_code, outcome.code) == (84, "StatusRefused")
    assert (portal.puts, backend.inputs) == ([], [])


def test_standalone_without_an_answer_of_the_portal_does_not_train(standalone: Settings) -> None:
    portal = FakePortal()
    portal.down = PortalUnavailable("The portal does not answer")
    assert start(standalone, portal).exit_code == 202
    portal.down = ModelUnknown("The portal has no model 123")
    assert start(standalone, portal).exit_code == 84


def test_a_portal_away_at_the_end_keeps_the_outcome(settings: Settings) -> None:
    portal = FakePortal(S.PROCESSING)

    def during(inputs: RunInputs) -> None:
        portal.down = PortalUnavailable("The portal does not answer")

    outcome = start(settings, portal, during)
    assert (outcome.exit_code, outcome.untold) == (0, "The portal does not answer")
    assert termination(settings)["code"] == "Completed"
    assert settings.out is not None
    assert json.loads((settings.out / "latest.json").read_text())["run_id"] == RUN


def test_a_container_name_without_an_id_is_a_usage_error(standalone: Settings) -> None:
    with pytest.raises(errors.UsageError, match="model-"):
        start(replace(standalone, model_container="training-1"), FakePortal())


@pytest.mark.parametrize("change", [{"tracking": False}, {"api_key": None}], ids=["off", "no key"])
def test_without_tracking_the_training_runs_and_says_so(
    settings: Settings, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    portal = FakePortal(S.FAILED)
    assert start(replace(settings, **change), portal).exit_code == 0
    assert portal.calls == []
    assert ("STATUS_TRACKING is off" if "tracking" in change else "API_KEY not configured") in caplog.text


def test_an_attempt_that_had_published_is_completed_without_training(settings: Settings) -> None:
    start(settings, FakePortal(S.PROCESSING))
    portal, backend = FakePortal(S.PROCESSING), FakeBackend()
    outcome = start(settings, portal, backend=backend)
    assert (outcome.exit_code, backend.inputs) == (0, [])
    assert portal.puts == [("Completed", COMPLETED)]


def test_a_run_overtaken_while_it_trained_is_fenced_and_reports_nothing(settings: Settings) -> None:
    portal = FakePortal(S.PROCESSING)
    assert settings.out is not None
    container = LocalContainer(settings.out)
    other = b'{"run_id": "20261123t081501-00000000", "manifest_sha256": "a"}'
    outcome = start(settings, portal, lambda inputs: container.write("latest.json", other))
    assert (outcome.exit_code, outcome.code, portal.puts) == (204, "Fenced", [])
    assert container.read("latest.json", 1000)[0] == other


def test_a_second_pod_of_a_run_is_fenced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.out is not None
    monkeypatch.setattr(lease, "take", functools.partial(lease.take, wait_seconds=0.0))
    held = LocalContainer(settings.out).lease(lease.LEASE, RUN, take_over=False)
    portal = FakePortal(S.PROCESSING)
    assert start(settings, portal).exit_code == 204
    assert portal.puts == []
    held.release()
    assert start(settings, portal).exit_code == 0


def test_what_followed_a_training_is_gone_once_it_is_published(settings: Settings) -> None:
    def during(inputs: RunInputs) -> None:
        write_metrics(inputs)
        assert settings.out is not None
        live = settings.out / "runs" / RUN / "metrics.live.jsonl"
        assert any(live.exists() or inputs.stop.wait(0.01) for _ in range(1000))

    assert start(replace(settings, progress_seconds=0.01), FakePortal(S.PROCESSING), during).exit_code == 0
    assert settings.out is not None
    assert "metrics.live.jsonl" not in {path.name for path in (settings.out / "runs" / RUN).iterdir()}
    assert "metrics.jsonl" in json.loads((settings.out / "runs" / RUN / "MANIFEST.json").read_text())


def test_a_failed_training_leaves_its_curve(settings: Settings) -> None:
    def during(inputs: RunInputs) -> None:
        write_metrics(inputs)
        raise errors.TrainingDiverged("Training diverged at step 7")

    assert start(settings, FakePortal(S.PROCESSING), during).exit_code == 80
    assert settings.out is not None
    assert (settings.out / "runs" / RUN / "metrics.live.jsonl").read_text() == '{"epoch": 1}\n'


def test_a_failed_retraining_leaves_the_previous_model(settings: Settings) -> None:
    start(settings, FakePortal(S.PROCESSING))
    again = replace(settings, run_id="20261124t000000-00000000")
    start(again, FakePortal(S.PROCESSING), raising(errors.TrainingDiverged("Training diverged at step 7")))
    assert settings.out is not None
    assert json.loads((settings.out / "latest.json").read_text())["run_id"] == RUN


@pytest.mark.parametrize(
    ("latest", "why"),
    [(None, "there is no earlier model"), ("{", "latest.json is not readable")],
    ids=["none", "damaged"],
)
def test_a_warm_start_without_a_model_to_start_from_says_so_in_the_report(
    settings: Settings, tmp_path: Path, latest: str | None, why: str
) -> None:
    assert settings.out is not None
    settings.out.mkdir()
    if latest:
        (settings.out / "latest.json").write_text(latest)
    warm = write_config(tmp_path, "task: tabular\ndata: {target: b}\ninit: {from: latest}\n")
    backend = FakeBackend()
    assert start(replace(settings, config=warm), FakePortal(S.PROCESSING), backend=backend).exit_code == 0
    assert backend.inputs[0].notes == (f"Warm start: {why}; training starts afresh.",)


def test_a_warm_start_gets_the_previous_model_and_a_run_key_of_its_own(settings: Settings, tmp_path: Path) -> None:
    first, second = FakeBackend(), FakeBackend(lambda inputs: seen.append((inputs.initial / "model.json").read_text()))  # type: ignore[operator]
    seen: list[str] = []
    warm = write_config(tmp_path, "task: tabular\ndata: {target: b}\ninit: {from: latest}\n")
    start(replace(settings, config=warm), FakePortal(S.PROCESSING), backend=first)
    assert first.inputs[0].initial is None, "there is no earlier model: afresh"
    start(replace(settings, config=warm, run_id="20261124t000000-00000000"), FakePortal(S.PROCESSING), backend=second)
    assert seen == ["{}"]
    assert first.inputs[0].run_key != second.inputs[0].run_key


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (AccessDenied("access is refused"), "PermissionDenied"),
        (Unavailable("read-only file system"), "StorageUnavailable"),
        (Full("its disk is full"), "LimitExceeded"),
    ],
    ids=["denied", "read-only", "full"],
)
def test_a_container_that_takes_no_writes_is_not_told_as_one_that_cannot_be_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: StorageFault, code: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise fault

    monkeypatch.setattr(LocalContainer, "lease", refuse)
    outcome = start(settings, FakePortal(S.PROCESSING))
    assert (outcome.code, outcome.sentence) == (code, f"Failed to write to container: {settings.out} ({fault.why})")
