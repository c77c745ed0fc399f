"""A worker that is gone without a word of its own, or had to be ended: what that means, and for whom."""

from __future__ import annotations

import signal

from trainer_image.errors import GpuFault, TrainerError, UserCodeFailed, UserCodeKilled, invalid
from trainer_image.host import memory
from trainer_image.storage.blob_names import printable

# A parser that stumbles over damage; a library's own checks abort.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
# Images are decoded by several threads.
_MOST_NAMED = 8


def explained(status: int, at: str, files: list[str], entry_point: str | None, kills_before: int) -> TrainerError:
    """status: its exit status, negative a signal

    at: what it said last that it does; files: that it was reading; entry_point: of a plug-in that ran in it
    kills_before: see `memory.out_of_memory`
    """
    read = ("one of " if len(files) > 1 else "") + ", ".join(map(printable, files[:_MOST_NAMED]))
    who, where = _who(entry_point), _where(at)
    if status >= 0:
        return _failure(f"{who} ended with exit code {status} and no word of its own{where}", entry_point)
    number = -status
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL and (
        starved := memory.out_of_memory(ChildProcessError(f"{who} was killed"), kills_before)
    ):
        return starved
    if number in _CRASHES and files and entry_point is None:
        return invalid(read, f"cannot be read: it is so damaged that it crashes its reader ({name}); write it anew")
    file = f" while it read {read}" if files else ""
    hint = ", as the kernel does where the machine has no memory left" if number == signal.SIGKILL else ""
    kind = GpuFault if entry_point is None else UserCodeKilled
    return kind(f"{who} was ended by {name}{file}{hint}{where}; its exit code would be {128 + number}")


def ended_by_us(why: str, at: str, entry_point: str | None, *, hangs: bool) -> TrainerError:
    """One that could be asked nothing more. why: what it did, as the end of a sentence; at, entry_point: as above"""
    who, did = _who(entry_point), f"{why}{_where(at)}"
    if hangs:
        return GpuFault(f"Training hangs: {who[0].lower()}{who[1:]} {did}")
    return _failure(f"{who} {did}", entry_point)


def _who(entry_point: str | None) -> str:
    return "The process of the training" if entry_point is None else f"The process of the task {entry_point}"


def _where(at: str) -> str:
    return f" (it was at: {at})" if at else ""


def _failure(sentence: str, entry_point: str | None) -> TrainerError:
    return (TrainerError if entry_point is None else UserCodeFailed)(sentence)
