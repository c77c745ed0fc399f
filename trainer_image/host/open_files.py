"""Which files below a folder some process has open for writing: they may be half written, however still they stand."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PROC = Path("/proc")


def written_below(folder: Path) -> set[str]:
    """Names relative to the folder, with / between folders. Of processes of this user; none where there is no /proc."""
    root, found = f"{folder.resolve()}/", set[str]()
    for process in _PROC.iterdir() if _PROC.is_dir() else ():
        try:
            opened = list((process / "fd").iterdir()) if process.name.isdigit() else []
        except OSError:  # it has ended, or is somebody else's
            continue
        for file in opened:
            with contextlib.suppress(OSError, ValueError):
                target = str(file.readlink())
                if target.startswith(root) and _writes(process / "fdinfo" / file.name):
                    found.add(target.removeprefix(root))
    return found


def _writes(info: Path) -> bool:
    flags = next(line.split()[1] for line in info.read_text().splitlines() if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
