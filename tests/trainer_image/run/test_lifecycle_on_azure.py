"""One run with containers: config.yaml from the model's, the dataset downloaded, checkpoints and model uploaded."""

from __future__ import annotations

import functools
import secrets
from dataclasses import replace
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from portal_client.errors import PortalUnavailable
from portal_client.statuses import ProcessingStatus
from tests.trainer_image.run.local_runs import RUN, Finding, dying, save, start, write_metrics
from tests.trainer_image.storage.blob_proxy import BlobProxy
from tests.world.trainer_fakes import FakePortal
from trainer_image import errors
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.run import late_report
from trainer_image.stop import Stop
from trainer_image.transfer import lease

S = ProcessingStatus


@pytest.fixture
def service(azurite: Any) -> BlobServiceClient:
    return BlobServiceClient.from_connection_string(azurite.connection_string)


@pytest.fixture
def pod(settings: Settings, azurite: Any, service: BlobServiceClient) -> Settings:
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


def test_a_training_ends_published(pod: Settings, service: BlobServiceClient) -> None:
    read = []
    outcome = start(pod, FakePortal(S.PROCESSING), lambda i: read.append((i.data / "train.csv").read_text()))
    assert (outcome.exit_code, outcome.location) == (0, f"{pod.model_container}/runs/{RUN}")
    assert read == ["a,b\n1,2\n"]
    blobs = {b.name for b in service.get_container_client(pod.model_container or "").list_blobs()}
    assert {"config.yaml", "latest.json", f"runs/{RUN}/MANIFEST.json", f"runs/{RUN}/model.safetensors"} <= blobs


def test_a_training_is_followed_in_its_container(pod: Settings, service: BlobServiceClient) -> None:
    live = service.get_blob_client(pod.model_container or "", f"runs/{RUN}/metrics.live.jsonl")

    def during(inputs: RunInputs) -> None:
        write_metrics(inputs)
        assert any(live.exists() or inputs.stop.wait(0.01) for _ in range(1000))
        assert live.download_blob().readall() == b'{"epoch": 1}\n'

    assert start(replace(pod, progress_seconds=0.01), FakePortal(S.PROCESSING), during).exit_code == 0
    assert not live.exists()


def test_the_configuration_may_name_the_dataset(pod: Settings, service: BlobServiceClient) -> None:
    text = f"task: tabular\ndata: {{target: b}}\ndataset: {pod.dataset_container}\n"
    service.get_blob_client(pod.model_container or "", "config.yaml").upload_blob(text.encode(), overwrite=True)
    assert start(replace(pod, dataset_container=None), FakePortal(S.PROCESSING)).exit_code == 0


def test_the_request_s_dataset_wins_over_the_configuration_s(
    pod: Settings, service: BlobServiceClient, caplog: pytest.LogCaptureFixture
) -> None:
    text = b"task: tabular\ndata: {target: b}\ndataset: dataset-other\n"
    service.get_blob_client(pod.model_container or "", "config.yaml").upload_blob(text, overwrite=True)
    assert start(pod, FakePortal(S.PROCESSING)).exit_code == 0
    assert "config.yaml names dataset-other: the request decides" in caplog.text


def test_no_dataset_named_anywhere_is_a_configuration_error(pod: Settings) -> None:
    outcome = start(replace(pod, dataset_container=None), FakePortal(S.PROCESSING))
    assert outcome.exit_code == 78
    assert outcome.sentence.startswith("Invalid configuration: dataset: is required")


def test_a_missing_dataset_is_the_documented_sentence(pod: Settings) -> None:
    portal = FakePortal(S.PROCESSING)
    outcome = start(replace(pod, dataset_container="dataset-none"), portal)
    assert outcome.exit_code == 66
    assert portal.message.startswith("Failed to download dataset from container: dataset-none")


@pytest.mark.parametrize("missing", ["container", "config.yaml"])
def test_a_missing_configuration_names_the_container(pod: Settings, service: BlobServiceClient, missing: str) -> None:
    if missing == "container":
        pod = replace(pod, model_container=f"model-{secrets.token_hex(6)}")
    else:
        service.get_blob_client(pod.model_container or "", "config.yaml").delete_blob()
    outcome = start(pod, FakePortal(S.PROCESSING))
    assert outcome.exit_code == 78
    assert outcome.sentence.startswith(f"Failed to read configuration from container: {pod.model_container}")


def test_an_oversized_configuration_is_refused(pod: Settings, service: BlobServiceClient) -> None:
    client = service.get_blob_client(pod.model_container or "", "config.yaml")
    client.upload_blob(b"#" * 300_000, overwrite=True)
    outcome = start(pod, FakePortal(S.PROCESSING))
    assert (outcome.exit_code, "larger than 262144" in outcome.sentence) == (78, True)


