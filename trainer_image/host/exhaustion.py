"""Failures for want of memory or disk, whoever met them: a plug-in, or a library that wraps what the system said."""

from __future__ import annotations

from trainer_image.errors import LimitExceeded, OutOfMemory, TrainerError, UserCodeFailed
from trainer_image.host import disk, memory


def found(error: BaseException, kills_before: int) -> LimitExceeded | OutOfMemory | None:
    """The failure as one of disk or memory, None where nothing says so. kills_before: see `memory.out_of_memory`.

    An error of ours knows its kind already; only the user's code is blamed for all that passes through it.
    """
    if isinstance(error, TrainerError) and not isinstance(error, UserCodeFailed):
        return None
    return disk.full(error) or memory.out_of_memory(error, kills_before)
