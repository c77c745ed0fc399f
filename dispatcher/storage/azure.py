"""Signatures (SAS) for single containers of one storage account: the only importer of azure.storage.blob.

With an account key a service SAS is made here, without a call. With an identity it is a user-delegation SAS: its key is
asked of the account, kept, and asked anew in good time, since a signature ends with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import (
    BlobServiceClient,
    ContainerClient,
    ContainerSasPermissions,
    UserDelegationKey,
    generate_container_sas,
)

from dispatcher.storage.errors import StorageError
from training_common import azure_identity
from training_common.redaction import redact
from training_common.text import one_line

# Signatures begin so many seconds ago: the account's clock may be behind ours.
_SKEW = 900.0
_YEAR = 365 * 86400.0
_WEEK = 7 * 86400.0
# Azure takes no user-delegation key that is good for longer than this, by its own clock (Get User Delegation Key).
_KEY_SECONDS = _WEEK - _SKEW
# What a key that is kept is good for at least; so every signature may be made for as long.
_LEAST_LEFT = _WEEK - 86400.0
# Seconds after a failure for which nobody asks for a key again: each launch and each renewal would.
_PAUSE = 5.0
# Seconds for which a key is kept although what it signed is said to be refused: ten thousand may say so.
_TRUSTED = 60.0
# The SDK's own pause is fifteen seconds and more, in which every launch waits: who asks here asks again anyway.
_PATIENCE: Mapping[str, Any] = {"retry_total": 1, "initial_backoff": 0.5, "increment_base": 0, "random_jitter_range": 0}
_CALLS: Mapping[str, Any] = {"connection_timeout": 10, "read_timeout": 30, **_PATIENCE}
# The SDK's own, and what it raises where it stumbles over an answer: a gateway's error page in Latin-1.
_FAILURES = (AzureError, ValueError, LookupError, TypeError, AttributeError)
# Nobody's container.
_NO_CONTAINER = "dispatcher-check"


@dataclass(frozen=True)
class _Kept:
    """A user-delegation key, or why there is none. since, until: epoch seconds."""

    until: float
    since: float = 0.0
    key: UserDelegationKey | None = None
    error: StorageError | None = None


class AzureSignatures:
    """See `ports.ScopedStorage`. Thread-safe.

    blob_url: used with an identity, where there is no connection string. clock: epoch seconds. Raises ValueError where
    the connection string has no account key, or the address no account.
    """

    def __init__(
        self,
        *,
        connection_string: str = "",
        blob_url: str = "",
        clock: Callable[[], float] = time.time,
        credential: Any = None,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept = _Kept(0.0)
        if connection_string:
            self._service = _of_connection_string(connection_string)
            self._account_key = str(getattr(self._service.credential, "account_key", ""))
            self.longest = _YEAR
            by = _fingerprint(self._account_key)
            account = str(self._service.account_name)
        else:
            if credential is None:
                from azure.identity import DefaultAzureCredential

                credential = DefaultAzureCredential()
            self._service = BlobServiceClient(blob_url, credential=credential, transport=_transport(), **_CALLS)
            account = _account_of(blob_url, self._service)
            self._account_key = ""
            self.longest = _LEAST_LEFT
            by = "identity"
        self.address = self._service.url.rstrip("/")
        self.signer = f"{self.address} {by}"
        self._account = account

    def sas(self, container: str, *, write: bool, until: float) -> str:
        """See `ports.ScopedStorage`."""
        now = self._clock()
        signed_by: dict[str, Any] = {"account_key": self._account_key}
        if not self._account_key:
            signed_by = {"user_delegation_key": self._delegation_key(now)}
        signature = generate_container_sas(
            self._account,
            container,
            permission=ContainerSasPermissions(read=True, list=True, write=write, delete=write),
            start=_when(now - _SKEW),
            expiry=_when(min(until, now + self.longest)),
            # A signature must not travel in the clear; Azurite has no certificate.
            protocol="https" if self.address.startswith("https:") else None,
            **signed_by,
        )
        return f"{self.address}/{container}?{signature}"

    def distrust(self) -> None:
        """See `ports.ScopedStorage`: somebody may have revoked the account's user-delegation keys."""
        with self._lock:
            if self._kept.key is not None and self._clock() > self._kept.since + _TRUSTED:
                self._kept = _Kept(0.0)

    def try_out(self) -> None:
        """Sign for a container that there is not, and ask for what is in it. Raises StorageError where that is refused.

        Azure says that a container is missing only to who may look into it.
        """
        try:
            signed = self.sas(_NO_CONTAINER, write=False, until=self._clock() + 300.0)
            with ContainerClient.from_container_url(signed, **_CALLS) as container:
                next(iter(container.list_blobs(results_per_page=1)), None)
        except ResourceNotFoundError:
            return
        except _FAILURES as error:
            raise _error_of(error, f"{self.address} does not take what is signed for one container") from None

    def _delegation_key(self, now: float) -> UserDelegationKey:
        with self._lock:
            if self._kept.until <= now:
                self._kept = self._ask(now)
            if self._kept.key is None:
                raise self._kept.error or StorageError("There is no user-delegation key", retryable=True)
            return self._kept.key

    def _ask(self, now: float) -> _Kept:
        try:
            key = self._service.get_user_delegation_key(_when(now - _SKEW), _when(now + _KEY_SECONDS))
        except _FAILURES as error:
            why = _error_of(error, f"Cannot get a user-delegation key of {self.address}")
            return _Kept(now + _PAUSE, now, error=why)
        return _Kept(now + _KEY_SECONDS - _LEAST_LEFT, now, key)


