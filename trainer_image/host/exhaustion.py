"""Failures for want of memory or disk, whoever met them: a plug-in, or a library that wraps what the system said.

Each library reports a full disk in its own way, and only an operator can help.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TypeVar

from trainer_image.errors import LimitExceeded, OutOfMemory, TrainerError, UserCodeFailed, causes
from trainer_image.host import memory

# The disk has no room, the user no quota, or the file system no files of that size.
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
T = TypeVar("T")
# safetensors writes in Rust, and hands the errno on in its text only.
_IN_WORDS = re.compile(r"\(os error (\d+)\)")


def found(error: BaseException, kills_before: int) -> LimitExceeded | OutOfMemory | None:
    """The failure as one of disk or memory, None where nothing says so. kills_before: see `memory.out_of_memory`.

    An error of ours knows its kind already; only the user's code is blamed for all that passes through it.
    """
    if isinstance(error, TrainerError) and not isinstance(error, UserCodeFailed):
        return None
    return _full_disk(error) or memory.out_of_memory(error, kills_before)


def with_room(make_room: Callable[[], bool] | None, write: Callable[[], T]) -> T:
    """What `write` returns, which may be called twice: again where the disk was full and something was removed.

    make_room: whether anything was removed; None: there is nothing to remove
    """
    try:
        return write()
    except Exception as error:
        if _full_disk(error) is None or make_room is None or not make_room():
            raise
    return write()


def _full_disk(error: BaseException) -> LimitExceeded | None:
    for seen in causes(error):
        said = _IN_WORDS.search(str(seen))
        if (isinstance(seen, OSError) and seen.errno in DISK_FULL) or (said and int(said[1]) in DISK_FULL):
            file = getattr(seen, "filename", None)
            where = f" while {file} was written" if isinstance(file, str) else ""
            return LimitExceeded(
                f"The disk of the training is full{where}: a larger ephemeral-storage limit or volume is needed"
            )
    return None
