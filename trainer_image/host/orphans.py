"""What a child has started and left behind: handed to this process while it asks for it, to be ended with the child."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

from trainer_image.host import keeper
from trainer_image.host.keeper import PR_SET_CHILD_SUBREAPER

_PR_GET_CHILD_SUBREAPER = 37  # <linux/prctl.h>
_LINUX = sys.platform.startswith("linux")


class Orphans:
    """Of a child that is started after this, in a session of its own."""

    def __init__(self) -> None:
        if not _LINUX:
            return
        self._libc = ctypes.CDLL(None)
        asked = ctypes.c_int()
        self._libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(asked), 0, 0, 0)
        self._asked_before = asked.value
        self._others = set(keeper.children())
        self._libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def end(self) -> bool:
        """Ends those that came since, and are of another session: children of this process's own stay in its session.

        Whether none is left.
        """
        latest = time.monotonic() + keeper.PATIENCE
        while left := self._left():
            if time.monotonic() > latest:
                return False
            for child in left:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, os.WNOHANG)
            time.sleep(0.002)
        return True

    def release(self) -> None:
        if _LINUX:
            self._libc.prctl(PR_SET_CHILD_SUBREAPER, self._asked_before, 0, 0, 0)

    def _left(self) -> list[int]:
        if not _LINUX:
            return []
        return [child for child in keeper.children() if child not in self._others and _is_elsewhere(child)]


def _is_elsewhere(process: int) -> bool:
    try:
        return os.getsid(process) != os.getsid(0)
    except ProcessLookupError:
        return False
