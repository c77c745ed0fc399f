"""Room for what a dataset becomes when it is read: memory while it fits, files in the work folder beyond that.

A file-backed array is an ordinary tensor to whoever uses it, but its pages are the kernel's to write out and drop: what
is trained on may be larger than memory. One code path fills both kinds, so that the same data give the same model.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainer_image.errors import LimitExceeded
from trainer_image.host import memory
from trainer_image.units import HEADROOM_BYTES, format_bytes

# Of the memory that is free at the start, what the dataset may take; the rest is for training and its copies.
SHARE = 0.25

Array = np.ndarray[Any, Any]
# Addresses of the arrays that lie in files, until they are gone.
_in_files: dict[int, int] = {}


def mapped(path: Path, dtype: Any, shape: tuple[int, ...] | None = None) -> Array:
    """The file as a writable array. Its name is removed: the mapping keeps it, and nothing is left if we are killed."""
    found: Array = np.memmap(path, dtype, "r+", shape=shape)
    path.unlink()
    address = found.ctypes.data
    _in_files[address] = found.nbytes
    weakref.finalize(found, _in_files.pop, address, None)
    return found


def in_file(address: int) -> bool:
    """Whether an array or tensor that begins at this address lies in a file."""
    return any(begin <= address < begin + size for begin, size in _in_files.items())


class Scratch:
    """Arrays and files of one training, gone with this object.

    folder:       where files go, made when the first one is; None: the system's folder for temporary files
    memory_bytes: how much may lie in memory before files are used; None: a quarter of what is free when first asked
    """

    def __init__(self, folder: Path | None = None, memory_bytes: int | None = None) -> None:
        self.folder = folder
        self._room = self._left = memory_bytes
        self._files = 0
        self.spilled_bytes = 0

    def anew(self) -> Scratch:
        """The same room once more, for what is read when the first is gone."""
        return Scratch(self.folder, self._room)

    def notes(self, subject: str) -> list[str]:
        """A sentence where something lies in files, for the report. subject: e.g. "The table does"."""
        if not self.spilled_bytes:
            return []
        size = format_bytes(self.spilled_bytes)
        return [f"{subject} not fit into memory: {size} lie in files of the work folder."]

    @property
    def memory_left(self) -> int:
        """Bytes that may still be taken in memory."""
        if self._left is None:
            self._left = int(memory.available() * SHARE)
        return self._left

    def take(self, size: int) -> bool:
        """Whether `size` bytes may lie in memory; counts them if so."""
        if size > self.memory_left:
            return False
        self._left = self.memory_left - size
        return True

    def release(self, size: int) -> None:
        """Frees bytes that were taken with `take`."""
        self._left = self.memory_left + size

    def array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A writable array, filled with zeros. Raises LimitExceeded when neither memory nor disk has room."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size == 0 or self.take(size):
            return np.zeros(shape, dtype)
        path = self.file(size)
        with path.open("wb") as file:
            try:
                # Reserved now: a full disk would otherwise be a SIGBUS at some later write.
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError:
                raise self._too_small(size) from None
        self.spilled_bytes += size
        return mapped(path, dtype, shape)

    def file(self, size: int = 0) -> Path:
        """A path for a new file of about `size` bytes. Raises LimitExceeded when the disk has no room for it."""
        self.room_for(size)
        self._files += 1
        return Path(self._files_in.name) / str(self._files)

    @cached_property
    def _files_in(self) -> tempfile.TemporaryDirectory[str]:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="scratch-", dir=self.folder, ignore_cleanup_errors=True)

    def room_for(self, size: int) -> None:
        """Raises LimitExceeded when the disk has no room for this many bytes more."""
        if size + HEADROOM_BYTES > shutil.disk_usage(self._files_in.name).free:
            raise self._too_small(size)

    def _too_small(self, size: int) -> LimitExceeded:
        free = shutil.disk_usage(self._files_in.name).free
        return LimitExceeded(
            f"The dataset does not fit into memory, and needs {format_bytes(size + HEADROOM_BYTES)} of disk in the work"
            f" folder, where {format_bytes(free)} are free: a larger ephemeral-storage limit or volume is needed"
        )
