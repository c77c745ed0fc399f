"""Files below a folder that others may write to: opened without following a link on the way.

What was looked at by name can be something else when it is opened by name; what is open stays what it is.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedIOBase
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(folder: Path, name: str) -> BufferedIOBase:
    """The regular file `name` (with / between folders) below `folder`, to be read. Raises OSError for anything else."""
    *folders, last = name.split("/")
    place = os.open(folder, _FOLDER)
    try:
        for part in folders:
            inner = os.open(part, _FOLDER, dir_fd=place)
            os.close(place)
            place = inner
        # A pipe in its place would make the reader wait.
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)
    _regular(descriptor, name)
    return os.fdopen(descriptor, "rb")


def open_to_append(path: Path) -> BufferedIOBase:
    """The regular file at `path`, made where there is none. Raises OSError for anything else, a link too."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    _regular(descriptor, path.name)
    return os.fdopen(descriptor, "ab")


def _regular(descriptor: int, name: str) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", name)


def names(folder: Path) -> list[str]:
    """Of all that lies below and is no folder, sorted. A link to a folder is none."""
    found = []
    for place, folders, files in os.walk(folder):
        for entry in [*files, *(name for name in folders if Path(place, name).is_symlink())]:
            found.append(Path(place, entry).relative_to(folder).as_posix())
    return sorted(found)
