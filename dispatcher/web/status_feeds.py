"""What the status page has to fetch: the first messages of the queues, and the portal's word on models that it shows.

One thread makes these calls, one at a time, and only while somebody has viewed the page within the last minutes: a page
view itself calls nothing, however many there are. Nothing here may harm a training: a failure is shown on the page or
not at all, and ends neither the thread nor the dispatcher.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field

from dispatcher.decisions.views.without_job import NOT_ASKED_YET, NOT_TRACKED, PortalWord, heard
from dispatcher.queue.messages import QueueError, QueuePair
from dispatcher.web.request_rows import PeekedQueue, QueueFacts, look_at, together
from dispatcher.web.status_rows import PortalProgress
from portal_client import progress_text
from portal_client.errors import PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ModelStatus, ProcessingStatus

log = logging.getLogger(__name__)

# Seconds between two looks at the queues, and between two calls to the portal: five a second at most.
_QUEUES_EVERY = 5.0
_CALL_EVERY = 0.2
# Seconds after the last page view for which the thread goes on.
_AUDIENCE = 180.0
# Seconds for which a model is asked for after it was last on somebody's page, which asks every three seconds.
_ON_A_PAGE = 15.0
# The number of models asked for between two looks at the queues.
_AT_A_TIME = 20
# Models that are kept, with their curves: a few MiB. Whoever was on a page last stays.
_MOST = 500
# Losses kept of one model; beyond this every other one is dropped, which keeps the curve's shape.
_POINTS = 60
_NEVER = float("-inf")


@dataclass(eq=False)
class StatusFeeds:
    """Thread-safe.

    portal: None with STATUS_TRACKING=off. progress_every: seconds between two calls for one model; call_every: between
    two calls for any.
    """

    queues: Sequence[QueuePair[PeekedQueue]]
    portal: Portal | None
    _: KW_ONLY
    progress_every: float
    stopping: threading.Event
    call_every: float = _CALL_EVERY
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _looked_at: float = field(default=_NEVER, init=False)
    _passes: int = field(default=0, init=False)
    _facts: QueueFacts = field(default_factory=QueueFacts, init=False)
    # All by the Job's uid, or what stands for it where a model has none. _shown: the model's id, and when it was last
    # on a page; who was on one last comes last. _words: with the time (epoch seconds).
    _shown: dict[str, tuple[str, float]] = field(default_factory=dict, init=False)
    _progress: dict[str, PortalProgress] = field(default_factory=dict, init=False)
    _words: dict[str, tuple[PortalWord, float]] = field(default_factory=dict, init=False)
    _away: tuple[PortalWord, float] | None = field(default=None, init=False)  # why the portal answers for no model
    _asked: dict[str, float] = field(default_factory=dict, init=False)
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
                self._facts = QueueFacts()  # what was seen then is no longer so
                self._words.clear()
                self._away = None
                seen = self._passes
                self._changed.wait_for(lambda: self._passes != seen or self.stopping.is_set(), patience)
            return self._facts, dict(self._progress)

    def show(self, jobs: Iterable[tuple[str, str]]) -> None:
        """(uid, model id) of what is on a page that somebody gets now: the portal is asked for these."""
        with self._changed:
            now = self.monotonic()
            for uid, model_id in jobs:
                self._shown.pop(uid, None)
                self._shown[uid] = model_id, now
            for uid in [*self._shown][:-_MOST]:
                del self._shown[uid]
                self._progress.pop(uid, None)
                self._words.pop(uid, None)
                self._asked.pop(uid, None)

    def word(self, uid: str) -> tuple[PortalWord, float | None]:
        """What the portal last had for one of those, and when that was read (epoch seconds)."""
        if self.portal is None:
            return NOT_TRACKED, None
        with self._changed:
            return self._words.get(uid) or self._away or (NOT_ASKED_YET, None)

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
        found = []
        for pair in self.queues:
            try:
                found.append(look_at(pair))
            except QueueError as error:
                found.append(QueueFacts(problem=str(error), name=pair.name))
        facts = together(found)
        with self._changed:
            self._facts = facts
            self._passes += 1
            self._changed.notify_all()

    def ask_portal(self) -> None:
        """Ask for the progress of the models on pages that are due, the longest not asked for first."""
        now = self.monotonic()
        if self.portal is None or now < self._portal_due:
            return
        with self._changed:
            asked = {uid: self._asked.get(uid, _NEVER) for uid in self._shown}
            due = [
                (uid, model_id)
                for uid, (model_id, shown_at) in self._shown.items()
                if now - shown_at < _ON_A_PAGE and now - asked[uid] >= self.progress_every
            ]
        due.sort(key=lambda job: asked[job[0]])
        for uid, model_id in due[:_AT_A_TIME]:
            with self._changed:
                self._asked[uid] = self.monotonic()
            try:
                answer = self.portal.get_model_status(model_id)
                self._hear(uid, answer)
                if answer.status is ProcessingStatus.PROCESSING:
                    self._note(uid, answer.message)
            except PortalError as error:
                self._hear(uid, error)
                if error.retryable:  # out of reach: for all models
                    self._portal_due = self.monotonic() + max(self.progress_every, error.retry_after or 0.0)
                    return
            if self.stopping.wait(self.call_every):
                return

    def _hear(self, uid: str, answer: ModelStatus | PortalError) -> None:
        word = heard(answer), self.clock()
        with self._changed:
            self._away = word if isinstance(answer, PortalError) and answer.retryable else None
            if uid in self._shown:
                self._words[uid] = word

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
            if uid in self._shown:
                self._progress[uid] = PortalProgress(message, self.clock(), losses)
