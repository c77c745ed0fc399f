"""How a training asks the dispatcher for a dataset that only config.yaml names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import responses

from trainer_image.config.model_config import Config
from trainer_image.config.settings import from_mapping
from trainer_image.errors import ConfigInvalid, StorageUnavailable, Terminated
from trainer_image.host.credentials import CredentialFiles
from trainer_image.stop import Stop
from trainer_image.storage.dataset_access import dataset_url
from trainer_image.transfer.sources import Sources

BASE = "http://training-relay.training-system.svc:8082"
ASKED = f"{BASE}/training/dataset"
URL = "https://account.blob.core.windows.net/dataset-x?sp=rl&sig=abc"


@pytest.fixture
def files(tmp_path: Path) -> CredentialFiles:
    (tmp_path / "API_KEY").write_text("v1.1.run.old\n")
    return CredentialFiles(tmp_path)


def ask(files: CredentialFiles, wait: Callable[[float], object] = lambda seconds: None, **options: float) -> str:
    return dataset_url(BASE, "dataset-x", files, wait=wait, **options)


def test_it_is_asked_with_the_token_of_the_run(api: responses.RequestsMock, files: CredentialFiles) -> None:
    api.post(ASKED, json={"url": URL})
    assert ask(files) == URL
    request = api.calls[0].request
    assert request.headers["x-api-key"] == "v1.1.run.old"
    assert json.loads(request.body or b"") == {"container": "dataset-x"}


def test_a_dispatcher_that_is_away_is_waited_for(api: responses.RequestsMock, files: CredentialFiles) -> None:
    api.post(ASKED, body=requests.ConnectionError("refused"))
    api.post(ASKED, status=503, json={"detail": "not now"})
    api.post(ASKED, status=429)
    api.post(ASKED, status=200, body="<html>a login page</html>")
    api.post(ASKED, status=403, body="<html>a proxy's page</html>")
    api.post(ASKED, status=404)
    api.post(ASKED, json={"url": URL})
    waits: list[float] = []
    assert ask(files, waits.append) == URL
    assert len(waits) == 6


def test_a_token_that_is_refused_is_read_anew(api: responses.RequestsMock, files: CredentialFiles) -> None:
    api.post(ASKED, status=401)
    api.post(ASKED, json={"url": URL})
    assert ask(files, lambda seconds: (files.folder / "API_KEY").write_text("v1.1.run.new")) == URL
    assert api.calls[1].request.headers["x-api-key"] == "v1.1.run.new"


@pytest.mark.parametrize("status", [403, 404, 409])
def test_a_refusal_is_for_good_and_in_the_dispatchers_words(
    api: responses.RequestsMock, files: CredentialFiles, status: int
) -> None:
    api.post(ASKED, status=status, json={"status": status, "detail": "The dataset 'model-2' is another model's"})
    with pytest.raises(
        ConfigInvalid, match="dataset: no access to dataset-x: The dataset 'model-2' is another model's"
    ):
        ask(files)
    assert len(api.calls) == 1


def test_one_that_stays_away_is_for_the_next_pod_and_no_sentence_has_the_token(
    api: responses.RequestsMock, files: CredentialFiles, caplog: pytest.LogCaptureFixture
) -> None:
    api.post(ASKED, body=requests.ConnectionError("x-api-key: v1.1.run.old"))
    with pytest.raises(StorageUnavailable, match="the dispatcher gives no access: it cannot be reached") as raised:
        ask(files, patience=0.0)
    assert "v1.1" not in str(raised.value) + caplog.text


def test_a_training_without_a_relay_is_told_who_has_to_name_its_dataset(files: CredentialFiles) -> None:
    with pytest.raises(ConfigInvalid, match="the request has to name it"):
        dataset_url(None, "dataset-x", files)


def test_one_that_is_stopped_meanwhile_does_not_wait_on(api: responses.RequestsMock, files: CredentialFiles) -> None:
    api.post(ASKED, status=503)
    stop = Stop()
    stop.set("SIGTERM")
    settings = from_mapping({"CREDENTIALS_DIR": str(files.folder), "MODEL_CONTAINER": "model-1", "API_BASE_URL": BASE})
    with Sources(settings, stop, files.folder) as sources, pytest.raises(Terminated, match="access to its dataset"):
        sources.start_download(Config.model_construct(dataset="dataset-x"), lambda progress: None)


@pytest.mark.parametrize("host", ["https://evil.example.com", "http://account.blob.core.windows.net"])
def test_who_changes_the_relays_answer_does_not_choose_where_the_dataset_is(
    api: responses.RequestsMock, files: CredentialFiles, host: str
) -> None:
    api.post(ASKED, json={"url": f"{host}/dataset-x?sp=rl&sig=abc"})
    (files.folder / "MODEL_URL").write_text("https://account.blob.core.windows.net/model-1?sig=abc")
    settings = from_mapping({"CREDENTIALS_DIR": str(files.folder), "MODEL_CONTAINER": "model-1", "API_BASE_URL": BASE})
    with (
        Sources(settings, Stop(), files.folder) as sources,
        pytest.raises(StorageUnavailable, match="is not on"),
    ):
        sources.start_download(Config.model_construct(dataset="dataset-x"), lambda progress: None)
