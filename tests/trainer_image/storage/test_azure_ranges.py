"""Downloads through a proxy that breaks them: what is retried, what is reported, and that it is the listed blob."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from local_stack.azurite import ACCOUNT, ACCOUNT_KEY
from tests.trainer_image.storage.blob_proxy import Answer, BlobProxy, Fault
from trainer_image.errors import DatasetInvalid, PermissionDenied, StorageUnavailable
from trainer_image.limits import Limits
from trainer_image.storage import azure, azure_ranges
from trainer_image.storage.azure import open_container
from trainer_image.storage.azure_faults import Accepted, Asked
from trainer_image.storage.container import BlobInfo, Unavailable
from trainer_image.transfer.download import Download, lock_dataset

CONTENT = os.urandom(300_000)
RANGE = 100_000
NAME = "train/ä b+c&d%20'~!.bin"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_ranges, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(azure_ranges, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(azure, "READ_TIMEOUT", 2.0)


@pytest.fixture
def blobs(azurite: Any) -> Iterator[Any]:
    client = BlobServiceClient.from_connection_string(azurite.connection_string)
    container = client.create_container(f"dataset-{secrets.token_hex(6)}")
    container.upload_blob(NAME, CONTENT)
    yield container
    container.delete_container()


def fetch(connection_string: str, container: str, folder: Path, connections: int = 1) -> bytes:
    storage = open_container(connection_string, None, container)
    lock = lock_dataset(storage, Limits())
    Download(storage, lock, folder, lambda: False, connections=connections, range_bytes=RANGE).run()
    return (folder / NAME).read_bytes()


def on(*numbers: int) -> Any:
    """Makes a fault of these requests only."""

    def chosen(fault: Any) -> Fault:
        return lambda answer, number, status, headers, body: (
            number in numbers and fault(answer, status, headers, body) is None
        )

    return chosen


def cut(answer: Answer, status: int, headers: dict[str, str], body: bytes) -> None:
    answer.send(status, headers, body[:45_000], promised=len(body))


def stall(answer: Answer, status: int, headers: dict[str, str], body: bytes) -> None:
    answer.send(status, headers, body[:45_000], promised=len(body))
    answer.server.over.wait(20)


def hang_up(answer: Answer, status: int, headers: dict[str, str], body: bytes) -> None:
    answer.connection.close()


def throttle(answer: Answer, status: int, headers: dict[str, str], body: bytes) -> None:
    answer.send(503, {"Retry-After": "0", "x-ms-error-code": "ServerBusy"}, b"")


RETRIED = {"cut off": cut, "stalled": stall, "hung up": hang_up, "throttled": throttle}


@pytest.mark.parametrize("case", RETRIED)
def test_a_range_that_fails_on_the_way_is_asked_for_again(case: str, azurite: Any, blobs: Any, tmp_path: Path) -> None:
    with BlobProxy(azurite.connection_string, on(1)(RETRIED[case])) as proxy:
        assert fetch(proxy.connection_string, blobs.container_name, tmp_path) == CONTENT
    assert len(proxy.asked) == 4


@pytest.mark.parametrize(("fault", "stood"), [(cut, 45_000), (stall, 40_000)])
def test_a_range_goes_on_from_where_it_stood(fault: Any, stood: int, azurite: Any, blobs: Any, tmp_path: Path) -> None:
    with BlobProxy(azurite.connection_string, on(0)(fault)) as proxy:
        assert fetch(proxy.connection_string, blobs.container_name, tmp_path) == CONTENT
    assert proxy.asked[:2] == ["bytes=0-99999", f"bytes={stood}-99999"]


def test_a_connection_that_never_gets_a_byte_is_given_up(azurite: Any, blobs: Any, tmp_path: Path) -> None:
    with (
        BlobProxy(azurite.connection_string, on(*range(50))(hang_up)) as proxy,
        pytest.raises(StorageUnavailable, match=r"^Failed to download dataset from container: \S+ \(storage cannot be"),
    ):
        fetch(proxy.connection_string, blobs.container_name, tmp_path)
    assert len(proxy.asked) == azure_ranges.ATTEMPTS


def test_one_that_gives_a_little_each_time_is_not(azurite: Any, blobs: Any, tmp_path: Path) -> None:
    def trickle(answer: Answer, status: int, headers: dict[str, str], body: bytes) -> None:
        answer.send(status, headers, body[:10_000], promised=len(body))

    with BlobProxy(azurite.connection_string, on(*range(500))(trickle)) as proxy:
        assert fetch(proxy.connection_string, blobs.container_name, tmp_path) == CONTENT
    assert len(proxy.asked) == 30


def test_a_proxy_that_ignores_ranges_is_told_at_once(azurite: Any, blobs: Any, tmp_path: Path) -> None:
    def whole(answer: Answer, status: int, headers: dict[str, str], body: bytes) -> None:
        answer.send(200, {}, CONTENT)

    with (
        BlobProxy(azurite.connection_string, on(0)(whole)) as proxy,
        pytest.raises(StorageUnavailable, match="ignores ranges"),
    ):
        fetch(proxy.connection_string, blobs.container_name, tmp_path)
    assert len(proxy.asked) == 1


def test_another_range_than_the_one_asked_for_is_no_content(azurite: Any, blobs: Any, tmp_path: Path) -> None:
    def shifted(answer: Answer, status: int, headers: dict[str, str], body: bytes) -> None:
        answer.send(206, {"Content-Range": "bytes 1-100000/300000"}, CONTENT[1:100_001])

    with (
        BlobProxy(azurite.connection_string, on(0)(shifted)) as proxy,
        pytest.raises(DatasetInvalid, match="was changed while it was being downloaded"),
    ):
        fetch(proxy.connection_string, blobs.container_name, tmp_path)


@pytest.mark.parametrize("after", [b"y" * 300_000, b"y" * 120_000, None], ids=["changed", "shrunk", "deleted"])
def test_a_blob_that_is_not_what_was_listed_is_named(
    after: bytes | None, azurite: Any, blobs: Any, tmp_path: Path
) -> None:
    """It happens between two ranges, while the first one is still on its way."""

    def meanwhile(answer: Answer, number: int, status: int, headers: dict[str, str], body: bytes) -> bool:
        if number == 0 and after is None:
            blobs.delete_blob(NAME)
        elif number == 0:
            blobs.upload_blob(NAME, after, overwrite=True)
        return False

    with (
        BlobProxy(azurite.connection_string, meanwhile) as proxy,
        pytest.raises(DatasetInvalid, match=r"^Invalid dataset: train/ä b.*: it was changed while it was being"),
    ):
        fetch(proxy.connection_string, blobs.container_name, tmp_path)
    assert len(proxy.asked) == 2


def test_a_sas_in_the_connection_string_reads_ranges_and_shows_up_nowhere(
    azurite: Any, blobs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sas = generate_container_sas(
        ACCOUNT,
        blobs.container_name,
        account_key=ACCOUNT_KEY,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry="2099-01-01",
    )
    text = f"BlobEndpoint={azurite.blob_endpoint};SharedAccessSignature={sas}"
    assert fetch(text, blobs.container_name, tmp_path / "a", connections=3) == CONTENT
    broken = text.replace("sig=", "sig=AAAA")
    with pytest.raises(PermissionDenied) as refused:
        fetch(broken, blobs.container_name, tmp_path / "b")
    assert "sig=" not in refused.value.sentence + caplog.text


def test_a_token_is_sent_as_bearer(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[requests.PreparedRequest] = []

    def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        sent.append(request)
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "send", send)
    reader = azure_ranges.RangeReader("http://127.0.0.1:9/c", None, lambda: "abc", connect_timeout=1, silence=1)
    asked = Asked("caller", "c", "read", "a", Accepted())
    with pytest.raises(Unavailable, match="storage cannot be reached"):
        list(reader.pieces(BlobInfo("a", 1, "e"), 0, 1, asked))
    assert [request.headers["Authorization"] for request in sent] == ["Bearer abc"] * azure_ranges.ATTEMPTS
