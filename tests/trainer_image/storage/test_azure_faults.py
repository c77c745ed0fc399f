"""What Azure refuses, and when: whose turn it is, whether another pod could do better, and which blob it is about."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.transport import HttpTransport
from azure.storage.blob import BlobServiceClient, ContainerClient

from tests.trainer_image.storage.blob_proxy import BlobProxy, Instead, error_body
from trainer_image.errors import (
    ConfigInvalid,
    DatasetInvalid,
    PermissionDenied,
    StorageUnavailable,
    TrainerError,
)
from trainer_image.limits import Limits
from trainer_image.stop import Stop
from trainer_image.storage.azure import open_container
from trainer_image.storage.azure_faults import no_token
from trainer_image.storage.container import BlobInfo, Container, NoToken, StorageFault
from trainer_image.transfer import lease, publish
from trainer_image.transfer.checkpoint_store import ContainerCheckpoints
from trainer_image.transfer.download import Download, lock_dataset
from trainer_image.transfer.failures import failing_as
from trainer_image.transfer.fetch_model import fetched
from trainer_image.transfer.sources import unreadable


@pytest.fixture
def blobs(azurite: Any) -> ContainerClient:
    client = BlobServiceClient.from_connection_string(azurite.connection_string)
    container = client.create_container(f"c-{secrets.token_hex(6)}")
    container.upload_blob("config.yaml", b"task: tabular\n")
    container.upload_blob("train/a.csv", b"a,b\n1,2\n")
    return container


class Refusals:
    """Answers `answer` in place of Azurite, where `to` says yes to the request's method and path."""

    def __init__(self) -> None:
        self.answer: tuple[int, str, bytes] | None = None
        self.to: Callable[[str, str], bool] = lambda method, path: True

    def __call__(self, method: str, path: str) -> tuple[int, str, bytes] | None:
        return self.answer if self.to(method, path) else None

    def with_code(self, status: int, code: str) -> None:
        """As Azure answers; with "" as the code without words."""
        self.answer = (status, code, error_body(code) if code else b"")


@pytest.fixture
def refusals() -> Refusals:
    return Refusals()


@pytest.fixture
def storage(azurite: Any, blobs: ContainerClient, refusals: Instead) -> Iterator[Container]:
    with BlobProxy(azurite.connection_string, instead=refusals) as proxy:
        yield open_container(proxy.connection_string, None, str(blobs.container_name))


def read_config(storage: Container, folder: Path) -> None:
    with unreadable(storage):
        storage.read("config.yaml", 1000)


def download(storage: Container, folder: Path) -> None:
    Download(storage, lock_dataset(storage, Limits()), folder / "data", lambda: False).run()


def take_lease(storage: Container, folder: Path) -> None:
    with failing_as(f"Failed to write to container: {storage.name}"):
        lease.take(storage, "run-1", Stop()).release()


def upload(storage: Container, folder: Path) -> None:
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out" / "model.json").write_text("{}")
    with unreadable(storage):
        before = publish.read_latest(storage)
    publish.publish(storage, folder / "out", secrets.token_hex(4), before)


def list_checkpoints(storage: Container, folder: Path) -> None:
    ContainerCheckpoints(storage, "key", folder / "checkpoints", 2).newest_first()


STEPS = [read_config, download, take_lease, list_checkpoints, upload]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", ["AuthenticationFailed", "AuthorizationPermissionMismatch", ""])
def test_a_first_refusal_is_for_good_and_a_later_one_is_for_the_next_pod(
    storage: Container, refusals: Refusals, tmp_path: Path, step: Any, code: str
) -> None:
    refusals.with_code(403, code)
    with pytest.raises(TrainerError, match="storage refuses access") as first:
        step(storage, tmp_path)
    if step is not list_checkpoints:  # it never ends a training for good: what it could not read would be written over
        assert (type(first.value), first.value.exit_code) == (PermissionDenied, 77)
    refusals.answer = None
    step(storage, tmp_path)
    refusals.with_code(403, code)
    with pytest.raises(TrainerError, match="has accepted this before and refuses access now") as later:
        step(storage, tmp_path)
    assert later.value.exit_code == 201
    assert "was the key changed, has the SAS run out" in later.value.sentence


def test_a_right_that_was_never_there_is_no_credential_that_has_run_out(
    storage: Container, refusals: Refusals, tmp_path: Path
) -> None:
    read_config(storage, tmp_path)
    refusals.with_code(403, "AuthorizationPermissionMismatch")
    refusals.to = lambda method, path: method == "PUT"
    with pytest.raises(PermissionDenied, match=r"storage refuses access \(AuthorizationPermissionMismatch\)"):
        take_lease(storage, tmp_path)


