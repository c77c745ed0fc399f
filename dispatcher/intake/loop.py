"""Queue → decode → admit → launch → delete, release or poison. One message never decides about another.

Step 1 (receive) and step 6 (delete) of the launch; the steps between are the launcher's. A crash anywhere here: the
message becomes visible again and the launcher finds how far it had come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from dispatcher.cluster.errors import ClusterError, ObjectConflict, ObjectInvalid, ObjectNotFound
from dispatcher.decisions.admission import Action
from dispatcher.intake.circuit_breaker import CircuitBreaker
from dispatcher.intake.refusals import Refusals
from dispatcher.launch.launcher import Delivery, Launcher, OutOfTime, TemplateRefused
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.launch.request import Bounds, MalformedRequest, TrainingRequest, claimed_model, decode
from dispatcher.ports import Queue
from dispatcher.queue import poison
from dispatcher.queue.messages import MAX_BATCH, QueueError, QueueMessage
from dispatcher.telemetry import logs
from dispatcher.telemetry.metrics import Metrics
from portal_client import log_lines
from portal_client.errors import ModelUnknown, PortalError, PortalRefused, StatusUnreadable

log = logging.getLogger(__name__)

# Seconds until a message that has to wait for another Job's end is looked at again.
_LATER = 5.0
# A message that fails by itself comes back after 5, 10, 20 … seconds, at most this.
_BACK_OFF_MAX = 300.0
# How many messages' own failures are remembered, and the multiple of MAX_DELIVERIES at which the queue's count decides.
_REMEMBERED = 10_000
_FORGETFUL = 5

_POISON_CODES: dict[type[Exception], str] = {
    ModelUnknown: "ModelUnknown",
    StatusUnreadable: "StatusUnreadable",
    PortalRefused: "PortalRefused",
    ObjectInvalid: "JobRefused",
}


class Intake:
    """Receives and handles messages with a bounded pool. free_slots(): how many more Jobs may exist now."""

    def __init__(
        self,
        queue: Queue,
        poison_queue: Queue,
        launcher: Launcher,
        locks: ModelLocks,
        breaker: CircuitBreaker,
        metrics: Metrics,
        *,
        bounds: Bounds,
        free_slots: Callable[[], int],
        visibility_timeout: float,
        concurrency: int,
        max_deliveries: int,
        poll_min: float,
        poll_max: float,
        shutdown_grace: float,
        probe: Callable[[str], Callable[[], object]],
        stopping: threading.Event,
        refusals: Refusals | None = None,
    ) -> None:
        self._queue = queue
        self._poison_queue = poison_queue
        self._launcher = launcher
        self._locks = locks
        self._breaker = breaker
        self._metrics = metrics
        self._bounds = bounds
        self._free_slots = free_slots
        self._visibility_timeout = visibility_timeout
        self._concurrency = concurrency
        self._max_deliveries = max_deliveries
        self._poll_min = poll_min
        self._poll_max = poll_max
        self._shutdown_grace = shutdown_grace
        self._probe = probe
        self._stopping = stopping
        self._refusals = refusals or Refusals()
        self._full = False
        self._failures: dict[str, int] = {}  # message id → failures of its own, the latest last

    def run(self, alive: Callable[[], None]) -> None:
        """Receive until `stopping`; then finish or release what is in hand."""
        in_hand: dict[Future[None], QueueMessage] = {}
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="launch")
        pause = self._poll_min
        try:
            while not self._stopping.is_set():
                alive()
                for future in [future for future in in_hand if future.done()]:
                    in_hand.pop(future)
                    future.result()  # handle() lets nothing through but a defect of ours: end the process
                if len(in_hand) > self._concurrency:
                    # Every hand is busy: a later call brings more at once.
                    wait(in_hand, timeout=1.0, return_when=FIRST_COMPLETED)
                    continue
                received = self._receive(len(in_hand))
                for message in received:
                    in_hand[pool.submit(self.handle, message)] = message
                if received:
                    pause = self._poll_min
                elif in_hand:
                    # Prompt while there is work: the next poll comes with the next free hand.
                    wait(in_hand, timeout=pause, return_when=FIRST_COMPLETED)
                    pause = min(self._poll_max, pause * 2)
                else:
                    self._stopping.wait(max(pause, min(self._breaker.wait_hint(), 1.0)))
                    pause = min(self._poll_max, pause * 2)
        finally:
            self._stop(pool, in_hand)

    def once(self) -> int:
        """Receive one batch and handle it here; returns how many there were."""
        messages = self._receive(0)
        for message in messages:
            self.handle(message)
        return len(messages)

    def _receive(self, in_hand: int) -> list[QueueMessage]:
        slots = self._free_slots() - in_hand
        if (slots <= 0) != self._full:
            self._full = slots <= 0
            log.info(
                "Intake %s",
                "waits: MAX_ACTIVE_JOBS unfinished Jobs exist" if self._full else "goes on: Jobs have ended",
            )
        # At most two messages for each hand: what waits here is hidden from other dispatchers.
        most = self._breaker.limit(min(MAX_BATCH, 2 * self._concurrency - in_hand, slots))
        if in_hand and self._breaker.reason:
            return []  # half-open: one probe at a time
        if most <= 0:
            return []
        try:
            messages = self._queue.receive(most, self._visibility_timeout)
        except QueueError as error:
            self._breaker.trip(str(error), cause="queue", probe=self._queue.depth)
            return []
        if not messages and not in_hand:
            self._breaker.record_idle()
        return messages

    def _stop(self, pool: ThreadPoolExecutor, in_hand: dict[Future[None], QueueMessage]) -> None:
        deadline = time.monotonic() + self._shutdown_grace
        for future, message in in_hand.items():
            if future.cancel():
                with logs.bind(message_id=message.id, attempt=message.delivery_count):
                    self._release(message, 0.0)
        _, unfinished = wait([f for f in in_hand if not f.cancelled()], timeout=max(0.0, deadline - time.monotonic()))
        if unfinished:
            log.warning("%d launches were cut off; their messages come again", len(unfinished))
        pool.shutdown(wait=False, cancel_futures=True)

    def handle(self, message: QueueMessage) -> None:
        """Everything that happens to one message. Never raises for what a message, the portal or the cluster does."""
        with logs.bind(message_id=message.id, attempt=message.delivery_count):
            if self._stopping.is_set():
                self._release(message, 0.0)
                return
            try:
                request = decode(message.text, self._bounds)
            except MalformedRequest as error:
                self._poison(message, error.code, error.sentence)
                return
            with logs.bind(model=request.model_id, job=request.model_container):
                self._launch(message, request)

    def _launch(self, message: QueueMessage, request: TrainingRequest) -> None:
        started = time.monotonic()
        log.info(log_lines.EXTRACTED, request.model_id, request.model_container)
        delivery = Delivery(message.id, message.queued_at, message.remaining)
        try:
            with self._locks.hold(request.model_id):
                decision = self._launcher.launch(delivery, request)
        except OutOfTime:
            log.info("Model %s: too little time left for message %s; it comes again", request.model_id, message.id)
            self._release(message, 0.0)
        except (PortalError, ClusterError, TemplateRefused) as error:
            self._failed(message, request, error)
        except Exception:
            log.exception("Model %s: message %s failed for a defect of the dispatcher", request.model_id, message.id)
            self._metrics.defects.labels("intake").inc()
            self._own_fault(
                message, request, "InternalError", "The dispatcher failed on this message; its log tells more"
            )
        else:
            self._metrics.messages.labels(decision.action.value).inc()
            self._breaker.record_success()  # portal and cluster have answered
            self._settle(message, request, decision.action, decision.sentence)
            if decision.action is Action.LAUNCH:
                self._metrics.launch_seconds.observe(time.monotonic() - started)
                self._metrics.queue_wait_seconds.observe(max(0.0, time.time() - message.queued_at))

    def _settle(self, message: QueueMessage, request: TrainingRequest, action: Action, sentence: str) -> None:
        model = request.model_id
        if action in (Action.LATER, Action.REPLACE):
            log.info("Model %s: message %s comes again: %s", model, message.id, sentence)
            self._release(message, _LATER)
        elif action is Action.BLOCKED:
            self._own_fault(message, request, "NameTaken", f"Model {model} cannot be launched: {sentence}")
        else:
            if action in (Action.REFUSE, Action.DUPLICATE, Action.ABANDON):
                log.warning("Model %s: training blocked (%s): %s", model, action.value, sentence)
                self._refusals.note(request.model_container, action.value, sentence, message.id)
            # Step 6. A crash before it: redelivered, and found to be done.
            with self._metrics.step("delete"):
                self._delete(message)

    def _failed(self, message: QueueMessage, request: TrainingRequest, error: Exception) -> None:
        """An outage pauses the intake and costs the message nothing; a fault of the message's own is counted."""
        code = _POISON_CODES.get(type(error))
        if isinstance(error, ObjectConflict | ObjectNotFound):
            log.info("Model %s: %s; message %s comes again", request.model_id, error, message.id)
            self._release(message, _LATER)
        elif code is not None:
            self._own_fault(message, request, code, str(error))
        else:
            self._metrics.messages.labels("outage").inc()
            retry_after = getattr(error, "retry_after", None)
            probe = self._probe(request.model_id) if isinstance(error, PortalError) else None
            self._breaker.trip(str(error), cause=_cause_of(error), probe=probe, retry_after=retry_after)
            self._release(message, max(1.0, self._breaker.wait_hint()))

    def _own_fault(self, message: QueueMessage, request: TrainingRequest, code: str, sentence: str) -> None:
        """Count a failure of the message's own. Deliveries that an outage cost are not counted against it."""
        failures = self._failures.pop(message.id, 0) + 1
        # A process that is restarted again and again forgets; the queue's own count ends that.
        if failures >= self._max_deliveries or (
            failures > 1 and message.delivery_count >= _FORGETFUL * self._max_deliveries
        ):
            self._poison(message, code, f"{sentence} (after {message.delivery_count} deliveries)")
            return
        self._failures[message.id] = failures
        if len(self._failures) > _REMEMBERED:
            del self._failures[next(iter(self._failures))]
        self._metrics.messages.labels("retry").inc()
        pause = min(_BACK_OFF_MAX, 5.0 * 2 ** (failures - 1))
        log.warning(
            "Model %s: message %s failed by itself, %d of %d times: %s. It comes again in %.0f s",
            request.model_id,
            message.id,
            failures,
            self._max_deliveries,
            sentence,
            pause,
        )
        self._release(message, pause)

    def _poison(self, message: QueueMessage, code: str, sentence: str) -> None:
        """Poison queue first, delete then. A crash between: redelivered, and a second entry of the same message id."""
        entry = poison.make_entry(
            code=code,
            sentence=sentence,
            message_id=message.id,
            delivery_count=message.delivery_count,
            queued_at=message.queued_at,
            now=time.time(),
            original=message.text,
        )
        try:
            self._poison_queue.send(entry)
        except QueueError as error:
            self._breaker.trip(str(error), cause="queue", probe=self._poison_queue.depth)
            return  # it becomes visible again by itself
        log.warning("Message %s to the poison queue: %s: %s", message.id, code, sentence)
        self._metrics.messages.labels("poison").inc()
        self._metrics.poisoned.labels(code).inc()
        self._refusals.note(claimed_model(message.text), code, sentence, message.id)
        self._delete(message)

    def _delete(self, message: QueueMessage) -> None:
        try:
            if not self._queue.delete(message):
                log.info(
                    "Message %s was no longer ours to delete; if it comes again it is found to be done",
                    message.id,
                )
        except QueueError as error:
            log.warning("%s; message %s comes again and is found to be done", error, message.id)

    def _release(self, message: QueueMessage, after: float) -> None:
        try:
            self._queue.release(message, after)
        except QueueError as error:
            log.warning("%s; message %s comes again by itself", error, message.id)


def _cause_of(error: Exception) -> str:
    if isinstance(error, PortalError):
        return "portal"
    return "template" if isinstance(error, TemplateRefused) else "cluster"
