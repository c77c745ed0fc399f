"""The portal's `ProcessingStatus`, from and to what its API writes (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ProcessingStatus(IntEnum):
    """The five values of the portal's enum; the number is what a PUT sends."""

    CREATED = 0
    PROCESSING = 1
    COMPLETED = 2
    FAILED = 3
    RECONFIGURE = 4

    @property
    def title(self) -> str:
        """The word a GET returns and log lines use: "Created", "Processing", ..."""
        return self.name.capitalize()

    @property
    def may_start(self) -> bool:
        """Whether a training may begin: Created, or Reconfigure (the portal asks for another training)."""
        return self in (ProcessingStatus.CREATED, ProcessingStatus.RECONFIGURE)

    @property
    def is_terminal(self) -> bool:
        """Whether the training is over: Completed or Failed."""
        return self in (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)

    @classmethod
    def parse(cls, value: object) -> ProcessingStatus:
        """The status that the portal means by "Created" (any letter case), 0 or "0".

        Raises ValueError for everything else: a boolean, a fraction, non-ASCII digits, surrounding space.
        """
        key = value.lower() if isinstance(value, str) and value.isascii() else value
        if isinstance(key, int | str) and not isinstance(key, bool) and key in _KNOWN:
            return _KNOWN[key]
        known = ", ".join(f"{status.title} ({status.value})" for status in cls)
        raise ValueError(f"{_shown(value)} is no model status: expected one of {known}")


_KNOWN: dict[int | str, ProcessingStatus] = {
    key: status for status in ProcessingStatus for key in (status.value, str(status.value), status.title.lower())
}


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        # A JSON integer may have thousands of digits, which repr() refuses to print.
        return f"{value}" if abs(value) < 10**12 else "a very large number"
    return ascii(value)[:60] if isinstance(value, str | float | bool) or value is None else type(value).__name__


@dataclass(frozen=True)
class ModelStatus:
    """What the portal has for one model. `message` is "" where the portal gives none."""

    status: ProcessingStatus
    message: str
