"""Which files are being read just now: noted where it outlives this process, should one of them crash its reader; and
what is said of one that the system does not open.

The notes are a file that the supervisor holds, too: see worker/child.py. Without one nothing is noted.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer_image.errors import invalid

# Files that several threads read at a time; of a longer name the end, which tells it from others.
_SLOTS, _LENGTH = 32, 256
BYTES = _SLOTS * _LENGTH

# What a file of the dataset itself is to blame for; a full or a failing disk is another matter.
_OF_A_FILE = {
    errno.ENOENT: "; is it a link to a file that is not there?",
    errno.ELOOP: "; links lead in a circle",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.ENOTDIR), ""),
}

_free: deque[memoryview] = deque()


def keep_in(descriptor: int) -> None:
    """From now on notes go to this file, which has BYTES."""
    notes = memoryview(mmap.mmap(descriptor, BYTES))
    _free.extend(notes[begin : begin + _LENGTH] for begin in range(0, BYTES, _LENGTH))


@contextmanager
def of(name: str) -> Iterator[None]:
    """Notes that this file is read meanwhile. Costs microseconds: a dataset may have millions."""
    try:
        slot = _free.pop()
    except IndexError:
        yield
        return
    content = name.encode("utf-8", "replace")[1 - _LENGTH :]
    slot[1 : 1 + len(content)] = content
    slot[0] = len(content)
    try:
        yield
    finally:
        slot[0] = 0
        _free.append(slot)


@contextmanager
def below(data: Path) -> Iterator[None]:
    """A file of this dataset that cannot be opened is one of its faults, DatasetInvalid, and none of this program's."""
    try:
        yield
    except OSError as error:
        root, found = data.absolute(), Path(os.fsdecode(error.filename or "")).absolute()
        if error.errno not in _OF_A_FILE or not error.filename or not found.is_relative_to(root):
            raise
        name = found.relative_to(root).as_posix() if found != root else found.name
        raise invalid(name, f"cannot be read ({error.strerror}){_OF_A_FILE[error.errno]}") from None


def noted(content: bytes) -> list[str]:
    """The names in a file of notes, which may hold anything."""
    slots = [content[begin : begin + _LENGTH] for begin in range(0, len(content), _LENGTH)]
    return [slot[1 : 1 + slot[0]].decode("utf-8", "replace") for slot in slots if slot and slot[0]]
