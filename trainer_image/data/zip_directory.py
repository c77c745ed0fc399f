"""The list at the end of a zip archive, entry by entry: the standard library's reader takes all of it into memory
before anybody can count, and stumbles over entries without a name.

The layout is that of PKWARE's APPNOTE 6.3.10: 4.3.12 (an entry), 4.3.14 to 4.3.16 (the end), 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from trainer_image.errors import DatasetInvalid, LimitExceeded, invalid
from trainer_image.limits import Limits

STORED, DEFLATED = 0, 8
# Signature, four numbers of disks and entries, the list's size and offset, the length of the comment behind it.
_END = struct.Struct("<4s4H2LH")
_LONGEST_COMMENT = 2**16 - 1
# The same in zip64, and where it is.
_END_64, _LOCATOR_64 = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
# Signature, two versions, flags, method, time, date, CRC, packed and plain size, lengths of name, extra fields and
# comment, disk, two kinds of attributes, offset.
_ENTRY = struct.Struct("<4s6H3L5H2L")
_EXTRA = struct.Struct("<2H")
_NAME_IS_UTF8 = 0x800
# In a field whose value is among the extra ones.
_ELSEWHERE = 2**32 - 1


class Entry(NamedTuple):
    """What the list says of a file. packed, size: bytes; attributes: the Unix mode from bit 16 on; offset: of the
    file's own header"""

    name: str
    flags: int
    method: int
    packed: int
    size: int
    attributes: int
    offset: int


def read(name: str, file: BinaryIO, size: int, limits: Limits) -> Iterator[Entry]:
    """The entries in the list's order. name, size: of the archive. Raises DatasetInvalid, LimitExceeded."""
    start, left, shift = _list_of(name, file, size)
    file.seek(start)
    count = 0
    while left > 0:
        fixed = file.read(min(left, _ENTRY.size))
        if len(fixed) < _ENTRY.size or not fixed.startswith(b"PK\1\2"):
            raise _damaged(name, "its list of files is broken")
        _, _, _, flags, method, _, _, _, packed, plain, *lengths, _, _, attributes, offset = _ENTRY.unpack(fixed)
        texts = [file.read(length) for length in lengths]
        left -= len(fixed) + sum(lengths)
        if left < 0:
            raise _damaged(name, "its list of files is cut off")
        count += 1
        if limits.dataset_files and count > limits.dataset_files:
            raise LimitExceeded(f"{name} holds more than {limits.dataset_files} files (MAX_DATASET_FILES)")
        plain, packed, offset = _long(name, texts[1], plain, packed, offset)
        yield Entry(_decoded(name, texts[0], flags), flags, method, packed, plain, attributes, offset + shift)


def _list_of(name: str, file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Where the list begins, its bytes, and how far all offsets are off because something stands before the archive."""
    begin = max(0, size - _END.size - _LONGEST_COMMENT - _LOCATOR_64.size - _END_64.size)
    file.seek(begin)
    tail = file.read(size - begin)
    at = tail.rfind(b"PK\5\6")
    while at >= 0 and at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") > len(tail):
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        raise _damaged(name, "it does not end as one")
    *_, length, offset, _ = _END.unpack_from(tail, at)
    before = at - _LOCATOR_64.size - _END_64.size
    if before >= 0 and tail.startswith(b"PK\6\6", before) and tail.startswith(b"PK\6\7", before + _END_64.size):
        *_, length, offset = _END_64.unpack_from(tail, before)
        at = before
    start = begin + at - length
    if start < offset:
        raise _damaged(name, "its list of files is not where it says")
    return start, length, start - offset


def _long(name: str, extra: bytes, *values: int) -> Iterator[int]:
    """The values, in this order: those that stand elsewhere come from the zip64 field."""
    long = b""
    while len(extra) >= _EXTRA.size:
        kind, length = _EXTRA.unpack_from(extra)
        if kind == 1:
            long = extra[_EXTRA.size : _EXTRA.size + length]
        extra = extra[_EXTRA.size + length :]
    for value in values:
        if value != _ELSEWHERE:
            yield value
            continue
        if len(long) < 8:
            raise _damaged(name, "the size of a file in it is missing")
        yield int.from_bytes(long[:8], "little")
        long = long[8:]


def _decoded(name: str, title: bytes, flags: int) -> str:
    if not flags & _NAME_IS_UTF8:
        return title.decode("cp437")
    try:
        return title.decode()
    except UnicodeDecodeError:
        raise _damaged(name, f"a name in it is not UTF-8: {title.decode('latin-1')[:60]}") from None


def _damaged(name: str, why: str) -> DatasetInvalid:
    return invalid(name, f"is no readable zip archive ({why})")
