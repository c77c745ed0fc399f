"""dispatcher.storage.azure: what a signature opens and what it does not, on Azurite; the key of an identity."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
import responses
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient

from dispatcher.storage.azure import AzureSignatures
from dispatcher.storage.errors import StorageError

HOUR = 3600.0
DAY = 86400.0


@pytest.fixture
def containers(azurite: Any) -> tuple[str, str]:
    """Two of them, each with a blob."""
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    names = (f"model-{secrets.token_hex(5)}", f"dataset-{secrets.token_hex(5)}")
    for name in names:
        service.create_container(name).upload_blob("a", b"content")
    return names


def signatures(azurite: Any, **options: Any) -> AzureSignatures:
    return AzureSignatures(connection_string=azurite.connection_string, **options)


def sas(azurite: Any, container: str, *, write: bool, **options: Any) -> str:
    return signatures(azurite, **options).sas(container, write=write, until=time.time() + HOUR)


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(HttpResponseError) as raised:
        call()
    assert raised.value.status_code == 403


def test_the_models_signature_reads_lists_writes_leases_and_deletes(azurite: Any, containers: tuple[str, str]) -> None:
    container = ContainerClient.from_container_url(sas(azurite, containers[0], write=True))
    assert [blob.name for blob in container.list_blobs()] == ["a"]
    assert container.download_blob("a").readall() == b"content"
    lease = container.upload_blob("b", b"new").acquire_lease(15)
    lease.release()
    container.delete_blob("b")
    assert [blob.name for blob in container.list_blobs()] == ["a"]


def test_the_datasets_signature_reads_and_lists_and_nothing_more(azurite: Any, containers: tuple[str, str]) -> None:
    container = ContainerClient.from_container_url(sas(azurite, containers[1], write=False))
    assert [blob.name for blob in container.list_blobs()] == ["a"]
    assert container.download_blob("a").readall() == b"content"
    refused(lambda: container.upload_blob("b", b"new"))
    refused(lambda: container.upload_blob("a", b"other", overwrite=True))
    refused(lambda: container.delete_blob("a"))
    refused(lambda: container.get_blob_client("a").acquire_lease(15))
    refused(lambda: container.set_container_metadata({"a": "b"}))


@pytest.mark.parametrize("write", [True, False])
def test_a_signature_opens_no_other_container_and_not_the_account(
    azurite: Any, containers: tuple[str, str], write: bool
) -> None:
    url = sas(azurite, containers[0], write=write)
    other = ContainerClient.from_container_url(url.replace(containers[0], containers[1]))
    refused(lambda: list(other.list_blobs()))
    refused(lambda: other.download_blob("a"))
    refused(lambda: other.upload_blob("b", b"new"))
    refused(lambda: ContainerClient.from_container_url(url).delete_container())
    account = BlobServiceClient(azurite.blob_endpoint, credential=urlsplit(url).query)
    refused(lambda: list(account.list_containers()))
    refused(lambda: account.create_container(f"model-{secrets.token_hex(5)}"))


def test_a_signature_that_has_run_out_opens_nothing(azurite: Any, containers: tuple[str, str]) -> None:
    url = signatures(azurite).sas(containers[0], write=True, until=time.time() - 60)
    refused(lambda: list(ContainerClient.from_container_url(url).list_blobs()))
    refused(lambda: ContainerClient.from_container_url(url).upload_blob("b", b"new"))


@pytest.mark.parametrize("skew", [-300.0, 300.0])
def test_a_clock_that_is_five_minutes_off_makes_signatures_that_are_taken_at_once(
    azurite: Any, containers: tuple[str, str], skew: float
) -> None:
    url = sas(azurite, containers[0], write=False, clock=lambda: time.time() + skew)
    assert [blob.name for blob in ContainerClient.from_container_url(url).list_blobs()] == ["a"]


def test_a_key_that_the_account_does_not_have_is_found_out_before_a_training_has_its_signature(azurite: Any) -> None:
    signatures(azurite).try_out()
    key = azurite.connection_string.split("AccountKey=")[1].split(";")[0]
    another = azurite.connection_string.replace(key, base64.b64encode(b"another key").decode())
    with pytest.raises(StorageError, match="does not take what is signed") as found:
        AzureSignatures(connection_string=another).try_out()
    assert not found.value.retryable
    with pytest.raises(StorageError) as found:
        AzureSignatures(connection_string="BlobEndpoint=http://127.0.0.1:1/a;AccountName=a;AccountKey=a2V5").try_out()
    assert found.value.retryable


def test_the_signer_changes_with_the_key_and_tells_nothing_of_it(azurite: Any) -> None:
    known = signatures(azurite).signer
    assert known == signatures(azurite).signer
    key = re.search(r"AccountKey=([^;]+)", azurite.connection_string)
    assert key
    assert key[1] not in known
    rotated = azurite.connection_string.replace(key[1], "bmV3IGtleQ==")
    assert AzureSignatures(connection_string=rotated).signer != known


@pytest.mark.parametrize(
    "text",
    [
        "BlobEndpoint=https://account.blob.core.windows.net;SharedAccessSignature=sv=1&sig=x",
        "DefaultEndpointsProtocol=https;AccountName=account;AccountKey=no base64!",
        "nonsense",
    ],
)
def test_a_connection_string_that_cannot_sign_is_told_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="no account key that can sign") as raised:
        AzureSignatures(connection_string=text)
    assert text not in str(raised.value)


# An identity. Azurite gives user-delegation keys only over TLS with a token of Azure's, so Azure's answers stand here.

ACCOUNT = "https://account.blob.core.windows.net"


class Identity:
    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken("token-of-the-identity", int(time.time() + HOUR))


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


def key_for(request: Any) -> tuple[int, dict[str, str], str]:
    """Get User Delegation Key, as Azure answers it."""
    asked = {part.tag: part.text for part in ElementTree.fromstring(request.body)}
    body = f"""<UserDelegationKey><SignedOid>oid</SignedOid><SignedTid>tid</SignedTid>
      <SignedStart>{asked["Start"]}</SignedStart>
      <SignedExpiry>{asked["Expiry"]}</SignedExpiry>
      <SignedService>b</SignedService><SignedVersion>2024-11-04</SignedVersion><Value>a2V5</Value></UserDelegationKey>"""
    return 200, {"Content-Type": "application/xml", "x-ms-request-id": "1"}, body


def of_identity(api: responses.RequestsMock, clock: Clock, answer: Any = key_for) -> AzureSignatures:
    api.add_callback(responses.POST, f"{ACCOUNT}/?restype=service&comp=userdelegationkey", answer)
    return AzureSignatures(blob_url=ACCOUNT, clock=clock, credential=Identity())


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_an_identity_signs_with_a_user_delegation_key_that_azure_takes(api: responses.RequestsMock) -> None:
    clock = Clock()
    signer = of_identity(api, clock)
    url = signer.sas("model-1", write=True, until=clock.now + 30 * DAY)
    assert url.startswith(f"{ACCOUNT}/model-1?")
    query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    assert (query["sr"], query["spr"], query["skoid"], query["sktid"]) == ("c", "https", "oid", "tid")
    assert set(query["sp"]) == set("rwdl")
    assert epoch(query["st"]) == clock.now - 900
    # "A valid date and time within seven days of the current time", by Azure's clock, which may be behind.
    assert clock.now + 6 * DAY <= epoch(query["ske"]) <= clock.now + 7 * DAY - 300
    assert epoch(query["se"]) == clock.now + signer.longest <= epoch(query["ske"])


@pytest.mark.parametrize("host", ["account.z12.blob.storage.azure.net", "account.privatelink.blob.core.windows.net"])
def test_an_identity_signs_for_the_account_that_the_address_names(api: responses.RequestsMock, host: str) -> None:
    """Get User Delegation Key is answered alike; what differs without the right name is the text that is signed."""
    clock, signed = Clock(), []
    for address in (ACCOUNT, f"https://{host}"):
        api.add_callback(responses.POST, f"{address}/?restype=service&comp=userdelegationkey", key_for)
        signer = AzureSignatures(blob_url=address, clock=clock, credential=Identity())
        url = signer.sas("model-1", write=True, until=clock.now + HOUR)
        assert url.startswith(f"{address}/model-1?")
        signed.append(parse_qs(urlsplit(url).query)["sig"])
    assert signed[0] == signed[1]


def test_an_address_that_names_no_account_is_told() -> None:
    with pytest.raises(ValueError, match="no name of a storage account"):
        AzureSignatures(blob_url="https://blobs.example.com", credential=Identity())


def test_a_machines_netrc_does_not_take_the_place_of_the_token(
    api: responses.RequestsMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    clock = Clock()
    of_identity(api, clock).sas("model-1", write=True, until=clock.now + HOUR)
    assert api.calls[0].request.headers["Authorization"] == "Bearer token-of-the-identity"


def test_the_delegation_key_is_kept_and_asked_anew_in_good_time(api: responses.RequestsMock) -> None:
    clock = Clock()
    signer = of_identity(api, clock)
    for _ in range(20):
        url = signer.sas("model-1", write=True, until=clock.now + 30 * DAY)
        query = parse_qs(urlsplit(url).query)
        assert epoch(query["se"][0]) == int(clock.now + signer.longest)
        assert epoch(query["se"][0]) <= epoch(query["ske"][0])
        clock.now += 0.25 * DAY
    assert 4 <= len(api.calls) <= 7


def test_a_key_whose_signatures_are_refused_is_exchanged_and_not_by_each_training_that_says_so(
    api: responses.RequestsMock,
) -> None:
    clock = Clock()
    signer = of_identity(api, clock)
    signer.sas("model-1", write=True, until=clock.now + HOUR)
    clock.now += 3600
    for _ in range(5):
        signer.distrust()
        signer.sas("model-1", write=True, until=clock.now + HOUR)
        clock.now += 1
    assert len(api.calls) == 2


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(403, "AuthorizationPermissionMismatch", False), (503, "ServerBusy", True), (500, "InternalError", True)],
)
def test_a_key_that_is_not_given_is_said_without_the_token_and_not_asked_for_by_every_launch(
    api: responses.RequestsMock, status: int, code: str, retryable: bool
) -> None:
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>No.\nTime:2026</Message></Error>'
    clock = Clock()
    signer = of_identity(api, clock, lambda request: (status, {"x-ms-error-code": code}, body))
    for _ in range(5):
        with pytest.raises(StorageError, match="user-delegation key") as raised:
            signer.sas("model-1", write=True, until=clock.now + HOUR)
        assert raised.value.retryable is retryable
        assert "token-of-the-identity" not in str(raised.value)
    asked = len(api.calls)
    assert asked <= 2, "one launch, with the SDK's one retry"
    clock.now += 60
    with pytest.raises(StorageError):
        signer.sas("model-1", write=True, until=clock.now + HOUR)
    assert len(api.calls) > asked


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", "<html>Accès refusé</html>".encode("latin-1")),
        (500, "text/html", "<html>Accès refusé</html>".encode("latin-1")),
        (200, "application/xml", b"<html>Sign in</html>"),
        (200, "application/xml", b"<UserDelegationKey><Value>a2V5</Value></UserDelegationKey>"),
        (200, "application/json", b"{}"),
        (204, "text/html", b""),
    ],
)
def test_what_is_no_key_is_an_outage_of_storage_and_no_fault_of_a_request(
    api: responses.RequestsMock, answer: tuple[int, str, bytes]
) -> None:
    status, kind, body = answer
    clock = Clock()
    signer = of_identity(api, clock, lambda request: (status, {"Content-Type": kind}, body))
    with pytest.raises(StorageError, match="user-delegation key") as raised:
        signer.sas("model-1", write=True, until=clock.now + HOUR)
    assert raised.value.retryable
