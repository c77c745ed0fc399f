"""Storage's faults as errors of a training: who must act, and whether a retry can help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trainer_image.errors import LimitExceeded, PermissionDenied, StorageUnavailable, TrainerError
from trainer_image.storage.container import AccessDenied, Full, Refused, StorageFault

Meanings = Mapping[type[StorageFault], type[TrainerError]]

_USUAL: Meanings = {
    AccessDenied: PermissionDenied,
    Refused: PermissionDenied,
    Full: LimitExceeded,
    StorageFault: StorageUnavailable,
}


@contextmanager
def failing_as(sentence: str, meanings: Meanings | None = None) -> Iterator[None]:
    """Raises a fault within as `sentence (why)`.

    meanings: the errors of some faults where they differ from the usual; a fault without one is what its base class is
    """
    try:
        yield
    except StorageFault as fault:
        known = {**_USUAL, **(meanings or {})}
        kind = next(known[base] for base in type(fault).__mro__ if base in known)
        raise kind(f"{sentence} ({fault.why})") from None
