"""Log lines for people (text) or machines (JSON), each with the model, Job, message and attempt that it is about.

A worker binds these fields once, where it begins; the portal client's lines from the same thread carry them, too.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from training_common.redaction import RedactSecrets

_bound: ContextVar[dict[str, str | int]] = ContextVar("bound")


@contextmanager
def bind(**fields: str | int) -> Iterator[None]:
    """Add `fields` to every line that this thread logs within the block.

    model: the id; job: its Job's name; message_id; attempt: which delivery of the message it is, or for a Job that was
    launched which of its pods.
    """
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 INFO    [model-123 message 7f6c2f0e attempt 1] the line`; the message id is cut."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(where)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        bound = _bound.get({})
        words = [str(bound["job"])] if "job" in bound else []
        words += [f"message {str(bound['message_id'])[:8]}"] if "message_id" in bound else []
        words += [f"attempt {bound['attempt']}"] if "attempt" in bound else []
        record.where = f"[{' '.join(words)}] " if words else ""
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, the bound fields, and the exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, str | int] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_bound.get({}),
        }
        if record.exc_info or record.exc_text:
            line["exception"] = record.exc_text or self.formatException(record.exc_info or (None, None, None))
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(level: int | str, as_json: bool, secrets: Iterable[str]) -> None:
    """Set up the process's logging; `secrets` are redacted from every line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    handler.addFilter(RedactSecrets(secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # at DEBUG it logs every request's address
