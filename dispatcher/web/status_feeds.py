"""What the status page has to fetch: the first messages of both queues, and the progress of running models.

One thread makes these calls, one at a time, and only while somebody has viewed the page within the last minutes: a page
view itself calls nothing, however many there are. Nothing here may harm a training: a failure is shown on the page or
not at all, and ends neither the thread nor the dispatcher.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol

from dispatcher.queue.messages import PeekedMessage, QueueError
from dispatcher.queue.poison import parse_entry
from dispatcher.web.request_rows import QueueFacts
from dispatcher.web.status_rows import PortalProgress
from portal_client import progress_text
from portal_client.errors import PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus

log = logging.getLogger(__name__)

# Seconds between two looks at the queues, and between two calls to the portal: five a second at most.
_QUEUES_EVERY = 5.0
_CALL_EVERY = 0.2
# Seconds after the last page view for which the thread goes on.
_AUDIENCE = 180.0
# The number of models asked for between two looks at the queues.
_AT_A_TIME = 20
# Losses kept of one model; beyond this every other one is dropped, which keeps the curve's shape.
_POINTS = 60
_NEVER = float("-inf")


class PeekedQueue(Protocol):
    """What is used here of `queue.azure.TrainingQueue`. Every method raises QueueError."""

    def peek(self) -> list[PeekedMessage]: ...
    def depth(self) -> int: ...


@dataclass(eq=False)
class StatusFeeds:
    """running(): (uid, model id) of the Jobs whose trainer runs; known(): uids of all Jobs. Thread-safe.

    portal: None with STATUS_TRACKING=off. progress_every: seconds between two calls for one model; call_every: between
    two calls for any.
    """

    queue: PeekedQueue
    poison_queue: PeekedQueue
    portal: Portal | None
    _: KW_ONLY
    running: Callable[[], Sequence[tuple[str, str]]]
    known: Callable[[], set[str]]
    progress_every: float
    stopping: threading.Event
    call_every: float = _CALL_EVERY
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _looked_at: float = field(default=_NEVER, init=False)
    _passes: int = field(default=0, init=False)
    _facts: QueueFacts = field(default_factory=QueueFacts, init=False)
    _progress: dict[str, PortalProgress] = field(default_factory=dict, init=False)  # by the Job's uid
    _asked: dict[str, float] = field(default_factory=dict, init=False)  # by the Job's uid
    _portal_due: float = field(default=_NEVER, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def look(self, patience: float = 0.0) -> tuple[QueueFacts, dict[str, PortalProgress]]:
        """What is known, for a page view. patience: seconds to wait for the queues where the thread has rested."""
        with self._changed:
            rested = self.monotonic() - self._looked_at > _AUDIENCE
            self._looked_at = self.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="status-feeds", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            if rested:
                seen = self._passes
                self._changed.wait_for(lambda: self._passes != seen or self.stopping.is_set(), patience)
            return self._facts, dict(self._progress)

    def _run(self) -> None:
        while not self.stopping.is_set():
            if self.turn():
                self.stopping.wait(_QUEUES_EVERY)
            else:
                with self._changed:
                    self._changed.wait(1.0)  # `look` wakes it; the time-out is for SIGTERM alone

    def turn(self) -> bool:
        """Make the calls that are due, if anybody has viewed the page lately; returns whether somebody has."""
        with self._changed:
            if self.monotonic() - self._looked_at > _AUDIENCE:
                return False
        try:
            self.ask_queues()
            self.ask_portal()
        except Exception:
            log.exception("The status page cannot be updated for a defect of the dispatcher")
        return True

    def ask_queues(self) -> None:
        try:
            waiting = tuple(self.queue.peek())
            poison = tuple(parse_entry(m.text) for m in self.poison_queue.peek())
            facts = QueueFacts(self.queue.depth(), self.poison_queue.depth(), waiting, poison)
        except QueueError as error:
            facts = QueueFacts(problem=str(error))
        with self._changed:
            self._facts = facts
            self._passes += 1
            self._changed.notify_all()

    def ask_portal(self) -> None:
        """Ask for the progress of the models that are due, the longest not asked for first."""
        known = self.known()
        with self._changed:  # a Job's curve is kept for as long as the Job
            self._progress = {uid: progress for uid, progress in self._progress.items() if uid in known}
        self._asked = {uid: at for uid, at in self._asked.items() if uid in known}
        now = self.monotonic()
        if self.portal is None or now < self._portal_due:
            return
        due = [job for job in self.running() if now - self._asked.get(job[0], _NEVER) >= self.progress_every]
        due.sort(key=lambda job: self._asked.get(job[0], _NEVER))
        for uid, model_id in due[:_AT_A_TIME]:
            self._asked[uid] = self.monotonic()
            try:
                answer = self.portal.get_model_status(model_id)
                if answer.status is ProcessingStatus.PROCESSING:
                    self._note(uid, answer.message)
            except PortalError as error:
                if error.retryable:  # out of reach: for all models
                    self._portal_due = self.monotonic() + max(self.progress_every, error.retry_after or 0.0)
                    return
            if self.stopping.wait(self.call_every):
                return

    def _note(self, uid: str, message: str) -> None:
        before = self._progress.get(uid)
        losses = before.losses if before else ()
        found = progress_text.parse(message)
        if found is not None and losses and found.epoch < losses[-1][0]:
            losses = ()  # training restarted: after a crash without a checkpoint, or on all rows
        if found is not None and found.loss is not None and (not losses or found.epoch > losses[-1][0]):
            losses = (*losses, (found.epoch, found.loss))
        if len(losses) > _POINTS:
            losses = (*losses[:-1:2], losses[-1])
        with self._changed:
            self._progress[uid] = PortalProgress(message, self.clock(), losses)
