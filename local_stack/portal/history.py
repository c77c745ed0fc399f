"""What the stand-in portal remembers, as its server keeps it and its client reads it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A status that a model was given. by: "control" or "api"; wall: seconds since 1970; monotonic: in seconds."""

    status: str
    message: str
    by: str
    wall: float = field(default_factory=time.time)
    monotonic: float = field(default_factory=time.monotonic)


@dataclass
class Call:
    """One call of the status API.

    auth: "x-api-key", "bearer" or "none"; status: what was answered, None for nothing; fault: the id of the one it met.
    """

    number: int
    method: str
    path: str
    model: str | None
    body: Any
    auth: str
    status: int | None = None
    fault: int | None = None
    wall: float = field(default_factory=time.time)
    monotonic: float = field(default_factory=time.monotonic)
