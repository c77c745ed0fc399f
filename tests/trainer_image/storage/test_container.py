"""One suite for both storages: what the trainer relies on is true of containers and of folders."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.transport import HttpTransport, RequestsTransport
from azure.storage.blob import BlobServiceClient

from trainer_image.errors import ConfigInvalid
from trainer_image.storage.azure import open_container
from trainer_image.storage.container import (
    AccessDenied,
    BlobChanged,
    BlobMissing,
    Container,
    ContainerMissing,
    LeaseHeld,
    Unavailable,
)
from trainer_image.storage.local import LocalContainer


def _new_azure(connection_string: str) -> Container:
    name = f"c-{secrets.token_hex(6)}"
    BlobServiceClient.from_connection_string(connection_string).create_container(name)
    return open_container(connection_string, None, name)


@pytest.fixture(params=["azure", "local"])
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Container:
    if request.param == "local":
        (tmp_path / "container").mkdir()
        return LocalContainer(tmp_path / "container")
    return _new_azure(request.getfixturevalue("azurite").connection_string)


@pytest.fixture
def missing(request: pytest.FixtureRequest, container: Container, tmp_path: Path) -> Container:
    """Of the same kind as `container`."""
    if isinstance(container, LocalContainer):
        return LocalContainer(tmp_path / "nowhere")
    return open_container(request.getfixturevalue("azurite").connection_string, None, "not-there")


def test_what_is_written_is_listed_and_read(container: Container) -> None:
    container.write("a.txt", b"one")
    container.write("folder/b.txt", b"three")
    container.write("folder2/c.txt", b"")
    assert sorted((b.name, b.size) for b in container.list()) == [
        ("a.txt", 3),
        ("folder/b.txt", 5),
        ("folder2/c.txt", 0),
    ]
    assert [b.name for b in container.list("folder/")] == ["folder/b.txt"]
    assert list(container.list("nothing/")) == []
    assert container.read("folder/b.txt", 100)[0] == b"three"
    assert container.read("folder2/c.txt", 100)[0] == b""


def test_a_missing_container_is_told_from_a_missing_blob(container: Container, missing: Container) -> None:
    with pytest.raises(BlobMissing):
        container.read("nothing", 10)
    with pytest.raises(ContainerMissing):
        list(missing.list())
    with pytest.raises(ContainerMissing):
        missing.read("nothing", 10)


def test_a_blob_larger_than_asked_for_is_not_read(container: Container) -> None:
    container.write("big", b"x" * 11)
    with pytest.raises(BlobChanged, match="larger than 10"):
        container.read("big", 10)


def test_a_range_is_of_the_content_that_was_listed(container: Container) -> None:
    container.write("blob", b"0123456789")
    (blob,) = container.list()
    assert b"".join(container.pieces(blob, 3, 4)) == b"3456"
    container.write("blob", b"abcdefghijk")
    with pytest.raises(BlobChanged):
        b"".join(container.pieces(blob, 3, 4))
    container.delete("blob")
    with pytest.raises((BlobMissing, BlobChanged)):
        b"".join(container.pieces(blob, 3, 4))


def test_a_conditional_write_loses_against_an_earlier_one(container: Container) -> None:
    container.write_if("latest", b"first", None)
    with pytest.raises(BlobChanged):
        container.write_if("latest", b"also first", None)
    _, etag = container.read("latest", 100)
    container.write_if("latest", b"second", etag)
    with pytest.raises(BlobChanged):
        container.write_if("latest", b"another second", etag)
    assert container.read("latest", 100)[0] == b"second"


def test_a_conditional_write_to_a_deleted_blob_is_refused(container: Container) -> None:
    container.write("latest", b"first")
    _, etag = container.read("latest", 100)
    container.delete("latest")
    with pytest.raises((BlobChanged, BlobMissing)):
        container.write_if("latest", b"second", etag)


def test_an_upload_keeps_the_md5_with_the_blob(container: Container, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(secrets.token_bytes(100_000))
    md5 = hashlib.md5(file.read_bytes()).digest()
    with file.open("rb") as content:
        container.upload("runs/1/model.bin", content)
    (blob,) = container.list("runs/")
    assert blob.size == 100_000
    assert blob.md5 in (md5, None)
    assert b"".join(container.pieces(blob, 0, 100_000)) == file.read_bytes()


def test_deleting_what_is_not_there_is_fine(container: Container) -> None:
    container.write("folder/a", b"x")
    container.delete("folder/a")
    container.delete("folder/a")
    assert list(container.list()) == []


def test_only_one_holds_the_lease(container: Container) -> None:
    first = container.lease(".lease", "run-1", take_over=False)
    assert json.loads(container.read(".lease", 100)[0]) == {"owner": "run-1"}
    with pytest.raises(LeaseHeld):
        container.lease(".lease", "run-2", take_over=False)
    first.renew()
    first.release()
    second = container.lease(".lease", "run-2", take_over=False)
    assert json.loads(container.read(".lease", 100)[0]) == {"owner": "run-2"}
    second.release()


def test_a_lease_that_was_taken_over_cannot_be_renewed(azurite: Any) -> None:
    container = _new_azure(azurite.connection_string)
    zombie = container.lease(".lease", "run-1", take_over=False)
    heir = container.lease(".lease", "run-2", take_over=True)
    with pytest.raises(LeaseHeld):
        zombie.renew()
    heir.renew()
    zombie.release()
    heir.renew()


def test_folders_of_hierarchical_accounts_are_no_blobs(azurite: Any) -> None:
    container = _new_azure(azurite.connection_string)
    client = BlobServiceClient.from_connection_string(azurite.connection_string).get_container_client(container.name)
    client.upload_blob("train", b"", metadata={"hdi_isfolder": "true"})
    client.upload_blob("other/", b"")
    client.upload_blob("train/a.csv", b"a")
    assert [b.name for b in container.list()] == ["train/a.csv"]


def test_a_wrong_key_is_access_denied_and_never_told(azurite: Any) -> None:
    wrong = azurite.connection_string.replace("AccountKey=Eby8", "AccountKey=AAAA")
    with pytest.raises(AccessDenied) as told:
        list(open_container(wrong, None, "anything").list())
    assert "AAAA" not in str(told.value)
    assert "http" not in str(told.value)


@pytest.mark.parametrize("text", ["AccountName=x;AccountKey", "AccountName=x;AccountKey=not base64!", "x"])
def test_a_malformed_connection_string_is_named_without_its_content(text: str) -> None:
    with pytest.raises(ConfigInvalid) as told:
        open_container(text, None, "anything")
    assert "AccountName" not in told.value.sentence
    assert "not base64" not in told.value.sentence
    assert "AZURE_STORAGE_CONNECTION_STRING" in told.value.sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("REQUESTS_CA_BUNDLE", __file__),
        ("CURL_CA_BUNDLE", "/nowhere"),
        ("HTTPS_PROXY", "http://"),
        ("HTTPS_PROXY", "user:hunter2@proxy :8080"),
        ("https_proxy", "http://proxy:port"),
    ],
)
def test_what_the_http_library_would_stumble_over_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigInvalid, match=f"(?i)^{name} ") as told:
        open_container("AccountName=x;AccountKey=eA==", None, "anything")
    assert "hunter2" not in told.value.sentence


@pytest.mark.parametrize("proxy", ["", "proxy:3128", "http://user:pass@proxy.example.com", "socks5://[::1]:1080"])
def test_an_address_of_a_proxy_is_one(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    open_container("AccountName=x;AccountKey=eA==", None, "anything")


def test_a_choice_of_credentials_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "NoSuchCredential")
    with pytest.raises(ConfigInvalid, match=r"^AZURE_TOKEN_CREDENTIALS, "):
        open_container(None, "https://account.blob.core.windows.net", "anything")


class _Faulty(RequestsTransport):
    """Answers the next requests with a fault each: a status, or an exception to raise."""

    def __init__(self, faults: list[int | Exception], headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.faults = faults
        self.headers = headers or {}

    def send(self, request: Any, **kwargs: Any) -> Any:
        if not self.faults:
            return super().send(request, **kwargs)
        fault = self.faults.pop(0)
        if isinstance(fault, Exception):
            raise fault
        response = super().send(request, **kwargs)
        response.status_code = fault
        response.headers.update(self.headers)
        return response


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for, instead of pauses."""
    pauses: list[float] = []
    monkeypatch.setattr(HttpTransport, "sleep", lambda self, duration: pauses.append(duration))
    monkeypatch.setattr("trainer_image.storage.azure.time.sleep", pauses.append)
    return pauses


