"""The program's parent, a process of its own: what the program started ends with it, wherever it went.

Run as a script, with nothing but the standard library: `keeper.py TRAINER STATUS PROGRAM [ARGUMENT …]`, the trainer's
process id and the descriptor that gets how the program ended (an exit code, negative for a signal).

A process that leaves its group and session (`setsid`), and whose parent ends, is handed to the next ancestor that has
asked for such orphans. This one has; and it has no other children, so that whatever it finds is the program's.

SIGTERM is passed on to the program alone; where that is a shell, which ends by it at once, to what it ran then. END
ends the program and all that is left of it; it also comes when the trainer is gone: an orphan would go on writing, and
hold a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

END = signal.SIGUSR1
HEARD = (signal.SIGTERM, END, signal.SIGCHLD)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# What the kernel cannot end, because it waits for a disk or a network file system, is not waited for.
PATIENCE = 20.0


def children() -> list[int]:
    """The process ids of this process's children, also of those that it was handed."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in the middle may hold anything, brackets too.
                parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[1]
                if int(parent) == os.getpid():
                    found.append(int(entry.name))
    return found


def end_all() -> bool:
    """Ends every child, and the children that it hands on, until there is none. Whether there is none."""
    latest = time.monotonic() + PATIENCE
    while time.monotonic() < latest:
        for child in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        time.sleep(0.002)
    return False


def start(argv: list[str]) -> int:
    """The process id of the program, in a session of its own: what it sends to its group does not reach its parent."""
    program = os.fork()
    if program:
        return program
    # The program dies with its parent, should that be killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    # Python ignores two signals, and what is ignored stays so in a program that is executed.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, *HEARD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 (what may run was checked, and no shell reads it)
    except OSError as error:
        os.write(1, f"{argv[0]} cannot be started: {error.strerror}\n".encode())
    os._exit(126)


def how_it_ended(program: int) -> int | None:
    """The wait status of the program once it has ended, else None. Children that it left and that ended are reaped."""
    while True:
        ended, how = os.waitpid(-1, os.WNOHANG)
        if ended == program:
            return how
        if not ended:
            return None


def handed_down(how: int) -> int:
    """SIGTERM for what a program has left that ended by it, and the wait status of what ended by itself then; `how`
    where nothing did. A shell that runs a script neither waits for its command nor passes a signal on."""
    left = children()
    for child in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return how
        if ended in left and os.WIFEXITED(status):
            how = status
        if not ended and signal.sigwait(HEARD) == END:
            return signal.SIGKILL


def main(trainer: int, status: int, argv: list[str]) -> None:
    # Taken one by one by sigwait, and kept for it until then. A handler would not do: Python runs it between two of its
    # own steps, so that the end of the trainer, told just before a wait for the program begins, is heard after it.
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, END)
    if os.getppid() != trainer:
        os._exit(137)
    os.set_inheritable(status, False)
    program = start(argv)
    stopped = False
    while (how := how_it_ended(program)) is None:
        number = signal.sigwait(HEARD)
        if number != signal.SIGCHLD:
            os.kill(program, signal.SIGTERM if number == signal.SIGTERM else signal.SIGKILL)
            stopped = number == signal.SIGTERM
    if stopped and os.WIFSIGNALED(how) and os.WTERMSIG(how) == signal.SIGTERM:
        how = handed_down(how)
    gone = end_all()
    os.write(status, f"{os.waitstatus_to_exitcode(how)}{'' if gone else ' left'}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
