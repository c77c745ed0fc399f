"""What the trainer asks of storage, whoever keeps it: a container of named blobs, in Azure or in a folder.

StorageFault                internal to the outside: the callers know the sentence and the exit code that fit
├── ContainerMissing        no such container (or folder)
├── BlobMissing             no such blob
├── BlobChanged             a condition did not hold: the blob is not what it was when we looked
│   └── TooLarge            it is larger than what may be read of it
├── AccessDenied            our identity may not do this
├── LeaseHeld               another holder has the lease
├── Full                    a folder's disk has no room left
└── Unavailable             throttled, unreachable or broken, after all retries
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# In place of an ETag: whatever is there now, or nothing.
ANY = "*"


class StorageFault(Exception):
    """`why` is a clause for a sentence: no URL, no key, no signature in it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ContainerMissing(StorageFault):
    pass


class BlobMissing(StorageFault):
    pass


class BlobChanged(StorageFault):
    pass


class TooLarge(BlobChanged):
    """etag: of the blob, as `read` returns it."""

    def __init__(self, why: str, etag: str) -> None:
        super().__init__(why)
        self.etag = etag


class AccessDenied(StorageFault):
    pass


class LeaseHeld(StorageFault):
    pass


class Full(StorageFault):
    pass


class Unavailable(StorageFault):
    pass


@dataclass(frozen=True)
class BlobInfo:
    """One line of a listing. size: bytes; etag: opaque, changes with the content; md5: 16 bytes, if known."""

    name: str
    size: int
    etag: str
    md5: bytes | None = None


class Lease(Protocol):
    """The right to be the one writer; others see LeaseHeld until it is released or its holder is gone."""

    def renew(self) -> None:
        """Raises LeaseHeld when another has it now, Unavailable when nobody knows."""

    def release(self) -> None:
        """Gives it back; never raises."""


class Container(Protocol):
    """A container of blobs. Every method may raise ContainerMissing, AccessDenied and Unavailable.

    name: as sentences for users call it, and what they would type to find it.
    """

    name: str

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        """All blobs whose name starts with `prefix`; folder markers of hierarchical accounts left out."""

    def read(self, name: str, limit: int) -> tuple[bytes, str]:
        """(content, ETag) of a small blob. Raises BlobMissing; TooLarge when over `limit` bytes."""

    def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
        """The same as `read_range` in small pieces as they come, so that a range needs no memory of its size."""

    def read_range(self, blob: BlobInfo, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of the very content that was listed. Raises BlobMissing, BlobChanged."""

    def write(self, name: str, content: bytes) -> None:
        """Creates or replaces a small blob."""

    def write_if(self, name: str, content: bytes, etag: str | None) -> None:
        """Replaces the blob that has this ETag; None: creates it. Raises BlobChanged when that is past."""

    def upload(self, name: str, file: Path, md5: bytes, etag: str | None = ANY) -> str:
        """Creates or replaces a blob of any size; `md5` of the file is kept with it. Returns its ETag in a listing.

        etag: replaces the blob that a listing had with this ETag; None: creates it. Raises BlobChanged when that is
        past.
        """

    def delete(self, name: str) -> None:
        """Removes a blob; one that is not there is fine."""

    def lease(self, name: str, owner: str, *, take_over: bool) -> Lease:
        """Takes the lease `name` for `owner`. take_over: even from a living holder. Raises LeaseHeld."""

    def lease_owner(self, name: str) -> str | None:
        """Who took the lease `name` last, whether or not it is still held."""
