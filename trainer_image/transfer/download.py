"""The dataset's container → a verified local folder and the lock that says exactly what was read.

listing → names and limits checked → lock → free disk checked → ranges, largest file first → size and MD5
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from trainer_image.errors import ConfigInvalid, DatasetInvalid, DatasetMissing, LimitExceeded, Terminated, invalid
from trainer_image.limits import Limits
from trainer_image.storage.blob_names import first_problem, printable
from trainer_image.storage.container import (
    BlobChanged,
    BlobInfo,
    BlobMissing,
    Container,
    ContainerMissing,
    Refused,
    Unavailable,
)
from trainer_image.transfer.failures import failing_as
from trainer_image.units import HEADROOM_BYTES, format_bytes

log = logging.getLogger(__name__)

RANGE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class DatasetLock:
    """The blobs that were read. `fingerprint`: hex SHA-256 over (name, size, ETag) of all, sorted by name."""

    container: str
    blobs: tuple[BlobInfo, ...]

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.blobs)

    @property
    def fingerprint(self) -> str:
        lines = [[blob.name, blob.size, blob.etag] for blob in self.blobs]
        return hashlib.sha256(json.dumps(lines, ensure_ascii=True).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return {
            "container": self.container,
            "fingerprint": self.fingerprint,
            "bytes": self.size,
            "blobs": [{"name": b.name, "size": b.size, "etag": b.etag} for b in self.blobs],
        }


def _failing(container: Container) -> AbstractContextManager[None]:
    sentence = f"Failed to download dataset from container: {container.name}"
    return failing_as(sentence, {ContainerMissing: DatasetMissing, Refused: DatasetInvalid})


def lock_dataset(container: Container, limits: Limits) -> DatasetLock:
    """Lists the container. Raises DatasetMissing, DatasetInvalid, LimitExceeded and access errors."""
    blobs: list[BlobInfo] = []
    size = 0
    with _failing(container):
        for blob in container.list():
            blobs.append(blob)
            size += blob.size
            if limits.dataset_files and len(blobs) > limits.dataset_files:
                raise LimitExceeded(
                    f"Dataset {container.name} has more than {limits.dataset_files} files (MAX_DATASET_FILES)"
                )
            if limits.dataset_bytes and size > limits.dataset_bytes:
                raise LimitExceeded(
                    f"Dataset {container.name} is larger than {format_bytes(limits.dataset_bytes)} (MAX_DATASET_BYTES)"
                )
    if not blobs:
        raise DatasetMissing(f"Failed to download dataset from container: {container.name} (it is empty)")
    found = first_problem(blob.name for blob in blobs)
    if found:
        raise invalid(printable(found[0]), found[1])
    for blob in blobs:
        if blob.unreadable:
            raise invalid(printable(blob.name), blob.unreadable)
    return DatasetLock(container.name, tuple(sorted(blobs, key=lambda blob: blob.name)))


def share_of(lock: DatasetLock, patterns: Sequence[str], node: int, nodes: int) -> DatasetLock:
    """What one of several nodes downloads: of the files that match a pattern every `nodes`-th one by name, beginning
    with the one of its number; of the others all. Raises ConfigInvalid where there are fewer files than nodes."""
    if nodes == 1 or not patterns:
        return lock
    shared = [blob for blob in lock.blobs if any(fnmatch.fnmatchcase(blob.name, pattern) for pattern in patterns)]
    if len(shared) < nodes:
        raise ConfigInvalid(
            f"Invalid configuration: command.shares: {len(shared)} of the dataset's files match, which {nodes} nodes"
            " cannot share"
        )
    others = {blob.name for blob in shared} - {blob.name for blob in shared[node::nodes]}
    return DatasetLock(lock.container, tuple(blob for blob in lock.blobs if blob.name not in others))


@dataclass(eq=False)
class Download:
    """Fetches a locked dataset into a folder with several connections; `run` returns when all is verified.

    stopped:  looked at between ranges; progress: called with (bytes so far, bytes in all) from any thread
    """

    container: Container
    lock: DatasetLock
    folder: Path
    stopped: Callable[[], bool]
    _: KW_ONLY
    connections: int = 8
    range_bytes: int = RANGE_BYTES
    progress: Callable[[int, int], None] = lambda done, total: None
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _done: int = field(default=0, init=False)
    _error: BaseException | None = field(default=None, init=False)

    def run(self) -> None:
        """Raises DatasetInvalid, DatasetMissing, LimitExceeded, PermissionDenied, StorageUnavailable, Terminated."""
        check_disk(self.folder, self.lock)
        for blob in self.lock.blobs:
            path = self.folder / blob.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(blob.size)
        largest_first = sorted(self.lock.blobs, key=lambda blob: -blob.size)
        self._fetch(largest_first)
        wrong = self._mismatches(largest_first)
        if wrong:
            # Once more: a proxy's fault goes away with it, a wrong Content-MD5 is not.
            log.warning("Fetching again, MD5 differs: %s", ", ".join(printable(b.name) for b in wrong))
            self._fetch(wrong)
            wrong = self._mismatches(wrong)
        if wrong:
            why = "its content does not match the MD5 that is stored with it; upload it again"
            raise invalid(printable(wrong[0].name), why)

    def _fetch(self, blobs: Iterable[BlobInfo]) -> None:
        work: queue.SimpleQueue[tuple[BlobInfo, int]] = queue.SimpleQueue()
        for blob in blobs:
            for offset in range(0, blob.size, self.range_bytes):
                work.put((blob, offset))
        # Daemons: a connection that hangs must not keep a process alive that is to end.
        threads = [
            threading.Thread(target=self._worker, args=(work,), name=f"download-{n}", daemon=True)
            for n in range(min(self.connections, work.qsize()))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not (self.stopped() or self._error):
                thread.join(timeout=0.1)
        if self._error:
            raise self._error
        if self.stopped():
            raise Terminated("Training was stopped while the dataset was being downloaded", step=0)

    def _worker(self, work: queue.SimpleQueue[tuple[BlobInfo, int]]) -> None:
        try:
            while not (self.stopped() or self._error):
                try:
                    blob, offset = work.get_nowait()
                except queue.Empty:
                    return
                self._fetch_range(blob, offset)
        except BaseException as error:
            with self._guard:
                self._error = self._error or error

    def _fetch_range(self, blob: BlobInfo, offset: int) -> None:
        length = min(self.range_bytes, blob.size - offset)
        came = 0
        with _failing(self.container):
            try:
                with (self.folder / blob.name).open("r+b", buffering=0) as file:
                    for piece in self.container.pieces(blob, offset, length):
                        if self.stopped() or self._error:
                            return
                        if came + len(piece) > length:
                            break
                        os.pwrite(file.fileno(), piece, offset + came)
                        came += len(piece)
            except (BlobChanged, BlobMissing):
                raise invalid(printable(blob.name), "it was changed while it was being downloaded") from None
            if came != length:
                # Storage promises all or an error; what stands between may not.
                raise Unavailable(f"{printable(blob.name)}: {came} bytes came instead of {length}")
        with self._guard:
            self._done += length
            done = self._done
        self.progress(done, self.lock.size)

    def _mismatches(self, blobs: Iterable[BlobInfo]) -> list[BlobInfo]:
        wrong = []
        for blob in blobs:
            if blob.md5 is None:
                continue
            if self.stopped():
                raise Terminated("Training was stopped while the dataset was being verified", step=0)
            with (self.folder / blob.name).open("rb") as file:
                if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest() != blob.md5:
                    wrong.append(blob)
        return wrong


def check_disk(folder: Path, lock: DatasetLock) -> None:
    """Raises LimitExceeded when the dataset does not fit: better before the download than at its end."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    needed = lock.size + HEADROOM_BYTES
    if needed > free:
        raise LimitExceeded(
            f"Dataset {lock.container} needs {format_bytes(needed)} of disk and {format_bytes(free)} are free"
            " in the work folder: a larger ephemeral-storage limit or volume is needed"
        )
