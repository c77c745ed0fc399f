"""Where a program writes whose OUTPUT_DIR stays empty: its files would be lost with the pod, after hours.

What a program does not name may still be found by it: nothing here is more than a hint, and ends no training.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer_image.host import beneath
from trainer_image.storage.blob_names import printable
from trainer_image.units import format_bytes

# A working directory may be a whole disk.
MOST_ENTRIES = 5000
MOST_NAMED, MOST_LOOKED_INTO = 3, 50
# Of a file, to see whether it is the trainer's own log.
LOG_BYTES = 16 * 1024
SCRIPT_BYTES = 1024 * 1024
# After so many seconds it is looked for, and whenever twice as many have passed.
FIRST_LOOK = 15.0
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages", "wandb"})
# Where somebody sends the trainer's own output to, most often.
_NO_MODEL = (".log", ".out", ".pid", ".lock", ".tmp")


class Elsewhere:
    """Files in `places` (what each is → the folder) that were written after `mark`, another file.

    ours: the run's id, and further parts of paths that the trainer itself writes to, as where the container is a folder
    """

    def __init__(self, places: Mapping[str, Path], ours: Sequence[str], mark: Path) -> None:
        self._places = places
        self._ours = ours
        # By the file system's own clock, which ticks more slowly than the process's.
        self._since = mark.stat().st_ctime_ns
        self._began = time.monotonic()
        self._next = FIRST_LOOK

    def due(self, output: Path) -> str | None:
        """`found`, where it is time to look again and the folder is still empty."""
        passed = time.monotonic() - self._began
        if passed < self._next:
            return None
        self._next = 2 * passed
        return self.found() if is_empty(output) else None

    def found(self) -> str | None:
        """ "model.pt (12 MiB) in its working directory /opt/program", None where nothing is found."""
        for what, folder in self._places.items():
            files = sorted(self._written(folder), reverse=True)
            logs = [file for file in files[:MOST_LOOKED_INTO] if self._is_our_log(folder, file[1])]
            files = [file for file in files if file not in logs]
            if files:
                named = ", ".join(f"{printable(name)} ({format_bytes(size)})" for size, name in files[:MOST_NAMED])
                more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
                return f"{named}{more} in {what} {folder}"
        return None

    def _is_our_log(self, folder: Path, name: str) -> bool:
        """Whether somebody has sent the trainer's own output there: its first lines have the settings, the run's id
        among them. A program may note the id in a file of its own."""
        try:
            with beneath.open_file(folder, name) as file:
                return f"RUN_ID={self._ours[0]}".encode() in file.read(LOG_BYTES)
        except (OSError, ValueError):
            return False

    def _written(self, folder: Path) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        seen = 0
        folders = deque([folder])
        try:
            device = folder.stat().st_dev
        except OSError:
            return []
        while folders and seen < MOST_ENTRIES:
            place = folders.popleft()
            try:
                with os.scandir(place) as entries:
                    for entry in entries:
                        seen += 1
                        if entry.name.startswith(".") or entry.name in _PASSED_OVER or entry.name in self._ours:
                            continue
                        status = entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            if status.st_dev == device:  # /proc is no place for a model
                                folders.append(Path(entry.path))
                        elif (
                            entry.is_file(follow_symlinks=False)
                            and status.st_ctime_ns > self._since
                            and not entry.name.endswith(_NO_MODEL)
                        ):
                            found.append((status.st_size, Path(entry.path).relative_to(folder).as_posix()))
            except OSError:
                continue
        return found


def is_empty(output: Path) -> bool:
    """Whether there is nothing that could be a model."""
    try:
        return not any(entry.name != "metrics.jsonl" for entry in os.scandir(output))
    except OSError:
        return True


def unnamed(argv: Sequence[str]) -> str | None:
    """A sentence where neither the arguments nor a script among them name OUTPUT_DIR; None where one does, or where
    there is no script to look into."""
    if any("OUTPUT_DIR" in word for word in argv):
        return None
    scripts = []
    for word in argv:
        path = Path(word)
        try:
            if not path.is_file() or path.stat().st_size > SCRIPT_BYTES:
                continue
            with beneath.open_file(path.parent, path.name) as file:
                content = file.read(SCRIPT_BYTES)
        except (OSError, ValueError):
            continue
        if b"OUTPUT_DIR" in content:
            return None
        if b"\0" not in content:
            scripts.append(word)
    if not scripts:
        return None
    return (
        f"Neither command.argv nor {printable(scripts[0])} names OUTPUT_DIR: what the program does not write into that"
        " folder is no part of the model; {OUTPUT_DIR} in an argument becomes its path"
    )
