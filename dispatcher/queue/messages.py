"""Messages of the queue, and the errors that a call to it ends with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

AnyQueue_co = TypeVar("AnyQueue_co", covariant=True)

# The service hands out at most 32 messages a call.
MAX_BATCH = 32


class QueueError(Exception):
    """The queue did not do what was asked; the text is a sentence without secrets."""


class QueueUnavailable(QueueError):
    """No answer, throttled (503 ServerBusy) or 5xx: temporary."""


class QueueForbidden(QueueError):
    """A missing queue, a wrong key, expired credentials: an operator must fix it."""


class ConnectionStringInvalid(QueueForbidden):
    """AZURE_STORAGE_CONNECTION_STRING is not a connection string."""


@dataclass
class QueueMessage:
    """One received message.

    pop_receipt: the newest one; it changes with every update (Azure, "Update Message").
    hidden_until: monotonic seconds; after it another dispatcher may receive the message.
    queued_at: epoch seconds. queue: the name of the queue that it is on.
    """

    id: str
    text: str
    delivery_count: int
    queued_at: float
    pop_receipt: str = field(repr=False)
    hidden_until: float
    queue: str = ""

    def remaining(self) -> float:
        """Seconds until the visibility timeout expires."""
        return self.hidden_until - time.monotonic()


@dataclass(frozen=True)
class PeekedMessage:
    """A message that was peeked at, not received. queued_at: epoch seconds; 0 where the queue does not give it."""

    id: str
    text: str
    delivery_count: int
    queued_at: float
    queue: str = ""


@dataclass(frozen=True)
class QueuePair(Generic[AnyQueue_co]):
    """A queue of requests, and its own poison queue. secret: what proves entries there to be the dispatchers'."""

    name: str
    requests: AnyQueue_co
    poison: AnyQueue_co
    secret: str = ""
