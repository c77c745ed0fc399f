"""What went wrong at Azure → storage faults (pure): codes and statuses only, never the SDK's or storage's own texts."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from trainer_image.errors import causes
from trainer_image.storage.blob_names import printable
from trainer_image.storage.container import (
    AccessDenied,
    AccessWithdrawn,
    BeingDeleted,
    BlobChanged,
    BlobMissing,
    ContainerMissing,
    CredentialRefused,
    LeaseHeld,
    NoToken,
    Refused,
    StorageFault,
    Unavailable,
)
from training_common.retry_after import parse_retry_after

_GONE = {"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled", "ResourceNotFound"}
_CHANGED = {"ConditionNotMet", "BlobAlreadyExists", "UnmodifiedLeaseState"}
# Too slow, a range that a cache lags behind with, too many requests; any other 4xx will be the same the next time.
_PASSING = (408, 416, 429)
# Storage does not know who asks: the key, the signature or the token. Of an identity that it knows it says other codes.
_UNKNOWN_CALLER = {"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"}
ARCHIVED = "it is in the archive tier: bring it back to the hot or cool tier, which takes hours"
REHYDRATED = "it is on its way out of the archive tier, which takes hours"
# What is behind some of the codes that storage refuses by.
_STATES = {
    "BlobArchived": ARCHIVED,
    "BlobBeingRehydrated": REHYDRATED,
    "BlobImmutableDueToPolicy": "its container has an immutability policy or a legal hold",
    "ContainerImmutabilityPolicyFailure": "its container has an immutability policy",
    "SnapshotsPresent": "it has snapshots that are kept",
}
_CODE = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)
_TOKEN_CODE = re.compile(r"AADSTS[0-9]{1,10}", re.ASCII)


class Accepted:
    """What storage has let this process do: what it refuses later was not forbidden from the start. Thread-safe.

    credential: one key, signature or identity at one account. A signature may be for one container only, so that it is
    another credential at each.
    """

    def __init__(self) -> None:
        self._done: set[tuple[str, ...]] = set()

    def note(self, credential: str, container: str, kind: str) -> None:
        """kind: reading, writing and so on, each of which an identity may be allowed by itself."""
        self._done |= {(credential,), (credential, container, kind)}

    def vouch(self, credential: str) -> None:
        """It was good when it was made, by somebody who makes another in good time: a stranger's is out of date."""
        self._done |= {(credential,)}

    def before(self, credential: str, container: str, kind: str, code: str, status: int) -> bool:
        """Whether storage has accepted this before which it refuses with this answer now."""
        stranger = code in _UNKNOWN_CALLER or status == 401
        return ((credential,) if stranger else (credential, container, kind)) in self._done


@dataclass(frozen=True)
class Asked:
    """What one call asks of storage. what: the blob's name, for sentences, "" for the container itself."""

    credential: str
    container: str
    kind: str
    what: str
    accepted: Accepted

    def granted(self) -> None:
        self.accepted.note(self.credential, self.container, self.kind)

    def fault(self, status: int, code: str) -> StorageFault:
        """The fault that an HTTP answer of storage's means. code: its x-ms-error-code, "" where it gave none."""
        code = code if _CODE.fullmatch(code) else ""
        said = f" ({code})" if code else ""
        if status in (304, 404, 409, 412):
            self.granted()  # storage knows us, and may say no to this one thing
        if code in _GONE:
            return (BeingDeleted if status == 409 else ContainerMissing)("the container does not exist")
        if code.startswith("Lease"):  # LeaseAlreadyPresent, LeaseLost, LeaseIdMismatchWithBlobOperation…
            return LeaseHeld(f"another holder has it{said}")
        if code in _CHANGED or status in (304, 412):
            return BlobChanged("it has changed meanwhile")
        if status == 404:
            return BlobMissing("it does not exist")
        if status == 409:
            what = f"{printable(self.what)}: " if self.what else ""
            return Refused(f"{what}{_STATES.get(code, 'its state forbids it')}{said or ' (409)'}")
        if status < 400:
            return Unavailable(f"what answers for storage speaks another language ({status}): is a proxy between?")
        if status >= 500 or status in _PASSING:
            return Unavailable(f"storage answers {status}{said}")
        if status not in (401, 403) and code not in _UNKNOWN_CALLER:
            return AccessDenied(f"storage answers {status}{said}, which no further attempt would change")
        said = said or f" ({status})"
        if self.accepted.before(self.credential, self.container, self.kind, code, status):
            return AccessWithdrawn(
                f"storage has accepted this before and refuses access now{said}: was the key changed, has the SAS run"
                " out, or was the right taken away? A new attempt takes the credential as it is then"
            )
        return CredentialRefused(f"storage refuses access{said}")


def no_token(error: Exception, identity: str) -> NoToken:
    """The error of whoever should have given a token. identity: whom it was asked for, in words."""
    code = _TOKEN_CODE.search(str(error))
    return NoToken(
        f"there is no token for {identity}{f' ({code[0]})' if code else ''}: is it federated with this pod's service"
        " account, and does what gives out its tokens answer? It may only be late"
    )


def retry_after(error: AzureError) -> float | None:
    """Seconds that the service asked to wait."""
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After")
    return parse_retry_after(asked, time.time())


def fault_of(error: Exception, asked: Asked, host: str, identity: str) -> StorageFault | None:
    """Takes over codes and statuses only: the SDK's texts quote URLs and the string that was signed.

    None for an error that is neither the SDK's nor met while it read an answer of storage's.
    host: storage's, with its port; an answer of another one is of whoever gives out tokens
    identity: whom a token is asked for, in words; "" where none is
    """
    # The SDK stumbles over a refusal without words: what it stumbled over has the answer.
    known = [seen for seen in causes(error) if isinstance(seen, AzureError)]
    answered = next((seen for seen in known if isinstance(seen, HttpResponseError) and seen.response), None)
    if any(isinstance(seen, ClientAuthenticationError) for seen in known) and not _is_from(answered, host):
        return no_token(error, identity) if identity else AccessDenied("what asks for access cannot be signed")
    if answered is not None and answered.status_code is not None:
        headers = getattr(answered.response, "headers", {})
        code = getattr(answered, "error_code", None) or headers.get("x-ms-error-code") or ""
        return asked.fault(answered.status_code, str(getattr(code, "value", code)))
    if not known:
        return None
    if isinstance(known[0], ServiceRequestError):
        return Unavailable("storage cannot be reached")
    if isinstance(known[0], ServiceResponseError):
        return Unavailable("storage does not answer")
    return Unavailable(f"storage fails with {type(known[0]).__name__}")


def _is_from(answered: HttpResponseError | None, host: str) -> bool:
    request = getattr(getattr(answered, "response", None), "request", None)
    return urlsplit(getattr(request, "url", "")).netloc == host
