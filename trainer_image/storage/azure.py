"""Containers in Azure Blob Storage. In the trainer, only this file calls the Azure SDK; ranges come without it."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import itertools
import json
import logging
import mimetypes
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BufferedIOBase
from typing import Any, TypeVar
from urllib.parse import urlsplit

from azure.core import MatchConditions
from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobLeaseClient, BlobServiceClient, ContainerClient, ContentSettings, ExponentialRetry

from trainer_image.errors import ConfigInvalid
from trainer_image.storage import surroundings
from trainer_image.storage.azure_faults import ARCHIVED, REHYDRATED, Accepted, Asked, fault_of, no_token, retry_after
from trainer_image.storage.azure_ranges import LONGEST_WAIT, RangeReader, only_our_credentials
from trainer_image.storage.container import (
    ANY,
    AccessWithdrawn,
    BlobChanged,
    BlobInfo,
    BlobMissing,
    CredentialRefused,
    LeaseHeld,
    StorageFault,
    TooLarge,
)
from trainer_image.storage.signature import Signature
from training_common import azure_identity
from training_common.backoff import exponential, jittered
from training_common.retry_after import parse_retry_after

# A lease outlives its holder by this: the shortest that Azure gives; a dead pod's replacement waits for it.
LEASE_SECONDS = 15
# Longer than any range takes on a working line; a silent connection is given up and asked again.
READ_TIMEOUT = 60
CONNECT_TIMEOUT = 20
RETRIES = 6
_CHUNK = 16 * 1024 * 1024
_BLOCK = 256 * 1024  # read from the socket at a time, as the SDK does by itself
SCOPE = "https://storage.azure.com/.default"
# Of the whole process: a container is opened anew for each of its uses.
_ACCEPTED = Accepted()

_T = TypeVar("_T")


class _PatientRetry(ExponentialRetry):
    """The SDK's policy, but the server's Retry-After decides the pause where there is one."""

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        response = settings["history"][-1].http_response if settings["history"] else None
        asked = response.headers.get("Retry-After") if response is not None else None
        if (wait := parse_retry_after(asked, time.time())) is not None:
            return min(wait, LONGEST_WAIT)
        return jittered(exponential(settings["count"] + 1, self.initial_backoff, 30.0))


def open_container(connection_string: str | None, account_url: str | None, name: str, **options: Any) -> AzureContainer:
    """A container of one storage account. Raises ConfigInvalid for settings of the environment that cannot be used."""
    options = _prepared(options)
    setting = "AZURE_STORAGE_CONNECTION_STRING" if connection_string else "AZURE_STORAGE_ACCOUNT_URL"
    try:
        if connection_string:
            service = BlobServiceClient.from_connection_string(connection_string, **options)
        else:
            from azure.identity import DefaultAzureCredential

            service = BlobServiceClient(account_url or "", credential=_credential(DefaultAzureCredential), **options)
        client = service.get_container_client(name)
        base64.b64decode(getattr(client.credential, "account_key", ""), validate=True)
    except ValueError:
        raise ConfigInvalid(f"{setting} is malformed: no storage account can be read from it") from None
    return AzureContainer(client, name)


def open_signed(signature: Signature, name: str, **options: Any) -> AzureContainer:
    """A container that is open to us by a signature which is renewed while we run. Raises ConfigInvalid."""
    client = ContainerClient.from_container_url(signature.url, credential=_Renewed(signature), **_prepared(options))
    return AzureContainer(client, name, signature)


class _Renewed(AzureSasCredential):
    """The SDK asks for it with each request."""

    def __init__(self, renewed: Signature) -> None:
        super().__init__(renewed.current())
        self._renewed = renewed

    @property
    def signature(self) -> str:
        return self._renewed.current()


def _prepared(options: dict[str, Any]) -> dict[str, Any]:
    # Each request and each credential tried is a line at INFO or WARNING otherwise, with URLs in them.
    for library in ("azure", "urllib3", "msal"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    options = options | {
        "retry_policy": _PatientRetry(
            initial_backoff=1, retry_total=RETRIES, retry_connect=RETRIES, retry_read=RETRIES, retry_status=RETRIES
        ),
        "connection_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "max_single_get_size": _CHUNK,
        "max_chunk_get_size": _CHUNK,
        "max_block_size": _CHUNK,
        "transport": options.get("transport") or _transport(),
    }
    surroundings.check()
    return options


def _credential(kind: Callable[..., Any]) -> Any:
    try:
        return kind(transport=_transport())
    except ValueError:
        raise ConfigInvalid(
            "AZURE_TOKEN_CREDENTIALS, or another variable that azure-identity reads, has a value that it does not know"
        ) from None


def _transport() -> RequestsTransport:
    """The SDK's own, with the environment's proxies and without a machine's .netrc: an entry for storage, or for
    everything, would take the place of our signature or token."""
    transport = RequestsTransport(
        connection_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, connection_data_block_size=_BLOCK
    )
    transport.open()
    only_our_credentials(transport.session)
    return transport


class AzureContainer:
    """See `storage.Container`."""

    def __init__(self, client: ContainerClient, name: str, signature: Signature | None = None) -> None:
        self._client = client
        self._signature = signature
        self.name = name
        parts = urlsplit(client.url)
        self._host = parts.netloc
        key = getattr(client.credential, "account_key", "")
        # Never the secret itself: what is kept for the life of the process may show up in a traceback.
        text = "\0".join((self._host, key, parts.query, name if parts.query or signature else ""))
        self._caller = hashlib.sha256(text.encode()).hexdigest()
        if signature is not None:
            _ACCEPTED.vouch(self._caller)
        self._identity = azure_identity.name(os.environ) if hasattr(client.credential, "get_token") else ""
        self._ranges = RangeReader(
            client.url,
            client.credential,
            self._token if self._identity else None,
            signature,
            connect_timeout=CONNECT_TIMEOUT,
            silence=READ_TIMEOUT,
        )

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        pages = iter(self._client.list_blobs(name_starts_with=prefix or None, include=["metadata"]).by_page())
        # A page may be empty and not the last one: only the marker says that there are no more.
        while (page := self._do("list", "", lambda: _page(pages))) is not None:
            for blob in page:
                if not (isinstance(blob.name, str) and isinstance(blob.size, int) and blob.size >= 0):
                    raise self._asked("list", "").fault(200, "")
                # Accounts with a hierarchical namespace list their folders as empty blobs.
                marker = (blob.metadata or {}).get("hdi_isfolder", "").lower() == "true"
                if marker or (blob.size == 0 and blob.name.endswith("/")):
                    continue
                md5 = blob.content_settings.content_md5
                at = blob.last_modified
                modified = at.timestamp() if isinstance(at, datetime) else 0.0
                etag, md5 = _bare(blob.etag), bytes(md5) if md5 else None
                yield BlobInfo(blob.name, blob.size, etag, md5, _unreadable(blob), modified)

    def read(self, name: str, limit: int) -> tuple[bytes, str]:
        def get() -> tuple[bytes, str]:
            stream = self._client.download_blob(name, length=limit + 1, offset=0)
            return stream.readall(), stream.properties.etag

        try:
            content, etag = self._do("read", name, get)
        except StorageFault as fault:
            # A range of an empty blob is refused as 416 by services that are strict about it.
            if "InvalidRange" not in fault.why:
                raise
            properties = self._client.get_blob_client(name).get_blob_properties
            return b"", _bare(self._do("read", name, lambda: properties().etag))
        if len(content) > limit:
            raise TooLarge(f"it is larger than {limit} bytes", _bare(etag))
        return content, _bare(etag)

    def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
        return self._ranges.pieces(blob, offset, length, self._asked("read", blob.name))

    def write(self, name: str, content: bytes) -> None:
        put = functools.partial(self._client.upload_blob, name, content, overwrite=True, content_settings=_type(name))
        self._do("write", name, put)

    def write_if(self, name: str, content: bytes, etag: str | None) -> None:
        put = functools.partial(self._client.upload_blob, name, content, content_settings=_type(name), **_only_if(etag))
        self._do("write", name, put)

    def upload(self, name: str, content: BufferedIOBase, etag: str | None = ANY) -> str:
        content.seek(0)
        md5 = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).digest()
        size = content.seek(0, os.SEEK_END)

        def put() -> str:
            content.seek(0)
            answer = self._client.get_blob_client(name).upload_blob(
                content, length=size, max_concurrency=4, content_settings=_type(name, md5), **_only_if(etag)
            )
            return _bare(answer["etag"])

        return self._do("write", name, put)

    def delete(self, name: str) -> None:
        with contextlib.suppress(BlobMissing):
            self._do("delete", name, lambda: self._client.delete_blob(name, delete_snapshots="include"))

    def disk(self) -> None:
        return None

    def lease(self, name: str, owner: str, *, take_over: bool) -> AzureLease:
        blob = self._client.get_blob_client(name)
        acquire = functools.partial(blob.acquire_lease, lease_duration=LEASE_SECONDS)
        with contextlib.suppress(BlobChanged, LeaseHeld):
            self.write_if(name, b"{}", None)
        try:
            lease = self._do("write", name, acquire)
        except LeaseHeld:
            if not take_over:
                raise
            self._do("write", name, lambda: BlobLeaseClient(blob).break_lease(lease_break_period=0))
            lease = self._do("write", name, acquire)
        note = json.dumps({"owner": owner}).encode()
        self._do("write", name, lambda: blob.upload_blob(note, overwrite=True, lease=lease))
        return AzureLease(self, lease, name)

    def _token(self) -> str:
        try:
            return str(self._client.credential.get_token(SCOPE).token)
        except AzureError as error:
            raise no_token(error, self._identity) from None

    def _asked(self, kind: str, name: str) -> Asked:
        return Asked(self._caller, self.name, kind, name, _ACCEPTED)

    def _do(self, kind: str, name: str, call: Callable[[], _T]) -> _T:
        """kind: what an identity needs a right of its own for; name: of the blob, "" for the container."""
        asked = self._asked(kind, name)
        for failures in itertools.count(1):
            signed = self._signature.current() if self._signature is not None else ""
            try:
                found = call()
            except Exception as error:
                # The SDK's policy knows 503 as "slow down"; gateways in front of storage say 429.
                if isinstance(error, AzureError) and getattr(error, "status_code", None) == 429 and failures < 5:
                    time.sleep(min(retry_after(error) or exponential(failures, 1.0, 8.0), LONGEST_WAIT))
                    continue
                fault = fault_of(error, asked, self._host, self._identity)
                if fault is None and isinstance(error, (OSError, MemoryError)):
                    raise  # this machine's
                refused = isinstance(fault, CredentialRefused | AccessWithdrawn)
                if refused and self._signature is not None and self._signature.replaced(signed):
                    continue
                # The SDK raises whatever an answer that is none of storage's makes it stumble over.
                raise fault or asked.fault(200, "") from None
            asked.granted()
            return found
        raise AssertionError("it returns or raises")


class AzureLease:
    """A blob lease, renewed by its holder."""

    def __init__(self, container: AzureContainer, lease: BlobLeaseClient, name: str) -> None:
        self._container = container
        self._lease = lease
        self._name = name

    def renew(self) -> None:
        try:
            self._container._do("write", self._name, self._lease.renew)
        except (BlobMissing, BlobChanged) as fault:
            raise LeaseHeld(fault.why) from None

    def release(self) -> None:
        try:
            self._container._do("write", self._name, self._lease.release)
        except StorageFault as fault:
            logging.getLogger(__name__).debug("The lease was not released: %s", fault.why)


def _page(pages: Iterator[Any]) -> list[Any] | None:
    """The next page of a listing; None behind the last one."""
    page = next(pages, None)
    return None if page is None else list(page)


def _unreadable(blob: Any) -> str | None:
    if str(blob.blob_tier or "").lower() != "archive":
        return None
    return REHYDRATED if blob.archive_status else ARCHIVED


def _only_if(etag: str | None) -> dict[str, Any]:
    if etag is None:
        return {"overwrite": False}
    if etag == ANY:
        return {"overwrite": True}
    return {"overwrite": True, "etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _type(name: str, md5: bytes | None = None) -> ContentSettings:
    guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return ContentSettings(content_type=guessed, content_md5=bytearray(md5) if md5 else None)  # type: ignore[no-untyped-call,unused-ignore]