@pytest.fixture
def faulty(azurite: Any, slept: list[float]) -> Callable[..., tuple[Container, _Faulty]]:
    def build(faults: list[int | Exception], headers: dict[str, str] | None = None) -> tuple[Container, _Faulty]:
        name = _new_azure(azurite.connection_string).name
        transport = _Faulty([], headers)
        container = open_container(azurite.connection_string, None, name, transport=transport)
        container.write("blob", b"0123456789")
        transport.faults = faults
        return container, transport

    return build


def test_throttling_is_waited_out_as_long_as_storage_asks(faulty: Callable[..., Any], slept: list[float]) -> None:
    container, _ = faulty([503, 500, 503], {"Retry-After": "7"})
    assert container.read("blob", 100)[0] == b"0123456789"
    assert slept == [7, 7, 7]


def test_a_gateway_s_429_is_waited_out_too(faulty: Callable[..., Any], slept: list[float]) -> None:
    container, _ = faulty([429, 429], {"Retry-After": "3"})
    assert container.read("blob", 100)[0] == b"0123456789"
    assert slept == [3, 3]


def test_an_absurd_retry_after_is_cut(faulty: Callable[..., Any], slept: list[float]) -> None:
    container, _ = faulty([503], {"Retry-After": "86400"})
    container.read("blob", 100)
    assert slept == [60]


def test_storage_that_stays_down_is_unavailable(faulty: Callable[..., Any]) -> None:
    container, transport = faulty([503] * 50)
    with pytest.raises(Unavailable, match="503"):
        container.read("blob", 100)
    assert 40 < len(transport.faults) < 46


def test_storage_that_cannot_be_reached_is_unavailable(faulty: Callable[..., Any]) -> None:
    container, _ = faulty([ServiceRequestError("https://account?sig=secret refused")] * 50)
    with pytest.raises(Unavailable) as told:
        container.read("blob", 100)
    assert told.value.why == "storage cannot be reached"


def test_a_link_to_a_folder_above_does_not_go_round_for_ever(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a").write_text("x")
    (tmp_path / "below" / "round").symlink_to(tmp_path)
    (tmp_path / "dead").symlink_to(tmp_path / "nothing")
    assert [b.name for b in LocalContainer(tmp_path).list()] == ["below/a"]