def test_a_wrong_key_is_permission_denied(pod: Settings) -> None:
    wrong = (pod.connection_string or "").replace("AccountKey=Eby8", "AccountKey=AAAA")
    outcome = start(replace(pod, connection_string=wrong), FakePortal(S.PROCESSING))
    assert (outcome.exit_code, outcome.code) == (77, "PermissionDenied")
    assert b"AAAA" not in pod.termination_path.read_bytes()


def test_a_zombie_of_an_older_run_is_stopped_by_the_newer_one(pod: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_of_two_trainings_that_people_start_the_second_waits_and_the_first_is_not_stopped(
    pod: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "take", functools.partial(lease.take, wait_seconds=0.0, renew_seconds=0.05))
    first = replace(pod, dispatched=False, tracking=False)
    ends = []

    def during(inputs: RunInputs) -> None:
        save(inputs, 7)
        ends.append(start(replace(first, run_id="20261124t000000-00000000"), FakePortal()))
        assert not inputs.stop.is_set()

    assert start(first, FakePortal(), during).exit_code == 0
    assert ends[0].exit_code == 204
    assert f"Another training of this model is under way (run {RUN})" in ends[0].sentence


def test_a_published_training_leaves_no_checkpoint_in_the_container(pod: Settings, service: BlobServiceClient) -> None:
    assert start(pod, FakePortal(S.PROCESSING), lambda inputs: save(inputs, 7)).exit_code == 0
    models = service.get_container_client(pod.model_container or "")
    assert [blob.name for blob in models.list_blobs("checkpoints/")] == []


def test_a_checkpoint_outlives_its_pod(pod: Settings) -> None:
    resumed = Finding()
    assert start(pod, FakePortal(S.PROCESSING), dying).exit_code == 143
    assert start(pod, FakePortal(S.PROCESSING), resumed).exit_code == 0
    assert resumed.found == ["step-7"]


def test_a_standalone_training_that_storage_refuses_without_words_is_told(pod: Settings) -> None:
    portal = FakePortal(S.CREATED)
    with BlobProxy(pod.connection_string or "", instead=lambda method, path: (403, "", b"")) as proxy:
        outcome = start(replace(pod, dispatched=False, connection_string=proxy.connection_string), portal)
    assert (outcome.exit_code, outcome.code) == (77, "PermissionDenied")
    assert portal.puts[-1] == ("Failed", outcome.sentence)


def test_what_the_portal_was_not_told_is_kept_in_the_container(pod: Settings, service: BlobServiceClient) -> None:
    standalone = replace(pod, dispatched=False)
    portal = FakePortal(S.CREATED)

    def gone(inputs: RunInputs) -> None:
        portal.down = PortalUnavailable("The portal does not answer")

    assert start(standalone, portal, gone).exit_code == 202
    left = service.get_blob_client(pod.model_container or "", f"runs/{RUN}/unreported.json")
    assert left.exists()
    portal.down = None
    asked = replace(standalone, run_id="", model_container=pod.model_container)
    assert "Completed" in late_report.report(asked, Stop(), lambda settings: portal)
    assert (portal.status, left.exists()) == (S.COMPLETED, False)
    assert "No run in" in late_report.report(asked, Stop(), lambda settings: portal)


def test_a_run_that_was_killed_after_it_had_published_is_told_by_its_rerun(pod: Settings) -> None:
    assert start(pod, FakePortal(S.PROCESSING)).exit_code == 0
    portal = FakePortal(S.PROCESSING)
    outcome = start(replace(pod, dispatched=False), portal)
    assert (outcome.exit_code, outcome.location) == (0, f"{pod.model_container}/runs/{RUN}")
    assert portal.puts == [("Completed", "Model training completed successfully")]


def test_what_a_run_left_is_not_told_once_another_has_taken_the_model_over(pod: Settings) -> None:
    standalone = replace(pod, dispatched=False)
    portal = FakePortal(S.CREATED)

    def gone(inputs: RunInputs) -> None:
        portal.down = PortalUnavailable("The portal does not answer")

    assert start(standalone, portal, gone).exit_code == 202
    assert start(replace(pod, run_id="20261124t000000-00000000"), FakePortal(S.PROCESSING)).exit_code == 0
    portal.down = None
    assert start(standalone, portal).exit_code == 84
    assert portal.puts == [("Processing", "Model training started")]
    said = late_report.report(replace(standalone, run_id=""), Stop(), lambda settings: portal)
    assert "has taken the model over" in said
    assert portal.puts == [("Processing", "Model training started")]
