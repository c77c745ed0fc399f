"""Containers that are folders: the same promises as Azure's, for a laptop without one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BufferedIOBase
from pathlib import Path
from typing import IO

from trainer_image.host.exhaustion import DISK_FULL
from trainer_image.storage.container import (
    ANY,
    AccessDenied,
    BlobChanged,
    BlobInfo,
    BlobMissing,
    ContainerMissing,
    Disk,
    Full,
    LeaseHeld,
    StorageFault,
    TooLarge,
    Unavailable,
)

_WRITE_LOCK = ".write.lock"
_COPY_BYTES = 1024 * 1024
# What is larger is no small blob, and may be as large as the disk: its ETag is that of a listing.
_MOST_HASHED = 64 * 1024**2


class LocalContainer:
    """See `storage.Container`. `root` is created by the first write, never by a read.

    A listing's ETag is (modification time, size), as cheap as a listing must be. The ETag of `read` and
    `write_if` is the content's SHA-256: file times are too coarse to tell two quick writes apart.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        base = prefix.rpartition("/")[0]
        if not self.root.is_dir():
            raise ContainerMissing("there is no such folder")
        if (self.root / base).is_dir():
            with self._faults():
                yield from self._walk(base, prefix)

    def _walk(self, base: str, prefix: str) -> Iterator[BlobInfo]:
        seen: set[tuple[int, int]] = set()
        for folder, below, files in os.walk(self.root / base, followlinks=True, onerror=_raise):
            info = Path(folder).stat()
            if (info.st_dev, info.st_ino) in seen:
                # A link to a folder above would go round for ever.
                below.clear()
                continue
            seen.add((info.st_dev, info.st_ino))
            below.sort()
            for file in sorted(files):
                path = Path(folder, file)
                name = path.relative_to(self.root).as_posix()
                if not name.startswith(prefix):
                    continue
                try:
                    entry = path.stat()
                except OSError as error:
                    logging.getLogger(__name__).warning("Not read: %s (%s)", path, error.strerror)
                    continue
                if stat.S_ISREG(entry.st_mode):
                    yield BlobInfo(name, entry.st_size, _quick_etag(entry), modified=entry.st_mtime)

    def read(self, name: str, limit: int) -> tuple[bytes, str]:
        with self._faults(), (self.root / name).open("rb") as file:
            content = file.read(limit + 1)
            if len(content) > limit:
                raise TooLarge(f"it is larger than {limit} bytes", _etag(self.root / name))
        return content, hashlib.sha256(content).hexdigest()

    def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
        with self._faults(), (self.root / blob.name).open("rb") as file:
            if _quick_etag(os.fstat(file.fileno())) != blob.etag:
                raise BlobChanged("it has changed meanwhile")
            file.seek(offset)
            while piece := file.read(min(_COPY_BYTES, length)):
                length -= len(piece)
                yield piece

    def write(self, name: str, content: bytes) -> None:
        with self._faults():
            self._replace(name, lambda file: file.write(content))

    def write_if(self, name: str, content: bytes, etag: str | None) -> None:
        with self._faults(), self._locked():
            try:
                now: str | None = _etag(self.root / name)
            except FileNotFoundError:
                now = None
            if now != etag:
                raise BlobChanged("it has changed meanwhile")
            self._replace(name, lambda file: file.write(content))

    def upload(self, name: str, content: BufferedIOBase, etag: str | None = ANY) -> str:
        def copy(target: IO[bytes]) -> None:
            content.seek(0)
            shutil.copyfileobj(content, target, _COPY_BYTES)

        path = self.root / name
        with self._faults(), nullcontext() if etag == ANY else self._locked():
            if etag not in (ANY, _quick_etag(path.stat()) if path.exists() else None):
                raise BlobChanged("it has changed meanwhile")
            self._replace(name, copy)
            return _quick_etag(path.stat())

    def delete(self, name: str) -> None:
        path = self.root / name
        with suppress(BlobMissing), self._faults():
            path.unlink(missing_ok=True)
            for folder in path.relative_to(self.root).parents:
                if folder == Path() or any((self.root / folder).iterdir()):
                    return
                (self.root / folder).rmdir()

    def disk(self) -> Disk | None:
        return disk_of(self.root)

    def lease(self, name: str, owner: str, *, take_over: bool) -> LocalLease:
        """The kernel frees a dead holder's lock at once, so that none is ever taken over from the living."""
        with self._faults():
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / name).open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise LeaseHeld("another training writes to this folder") from None
            file.truncate(0)
            file.write(json.dumps({"owner": owner}).encode())
            file.flush()
            return LocalLease(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / _WRITE_LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _replace(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with part.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._fault(error) from None

    def _fault(self, error: OSError) -> StorageFault:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return BlobMissing("it does not exist") if self.root.is_dir() else ContainerMissing("no such folder")
        if isinstance(error, PermissionError):
            return AccessDenied(f"access is refused ({error.strerror})")
        if error.errno in DISK_FULL:
            return Full("its disk is full: free some space there, or name another folder with --out")
        return Unavailable(f"{error.strerror or error}".lower())


class LocalLease:
    """An flock on a file: gone with its process."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def renew(self) -> None:
        """The kernel keeps it."""

    def release(self) -> None:
        self._file.close()


def disk_of(folder: Path) -> Disk | None:
    """The disk that the folder lies on, or would."""
    place = next((each for each in (folder, *folder.absolute().parents) if each.exists()), None)
    try:
        return None if place is None else Disk(place.stat().st_dev, shutil.disk_usage(place).free)
    except OSError:
        return None


def _etag(path: Path) -> str:
    """As `read` and `write_if` have it."""
    with path.open("rb") as file:
        if (info := os.fstat(file.fileno())).st_size > _MOST_HASHED:
            return _quick_etag(info)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quick_etag(info: os.stat_result) -> str:
    return f"{info.st_mtime_ns:x}-{info.st_size:x}"


def _raise(error: OSError) -> None:
    raise error
