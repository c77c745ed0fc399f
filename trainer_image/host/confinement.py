"""What the kernel does so that a process with credentials and one without are apart, though they are of the same user.

The first hides its environment, its memory and its open files (`hide_this_process`). The second takes from itself, for
good and for all that it starts, what leads to the first (`confine`): by Landlock it reads no file below some folders,
looks into no process but its own descendants (ptrace, /proc/PID/mem, process_vm_readv), and sends no other a signal.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trainer_image.host.keeper import PR_SET_PDEATHSIG

# <linux/prctl.h>
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
# <linux/landlock.h>; the system calls have the same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _REFER = 1 << 2, 1 << 13
_SCOPE_SIGNAL = 1 << 1
# Version 1 cannot allow that a file moves into another folder, as it does in a compiler's cache (Triton's). Version 6
# keeps signals in.
_LEAST, _WITH_SCOPES = 2, 6

SERVICE_ACCOUNT = Path("/var/run/secrets")


def hide_this_process() -> str | None:
    """Closes environment, memory and open files to processes of the same user (/proc/PID, ptrace), and makes no core
    file of them. None, or why that is not so."""
    return None if _prctl(PR_SET_DUMPABLE, 0) else "this kernel does not hide a process from others of its user"


def die_with(parent: int) -> None:
    """This process is killed when `parent`, which started it, ends: in the very moment too in which this is called."""
    if not sys.platform.startswith("linux"):
        return  # there the end of the pipe says so
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def credentials(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Where credentials lie as files in a pod: the dispatcher's folder, Kubernetes', and what azure-identity reads."""
    named = ("CREDENTIALS_DIR", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH")
    return [*(Path(path) for name in named if (path := environment.get(name, "").strip())), SERVICE_ACCOUNT]


def confine(hidden: Iterable[Path]) -> str | None:
    """Confines this process and all that it starts from now on; only where it has a single thread yet.

    hidden: files and folders that are not to be read. Beside them nothing changes, but that no file can be read that is
    made later right in a folder on the way to one (in / and /run). None, or why the kernel does not do it.
    """
    version = _landlock(_CREATE_RULESET, None, 0, _VERSION)
    if version < _LEAST:
        return (
            f"the kernel has no Landlock, or version {version} of it" if version > 0 else "the kernel has no Landlock"
        )
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped
    attributes = struct.pack("=QQQ", _READ_FILE | _REFER, 0, _SCOPE_SIGNAL if version >= _WITH_SCOPES else 0)
    size = len(attributes) if version >= _WITH_SCOPES else 8
    ruleset = _landlock(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return f"Landlock refuses ({os.strerror(ctypes.get_errno())})"
    try:
        try:
            for path in _beside({path.resolve() for path in hidden if path.exists()}):
                _allow(ruleset, path)
        except OSError as error:
            # What lies beside is not known, and a rule for all of it would be one for what is hidden, too.
            return f"a folder on the way to them cannot be looked into ({error.strerror}: {error.filename})"
        if not _prctl(PR_SET_NO_NEW_PRIVS, 1) or _landlock(_RESTRICT_SELF, ruleset, 0) < 0:
            return f"Landlock refuses ({os.strerror(ctypes.get_errno())})"
    finally:
        os.close(ruleset)
    return None


def _beside(hidden: set[Path], folder: Path = Path("/")) -> Iterator[Path]:
    """The paths that cover all below the folder, but for what is hidden."""
    if not any(folder in path.parents for path in hidden):
        yield folder
        return
    for path in folder.iterdir():
        # A link covers nothing of its own: what it leads to is covered where it lies.
        if not path.is_symlink() and path not in hidden:
            yield from _beside(hidden, path)


def _allow(ruleset: int, path: Path) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # gone, or out of this user's reach as it is
    rights = _READ_FILE | _REFER if path.is_dir() else _READ_FILE
    # struct landlock_path_beneath_attr, packed: allowed_access, parent_fd
    _landlock(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
    os.close(opened)


def _landlock(number: int, *arguments: int | bytes | None) -> int:
    if not sys.platform.startswith("linux"):
        return -1
    # As the width of a register: ctypes passes a bare int as 32 bits.
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *passed))


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
