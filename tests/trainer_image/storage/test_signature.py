"""Containers that are open by a signature from a file, which is renewed while the trainer runs, on Azurite."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from dispatcher.storage.azure import AzureSignatures
from tests.trainer_image.storage.blob_proxy import BlobProxy, error_body
from trainer_image.config.settings import from_mapping
from trainer_image.errors import ConfigInvalid, DatasetMissing, PermissionDenied, StorageUnavailable
from trainer_image.host import credentials
from trainer_image.host.credentials import DATASET_URL, MODEL_URL, CredentialFiles
from trainer_image.limits import Limits
from trainer_image.stop import Stop
from trainer_image.storage.azure import open_signed
from trainer_image.storage.container import AccessWithdrawn, BlobInfo, Container, CredentialRefused, StorageFault
from trainer_image.storage.signature import Signature, is_for
from trainer_image.transfer.download import lock_dataset
from trainer_image.transfer.failures import failing_as
from trainer_image.transfer.sources import Sources

CONTENT = os.urandom(200_000)
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_LOOK_EVERY", 0.02)


@pytest.fixture
def container(azurite: Any) -> str:
    name = f"model-{secrets.token_hex(5)}"
    client = BlobServiceClient.from_connection_string(azurite.connection_string).create_container(name)
    client.upload_blob("config.yaml", b"task: tabular\ndata:\n  target: y\n")
    client.upload_blob("a.bin", CONTENT)
    return name


class Secret:
    """The mounted Secret of a Job. It is written as the kubelet writes it: whole, in place of the file before."""

    def __init__(self, azurite: Any, folder: Path) -> None:
        self._azurite = azurite
        self.files = CredentialFiles(folder)

    def write(self, name: str, text: str) -> None:
        new = self.files.folder / f"..{name}"
        new.write_text(text)
        new.rename(self.files.folder / name)

    def sign(self, container: str, name: str = MODEL_URL, *, seconds: float = HOUR, write: bool = True) -> None:
        self.write(name, self.signed(container, seconds=seconds, write=write))

    def signed(self, container: str, *, seconds: float = HOUR, write: bool = True) -> str:
        made = AzureSignatures(connection_string=self._azurite.connection_string)
        return made.sas(container, write=write, until=time.time() + seconds)

    def open(
        self, container: str, *, patience: float = 0.3, monotonic: Callable[[], float] = time.monotonic
    ) -> Container:
        signature = Signature(self.files, MODEL_URL, container, patience=patience, monotonic=monotonic)
        return open_signed(signature, container)


@pytest.fixture
def secret(azurite: Any, tmp_path: Path) -> Secret:
    return Secret(azurite, tmp_path)


def later(seconds: float, act: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


def a_bin(storage: Container) -> BlobInfo:
    return next(blob for blob in storage.list() if blob.name == "a.bin")


def test_the_model_container_is_listed_read_written_leased_and_emptied(secret: Secret, container: str) -> None:
    secret.sign(container)
    storage = secret.open(container)
    blob = a_bin(storage)
    assert b"".join(storage.pieces(blob, 1000, 150_000)) == CONTENT[1000:151_000]
    storage.write("b", b"new")
    assert storage.read("b", 10)[0] == b"new"
    lease = storage.lease("lease.json", "run-1", take_over=False)
    lease.renew()
    lease.release()
    storage.delete("b")
    assert sorted(blob.name for blob in storage.list()) == ["a.bin", "config.yaml", "lease.json"]


def test_a_signature_that_has_run_out_is_waited_for_to_be_replaced(secret: Secret, container: str) -> None:
    secret.sign(container, seconds=-60)
    storage = secret.open(container, patience=20)
    renewal = later(0.3, lambda: secret.sign(container))
    assert b"task" in storage.read("config.yaml", 1000)[0]
    renewal.join()
    assert b"".join(storage.pieces(a_bin(storage), 0, 1000)) == CONTENT[:1000]


def test_one_that_runs_out_while_ranges_are_read_loses_none_of_them(secret: Secret, container: str) -> None:
    secret.sign(container)
    blob = a_bin(secret.open(container))
    secret.sign(container, seconds=-60)
    storage = secret.open(container, patience=20)
    renewal = later(0.3, lambda: secret.sign(container))
    assert b"".join(storage.pieces(blob, 500, 150_000)) == CONTENT[500:150_500]
    renewal.join()


def test_several_readers_wait_for_one_renewal(secret: Secret, container: str) -> None:
    secret.sign(container, seconds=-60)
    storage = secret.open(container, patience=20)
    read: list[bytes] = []
    readers = [threading.Thread(target=lambda: read.append(storage.read("config.yaml", 1000)[0])) for _ in range(4)]
    for reader in readers:
        reader.start()
    later(0.3, lambda: secret.sign(container)).join()
    for reader in readers:
        reader.join(20)
    assert len(read) == 4


def test_a_signature_is_taken_from_the_file_before_the_old_one_has_run_out(secret: Secret, container: str) -> None:
    now = [0.0]
    secret.sign(container)
    signature = Signature(secret.files, MODEL_URL, container, monotonic=lambda: now[0])
    before = signature.current()
    secret.sign(container, seconds=2 * HOUR)
    assert signature.current() == before, "not at every request"
    now[0] += 60
    assert signature.current() != before


def test_what_nobody_replaces_is_believed_after_the_patience_and_once_for_all(secret: Secret, container: str) -> None:
    secret.sign(container, seconds=-60)
    storage = secret.open(container, patience=0.4)
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(StorageFault):
            storage.read("config.yaml", 1000)
    assert 0.4 <= time.monotonic() - began < 1.9


def test_a_file_that_is_gone_or_is_for_another_container_ends_nothing(secret: Secret, container: str) -> None:
    now = [0.0]
    secret.sign(container)
    signature = Signature(secret.files, MODEL_URL, container, monotonic=lambda: now[0])
    before = signature.current()
    for change in (lambda: secret.sign("model-other"), (secret.files.folder / MODEL_URL).unlink):
        change()
        now[0] += 60
        assert signature.current() == before


@pytest.mark.parametrize(
    ("code", "fault", "error"),
    [
        # Azure's for a SAS that has run out, "Signature not valid in the specified time frame", or of a rotated key: it
        # was good when the dispatcher made it, so the next pod may have a better one.
        ("AuthenticationFailed", AccessWithdrawn, StorageUnavailable),
        # It never was allowed.
        ("AuthorizationPermissionMismatch", CredentialRefused, PermissionDenied),
        ("AuthorizationFailure", CredentialRefused, PermissionDenied),
    ],
)
def test_a_refusal_that_stays_is_the_next_pods_only_where_the_signature_is_out_of_date(
    azurite: Any, secret: Secret, container: str, code: str, fault: type[StorageFault], error: type[Exception]
) -> None:
    def instead(method: str, path: str) -> tuple[int, str, bytes]:
        return 403, code, error_body(code)

    with BlobProxy(azurite.connection_string, instead=instead) as proxy:
        target = proxy.connection_string.split("BlobEndpoint=")[1].split(";")[0]
        url = secret.signed(container)
        secret.write(MODEL_URL, f"{target}/{url[len(azurite.blob_endpoint.rstrip('/')) + 1 :]}")
        storage = secret.open(container, patience=0.05)
        with pytest.raises(fault) as raised:
            storage.read("config.yaml", 1000)
        with pytest.raises(error) as told, failing_as("Failed"):
            raise raised.value
    assert "sig=" not in str(told.value)


def test_a_container_that_does_not_exist_is_missing_and_not_forbidden(secret: Secret) -> None:
    secret.sign("dataset-none", write=False)
    with pytest.raises(DatasetMissing, match="dataset-none"):
        lock_dataset(secret.open("dataset-none"), Limits())


def test_the_addresses_in_the_files_are_looked_at_before_they_are_used(secret: Secret) -> None:
    for text in (
        "",
        "nonsense",
        "https://account.blob/model-2?sig=x",
        "https://account.blob/model-1",
        "ftp://a/model-1?s",
    ):
        secret.write(MODEL_URL, text)
        with pytest.raises(ConfigInvalid, match="holds no address of the container model-1"):
            secret.open("model-1")
    assert is_for("https://account.blob/model-1?sig=x", "model-1")


def test_a_run_with_a_folder_of_credentials_needs_no_account(azurite: Any, secret: Secret, container: str) -> None:
    dataset = f"dataset-{secrets.token_hex(5)}"
    client = BlobServiceClient.from_connection_string(azurite.connection_string).create_container(dataset)
    client.upload_blob("train.csv", b"x,y\n1,2\n" * 50)
    secret.sign(container)
    secret.sign(dataset, DATASET_URL, write=False)
    secret.write("API_KEY", f"v1.1.run.{'0' * 64}\n")
    environment = {
        "CREDENTIALS_DIR": str(secret.files.folder),
        "MODEL_CONTAINER": container,
        "DATASET_CONTAINER": dataset,
        "LAUNCHED_BY": "dispatcher",
        "API_BASE_URL": "http://127.0.0.1:9",
    }
    settings = from_mapping(environment)
    assert settings.api_key == f"v1.1.run.{'0' * 64}"
    assert settings.api_key not in repr(settings)
    work = secret.files.folder / "work"
    work.mkdir()
    with Sources(settings, Stop(), work) as sources:
        config = sources.config()
        fetched = sources.start_download(config, lambda progress: None)
        assert [blob.name for blob in fetched.wait().blobs] == ["train.csv"]
    assert (work / "dataset" / "train.csv").read_bytes().startswith(b"x,y\n")
