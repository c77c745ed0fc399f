"""What a launch knows of the message that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from portal_client.statuses import ProcessingStatus


class OutOfTime(Exception):
    """Too little is left of the message's visibility timeout to begin another step."""


@dataclass(frozen=True)
class Delivery:
    """A message that was received. queued_at: epoch seconds; remaining(): seconds until its visibility timeout expires.

    message_id: "" where a timer takes on a half-launched Job whose message is gone. shown: what the portal showed
    when the launch began. queue: the name of the queue that it is on.
    """

    message_id: str
    queued_at: float
    remaining: Callable[[], float]
    shown: ProcessingStatus | None = None
    queue: str = ""
