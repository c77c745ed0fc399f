"""A program through the whole of a run: stopped, tried again, published."""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from local_stack.azurite import Azurite
from local_stack.processes import wait_until
from tests.trainer_image.command.programs import PYTHON
from trainer_image.config.settings import Settings
from trainer_image.run import lifecycle
from trainer_image.stop import Stop


def test_stopping_through_the_whole_flow_ends_with_143(tmp_path: Path) -> None:
    """The settings of a pod, `lifecycle.run`, and a program that is stopped."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("a\n1\n")
    config = tmp_path / "config.yaml"
    code = "import os, time; open(os.environ['DATASET_DIR'] + '/here', 'w'); time.sleep(60)"
    config.write_text(json.dumps({"task": "command", "command": {"argv": [PYTHON, "-c", code]}}))
    settings = Settings(
        run_id="run-1",
        termination_path=tmp_path / "termination-message",
        data=tmp_path / "data",
        config=config,
        out=tmp_path / "out",
        allow_command="on",
        grace_seconds=10,
    )
    stop = Stop()

    def stop_when_it_runs() -> None:
        wait_until((tmp_path / "data" / "here").exists)
        stop.set("terminated")

    threading.Thread(target=stop_when_it_runs).start()
    outcome = lifecycle.run(settings, stop)
    assert (outcome.exit_code, outcome.code) == (143, "Terminated")
    assert json.loads((tmp_path / "termination-message").read_bytes())["retryable"] is True
    assert not (tmp_path / "out" / "latest.json").exists()


def test_a_program_in_a_pod_gets_no_key_of_the_account_that_it_is_trained_from(
    tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole flow with containers: dataset down, checkpoint and model up, and what the program could see of keys."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    monkeypatch.setenv("API_KEY", "key-of-the-portal")
    code = (
        "import json, os, shutil; data, out, saved = (os.environ[n] for n in"
        " ('DATASET_DIR', 'OUTPUT_DIR', 'CHECKPOINT_DIR'));"
        "attempt = len(os.listdir(saved)); os.makedirs(saved + f'/{attempt}/deep');"
        "open(saved + f'/{attempt}/deep/state', 'w').write('x');"
        "attempt or os._exit(203);"
        "shutil.copy(data + '/train.csv', out); json.dump(dict(os.environ), open(out + '/environment', 'w'))"
    )
    name = secrets.token_hex(6)
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    models = service.create_container(f"model-{name}")
    models.upload_blob("config.yaml", json.dumps({"task": "command", "command": {"argv": [PYTHON, "-c", code]}}))
    service.create_container(f"dataset-{name}").upload_blob("train.csv", b"a,b\n1,2\n")
    settings = Settings(
        run_id="run-1",
        dispatched=True,
        model_container=f"model-{name}",
        dataset_container=f"dataset-{name}",
        connection_string=azurite.connection_string,
        api_key="key-of-the-portal",
        termination_path=tmp_path / "termination-message",
        work_dir=tmp_path / "work",
        allow_command=PYTHON,
    )
    assert lifecycle.run(settings, Stop()).exit_code == 203
    kept = [blob.name for blob in models.list_blobs() if blob.name.endswith("/files/0/deep/state")]
    assert len(kept) == 1, "for the next attempt"
    outcome = lifecycle.run(settings, Stop())
    assert (outcome.exit_code, outcome.location) == (0, f"model-{name}/runs/run-1")
    blobs = {blob.name for blob in models.list_blobs()}
    assert {f"runs/run-1/{file}" for file in ("train.csv", "environment", "report.json", "MANIFEST.json")} <= blobs
    assert not any("/files/0/deep/state" in blob for blob in blobs), "the model is published"
    seen = models.download_blob("runs/run-1/environment").readall().decode()
    assert "DATASET_DIR" in seen
    for secret in (*settings.secrets, "AZURE_STORAGE"):
        assert secret not in seen
