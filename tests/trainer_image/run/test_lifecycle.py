"""One run with a backend that trains nothing: exit codes, reports, termination message, what is published."""

from __future__ import annotations

import errno
import functools
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from portal_client.errors import ModelUnknown, PortalUnavailable
from portal_client.messages import COMPLETED
from portal_client.statuses import ProcessingStatus
from tests.world.trainer_fakes import FakeBackend, FakePortal, write_config, write_dataset
from trainer_image import errors
from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.host import memory
from trainer_image.limits import Limits
from trainer_image.run import lifecycle as run
from trainer_image.run.outcome import Outcome
from trainer_image.stop import Stop
from trainer_image.storage.container import AccessDenied, Full, StorageFault, Unavailable
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer import lease
from trainer_image.transfer.download import DatasetLock
from trainer_image.transfer.sources import Dataset

S = ProcessingStatus
RUN = "20261123t081500-1a2b3c4d"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Local folders, launched by the dispatcher, tracked."""
    return Settings(
        run_id=RUN,
        dispatched=True,
        tracking=True,
        model_container="model-123",
        api_base_url="https://portal.example.com",
        api_key="key-of-the-portal",
        report_retry_seconds=0.0,
        progress_seconds=3600.0,
        termination_path=tmp_path / "termination-log",
        work_dir=tmp_path / "work",
        data=write_dataset(tmp_path),
        config=write_config(tmp_path),
        out=tmp_path / "out",
        device="cpu",
    )


@pytest.fixture
def standalone(settings: Settings) -> Settings:
    return replace(settings, dispatched=False)


def start(
    settings: Settings, portal: FakePortal, during: Callable[[RunInputs], None] = lambda inputs: None, **options: Any
) -> Outcome:
    backend = options.pop("backend", None) or FakeBackend(during)
    return run.run(
        settings, options.pop("stop", None) or Stop(), backend=lambda: backend, connect=lambda settings: portal
    )


def termination(settings: Settings) -> dict[str, Any]:
    words: dict[str, Any] = json.loads(settings.termination_path.read_bytes())
    return words


def raising(error: BaseException) -> Callable[[RunInputs], None]:
    def during(inputs: RunInputs) -> None:
        raise error

    return during


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
    assert termination(settings) == {
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
    assert portal.puts == ([] if error.retryable else [("Failed", error.sentence)])
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
    assert portal.puts == [("Failed", outcome.sentence)]
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
    assert portal.puts == [("Failed", outcome.sentence)]


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
    assert note == "There are checkpoints of another configuration or dataset: this training starts afresh."
    assert note in caplog.text


def test_a_missing_dataset_is_told_without_waiting_for_torch(settings: Settings, tmp_path: Path) -> None:
    def never() -> FakeBackend:
        raise AssertionError("the training code was loaded")

    settings = replace(settings, data=tmp_path / "none")
    outcome = run.run(settings, Stop(), backend=never, connect=lambda settings: FakePortal(S.PROCESSING))
    assert outcome.exit_code == 66


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
    settings: Settings, moved: ProcessingStatus
) -> None:
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
    assert (outcome.exit_code, outcome.reported) == (0, False)
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


def write_metrics(inputs: RunInputs) -> None:
    (inputs.output / "metrics.jsonl").write_text('{"epoch": 1}\n')


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


def test_a_work_folder_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = start(replace(settings, work_dir=tmp_path / "file"), FakePortal(S.PROCESSING))
    assert outcome.exit_code == 64
    assert "WORK_DIR" in outcome.sentence


class TestOnAzure:
    """The same with containers: config.yaml from the model's, the dataset downloaded."""

    @pytest.fixture
    def service(self, azurite: Any) -> BlobServiceClient:
        return BlobServiceClient.from_connection_string(azurite.connection_string)

    @pytest.fixture
    def pod(self, settings: Settings, azurite: Any, service: BlobServiceClient) -> Settings:
        name = secrets.token_hex(6)
        service.create_container(f"model-{name}").upload_blob("config.yaml", b"task: tabular\ndata: {target: b}\n")
        service.create_container(f"dataset-{name}").upload_blob("train.csv", b"a,b\n1,2\n")
        return replace(
            settings,
            data=None,
            out=None,
            config=None,
            connection_string=azurite.connection_string,
            model_container=f"model-{name}",
            dataset_container=f"dataset-{name}",
        )

    def test_a_training_ends_published(self, pod: Settings, service: BlobServiceClient) -> None:
        read = []
        outcome = start(pod, FakePortal(S.PROCESSING), lambda i: read.append((i.data / "train.csv").read_text()))
        assert (outcome.exit_code, outcome.location) == (0, f"{pod.model_container}/runs/{RUN}")
        assert read == ["a,b\n1,2\n"]
        blobs = {b.name for b in service.get_container_client(pod.model_container or "").list_blobs()}
        assert {"config.yaml", "latest.json", f"runs/{RUN}/MANIFEST.json", f"runs/{RUN}/model.safetensors"} <= blobs

    def test_a_training_is_followed_in_its_container(self, pod: Settings, service: BlobServiceClient) -> None:
        live = service.get_blob_client(pod.model_container or "", f"runs/{RUN}/metrics.live.jsonl")

        def during(inputs: RunInputs) -> None:
            write_metrics(inputs)
            assert any(live.exists() or inputs.stop.wait(0.01) for _ in range(1000))
            assert live.download_blob().readall() == b'{"epoch": 1}\n'

        assert start(replace(pod, progress_seconds=0.01), FakePortal(S.PROCESSING), during).exit_code == 0
        assert not live.exists()

    def test_the_configuration_may_name_the_dataset(self, pod: Settings, service: BlobServiceClient) -> None:
        text = f"task: tabular\ndata: {{target: b}}\ndataset: {pod.dataset_container}\n"
        service.get_blob_client(pod.model_container or "", "config.yaml").upload_blob(text.encode(), overwrite=True)
        assert start(replace(pod, dataset_container=None), FakePortal(S.PROCESSING)).exit_code == 0

    def test_the_request_s_dataset_wins_over_the_configuration_s(
        self, pod: Settings, service: BlobServiceClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        text = b"task: tabular\ndata: {target: b}\ndataset: dataset-other\n"
        service.get_blob_client(pod.model_container or "", "config.yaml").upload_blob(text, overwrite=True)
        assert start(pod, FakePortal(S.PROCESSING)).exit_code == 0
        assert "config.yaml names dataset-other: the request decides" in caplog.text

    def test_no_dataset_named_anywhere_is_a_configuration_error(self, pod: Settings) -> None:
        outcome = start(replace(pod, dataset_container=None), FakePortal(S.PROCESSING))
        assert outcome.exit_code == 78
        assert outcome.sentence.startswith("Invalid configuration: dataset: is required")

    def test_a_missing_dataset_is_the_documented_sentence(self, pod: Settings) -> None:
        portal = FakePortal(S.PROCESSING)
        outcome = start(replace(pod, dataset_container="dataset-none"), portal)
        assert outcome.exit_code == 66
        assert portal.message.startswith("Failed to download dataset from container: dataset-none")

    @pytest.mark.parametrize("missing", ["container", "config.yaml"])
    def test_a_missing_configuration_names_the_container(
        self, pod: Settings, service: BlobServiceClient, missing: str
    ) -> None:
        if missing == "container":
            pod = replace(pod, model_container=f"model-{secrets.token_hex(6)}")
        else:
            service.get_blob_client(pod.model_container or "", "config.yaml").delete_blob()
        outcome = start(pod, FakePortal(S.PROCESSING))
        assert outcome.exit_code == 78
        assert outcome.sentence.startswith(f"Failed to read configuration from container: {pod.model_container}")

    def test_an_oversized_configuration_is_refused(self, pod: Settings, service: BlobServiceClient) -> None:
        client = service.get_blob_client(pod.model_container or "", "config.yaml")
        client.upload_blob(b"#" * 300_000, overwrite=True)
        outcome = start(pod, FakePortal(S.PROCESSING))
        assert (outcome.exit_code, "larger than 262144" in outcome.sentence) == (78, True)

    def test_a_wrong_key_is_permission_denied(self, pod: Settings) -> None:
        wrong = (pod.connection_string or "").replace("AccountKey=Eby8", "AccountKey=AAAA")
        outcome = start(replace(pod, connection_string=wrong), FakePortal(S.PROCESSING))
        assert (outcome.exit_code, outcome.code) == (77, "PermissionDenied")
        assert b"AAAA" not in pod.termination_path.read_bytes()

    def test_a_zombie_of_an_older_run_is_stopped_by_the_newer_one(
        self, pod: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, "take", functools.partial(lease.take, renew_seconds=0.05))
        newer = replace(pod, run_id="20261124t000000-00000000")
        ends = []

        def during(inputs: RunInputs) -> None:
            ends.append(start(newer, FakePortal(S.PROCESSING)))
            assert inputs.stop.wait(10)
            raise errors.Terminated("Stopped", step=1)

        portal = FakePortal(S.PROCESSING)
        assert start(pod, portal, during).exit_code == 204
        assert ends[0].exit_code == 0
        assert portal.puts == []

    def test_a_checkpoint_outlives_its_pod(self, pod: Settings) -> None:
        def save(inputs: RunInputs) -> None:
            folder = inputs.output.parent / "checkpoint-x" / "step-7"
            folder.mkdir(parents=True)
            (folder / "state.json").write_text("{}")
            digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
            manifest = {"files": {"state.json": {"size": 2, "sha256": digest}}}
            (folder / "MANIFEST.json").write_text(json.dumps(manifest))
            assert inputs.checkpoints is not None
            inputs.checkpoints.keep(folder)
            raise errors.Terminated("Stopped", step=7)

        found: list[str] = []

        def resume(inputs: RunInputs) -> None:
            assert inputs.checkpoints is not None
            found.extend(path.name for path in inputs.checkpoints.newest_first())

        assert start(pod, FakePortal(S.PROCESSING), save).exit_code == 143
        assert start(pod, FakePortal(S.PROCESSING), resume).exit_code == 0
        assert found == ["step-7"]
