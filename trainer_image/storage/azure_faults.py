"""The Azure SDK's errors → storage faults (pure): codes and statuses only, never the SDK's own texts."""

from __future__ import annotations

import time

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from trainer_image.storage.container import (
    AccessDenied,
    BlobChanged,
    BlobMissing,
    ContainerMissing,
    LeaseHeld,
    StorageFault,
    Unavailable,
)
from training_common.retry_after import parse_retry_after

_GONE = {"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled", "ResourceNotFound"}
_CHANGED = {"ConditionNotMet", "BlobAlreadyExists", "UnmodifiedLeaseState"}


def retry_after(error: AzureError) -> float | None:
    """Seconds that the service asked to wait."""
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After")
    return parse_retry_after(asked, time.time())


def fault_of(error: AzureError) -> StorageFault:
    """Takes over codes and statuses only: the SDK's texts quote URLs and the string that was signed."""
    status = getattr(error, "status_code", None)
    code = getattr(error, "error_code", None)
    code = getattr(code, "value", code)
    said = f" ({code})" if code else ""
    if code in _GONE:
        return ContainerMissing("the container does not exist")
    if str(code).startswith("Lease"):  # LeaseAlreadyPresent, LeaseLost, LeaseIdMismatchWithBlobOperation…
        return LeaseHeld(f"another holder has it{said}")
    if code in _CHANGED or status in (304, 412):
        return BlobChanged("it has changed meanwhile")
    if status == 404:
        return BlobMissing("it does not exist")
    if isinstance(error, ClientAuthenticationError) or status in (401, 403):
        return AccessDenied(f"storage refuses access{said}")
    if isinstance(error, ServiceRequestError):
        return Unavailable("storage cannot be reached")
    if isinstance(error, ServiceResponseError):
        return Unavailable("storage does not answer")
    if isinstance(error, HttpResponseError) and status is not None:
        return Unavailable(f"storage answers {status}{said}")
    return Unavailable(f"storage fails with {type(error).__name__}")
