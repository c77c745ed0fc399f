"""Tar and zip archives from strangers, read where they lie: nothing is unpacked into a folder that it could leave.

Our own reader of the two formats' outlines instead of the standard library's: `tarfile` believes sizes that memory has
to pay for, and its filters had holes (CVE-2025-4517, fixed in Python 3.11.13). Regular files only; a link, a device or
a sparse file is an error that names it. Members are found first, each with the place of its bytes, and read one by one
when they are needed. Archives within archives are not followed.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer_image.data import zip_directory
from trainer_image.data.gzip_stream import BLOCK_BYTES, MOST_RATIO, open_unpacked
from trainer_image.data.spill import Scratch
from trainer_image.errors import LimitExceeded, invalid
from trainer_image.limits import Limits
from trainer_image.storage.blob_names import first_problem, printable
from trainer_image.units import format_bytes

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
# One member is read whole into memory, by several threads at once.
MEMBER_BYTES = 256 * 1024**2
# Of a member that is packed, how much larger it may become; small ones may do what they like.
FREE_MEMBER_BYTES = 1024**2
BLOCK = 512
HEADER_BYTES = 64 * 1024
# A zip's flags of encryption, of any kind.
ENCRYPTED = 0x2041

_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}


@dataclass(frozen=True)
class Member:
    """A regular file within an archive: its bytes begin at `offset` of the file at `path`.

    packed: bytes that it takes there when deflated, None when it is stored as it is; size: its bytes as they are
    """

    archive: str
    name: str
    path: Path
    offset: int
    size: int
    packed: int | None = None

    def read(self) -> bytes:
        """The content. DatasetInvalid when it does not unpack to what the archive says."""
        length = self.size if self.packed is None else self.packed
        with self.path.open("rb") as file:
            content = os.pread(file.fileno(), length, self.offset)
        if self.packed is not None:
            inflate = zlib.decompressobj(-15)
            try:
                content = inflate.decompress(content, self.size + 1)
            except zlib.error as error:
                raise self.error(f"does not unpack ({error})") from None
        if len(content) != self.size:
            raise self.error("does not unpack to the size that the archive says")
        return content

    def write(self, path: Path) -> None:
        """The content as a file, piece by piece. Raises as `read` does."""
        left = self.size if self.packed is None else self.packed
        inflate = zlib.decompressobj(-15) if self.packed is not None else None
        written = 0
        with self.path.open("rb") as file, path.open("wb") as out:
            file.seek(self.offset)
            while left and (block := file.read(min(left, BLOCK_BYTES))):
                left -= len(block)
                try:
                    block = block if inflate is None else inflate.decompress(block, self.size - written + 1)
                except zlib.error as error:
                    raise self.error(f"does not unpack ({error})") from None
                written += out.write(block)
                if written > self.size:
                    break
        if written != self.size:
            raise self.error("does not unpack to the size that the archive says")

    def error(self, why: str) -> Exception:
        """A DatasetInvalid that names archive and member."""
        return invalid(f"{self.archive}/{printable(self.name)}", why)


def is_archive(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(SUFFIXES)


def members(
    name: str, path: Path, limits: Limits, scratch: Scratch, *, most: int = MEMBER_BYTES, kind: str = ""
) -> list[Member]:
    """All regular files of an archive. Raises DatasetInvalid and LimitExceeded, naming archive and member.

    A packed tar is unpacked into one file in `scratch` first: its members lie nowhere else.
    most: bytes of a member; kind: the suffix of what it is, if its own says something else
    """
    lower = kind or path.name.lower()
    if lower.endswith(".zip"):
        found = _zip(name, path, limits)
    elif lower.endswith(".tar"):
        found = _tar(name, path)
    else:
        plain = scratch.file(path.stat().st_size)
        with open_unpacked(name, path, limits) as packed, plain.open("wb") as file:
            while block := packed.read(1024**2):
                scratch.room_for(len(block))
                file.write(block)
        found = _tar(name, plain)
    listed: list[Member] = []
    for member in found:
        listed.append(member)
        if limits.dataset_files and len(listed) > limits.dataset_files:
            raise LimitExceeded(f"{name} holds more than {limits.dataset_files} files (MAX_DATASET_FILES)")
        if member.size > most:
            raise LimitExceeded(
                f"{name}: '{printable(member.name)}' has {format_bytes(member.size)};"
                f" at most {format_bytes(most)} are read of one file in an archive"
            )
    problem = first_problem(member.name for member in listed)
    if problem:
        raise invalid(name, f"'{printable(problem[0])}': {problem[1]}")
    names: set[str] = set()
    for member in listed:
        if member.name in names:
            raise invalid(name, f"'{printable(member.name)}' stands there twice; which of the two is meant?")
        names.add(member.name)
    return listed


def _plain(name: str) -> str:
    """Without the "./" that `tar -C folder .` puts before every name."""
    while name.startswith("./"):
        name = name[2:]
    return name


def _zip(name: str, path: Path, limits: Limits) -> Iterator[Member]:
    end = total = 0
    packed_bytes = path.stat().st_size
    with path.open("rb") as file:
        entries = zip_directory.read(name, file, packed_bytes, limits)
        for entry in sorted(entries, key=lambda entry: entry.offset):
            shown = printable(entry.name)
            if why := _zip_problem(entry, end):
                raise invalid(name, f"'{shown}' {why}")
            if entry.name.endswith("/"):
                continue
            header = os.pread(file.fileno(), 30, entry.offset)
            if len(header) < 30 or not header.startswith(b"PK\3\4"):
                raise invalid(name, f"'{shown}' is not where the archive's list says")
            names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            offset = entry.offset + 30 + names
            end = offset + entry.packed
            stored = entry.method == zip_directory.STORED
            if end > packed_bytes or (stored and entry.packed != entry.size):
                raise invalid(name, f"'{shown}' is cut off")
            total += entry.size
            if entry.size > max(FREE_MEMBER_BYTES, MOST_RATIO * entry.packed):
                raise LimitExceeded(f"{name}: '{shown}' unpacks to more than {MOST_RATIO} times its size")
            if limits.dataset_bytes and total > limits.dataset_bytes:
                most = format_bytes(limits.dataset_bytes)
                raise LimitExceeded(f"{name} unpacks to more than {most} (MAX_DATASET_BYTES)")
            yield Member(name, _plain(entry.name), path, offset, entry.size, None if stored else entry.packed)


def _zip_problem(entry: zip_directory.Entry, end: int) -> str | None:
    """Why the entry is not read, None where nothing is wrong. end: of the one before it"""
    kind = stat.S_IFMT(entry.attributes >> 16)
    if entry.name.endswith("/"):
        return "is a folder that has content" if entry.size else None
    if kind not in (0, stat.S_IFREG):
        what = "a symbolic link" if kind == stat.S_IFLNK else "no regular file"
        return f"is {what}; regular files are read and nothing else"
    if entry.flags & ENCRYPTED:
        return "is encrypted; pack it without a password"
    if entry.method not in (zip_directory.STORED, zip_directory.DEFLATED):
        return "is packed by another method than deflate; pack it as usual"
    if entry.packed > entry.size + entry.size // 8 + FREE_MEMBER_BYTES:
        return "has far more bytes packed than unpacked: the archive is damaged or made to harm"
    if entry.offset < end:
        return "overlaps the file before it: the archive is damaged or made to harm"
    return None


def _tar(name: str, path: Path) -> Iterator[Member]:
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        longer: dict[str, str] = {}
        while at + BLOCK <= size:
            header = os.pread(file.fileno(), BLOCK, at)
            if not header.strip(b"\0"):
                return
            length, kind = _tar_header(name, header, at)
            begin, at = at + BLOCK, at + BLOCK + -(-length // BLOCK) * BLOCK
            if begin + length > size:
                raise invalid(name, "is cut off: its last file is not there to the end")
            if kind in b"LKxg":
                if length > HEADER_BYTES:
                    raise invalid(name, f"the header at byte {begin} has {length} bytes, more than {HEADER_BYTES}")
                text = os.pread(file.fileno(), length, begin)
                longer |= _long_name(text) if kind == b"L" else _pax(name, text) if kind == b"x" else {}
                continue
            member = _plain(longer.get("path") or _tar_name(name, header))
            if "size" in longer and longer["size"] != str(length):
                raise invalid(name, f"'{printable(member)}' has two sizes")
            if kind not in (b"0", b"\0", b"7", b"5") or any(key.startswith("GNU.sparse") for key in longer):
                what = _KINDS.get(kind, "no regular file" if kind not in (b"0", b"\0", b"7") else "a sparse file")
                raise invalid(name, f"'{printable(member)}' is {what}; regular files are read and nothing else")
            longer = {}
            if kind != b"5" and not member.endswith("/"):
                yield Member(name, member, path, begin, length)
        if at == 0:
            raise invalid(name, "is no tar archive")


def _tar_header(name: str, header: bytes, at: int) -> tuple[int, bytes]:
    """(bytes that follow, kind)"""
    try:
        said = int(header[148:156].strip(b"\0 ") or b"0", 8)
        length = (
            int.from_bytes(header[125:136], "big")
            if header[124] == 0x80
            else int(header[124:136].strip(b"\0 ") or b"0", 8)
        )
    except ValueError:
        said, length = -1, -1
    if length < 0 or said != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        raise invalid(name, f"is no readable tar archive (at byte {at})")
    return length, header[156:157]


def _tar_name(name: str, header: bytes) -> str:
    parts = [header[:100].split(b"\0")[0]]
    if header[257:262] == b"ustar" and header[263:265] == b"00":
        parts.insert(0, header[345:500].split(b"\0")[0])
    return _decoded(name, b"/".join(part for part in parts if part))


def _long_name(text: bytes) -> dict[str, str]:
    return {"path": _decoded("", text.split(b"\0")[0])}


def _pax(name: str, text: bytes) -> dict[str, str]:
    """The records of a pax header: "length key=value\\n" each."""
    records = {}
    while text.strip(b"\0"):
        digits, _, _ = text[:12].partition(b" ")
        if not digits.isdigit() or not len(digits) + 2 < int(digits) <= len(text):
            raise invalid(name, "is no readable tar archive (an extended header is broken)")
        key, _, value = text[len(digits) + 1 : int(digits) - 1].partition(b"=")
        records[_decoded(name, key)] = _decoded(name, value)
        text = text[int(digits) :]
    return records


def _decoded(name: str, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise invalid(name, f"holds a name that is not UTF-8 ({printable(text.decode('latin-1'))})") from None


def copied(member: Member, scratch: Scratch) -> Path:
    """The member as a file of its own, under its own name, in a folder of `scratch`: for readers that need a path."""
    folder = scratch.file(member.size)
    folder.mkdir()
    path = folder / member.name.rsplit("/", 1)[-1]
    member.write(path)
    return path
