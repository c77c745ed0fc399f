"""Looks for secrets wherever a process can look: a program, and what a plug-in does.

    python hunt.py [SECRET…]    each written backwards, so that looking for them does not spread them

What looks like a signature or the token of a run is found without being named. Prints where it found one, as JSON; in a
program's folder OUTPUT_DIR it leaves that as found.json. On a cluster: publish config.yaml with `task: command` and
`argv: [python, -c, "…this file…"]`, in a template with ALLOW_COMMAND=on.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LONGEST = 64 * 1024**2
PTRACE_SEIZE = 0x4206
# No file that happens to be open has this: torch's compiler says "traced" itself.
TRACED = b"\0traced\0"
# As storage signs an address, and the dispatcher a token.
FORMS = [
    re.compile(rb"[?&]sig=[A-Za-z0-9%+/]{40,}"),
    re.compile(rb"\bv1\.[a-z0-9-]{1,63}\.[A-Za-z0-9_-]{1,64}\.[0-9a-f]{64}"),
]


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def others() -> list[Path]:
    found = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [path for path in found if int(path.name) != os.getpid()]


def files() -> Iterator[tuple[str, bytes]]:
    """Environments, open files, and all that lies where credentials do."""
    for process in others():
        with contextlib.suppress(OSError):
            yield f"environment of {process.name}", (process / "environ").read_bytes()
        with contextlib.suppress(OSError):
            yield f"command of {process.name}", (process / "cmdline").read_bytes()
        for folder in (process / "fd", Path("/proc/self/fd")):
            with contextlib.suppress(OSError):
                for descriptor in list(folder.iterdir()):
                    if descriptor.is_file():
                        with contextlib.suppress(OSError), descriptor.open("rb") as file:
                            yield f"open file {descriptor}", os.pread(file.fileno(), LONGEST, 0)
    for place in (os.environ.get("CREDENTIALS_DIR", ""), "/var/run/secrets", "/credentials"):
        for path in Path(place).rglob("*") if place else ():
            with contextlib.suppress(OSError):
                yield f"file {path}", path.read_bytes()
    yield "own environment", "".join(os.environ.values()).encode()


def memory() -> Iterator[tuple[str, bytes]]:
    libc = ctypes.CDLL(None, use_errno=True)
    for process in others():
        pid = int(process.name)
        if libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0:
            yield f"traced {pid}", TRACED
        with contextlib.suppress(OSError):
            for line in (process / "maps").read_text().splitlines():
                span, rights = line.split()[:2]
                begin, end = (int(part, 16) for part in span.split("-"))
                if not rights.startswith("rw") or end - begin > LONGEST:
                    continue
                with contextlib.suppress(OSError), (process / "mem").open("rb") as file:
                    file.seek(begin)
                    yield f"memory of {pid}", file.read(end - begin)
                buffer = ctypes.create_string_buffer(end - begin)
                ours, theirs = _Piece(ctypes.addressof(buffer), end - begin), _Piece(begin, end - begin)
                if libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) > 0:
                    yield f"memory of {pid}, copied", buffer.raw


def hunt(backwards: list[str]) -> list[str]:
    secrets = [TRACED, *(secret[::-1].encode() for secret in backwards)]
    found = {
        where
        for look in (files, memory)
        for where, content in look()
        if any(s in content for s in secrets) or any(form.search(content) for form in FORMS)
    }
    return sorted(found)


if __name__ == "__main__":
    said = json.dumps(hunt(sys.argv[1:]))
    print(said)
    if folder := os.environ.get("OUTPUT_DIR"):
        (Path(folder) / "found.json").write_text(said)
