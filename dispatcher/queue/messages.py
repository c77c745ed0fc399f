"""Messages of the queue, and the errors that a call to it ends with.

QueueError
├── QueueUnavailable   no answer, throttled (503 ServerBusy), 5xx: comes again
└── QueueForbidden     missing queue, wrong key, expired credentials: a person must mend it; comes again, too
    └── ConnectionStringInvalid   no connection string at all: a setting is wrong
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

# The service hands out at most 32 messages a call.
MAX_BATCH = 32


class QueueError(Exception):
    """The queue did not do what was asked; the text is a sentence without secrets."""


class QueueUnavailable(QueueError):
    """Out of reach, throttled or failing."""


class QueueForbidden(QueueError):
    """The queue is not there, or refuses our credentials."""


class ConnectionStringInvalid(QueueForbidden):
    """AZURE_STORAGE_CONNECTION_STRING is none."""


@dataclass
class QueueMessage:
    """One received message.

    pop_receipt: the newest one; it changes with every update (Azure, "Update Message").
    hidden_until: monotonic seconds; after it another dispatcher may have the message.
    queued_at: epoch seconds.
    """

    id: str
    text: str
    delivery_count: int
    queued_at: float
    pop_receipt: str = field(repr=False)
    hidden_until: float

    def remaining(self) -> float:
        """Seconds for which the message is surely ours."""
        return self.hidden_until - time.monotonic()


@dataclass(frozen=True)
class PeekedMessage:
    """A message that was looked at and not taken. queued_at: epoch seconds; 0 where the queue does not say."""

    id: str
    text: str
    delivery_count: int
    queued_at: float
