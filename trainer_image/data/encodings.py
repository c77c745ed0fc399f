"""Texts in whatever encoding they were written, as UTF-8: found by a look at the whole file, and said.

A byte order mark tells UTF-8, UTF-16 and UTF-32; UTF-16 without one shows by its zero bytes. What is not UTF-8 and has
hardly a character that would be one is Windows-1252, the superset of Latin-1 that spreadsheets write; a file that is
UTF-8 but for a few bytes is damaged, and an error that names the first.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainer_image.data.gzip_stream import BLOCK_BYTES, open_unpacked
from trainer_image.errors import invalid
from trainer_image.limits import Limits

UTF_8 = "utf-8"
# UTF-32's mark begins as UTF-16's does.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_CALLED = {"cp1252": "Windows-1252 (Western European)", "latin-1": "Latin-1 (Western European)"}
_LOOKED_AT = 4096
# What a sentence about a file begins with.
_OF_FILE = re.compile(r"^.+?(?:: | is )")
_HIGH = bytes(range(0x80, 0x100))
_UNUSED_IN_1252 = b"\x81\x8d\x8f\x90\x9d"
_CONTROLS = bytes(byte for byte in range(0x20) if byte not in b"\t\n\v\f\r\x1a\x1b")
_CHARACTERS = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# In a Western text this share of the letters beyond ASCII may look like a character of UTF-8 by chance.
_BY_CHANCE = 0.01


def open_utf8(name: str, path: Path, limits: Limits, text: str = "") -> io.BufferedReader:
    """The file's content, unpacked, in UTF-8 (with a byte order mark where it has one).

    text: what it is to be, as for `open_unpacked`. Reading raises what that does, and DatasetInvalid for a text that is
    not in its own encoding.
    """
    codec = encoding_of(name, path, limits)
    raw = open_unpacked(name, path, limits, text)
    return raw if codec == UTF_8 else io.BufferedReader(_AsUtf8(name, raw, codec), BLOCK_BYTES)


def encoding_of(name: str, path: Path, limits: Limits) -> str:
    """Python's name of the encoding; UTF_8, too, for what is in none that is known: reading it raises."""
    status = path.stat()
    return _found(name, path, limits, status.st_size, status.st_mtime_ns)


def remark(name: str, path: Path, limits: Limits) -> list[str]:
    """A sentence where the file is not in UTF-8."""
    codec = encoding_of(name, path, limits)
    if codec == UTF_8:
        return []
    if codec in _CALLED:
        return [f"{name} is not UTF-8 and was read as {_CALLED[codec]}; save it as UTF-8 if letters look wrong."]
    return [f"{name} is {codec[:6].upper()} and was read as that."]


def joined(remarks: Sequence[str]) -> list[str]:
    """The sentences, of those that say the same of several files the first, with the number of the others."""
    alike: dict[str, list[str]] = {}
    for remark_ in remarks:
        said = _OF_FILE.sub("", remark_) if " was read as " in remark_ else remark_
        alike.setdefault(said, []).append(remark_)
    return [first if not others else f"{first} So were {len(others)} other files." for first, *others in alike.values()]


@lru_cache(maxsize=1024)
def _found(name: str, path: Path, limits: Limits, size: int, changed: int) -> str:
    """size, changed: of the file, which may be another one under the same name"""
    with open_unpacked(name, path, limits) as raw:
        start = raw.peek(_LOOKED_AT)[:_LOOKED_AT]
        for mark, codec in _MARKS.items():
            if start.startswith(mark):
                return codec
        if (unmarked := _without_mark(start)) is not None:
            return unmarked
        decoder = codecs.getincrementaldecoder(UTF_8)()
        sound, high, characters, within, unused, controls = True, 0, 0, 0, False, False
        while block := raw.read(BLOCK_BYTES):
            if sound:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError:
                    sound = False
            found = _CHARACTERS.findall(block) if not block.isascii() else []
            characters += len(found)
            within += sum(map(len, found))
            high += len(block) - len(block.translate(None, _HIGH)) if not block.isascii() else 0
            unused |= any(byte in block for byte in _UNUSED_IN_1252)
            controls |= not sound and len(block.translate(None, _CONTROLS)) < len(block)
    if (sound and not decoder.getstate()[0]) or controls or characters > _BY_CHANCE * (high - within):
        return UTF_8
    return "latin-1" if unused else "cp1252"


def _without_mark(start: bytes) -> str | None:
    """UTF-16 by the zero bytes of its ASCII characters, which stand in every second place."""
    even, odd = start[: len(start) // 2 * 2 : 2], start[1::2]
    least = max(3, len(odd) // 5)
    if odd.count(0) >= least and not even.count(0):
        return "utf-16-le"
    if even.count(0) >= least and not odd.count(0):
        return "utf-16-be"
    return None


class _AsUtf8(io.RawIOBase):
    def __init__(self, name: str, raw: io.BufferedReader, codec: str) -> None:
        super().__init__()
        self._name, self._raw, self._codec = name, raw, codec
        self._decoder = codecs.getincrementaldecoder(codec)()
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._ready and not self._ended:
            block = self._raw.read(BLOCK_BYTES)
            self._ended = not block
            try:
                self._ready = self._decoder.decode(block, final=self._ended).encode()
            except UnicodeDecodeError as error:
                called = self._codec[:6].upper()
                raise invalid(self._name, f"begins as {called} and is none ({error.reason})") from None
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
