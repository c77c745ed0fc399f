"""The program's first lines: a signal ends it quietly, also while its libraries are still being read.

As process 1 of a container it would not even notice SIGTERM before it asks for it.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

# The shell's convention: 128 and the signal's number.
_INTERRUPTED = 128


def main() -> None:
    """Run the command line of `dispatcher.cli.main`. `run` puts handlers of its own in place of these."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    from dispatcher.cli import main as cli  # half a second of libraries

    signal.signal(signal.SIGINT, _interrupt)
    if "run" not in sys.argv:
        # A terminal that is closed, a container that is stopped: the same as Ctrl-C.
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGHUP, _interrupt)
    cli.main(prog_name="dispatcher")


def _leave(number: int, frame: FrameType | None) -> None:
    """Nothing has begun that a crash could not interrupt. An exception would come out of the middle of an import."""
    os._exit(_code(number))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A command in its course: what it holds is given back on the way out."""
    raise SystemExit(_code(number))


def _code(number: int) -> int:
    return 0 if "run" in sys.argv else _INTERRUPTED + number


if __name__ == "__main__":
    main()
