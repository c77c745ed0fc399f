"""The container's last words: one JSON object that Kubernetes keeps in the pod's status."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.redaction import redact

log = logging.getLogger(__name__)

# Kubernetes cuts off the rest: and half a JSON object says nothing.
MAX_BYTES = 4096
KUBERNETES_FILE = Path("/dev/termination-log")


def termination_message(
    *,
    message: str,
    code: str,
    exit_code: int,
    retryable: bool,
    run_id: str,
    step: int | None,
    metrics: Mapping[str, float] | None = None,
    secrets: Iterable[str] = (),
) -> bytes:
    """UTF-8 JSON of at most MAX_BYTES; metrics are left out, then the message is cut, where it would be more."""
    clean = " ".join(redact(message, secrets).split())
    body: dict[str, object] = {
        "message": clean,
        "code": code,
        "exit": exit_code,
        "retryable": retryable,
        "run_id": run_id,
        "step": step,
    }
    finite = {name: value for name, value in (metrics or {}).items() if math.isfinite(value)}
    if finite:
        with_metrics = _encode({**body, "metrics": finite})
        if len(with_metrics) <= MAX_BYTES:
            return with_metrics
    encoded = _encode(body)
    low, high = 0, len(clean)
    # The longest prefix that fits: an escape may be six bytes for one character, so lengths do not tell.
    while len(encoded) > MAX_BYTES and low < high:
        middle = (low + high + 1) // 2
        if len(_encode({**body, "message": clean[:middle] + "…"})) <= MAX_BYTES:
            low = middle
        else:
            high = middle - 1
        if low == high:
            encoded = _encode({**body, "message": clean[:low] + "…"})
    return encoded


def write_termination(path: Path, content: bytes) -> None:
    """Whole or not at all. Nothing where nobody will read it: no such folder, or Kubernetes' own file is not there."""
    if path == KUBERNETES_FILE and not path.exists():
        log.debug("No termination message: this is no pod")
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            part.write_bytes(content)
            part.replace(path)
        except OSError:
            # In a pod the file is a mount of its own: it can be written, not replaced, and its folder not at all.
            with contextlib.suppress(OSError):
                part.unlink()
            if not path.exists():
                raise
            with path.open("r+b") as file:
                file.write(content)
                file.truncate()
    except OSError as error:
        log.debug("No termination message at %s: %s", path, error.strerror)


def _encode(body: Mapping[str, object]) -> bytes:
    # "replace": a lone surrogate, from a file name say, has no encoding.
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