def _of_connection_string(text: str) -> BlobServiceClient:
    try:
        service = BlobServiceClient.from_connection_string(text, **_CALLS)
        base64.b64decode(service.credential.account_key, validate=True)
    except (ValueError, AttributeError, binascii.Error):
        raise ValueError(
            "AZURE_STORAGE_CONNECTION_STRING has no account key that can sign, which CREDENTIALS=scoped needs"
        ) from None
    return service


def _account_of(blob_url: str, service: BlobServiceClient) -> str:
    """The name that a signature is made for: of a host of Azure's the first label. The SDK knows none of
    ACCOUNT.z12.blob.storage.azure.net, and a wrong one of ACCOUNT.privatelink.blob.core.windows.net."""
    first, _, rest = (urlsplit(blob_url).hostname or "").partition(".")
    if ".blob." in f".{rest}":
        return first
    if service.account_name:  # of an emulator
        return str(service.account_name)
    raise ValueError(
        "AZURE_STORAGE_BLOB_URL has no name of a storage account, which CREDENTIALS=scoped signs for: "
        "https://ACCOUNT.blob.core.windows.net would be right"
    )


def _transport() -> Any:
    """The SDK's own, without a machine's .netrc: an entry for the host, or for all, would take our token's place."""
    transport: Any = RequestsTransport()
    transport.open()
    transport.session.auth = lambda request: request
    return transport


def _fingerprint(key: str) -> str:
    return hmac.new(key.encode(), b"training-dispatcher signer", hashlib.sha256).hexdigest()[:16]


def _when(seconds: float) -> datetime:
    # Whole seconds: a fraction would be cut off by the SDK, and compared with what is not cut off.
    return datetime.fromtimestamp(int(seconds), UTC)


def _error_of(error: Exception, cannot: str) -> StorageError:
    if not isinstance(error, AzureError):
        sentence = f"{cannot}: the answer cannot be read ({type(error).__name__}); does a proxy answer in its place?"
        return StorageError(sentence, retryable=True)
    status = error.status_code if isinstance(error, HttpResponseError) and error.response is not None else None
    if status is None and isinstance(error, ClientAuthenticationError):
        return StorageError(f"{cannot}: {azure_identity.no_token(error, os.environ)}", retryable=True)
    why = redact(one_line(str(error.message or error)))[:300]
    if status in (401, 403):
        hint = "its identity needs a role such as Storage Blob Delegator, and Storage Blob Data Contributor"
        return StorageError(f"{cannot}: {why}; {hint}", retryable=False)
    return StorageError(f"{cannot}: {why}", retryable=status is None or not 400 <= status < 500 or status in (408, 429))
