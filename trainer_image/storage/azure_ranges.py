"""Ranges of blobs as they come from the network, without the SDK's detours: it joins, copies and checks each block in
Python, which costs seven times the processor time of what is done here (docs/performance.md).

Public pieces only: the REST operation Get Blob, signed with the account's key (the documented scheme Shared Key), a SAS
that the address brings, or a token of azure-identity. Everything else stays with the SDK.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import email.utils
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import urllib3

from trainer_image.storage.azure_faults import Asked
from trainer_image.storage.container import (
    AccessDenied,
    AccessWithdrawn,
    BlobChanged,
    BlobInfo,
    CredentialRefused,
    StorageFault,
    Unavailable,
)
from trainer_image.storage.signature import Signature
from training_common.backoff import exponential
from training_common.retry_after import parse_retry_after

VERSION = "2021-12-02"
# Read from the socket at a time, and so the memory that a connection takes.
PIECE_BYTES = 1024**2
ATTEMPTS = 6
# Doubled with each failure in a row.
FIRST_WAIT = 1.0
# Retry-After is honoured up to here; what asks for more is as good as down.
LONGEST_WAIT = 60.0
# Answers that a later attempt may not get. 416 is here for caches that lag behind; a blob that shrank is a 412.
PASSING = (408, 416, 429, 500, 502, 503, 504)


class RangeReader:
    """Reads ranges of the blobs of one container.

    url: the container's, with its SAS where it has one; credential: the SDK client's, of which `account_name` and
    `account_key` are used; token: gives the one of azure-identity, where there is no key, raises StorageFault;
    signature: a SAS that is renewed meanwhile
    connect_timeout, silence: seconds until a connection is there; without a single byte before it is given up
    """

    def __init__(
        self,
        url: str,
        credential: Any,
        token: Callable[[], str] | None,
        signature: Signature | None = None,
        *,
        connect_timeout: float,
        silence: float,
    ) -> None:
        parts = urlsplit(url)
        self._base, self._sas = f"{parts.scheme}://{parts.netloc}{parts.path}", parts.query
        self._credential = credential
        self._token = token
        self._signature = signature
        self._timeouts = (connect_timeout, silence)
        self._connection = _Connection()

    def pieces(self, blob: BlobInfo, offset: int, length: int, asked: Asked) -> Iterator[bytes]:
        """Exactly `length` bytes of the content that has the blob's ETag, in pieces.

        Where a connection breaks or stalls, or storage asks to wait, the rest is asked for again, from where it stood.
        Raises BlobMissing, BlobChanged, AccessDenied, Refused; Unavailable after ATTEMPTS without a byte of progress.
        """
        failures = 0
        while length:
            came = 0
            signed = self._signature.current() if self._signature is not None else self._sas
            fault: StorageFault
            wait: float | None = None
            try:
                with self._ask(blob, offset, length, signed) as response:
                    if response.status_code in PASSING:
                        wait = parse_retry_after(response.headers.get("Retry-After"), time.time())
                    _check(response, offset, length, asked)
                    while came < length and (piece := response.raw.read(min(PIECE_BYTES, length - came))):
                        came += len(piece)
                        yield piece
                    fault = Unavailable(f"storage sent {came} bytes where {length} were asked for")
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                fault = Unavailable(_why(error))
            except Unavailable as error:
                fault = error
            except (CredentialRefused, AccessWithdrawn):
                # It is said before the first byte of an answer: nothing has come of this one.
                if self._signature is None or not self._signature.replaced(signed):
                    raise
                continue
            offset, length = offset + came, length - came
            failures = 1 if came else failures + 1
            if length and failures >= ATTEMPTS:
                raise fault
            if length:
                self._connection.session.close()
                if wait is None:
                    wait = exponential(failures, FIRST_WAIT, LONGEST_WAIT)
                time.sleep(min(wait, LONGEST_WAIT))

    def _ask(
        self, blob: BlobInfo, offset: int, length: int, signed: str
    ) -> contextlib.AbstractContextManager[requests.Response]:
        url = f"{self._base}/{quote(blob.name, safe='/~')}"
        headers = {
            "x-ms-version": VERSION,
            "x-ms-date": email.utils.formatdate(usegmt=True),
            "x-ms-range": f"bytes={offset}-{offset + length - 1}",
            "If-Match": f'"{blob.etag}"',
            "Accept-Encoding": "identity",
        }
        if hasattr(self._credential, "account_key"):
            headers["Authorization"] = _shared_key(self._credential, url, headers)
        elif self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        address = f"{url}?{signed}" if signed else url
        return self._connection.session.get(
            address, headers=headers, stream=True, timeout=self._timeouts, allow_redirects=False
        )


class _Connection(threading.local):
    """One for each thread: a session must not be shared between them. A closed one connects again when it is used."""

    def __init__(self) -> None:
        self.session = requests.Session()
        only_our_credentials(self.session)


def only_our_credentials(session: requests.Session) -> None:
    """Keeps requests from putting a machine's .netrc, an entry for this host or for all, in place of our signature or
    token. The environment's proxies stay."""
    session.auth = lambda request: request


def _check(response: requests.Response, offset: int, length: int, asked: Asked) -> None:
    """Raises what an answer says that is not the range that was asked for."""
    status = response.status_code
    if status == 206:
        given = response.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {offset}-{offset + length - 1}/"):
            raise BlobChanged("another range of it came than the one that was asked for")
        asked.granted()
        return
    if status == 200:
        # What ignores ranges gives the whole blob each time: not storage, and not worth its traffic.
        raise _Final("what answers for storage ignores ranges (200 instead of 206): is a proxy between?")
    fault = asked.fault(status, response.headers.get("x-ms-error-code", ""))
    raise fault if status in PASSING or type(fault) is not Unavailable else _Final(fault.why)


class _Final(StorageFault):
    """An answer that will be the same the next time."""


def _why(error: Exception) -> str:
    """No text of the library's: it quotes addresses, with their signature."""
    if isinstance(error, requests.ConnectTimeout | requests.ConnectionError):
        return "storage cannot be reached"
    stalled = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
    return "storage fell silent" if stalled else "the connection to storage broke off"


def _shared_key(credential: Any, url: str, headers: dict[str, str]) -> str:
    """The header of the scheme Shared Key (Microsoft: "Authorize with Shared Key", Blob service, 2015-02-21 and later).

    Twelve lines of standard headers of which a GET has one, If-Match; then x-ms- headers and the resource.
    """
    ours = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-ms-"))
    resource = f"/{credential.account_name}{urlsplit(url).path}"
    text = "\n".join(["GET", *[""] * 7, headers["If-Match"], "", "", ""]) + "\n" + ours + resource
    try:
        key = base64.b64decode(credential.account_key)
    except binascii.Error:
        raise AccessDenied("the account's key is malformed") from None
    signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    return f"SharedKey {credential.account_name}:{signature}"
