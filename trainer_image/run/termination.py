"""The container's termination message: one JSON object that Kubernetes keeps in the pod's status."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer_image.run.outcome import Outcome
from training_common.redaction import redact
from training_common.text import one_line

log = logging.getLogger(__name__)

# Kubernetes cuts off the rest, and half a JSON object cannot be read.
MAX_BYTES = 4096
KUBERNETES_FILE = Path("/dev/termination-log")


def termination_message(
    run_id: str, outcome: Outcome, secrets: Iterable[str] = (), seconds: Mapping[str, float] | None = None
) -> bytes:
    """UTF-8 JSON of at most MAX_BYTES; metrics are left out, then `seconds`, then the message is cut, where it would be
    more. seconds: how long the run's steps took, by name.
    """
    message = one_line(redact(outcome.sentence, secrets))
    body: dict[str, object] = {
        "message": message,
        "code": outcome.code,
        "exit": outcome.exit_code,
        "retryable": outcome.exit_code > 127,
        "run_id": run_id,
        "step": outcome.step,
    }
    metrics = outcome.result.metrics if outcome.result else {}
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    took = {"seconds": {name: round(value, 1) for name, value in seconds.items()}} if seconds else {}
    measured = {"metrics": finite} if finite else {}
    for more in ({**took, **measured}, took):
        if more and len(encoded := _encode({**body, **more})) <= MAX_BYTES:
            return encoded
    encoded = _encode(body)
    # A character takes six bytes at most, as an escape: cut only what certainly does not fit, until the rest does.
    while len(encoded) > MAX_BYTES and message:
        message = message[: -max(1, (len(encoded) - MAX_BYTES) // 6)]
        encoded = _encode({**body, "message": message + "…"})
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
