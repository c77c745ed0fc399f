"""What the status page has to ask others for: both queues, and the portal for the progress of running models.

One thread asks, one call at a time, and only while somebody has looked at the page within the last minutes: a page
view itself calls nobody, however many look. Nothing here may harm a training: a failure is shown on the page or not
at all, and ends neither the thread nor the dispatcher.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from dispatcher.queue.messages import PeekedMessage, QueueError
from dispatcher.queue.poison import parse_entry
from dispatcher.web.request_rows import QueueFacts
from dispatcher.web.status_rows import Heard
from portal_client import progress_text
from portal_client.errors import PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus

log = logging.getLogger(__name__)

# Seconds between two looks at the queues, and between two calls to the portal: five a second at most, whatever runs.
_QUEUES_EVERY = 5.0
_BREATH = 0.2
# The thread rests when nobody has looked for this long.
_AUDIENCE = 180.0
# Models asked for between two looks at the queues.
_AT_A_TIME = 20
# Losses kept of one model; beyond, every other one goes, which keeps the curve's shape.
_POINTS = 60


class PeekedQueue(Protocol):
    """The part of `azure_queue.TrainingQueue` that is used here. Every method raises QueueError."""

    def peek_messages(self) -> list[PeekedMessage]: ...
    def depth(self) -> int: ...


class StatusFeeds:
    """running(): (uid, model id) of the Jobs whose trainer runs; known(): uids of all Jobs. Thread-safe.

    portal: None with STATUS_TRACKING=off. progress_every: seconds between two calls for one model; breath: between two
    calls for any.
    """

    def __init__(
        self,
        queue: PeekedQueue,
        poison_queue: PeekedQueue,
        portal: Portal | None,
        *,
        running: Callable[[], Sequence[tuple[str, str]]],
        known: Callable[[], set[str]],
        progress_every: float,
        stopping: threading.Event,
        breath: float = _BREATH,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._poison_queue = poison_queue
        self._portal = portal
        self._running = running
        self._known = known
        self._progress_every = progress_every
        self._stopping = stopping
        self._breath = breath
        self._clock = clock
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._looked_at = float("-inf")
        self._passes = 0
        self._facts = QueueFacts()
        self._heard: dict[str, Heard] = {}  # by the Job's uid
        self._asked: dict[str, float] = {}  # by the Job's uid
        self._portal_due = float("-inf")
        self._thread: threading.Thread | None = None

    def look(self, patience: float = 0.0) -> tuple[QueueFacts, dict[str, Heard]]:
        """What is known; somebody wants to know. patience: seconds to wait where nothing was asked yet or for long."""
        with self._changed:
            rested = self._monotonic() - self._looked_at > _AUDIENCE
            self._looked_at = self._monotonic()
            if self._thread is None:
                self._thread = self._start()
            self._changed.notify_all()
            if rested:
                seen = self._passes
                self._changed.wait_for(lambda: self._passes != seen or self._stopping.is_set(), patience)
            return self._facts, dict(self._heard)

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="status-feeds", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self.turn():
                self._stopping.wait(_QUEUES_EVERY)
            else:
                with self._changed:
                    self._changed.wait(1.0)  # `look` wakes it; the time-out is for SIGTERM alone

    def turn(self) -> bool:
        """Ask whoever is due, if anybody has looked lately; whether somebody has."""
        with self._changed:
            if self._monotonic() - self._looked_at > _AUDIENCE:
                return False
        try:
            self.ask_queues()
            self.ask_portal()
        except Exception:
            log.exception("The status page lacks news for a defect of the dispatcher")
        return True

    def ask_queues(self) -> None:
        """Look at both queues once."""
        try:
            waiting = tuple(self._queue.peek_messages())
            poison = tuple(parse_entry(m.text) for m in self._poison_queue.peek_messages())
            facts = QueueFacts(self._queue.depth(), self._poison_queue.depth(), waiting, poison)
        except QueueError as error:
            facts = QueueFacts(problem=str(error))
        with self._changed:
            self._facts = facts
            self._passes += 1
            self._changed.notify_all()

    def ask_portal(self) -> None:
        """Ask for the models whose turn it is, those that were not asked for longest first."""
        self._forget()
        now = self._monotonic()
        if self._portal is None or now < self._portal_due:
            return
        never = float("-inf")
        due = [job for job in self._running() if now - self._asked.get(job[0], never) >= self._progress_every]
        due.sort(key=lambda job: self._asked.get(job[0], never))
        for uid, model_id in due[:_AT_A_TIME]:
            self._asked[uid] = self._monotonic()
            try:
                answer = self._portal.get_model_status(model_id)
                if answer.status is ProcessingStatus.PROCESSING:
                    self._hear(uid, answer.message)
            except PortalError as error:
                if error.retryable:  # out of reach: for all of them
                    self._portal_due = self._monotonic() + max(self._progress_every, error.retry_after or 0.0)
                    return
            if self._stopping.wait(self._breath):
                return

    def _hear(self, uid: str, message: str) -> None:
        before = self._heard.get(uid)
        losses = before.losses if before else ()
        found = progress_text.parse(message)
        if found is not None and losses and found.epoch < losses[-1][0]:
            losses = ()  # it began anew: after a crash without a checkpoint, or on all rows
        if found is not None and found.loss is not None and (not losses or found.epoch > losses[-1][0]):
            losses = (*losses, (found.epoch, found.loss))
        if len(losses) > _POINTS:
            losses = (*losses[:-1:2], losses[-1])
        with self._changed:
            self._heard[uid] = Heard(message, self._clock(), losses)

    def _forget(self) -> None:
        """A Job's curve is kept as long as the Job."""
        known = self._known()
        with self._changed:
            self._heard = {uid: heard for uid, heard in self._heard.items() if uid in known}
        self._asked = {uid: at for uid, at in self._asked.items() if uid in known}
