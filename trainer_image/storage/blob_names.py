"""Which blob names may become file names (pure).

A blob's name is text from a stranger: it may climb out of the folder, hide behind control characters, or fall
together with another one on a file system that is not as exact as Blob storage.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MAX_SEGMENT_BYTES = 255
MAX_NAME_BYTES = 2048

_DRIVE = re.compile(r"[A-Za-z]:")


def printable(name: str) -> str:
    """The name for a sentence: what cannot be seen is written as an escape, overlong names are cut."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return shown if len(shown) <= 200 else shown[:197] + "..."


def problem_of(name: str) -> str | None:
    """Why this one name cannot be a path below the dataset's folder, or None."""
    if not name:
        return "the name is empty"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        return "the name contains a control character"
    if "\\" in name:
        return "the name contains a backslash; folders are separated by /"
    if name.startswith("/") or _DRIVE.match(name):
        return "the name is an absolute path"
    segments = name.split("/")
    if ".." in segments or "." in segments:
        return "the name contains a . or .. folder"
    if "" in segments:
        return "the name contains an empty folder name"
    if len(name.encode()) > MAX_NAME_BYTES or any(len(s.encode()) > MAX_SEGMENT_BYTES for s in segments):
        return f"the name is too long for a file (at most {MAX_SEGMENT_BYTES} bytes between two /)"
    return None


def first_problem(names: Iterable[str]) -> tuple[str, str] | None:
    """(name, why) of the first name that cannot be stored beside the others, or None when all can."""
    folders: dict[str, str] = {}
    files: dict[str, str] = {}
    for name in names:
        why = problem_of(name)
        if why:
            return name, why
        segments = name.split("/")
        folder, folded = "", ""
        for segment in segments[:-1]:
            folder, folded = f"{folder}{segment}/", f"{folded}{_folded(segment)}/"
            other = folders.setdefault(folded, folder)
            if other != folder:
                return name, _same(folder, other)
        key = folded + _folded(segments[-1])
        other = files.setdefault(key, name)
        if other != name:
            return name, _same(name, other)
    for key, name in files.items():
        if key + "/" in folders:
            return name, "the name is that of a file and of a folder"
    return None


def _folded(segment: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", segment).casefold())


def _same(name: str, other: str) -> str:
    return f"differs from {printable(other)} only in letter case or in how its letters are encoded"
