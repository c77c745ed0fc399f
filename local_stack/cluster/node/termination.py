"""The termination message of a container that ended or could not be started."""

from __future__ import annotations

import contextlib
from pathlib import Path

from local_stack.cluster.registry.objects import Obj

_MESSAGE_LIMIT = 4096  # bytes
_LOG_BYTES, _LOG_LINES = 2048, 80


def start_error(program: str, error: OSError) -> str:
    """The container runtime's message for a command that cannot be run (containerd 2.1 with runc)."""
    if isinstance(error, PermissionError):
        why = "permission denied"
    elif "/" in program:
        why = f"stat {program}: no such file or directory"
    else:
        why = "executable file not found in $PATH"
    return (
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
        f'unable to start container process: exec: "{program}": {why}'
    )


def termination_message(spec: Obj, path: Path, log_file: Path, code: int) -> str:
    """The termination message: the file's last 4096 bytes, or, by its policy, the log's last lines."""
    with contextlib.suppress(OSError):
        written = path.read_bytes()
        if written:
            return written[-_MESSAGE_LIMIT:].decode(errors="replace")
    if spec.get("terminationMessagePolicy") != "FallbackToLogsOnError" or code == 0:
        return ""
    try:
        with log_file.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return ""
    return b"".join(lines[-_LOG_LINES:]).decode(errors="replace")
