"""Containers in Azure Blob Storage. In the trainer, only this file calls the Azure SDK; ranges come without it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import mimetypes
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobLeaseClient, BlobServiceClient, ContainerClient, ContentSettings, ExponentialRetry

from trainer_image.errors import UsageError
from trainer_image.storage.azure_faults import fault_of, retry_after
from trainer_image.storage.azure_ranges import LONGEST_WAIT, RangeReader
from trainer_image.storage.container import (
    ANY,
    BlobChanged,
    BlobInfo,
    BlobMissing,
    LeaseHeld,
    StorageFault,
    TooLarge,
)
from training_common.backoff import exponential, jittered
from training_common.retry_after import parse_retry_after

# A lease outlives its holder by this: the shortest that Azure gives; a dead pod's replacement waits for it.
LEASE_SECONDS = 15
# Longer than any range takes on a working line; a silent connection is given up and asked again.
READ_TIMEOUT = 60
CONNECT_TIMEOUT = 20
RETRIES = 6
_CHUNK = 16 * 1024 * 1024

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
    """A container of one storage account. Raises UsageError for an address that cannot be one."""
    # Each request and each credential tried is a line at INFO or WARNING otherwise, with URLs in them.
    for library in ("azure", "urllib3", "msal"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    options |= {
        "retry_policy": _PatientRetry(
            initial_backoff=1, retry_total=RETRIES, retry_connect=RETRIES, retry_read=RETRIES, retry_status=RETRIES
        ),
        "connection_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "max_single_get_size": _CHUNK,
        "max_chunk_get_size": _CHUNK,
        "max_block_size": _CHUNK,
    }
    try:
        if connection_string:
            service = BlobServiceClient.from_connection_string(connection_string, **options)
        else:
            from azure.identity import DefaultAzureCredential

            service = BlobServiceClient(account_url or "", credential=DefaultAzureCredential(), **options)
    except ValueError:
        setting = "AZURE_STORAGE_CONNECTION_STRING" if connection_string else "AZURE_STORAGE_ACCOUNT_URL"
        raise UsageError(f"{setting} is malformed: no storage account can be read from it") from None
    return AzureContainer(service.get_container_client(name), name)


class AzureContainer:
    """See `storage.Container`."""

    def __init__(self, client: ContainerClient, name: str) -> None:
        self._client = client
        self.name = name
        self._ranges = RangeReader(client.url, client.credential, connect_timeout=CONNECT_TIMEOUT, silence=READ_TIMEOUT)

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        pages = iter(self._client.list_blobs(name_starts_with=prefix or None, include=["metadata"]).by_page())
        while page := self._do(lambda: list(next(pages, []))):
            for blob in page:
                # Accounts with a hierarchical namespace list their folders as empty blobs.
                marker = (blob.metadata or {}).get("hdi_isfolder", "").lower() == "true"
                if marker or (blob.size == 0 and blob.name.endswith("/")):
                    continue
                md5 = blob.content_settings.content_md5
                yield BlobInfo(blob.name, blob.size, _bare(blob.etag), bytes(md5) if md5 else None)

    def read(self, name: str, limit: int) -> tuple[bytes, str]:
        def get() -> tuple[bytes, str]:
            stream = self._client.download_blob(name, length=limit + 1, offset=0)
            return stream.readall(), stream.properties.etag

        try:
            content, etag = self._do(get)
        except StorageFault as fault:
            # A range of an empty blob is refused as 416 by services that are strict about it.
            if "InvalidRange" not in fault.why:
                raise
            return b"", _bare(self._do(lambda: self._client.get_blob_client(name).get_blob_properties().etag))
        if len(content) > limit:
            raise TooLarge(f"it is larger than {limit} bytes", _bare(etag))
        return content, _bare(etag)

    def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
        return self._ranges.pieces(blob, offset, length)

    def write(self, name: str, content: bytes) -> None:
        self._do(lambda: self._client.upload_blob(name, content, overwrite=True, content_settings=_type(name)))

    def write_if(self, name: str, content: bytes, etag: str | None) -> None:
        self._do(lambda: self._client.upload_blob(name, content, content_settings=_type(name), **_only_if(etag)))

    def upload(self, name: str, file: Path, etag: str | None = ANY) -> str:
        with file.open("rb") as content:
            md5 = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).digest()

        def put() -> str:
            with file.open("rb") as content:
                answer = self._client.get_blob_client(name).upload_blob(
                    content,
                    length=file.stat().st_size,
                    max_concurrency=4,
                    content_settings=_type(name, md5),
                    **_only_if(etag),
                )
            return _bare(answer["etag"])

        return self._do(put)

    def delete(self, name: str) -> None:
        with contextlib.suppress(BlobMissing):
            self._do(lambda: self._client.delete_blob(name, delete_snapshots="include"))

    def lease(self, name: str, owner: str, *, take_over: bool) -> AzureLease:
        blob = self._client.get_blob_client(name)
        with contextlib.suppress(BlobChanged, LeaseHeld):
            self.write_if(name, b"{}", None)
        try:
            lease = self._do(lambda: blob.acquire_lease(lease_duration=LEASE_SECONDS))
        except LeaseHeld:
            if not take_over:
                raise
            self._do(lambda: BlobLeaseClient(blob).break_lease(lease_break_period=0))
            lease = self._do(lambda: blob.acquire_lease(lease_duration=LEASE_SECONDS))
        note = json.dumps({"owner": owner}).encode()
        self._do(lambda: blob.upload_blob(note, overwrite=True, lease=lease))
        return AzureLease(self, lease)

    def _do(self, call: Callable[[], _T]) -> _T:
        for failures in itertools.count(1):
            try:
                return call()
            except AzureError as error:
                # The SDK's policy knows 503 as "slow down"; gateways in front of storage say 429.
                if getattr(error, "status_code", None) != 429 or failures > 4:
                    raise fault_of(error) from None
                time.sleep(min(retry_after(error) or exponential(failures, 1.0, 8.0), LONGEST_WAIT))
        raise AssertionError("it returns or raises")


class AzureLease:
    """A blob lease, renewed by its holder."""

    def __init__(self, container: AzureContainer, lease: BlobLeaseClient) -> None:
        self._container = container
        self._lease = lease

    def renew(self) -> None:
        try:
            self._container._do(self._lease.renew)
        except (BlobMissing, BlobChanged) as fault:
            raise LeaseHeld(fault.why) from None

    def release(self) -> None:
        try:
            self._container._do(self._lease.release)
        except StorageFault as fault:
            logging.getLogger(__name__).debug("The lease was not released: %s", fault.why)


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
