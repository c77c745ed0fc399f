"""What the trainer asks of storage, whoever keeps it: a container of named blobs, in Azure or in a folder.

Its faults are known to storage and transfer only: what a user reads is a TrainerError (transfer/failures).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import Protocol

# In place of an ETag: whatever is there now, or nothing.
ANY = "*"


class StorageFault(Exception):
    """`why` is a clause for a sentence: no URL, no key, no signature in it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ContainerMissing(StorageFault):
    """No such container (or folder)."""


class BlobMissing(StorageFault):
    """No such blob."""


class BlobChanged(StorageFault):
    """A condition did not hold: the blob is not what it was when we looked."""


class TooLarge(BlobChanged):
    """It is larger than what may be read of it. etag: of the blob, as `read` returns it."""

    def __init__(self, why: str, etag: str) -> None:
        super().__init__(why)
        self.etag = etag


class AccessDenied(StorageFault):
    """Our identity may not do this."""


class CredentialRefused(AccessDenied):
    """Storage does not take the credential for this."""


class Refused(StorageFault):
    """It contradicts the state of the blob or its container: an archive tier, an immutability policy, a legal hold."""


class BeingDeleted(ContainerMissing, Refused):
    """Somebody is deleting the container."""


class LeaseHeld(StorageFault):
    """Another holder has the lease."""


class Full(StorageFault):
    """A folder's disk has no room left."""


class Unavailable(StorageFault):
    """Throttled, unreachable or broken, after all retries."""


class NoToken(StorageFault):
    """Nobody vouches for our identity, at least not yet: storage was not even asked."""


class AccessWithdrawn(StorageFault):
    """Storage let this process do it before and refuses it now: another process may read a newer credential."""


@dataclass(frozen=True)
class BlobInfo:
    """One line of a listing. size: bytes; etag: opaque, changes with the content; md5: 16 bytes, if known.

    unreadable: why storage would not hand it out, a clause for a sentence; None where it would
    modified: when it was written last, epoch seconds by the clock of whoever keeps it
    """

    name: str
    size: int
    etag: str
    md5: bytes | None = None
    unreadable: str | None = None
    modified: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Disk:
    """Of this machine. device: the system's number for it; free: bytes that we may still write"""

    device: int
    free: int


class Lease(Protocol):
    """The right to be the one writer; others see LeaseHeld until it is released or its holder is gone."""

    def renew(self) -> None:
        """Raises LeaseHeld when another has it now, Unavailable when nobody knows."""

    def release(self) -> None:
        """Gives it back; never raises."""


class Container(Protocol):
    """A container of blobs. Every method may raise ContainerMissing, AccessDenied, Refused and Unavailable.

    name: as sentences for users call it, and what they would type to find it.
    """

    name: str

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        """All blobs whose name starts with `prefix`; folder markers of hierarchical accounts left out."""

    def read(self, name: str, limit: int) -> tuple[bytes, str]:
        """(content, ETag) of a small blob. Raises BlobMissing; TooLarge when over `limit` bytes."""

    def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
        """`length` bytes of the very content that was listed, in pieces of at most 1 MiB. Raises BlobMissing,
        BlobChanged."""

    def write(self, name: str, content: bytes) -> None:
        """Creates or replaces a small blob."""

    def write_if(self, name: str, content: bytes, etag: str | None) -> None:
        """Replaces the blob that has this ETag; None: creates it. Raises BlobChanged when that is past."""

    def upload(self, name: str, content: BufferedIOBase, etag: str | None = ANY) -> str:
        """Creates or replaces a blob of any size by what a file holds, from its start. Returns its ETag in a listing.

        etag: replaces the blob that a listing had with this ETag; None: creates it. Raises BlobChanged when that is
        past.
        """

    def delete(self, name: str) -> None:
        """Removes a blob; one that is not there is fine."""

    def disk(self) -> Disk | None:
        """The disk that it lies on; None where it is not on this machine, or nobody knows."""

    def lease(self, name: str, owner: str, *, take_over: bool) -> Lease:
        """Takes the lease `name` and leaves {"owner": owner} in its blob. take_over: even from a living holder.

        Raises LeaseHeld.
        """
