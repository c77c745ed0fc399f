"""The model's status at the portal: may we begin, what are we doing, how did it end.

The portal has no compare-and-set, so every write looks first (GET, then PUT), and one thread writes at a time:
the progress thread has ended before the terminal report goes out.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar

from portal_client import reporting
from portal_client.errors import PortalError, PortalUnauthorized, StatusInDoubt
from portal_client.messages import STARTED, failed
from portal_client.protocol import Portal
from portal_client.reporting import OwnWrites, Step
from portal_client.statuses import ProcessingStatus
from trainer_image.contract import Progress
from trainer_image.errors import Cancelled, StatusRefused, StatusUnavailable
from trainer_image.stop import Stop
from training_common.backoff import exponential

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# How long a start may wait for the portal. The dispatcher has already checked: its trainer goes on after it.
START_SECONDS = 30.0
LONGEST_PAUSE = 15.0
# Between two looks at a status that may be older than our own write.
LOOK_AGAIN = 5.0


class _Unseen(Exception):
    """The status that an outcome is to replace could not be read."""

    def __init__(self, error: PortalError) -> None:
        super().__init__(str(error))
        self.error = error


class Tracker:
    """Reports how a training goes, and here to nobody: STATUS_TRACKING=off."""

    acknowledged = False
    before: ProcessingStatus | None = None

    def begin(self) -> bool:
        """False: the model is Completed already. Raises Cancelled, StatusRefused, StatusUnavailable."""
        return True

    def progress(self, progress: Progress) -> None:
        """Cheap and non-blocking, from any thread."""
        log.debug("%s", progress.message)

    def report(
        self, status: ProcessingStatus, message: str, untold: Callable[[], None] = lambda: None, *, code: str = ""
    ) -> str | None:
        """The end; ends progress first. None, or why the portal does not know it, as the rest of a sentence.

        untold: called where the first try fails, before the next ones; code: stands for a message that is not taken
        """
        return None

    def close(self) -> None:
        """Ends progress without a report."""


@dataclass(eq=False)
class StatusTracker(Tracker):
    """Tracks one model. Times in seconds.

    dispatched:     the dispatcher has validated the model and marked it Processing
    acknowledged:   the portal has taken this training's Processing
    before:         what the portal showed before that; None where nobody knows
    clean:          takes out of a text what no portal may show
    age:            how long ago the training ended whose outcome is reported late
    interval:       at most one progress report in this time
    report_seconds: how long the terminal report is retried; a request to stop that comes meanwhile leaves one more try
    key_seconds:    the same while the key is refused, which may be about to be exchanged
    """

    portal: Portal
    model_id: str
    stop: Stop
    _: KW_ONLY
    dispatched: bool
    interval: float
    report_seconds: float
    start_seconds: float = START_SECONDS
    key_seconds: float = 0.0
    acknowledged: bool = False
    before: ProcessingStatus | None = None
    age: float = 0.0
    clean: Callable[[str], str] = str
    _wrote_at: float = field(default_factory=time.monotonic, init=False)  # or the dispatcher, before this process began
    _doubted_at: float | None = field(default=None, init=False)
    _server_errors: int = field(default=0, init=False)
    _given_up: bool = field(default=False, init=False)
    _latest: str = field(default=STARTED, init=False)
    _sent: str | None = field(default=None, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.age:  # what is shown now has had that time to become true
            self._wrote_at = self._doubted_at = time.monotonic() - self.age

    def begin(self) -> bool:
        patience = min(self.start_seconds, self.report_seconds)
        try:
            status = self._retry(lambda: self.portal.get_model_status(self.model_id).status, patience)
        except PortalError as error:
            if not self.dispatched:
                kind = StatusUnavailable if error.retryable else StatusRefused
                raise kind(
                    f"Training aborted: the status of model {self.model_id} could not be retrieved: {error}"
                ) from None
            # The training need not wait for the portal: the dispatcher has asked it before it launched this.
            log.warning("Training goes on without the status check: %s", error)
            self._given_up = not error.retryable
        else:
            if not self._may_train(self._settled(status) if self.dispatched else status):
                return False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()
        return True

    def progress(self, progress: Progress) -> None:
        self._latest = progress.message

    def report(
        self, status: ProcessingStatus, message: str, untold: Callable[[], None] = lambda: None, *, code: str = ""
    ) -> str | None:
        self.close()
        message = self.clean(message)
        if self.dispatched and status is ProcessingStatus.FAILED:
            message = failed(message)
        texts = reporting.wordings(message, code or status.title)
        try:
            try:
                self._retry(lambda: self._report_once(status, texts), self.report_seconds, untold, self.key_seconds)
            except _Unseen as unseen:
                # A portal that only cannot be read takes the outcome all the same; the dispatcher's pods leave it to
                # the dispatcher, which has the time to look first.
                if self.dispatched:
                    raise unseen.error from None
                self._write(status, texts)
        except PortalError as error:
            log.warning("%s was not reported to the portal: %s", status.title, error)
            return str(error)
        return None

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _may_train(self, status: ProcessingStatus) -> bool:
        if self.dispatched:
            if status is ProcessingStatus.COMPLETED:
                return False
            if status is ProcessingStatus.FAILED:
                raise Cancelled(f"Model {self.model_id} is Failed at the portal: it is not trained")
        elif not status.may_start:
            raise StatusRefused(
                f"Training aborted: model {self.model_id} is in status {status.title};"
                " it must be Created or Reconfigure"
            )
        if status is ProcessingStatus.PROCESSING:
            self.acknowledged = True
            return True
        if not self.dispatched:
            self.before = status
        try:
            self._put(STARTED)
        except PortalError as error:
            # Training continues; the progress thread sends it when the portal is back.
            log.warning("Training goes on: %s", error)
            self._given_up = not error.retryable
        return True

    def _run(self) -> None:
        while not self._ended.wait(self.interval) and not self._given_up:
            try:
                self._tick()
            except PortalError as error:
                log.debug("No progress report: %s", error)
                self._given_up = not error.retryable
            except Exception:
                # A fault of the reporter never ends a healthy training.
                log.exception("No progress report")

    def _settled(self, status: ProcessingStatus) -> ProcessingStatus:
        """The status at the start of a dispatched training, looked at again for as long as an end that stands there may
        be that of the training before.
        """
        while status.is_terminal and not self._is_proof(status):
            log.info("Model %s is %s at the portal, which may lag behind: asked again", self.model_id, status.title)
            if self.stop.event.wait(min(LOOK_AGAIN, reporting.PLAUSIBLE_LAG)):
                return ProcessingStatus.PROCESSING  # the training sees the stop
            try:
                status = self.portal.get_model_status(self.model_id).status
            except PortalError as error:
                log.warning("Training goes on without the status check: %s", error)
                return ProcessingStatus.PROCESSING
        return status

    def _tick(self) -> None:
        status = self.portal.get_model_status(self.model_id).status
        message = self._latest
        if status is ProcessingStatus.PROCESSING:
            self.acknowledged = True
            self._doubted_at = None
            if message in (self._sent, STARTED):
                return
        elif status.is_terminal or self.acknowledged:
            if self._is_proof(status):
                log.warning("Model %s is %s at the portal: training stops", self.model_id, status.title)
                self.stop.set("cancelled")
            return
        if not self._ended.is_set():
            self._put(message)

    def _put(self, message: str) -> None:
        texts = reporting.wordings(self.clean(message), STARTED)
        reporting.write(self.portal, self.model_id, ProcessingStatus.PROCESSING, texts)
        self.acknowledged = True
        self._wrote_at = time.monotonic()
        self._sent = message

    def _is_proof(self, shown: ProcessingStatus) -> bool:
        """Whether somebody has set this status after our Processing; a first look that may be late is remembered."""
        if reporting.is_proof(shown, self._own(), self._doubted_for()):
            return True
        self._doubted_at = self._doubted_at or time.monotonic()
        return False

    def _own(self) -> OwnWrites:
        since = time.monotonic() - self._wrote_at
        return OwnWrites(self.acknowledged, self.before, since, reporting.PLAUSIBLE_LAG)

    def _doubted_for(self) -> float | None:
        return None if self._doubted_at is None else time.monotonic() - self._doubted_at

    def _report_once(self, status: ProcessingStatus, texts: tuple[str, ...]) -> None:
        try:
            there = self.portal.get_model_status(self.model_id).status
        except PortalError as error:
            raise _Unseen(error) from error
        match reporting.before_write(there, self._own(), self._doubted_for(), status):
            case Step.WRITE:
                self._write(status, texts)
            case Step.LOOK_AGAIN:
                self._doubted_at = self._doubted_at or time.monotonic()
                raise StatusInDoubt(f"The portal shows {there.title} for model {self.model_id}: it may lag behind")
            case Step.SUPERSEDED:
                moved = "Model %s is %s at the portal: someone has moved on, %s is not reported"
                log.warning(moved, self.model_id, there.title, status.title)

    def _write(self, status: ProcessingStatus, texts: tuple[str, ...]) -> None:
        try:
            taken = reporting.write(self.portal, self.model_id, status, texts, self._server_errors)
        except PortalError as error:
            self._server_errors += reporting.may_become_the_words(error)
            raise
        if taken != texts[0]:
            log.warning("The portal did not take the whole sentence, only %r", taken)

    def _retry(
        self,
        call: Callable[[], _T],
        seconds: float,
        failed: Callable[[], None] = lambda: None,
        key_seconds: float = 0.0,
    ) -> _T:
        """Repeats what may succeed later, for `seconds`; a request to stop that comes meanwhile leaves one more try.

        failed: called after the first failure
        """
        began = time.monotonic()
        requests = self.stop.requests
        for failures in itertools.count(1):
            try:
                return call()
            except (PortalError, _Unseen) as raised:
                if failures == 1:
                    failed()
                error = raised.error if isinstance(raised, _Unseen) else raised
                refused = isinstance(error, PortalUnauthorized)
                left = began + max(seconds, key_seconds if refused else 0.0) - time.monotonic()
                if not error.retryable or left <= 0 or self.stop.requests > requests:
                    raise
                wait = max(exponential(failures, 0.5, LONGEST_PAUSE), min(error.retry_after or 0.0, LONGEST_PAUSE))
                log.info("The portal is asked again in %.1f s: %s", min(wait, left), error)
                self.stop.wait_for_another(requests, min(wait, left))
        raise AssertionError("it returns or raises")