def test_a_key_that_is_rotated_while_a_range_is_read_is_for_the_next_pod(
    azurite: Any, blobs: ContainerClient, tmp_path: Path
) -> None:
    def rotated(answer: Any, number: int, status: int, headers: dict[str, str], body: bytes) -> bool:
        answer.send(403, {"x-ms-error-code": "AuthenticationFailed"}, error_body("AuthenticationFailed"))
        return True

    with BlobProxy(azurite.connection_string, rotated) as proxy:
        with pytest.raises(StorageUnavailable, match=r"refuses access now \(AuthenticationFailed\)"):
            download(open_container(proxy.connection_string, None, str(blobs.container_name)), tmp_path)
        assert len(proxy.asked) <= 2, "each of two files once: asking again would not help"


@pytest.mark.parametrize(
    "body", [b"", b"<html>Forbidden</html>", b"<Error><Code>X</Code></Error>", b'{"error": {"code": "X"}}', b"\xff\xfe"]
)
def test_a_refusal_without_words_is_a_refusal(
    storage: Container, refusals: Refusals, tmp_path: Path, body: bytes
) -> None:
    refusals.answer = (403, "", body)
    with pytest.raises(PermissionDenied, match="storage refuses access"):
        read_config(storage, tmp_path)


LISTING = b"<EnumerationResults><Blobs><Blob><Name>a.csv</Name>%b</Blob></Blobs><NextMarker/></EnumerationResults>"
SIZELESS = b"<Properties><BlobType>BlockBlob</BlobType>%b</Properties>"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Please sign in</html>",
        b"\xff\xfe",
        b'{"run_id": "r", "manifest_sha256": "00"}',
        b"<EnumerationResults></EnumerationResults>",
        LISTING % b"",
        LISTING % SIZELESS % b"",
        LISTING % SIZELESS % b"<Content-Length>-5</Content-Length>",
        LISTING % SIZELESS % b"<Content-Length>many</Content-Length>",
    ],
)
@pytest.mark.parametrize("step", ["list", "read", "fetch the model", "pieces"])
def test_an_answer_that_is_none_of_storage_s_is_a_sentence(
    storage: Container, refusals: Refusals, tmp_path: Path, body: bytes, step: str
) -> None:
    refusals.answer = (200, "", body)
    steps: dict[str, Callable[[], object]] = {
        "list": lambda: list(storage.list()),
        "read": lambda: storage.read("latest.json", 1000),
        "fetch the model": lambda: fetched(storage, tmp_path),
        "pieces": lambda: list(storage.pieces(BlobInfo("a.csv", 40, "etag"), 0, 40)),
    }
    with pytest.raises((StorageFault, TrainerError), match="what answers for storage"):
        steps[step]()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("status", "code", "body", "said"),
    [
        (400, "InvalidUri", error_body("InvalidUri"), r"storage answers 400 \(InvalidUri\), which no further attempt"),
        (400, "", b"", "storage answers 400, which no further attempt"),
        (407, "", b"<html>proxy</html>", "storage answers 407, which no further attempt"),
    ],
)
def test_an_answer_that_will_be_the_same_the_next_time_is_permanent(
    storage: Container, refusals: Refusals, tmp_path: Path, step: Any, status: int, code: str, body: bytes, said: str
) -> None:
    refusals.answer = (status, code, body)
    with pytest.raises(TrainerError, match=said) as told:
        step(storage, tmp_path)
    if step is not list_checkpoints:
        assert (type(told.value), told.value.exit_code) == (PermissionDenied, 77)


CONFLICTS = ["BlobArchived", "BlobImmutableDueToPolicy", "PendingCopyOperation", "SomethingNewOfNextYear", ""]


@pytest.mark.parametrize("code", CONFLICTS)
@pytest.mark.parametrize(
    ("step", "to", "kind", "name"),
    [
        (read_config, "config.yaml", ConfigInvalid, "config.yaml: "),
        (download, "train/a.csv", DatasetInvalid, "train/a.csv: "),
        (take_lease, ".run.lease", PermissionDenied, ".run.lease: "),
        (upload, "/runs/", PermissionDenied, "runs/"),
    ],
)
def test_what_the_state_of_a_blob_forbids_is_permanent_and_named(
    storage: Container, refusals: Refusals, tmp_path: Path, step: Any, to: str, kind: type, name: str, code: str
) -> None:
    refusals.with_code(409, code)
    refusals.to = lambda method, path: to in path
    with pytest.raises(TrainerError) as told:
        step(storage, tmp_path)
    assert type(told.value) is kind
    assert not told.value.retryable
    assert name in told.value.sentence
    assert f"({code or 409})" in told.value.sentence


def test_a_container_that_is_being_deleted_is_nothing_to_wait_for(
    storage: Container, refusals: Refusals, tmp_path: Path
) -> None:
    refusals.with_code(409, "ContainerBeingDeleted")
    for step in (read_config, download, take_lease, upload):
        with pytest.raises(TrainerError, match="the container does not exist") as told:
            step(storage, tmp_path)
        assert not told.value.retryable, step


