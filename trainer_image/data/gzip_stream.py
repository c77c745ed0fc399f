"""Files from strangers as streams of bytes: unpacked on the way, and never more of them than the limits allow."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from trainer_image.data import file_kinds
from trainer_image.errors import LimitExceeded, invalid
from trainer_image.limits import Limits
from trainer_image.units import format_bytes

# Deflate reaches 1032 to 1; a sparse table of zeros, the extreme among honest files, some 400.
MOST_RATIO = 500
# Below this much unpacked, no ratio is suspicious: small files of one repeated line exist.
FREE_BYTES = 1024**3
BLOCK_BYTES = 1024**2


class Unpacked(io.RawIOBase):
    """The file's content, unpacked where its name ends in .gz, .tgz or .zst.

    Reading raises LimitExceeded past `limits.dataset_bytes` or an implausible ratio, DatasetInvalid for what is broken.
    """

    def __init__(self, name: str, path: Path, limits: Limits) -> None:
        super().__init__()
        self._name, self._limit = name, limits.dataset_bytes
        self._packed_bytes = path.stat().st_size
        ending = path.suffix.lower()
        self._packing = "gzip" if ending in (".gz", ".tgz") else "zstd" if ending == ".zst" else ""
        self._file: IO[bytes] | gzip.GzipFile | pa.NativeFile = (
            gzip.open(path, "rb")  # noqa: SIM115 (closed by `close`)
            if self._packing == "gzip"
            else pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
            if self._packing
            else path.open("rb")
        )
        self.unpacked_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[:BLOCK_BYTES]
        try:
            block = self._file.read(len(view))
        except (OSError, EOFError, zlib.error) as error:
            raise invalid(self._name, f"cannot be unpacked as {self._packing or 'it is'} ({error})") from None
        view[: len(block)] = block
        self.unpacked_bytes += len(block)
        if self._packing:
            self._check()
        return len(block)

    def _check(self) -> None:
        if self._limit and self.unpacked_bytes > self._limit:
            raise LimitExceeded(f"{self._name} unpacks to more than {format_bytes(self._limit)} (MAX_DATASET_BYTES)")
        if self.unpacked_bytes > max(FREE_BYTES, MOST_RATIO * self._packed_bytes):
            raise LimitExceeded(
                f"{self._name} unpacks to more than {MOST_RATIO} times its {format_bytes(self._packed_bytes)}: "
                "no table or archive of images does; bring it unpacked if it is one"
            )

    def close(self) -> None:
        self._file.close()
        super().close()


def open_unpacked(name: str, path: Path, limits: Limits, text: str = "") -> io.BufferedReader:
    """`Unpacked` with a buffer. text: what kind of text it is to be, "CSV" say: raises for what is none at all."""
    raw: io.BufferedReader = io.BufferedReader(Unpacked(name, path, limits), BLOCK_BYTES)
    if text:
        try:
            file_kinds.check(name, raw.peek(file_kinds.START_BYTES), text)
        except BaseException:
            raw.close()
            raise
    return raw