def test_an_archived_blob_is_named_before_anything_is_downloaded(
    storage: Container, blobs: ContainerClient, tmp_path: Path
) -> None:
    blobs.get_blob_client("train/a.csv").set_standard_blob_tier("Archive")  # type: ignore[arg-type]
    with pytest.raises(DatasetInvalid, match=r"^Invalid dataset: train/a\.csv: it is in the archive tier"):
        download(storage, tmp_path)
    assert not (tmp_path / "data").exists()


def test_only_the_end_of_a_listing_ends_it(azurite: Any) -> None:
    """Azure may answer with an empty page and a marker; what comes after it counts."""
    pages = {"": ("", "m1"), "m1": ("a", "m2"), "m2": ("", "m3"), "m3": ("b", "")}

    def answer(method: str, path: str) -> tuple[int, str, bytes]:
        found = re.search(r"[?&]marker=(\w+)", path)
        name, following = pages[found[1] if found else ""]
        blob = (
            f"<Blob><Name>{name}</Name><Properties><Etag>0x{name}</Etag><Content-Length>1</Content-Length>"
            "<Content-Type>text/plain</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
        )
        text = (
            '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://x/" ContainerName="c">'
            f"<Blobs>{blob if name else ''}</Blobs><NextMarker>{following}</NextMarker></EnumerationResults>"
        )
        return 200, "", text.encode()

    with BlobProxy(azurite.connection_string, instead=answer) as proxy:
        assert [blob.name for blob in open_container(proxy.connection_string, None, "c").list()] == ["a", "b"]


@pytest.fixture
def a_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_a_machine_s_netrc_is_not_our_credential_and_its_proxy_is_used(
    azurite: Any, blobs: ContainerClient, tmp_path: Path, a_netrc: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BlobProxy(azurite.connection_string) as proxy:
        settings = dict(part.split("=", 1) for part in proxy.connection_string.split(";"))
        behind = urlsplit(settings["BlobEndpoint"])
        monkeypatch.setenv("HTTP_PROXY", f"http://{behind.netloc}")
        settings["BlobEndpoint"] = f"http://storage.invalid{behind.path}"
        text = ";".join(f"{name}={value}" for name, value in settings.items())
        storage = open_container(text, None, str(blobs.container_name))
        read_config(storage, tmp_path)
        download(storage, tmp_path)
        upload(storage, tmp_path)
        assert "bytes=0-7" in proxy.asked


class TokenGiver(BaseHTTPRequestHandler):
    """Where azure-identity asks for a token (App Service's form of it, which may be any address)."""

    server: TokenServer

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Authorization"))
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"error": "temporarily_unavailable"}')

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class TokenServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TokenGiver)
        self.asked: list[str | None] = []


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits for half a minute and more before it gives up."""
    monkeypatch.setattr(HttpTransport, "sleep", lambda self, duration: None)


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    with TokenServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        monkeypatch.setenv("AZURE_CLIENT_ID", "0b1f6471-1bf0-4dda-aec3-111122223333")
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        yield server
        server.shutdown()


@pytest.mark.parametrize("step", STEPS)
def test_a_token_that_is_late_is_for_the_next_pod_and_names_the_identity(
    tokens: TokenServer, a_netrc: None, tmp_path: Path, step: Any
) -> None:
    storage = open_container(None, "https://account.invalid", "model-1")
    with pytest.raises(TrainerError, match=r"there is no token for the managed identity 0b1f6471-1bf0-4dda-") as told:
        step(storage, tmp_path)
    assert told.value.exit_code == 201
    assert "(AZURE_CLIENT_ID)" in told.value.sentence
    assert tokens.asked
    assert not any(tokens.asked), "the identity is asked for without a machine's .netrc"


def test_what_the_identity_s_own_service_calls_it_is_said() -> None:
    said = no_token(ClientAuthenticationError("AADSTS90033: A transient error has occurred, …"), "the identity x").why
    assert said.startswith("there is no token for the identity x (AADSTS90033): ")


def test_a_token_that_is_late_for_a_range_is_for_the_next_pod(tokens: TokenServer) -> None:
    storage = open_container(None, "https://account.invalid", "dataset-1")
    with pytest.raises(NoToken, match="0b1f6471"):
        list(storage.pieces(BlobInfo("a", 1, "e"), 0, 1))


def test_a_workload_identity_without_its_token_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "0b1f6471",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "not-there-yet"),
        "AZURE_TOKEN_CREDENTIALS": "WorkloadIdentityCredential",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageUnavailable, match="no token for the workload identity 0b1f6471"):
        read_config(open_container(None, "https://account.invalid", "model-1"), tmp_path)
