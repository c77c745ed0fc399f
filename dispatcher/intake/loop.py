"""Queue → decode → launch → delete, requeue or dead-letter. One message never decides about another.

Step 1 (receive, in receiving.py) and step 6 (delete) of the launch; the steps between are the launcher's. A crash
anywhere here: the message is redelivered and the launcher finds how far it had come.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field

from dispatcher.cluster.errors import ClusterError, ObjectConflict, ObjectInvalid, ObjectNotFound, RequestDenied
from dispatcher.config.settings import Settings
from dispatcher.decisions.admission import Action, Decision, JobEffect, MessageEffect
from dispatcher.decisions.fairness import Lane
from dispatcher.intake.circuit_breaker import CircuitBreakers, Probe
from dispatcher.intake.receiving import Receiving
from dispatcher.intake.refusals import Refusals
from dispatcher.launch.creation import TemplateRefused
from dispatcher.launch.delivery import Delivery, OutOfTime
from dispatcher.launch.launcher import Launcher
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.launch.request import Bounds, MalformedRequest, TrainingRequest, claimed_model, decode
from dispatcher.ports import Queue
from dispatcher.queue.messages import QueueError, QueueMessage, QueuePair
from dispatcher.queue.poison import PoisonEntry, make_entry
from dispatcher.storage.errors import StorageError
from dispatcher.telemetry import logs
from dispatcher.telemetry.metrics import Metrics
from portal_client import log_lines
from portal_client.errors import ModelUnknown, PortalError, PortalRefused, StatusUnreadable
from portal_client.model_ids import InvalidContainerName
from portal_client.reporting import OutcomeWrites
from training_common.backoff import exponential, jittered
from training_common.times import rfc3339

log = logging.getLogger(__name__)

# Seconds until a message that waits for the end of another Job is redelivered; and after its first failure.
_LATER = 5.0
# Longest back-off, in seconds, of a message that fails again and again.
_BACK_OFF_MAX = 300.0
# What each pause of an idle queue is at most, beside the one before: from 0.2 seconds to 1 in 17 seconds.
_GROWTH = 1.03
# The part of it that is waited at least: of two replicas that polled in step one would be of no use. Of two that
# do not one finds a message after 0.18 seconds in the median.
_SHORTEST_PART = 0.25
# The number of messages whose failures are remembered.
_REMEMBERED = 10_000
# The multiple of MAX_DELIVERIES at which the queue's own count decides.
_FORGETFUL = 5

_JOB_REFUSED = "JobRefused"
_POISON_CODES: dict[type[Exception], str] = {
    ModelUnknown: "ModelUnknown",
    StatusUnreadable: "StatusUnreadable",
    PortalRefused: "PortalRefused",
    ObjectInvalid: _JOB_REFUSED,
    RequestDenied: _JOB_REFUSED,
}


@dataclass(eq=False)
class Intake:
    """Receives and handles messages with a bounded pool.

    queues: with the lane of each. active(): the unfinished Jobs of each queue, as `fairness.rooms` takes them;
    expect(job, queue): one more, which that shows in a moment. probe(model_id): raises while the portal is out of
    reach. working(): held while one message is in hand, so that liveness sees a launch that never returns.
    holds(queue): whether people have paused the intake from it.
    """

    queues: Mapping[Lane, QueuePair[Queue]]
    launcher: Launcher
    locks: ModelLocks
    breakers: CircuitBreakers
    metrics: Metrics
    settings: Settings
    _: KW_ONLY
    bounds: Bounds
    active: Callable[[], Mapping[str, int]]
    probe: Callable[[str], object]
    stopping: threading.Event
    refusals: Refusals = field(default_factory=Refusals)
    working: Callable[[], AbstractContextManager[object]] = nullcontext
    holds: Callable[[str], bool] = lambda queue: False
    expect: Callable[[str, str], None] = lambda job, queue: None

    _answers: OutcomeWrites = field(default_factory=OutcomeWrites, init=False)  # for which models the portal has one
    _in_flight: dict[Future[None], QueueMessage] = field(default_factory=dict, init=False)
    _failures: dict[str, int] = field(default_factory=dict, init=False)  # by message id, the latest last

    def __post_init__(self) -> None:
        self._receiving = Receiving(self.queues, self.breakers, self.metrics, self.settings, self.active, self.holds)

    def run(self, alive: Callable[[], None]) -> None:
        """Receive until `stopping`; then finish or requeue the messages in flight."""
        in_flight = self._in_flight
        pool = ThreadPoolExecutor(self.settings.launch_concurrency, thread_name_prefix="launch")
        empty = 0  # receives in a row that returned nothing
        try:
            while not self.stopping.is_set():
                alive()
                for future in [future for future in in_flight if future.done()]:
                    in_flight.pop(future)
                    future.result()  # handle() raises nothing but a defect of ours: end the process
                if len(in_flight) > self.settings.launch_concurrency:
                    # Every thread is busy: one later call receives more messages at once.
                    wait(in_flight, timeout=1.0, return_when=FIRST_COMPLETED)
                    continue
                received = self._receive(len(in_flight), alive)
                for message in received:
                    in_flight[pool.submit(self.handle, message)] = message
                self._receiving.is_under_way = False
                if received:
                    empty = 0
                    continue
                empty += 1
                pause = idle_pause(empty, self.settings.poll_min, self.settings.poll_max)
                if in_flight:
                    # Prompt while there is work: receive again as soon as a thread is free.
                    wait(in_flight, timeout=pause, return_when=FIRST_COMPLETED)
                else:
                    hint = min(self.breakers.wait_hint(lane.name) for lane in self.queues)
                    self.stopping.wait(max(jittered(pause, _SHORTEST_PART), min(hint, 1.0)))
        finally:
            self._stop(pool, in_flight)

    def in_hand(self) -> int:
        """How many messages are received and not settled; one more while some may just be received."""
        return self._receiving.is_under_way + sum(not future.done() for future in tuple(self._in_flight))

    def _receive(self, in_flight: int, alive: Callable[[], None] = lambda: None) -> list[QueueMessage]:
        in_hand = Counter(message.queue for message in self._in_flight.values())
        return self._receiving.receive(in_flight, in_hand, alive)

    def _pair(self, message: QueueMessage) -> QueuePair[Queue]:
        """Where it was received."""
        pairs = [*self.queues.values()]
        return next((pair for pair in pairs if pair.name == message.queue), pairs[0])

    def _stop(self, pool: ThreadPoolExecutor, in_flight: dict[Future[None], QueueMessage]) -> None:
        deadline = time.monotonic() + self.settings.shutdown_grace
        for future, message in in_flight.items():
            if future.cancel():
                with logs.bind(message_id=message.id, attempt=message.delivery_count):
                    self._requeue(message, 0.0)
        _, unfinished = wait([f for f in in_flight if not f.cancelled()], timeout=max(0.0, deadline - time.monotonic()))
        if unfinished:
            log.warning("%d launches were cut off; their messages will be redelivered", len(unfinished))
        pool.shutdown(wait=False, cancel_futures=True)

    def handle(self, message: QueueMessage) -> None:
        """Everything that happens to one message. Never raises for what a message, the portal or the cluster does."""
        with self.working(), logs.bind(message_id=message.id, attempt=message.delivery_count):
            if self.stopping.is_set():
                self._requeue(message, 0.0)
                return
            try:
                request = decode(message.text, self.bounds)
            except MalformedRequest as error:
                if error.code == InvalidContainerName.__name__:
                    log.warning(log_lines.NOT_EXTRACTED, error.sentence)
                self._poison(message, error.code, error.sentence)
                return
            with logs.bind(model=request.model_id, job=request.model_container):
                if self.breakers.is_open(message.queue):  # since it was received: it would only meet the same outage
                    self._wait_for_end(message)
                else:
                    self._launch(message, request)

    def _launch(self, message: QueueMessage, request: TrainingRequest) -> None:
        started = time.monotonic()
        log.info(log_lines.EXTRACTED, request.model_id, request.model_container)
        try:
            with self.locks.hold(request.model_id):
                decision = self.launcher.launch(_delivery(message), request)
        except OutOfTime:
            why = "its visibility timeout is nearly over"
            log.info("Model %s: message %s is requeued: %s", request.model_id, message.id, why)
            self._requeue(message, 0.0)
        except (PortalError, ClusterError, StorageError, TemplateRefused) as error:
            self._failed(message, request, error)
        except Exception:
            log.exception("Model %s: message %s failed for a defect of the dispatcher", request.model_id, message.id)
            self.metrics.defects.labels("intake").inc()
            sentence = "The dispatcher failed on this message; its log shows why"
            self._message_failed(message, request, "InternalError", sentence)
        else:
            self.metrics.messages.labels(decision.action.value).inc()
            self._went_through(decision, request.model_id)
            self._settle(message, request, decision)
            if decision.action is Action.LAUNCH:
                self.expect(request.model_container, message.queue)
                self.metrics.launch_seconds.observe(time.monotonic() - started)
                self.metrics.queue_wait_seconds.observe(max(0.0, time.time() - message.queued_at))

    def _settle(self, message: QueueMessage, request: TrainingRequest, decision: Decision) -> None:
        """Carry out what was decided about the message."""
        model, effect, sentence = request.model_id, decision.action.message, decision.sentence
        if effect is MessageEffect.REQUEUE:
            log.info("Model %s: message %s is requeued: %s", model, message.id, sentence)
            self._requeue(message, max(_LATER, decision.after))
        elif effect is MessageEffect.FAIL:
            self._message_failed(message, request, "NameTaken", f"Model {model} cannot be launched: {sentence}")
        else:
            if effect is MessageEffect.REJECT:
                log.warning("Model %s: training blocked (%s): %s", model, decision.action.value, sentence)
                self.refusals.note(request.model_container, decision.action.value, sentence, message.id, message.queue)
            # Step 6. A crash before it: redelivered, and found to be done.
            with self.metrics.step("delete"):
                self._delete(message)

    def _failed(self, message: QueueMessage, request: TrainingRequest, error: Exception) -> None:
        """An outage pauses the intake and costs the message nothing; a message failure is counted."""
        code = _POISON_CODES.get(type(error))
        if isinstance(error, ObjectConflict | ObjectNotFound):
            log.info("Model %s: %s; message %s is requeued", request.model_id, error, message.id)
            self._requeue(message, _LATER)
        elif code is not None and not self._is_portals_own(request.model_id, error):
            self._message_failed(message, request, code, str(error))
        else:
            self._outage(message, request, error)

    def _is_portals_own(self, model_id: str, error: Exception) -> bool:
        """Whether the portal answers so whatever the model: a bad release. One model alone is its own matter (F81)."""
        if type(error) not in (PortalRefused, StatusUnreadable):
            return False
        self._answers.refused(model_id, str(error))
        return bool(self._answers.outage())

    def _outage(self, message: QueueMessage, request: TrainingRequest, error: Exception, what: str = "") -> None:
        """what: see `CircuitBreaker.trip`."""
        cause: str
        probe: Probe
        match error:
            case PortalError():
                cause, probe = "portal", functools.partial(self.probe, request.model_id)
            case TemplateRefused():
                cause, probe = "template", self.launcher.creation.require_template
            case StorageError():
                cause, probe = "storage", self.launcher.probe_storage
            case _:
                cause, probe = "cluster", functools.partial(self.launcher.probe_cluster, request.model_container)
        self.breakers[cause].trip(str(error), probe, what=what, retry_after=getattr(error, "retry_after", None))
        self._wait_for_end(message)

    def _wait_for_end(self, message: QueueMessage) -> None:
        self.metrics.messages.labels("outage").inc()
        self._requeue(message, max(1.0, self.breakers.wait_hint(message.queue)))

    def _went_through(self, decision: Decision, model_id: str) -> None:
        """Tell the breakers what a launch has proved: a refused one has only asked the portal."""
        self._answers.taken(model_id, time.time())
        self.breakers["portal"].record_success()
        if decision.action.job in (JobEffect.CREATE, JobEffect.CONTINUE):
            self.breakers["cluster"].record_success()
            self.breakers["storage"].record_success()
        if decision.action.job is JobEffect.CREATE:
            self.breakers["template"].record_success()

    def _message_failed(self, message: QueueMessage, request: TrainingRequest, code: str, sentence: str) -> None:
        """Count a failure that is the message's, not an outage's; dead-letter it after MAX_DELIVERIES of them."""
        failures = self._failures.pop(message.id, 0) + 1
        most = self.settings.max_deliveries
        # A process that is restarted again and again forgets; the queue's own count ends that.
        if failures >= most or (failures > 1 and message.delivery_count >= _FORGETFUL * most):
            if code != _JOB_REFUSED or self._tell_refused(message, request, sentence):
                self._poison(message, code, f"{sentence} (after {message.delivery_count} deliveries)")
            else:
                self._remember(message, failures)
            return
        self._remember(message, failures)
        self.metrics.messages.labels("retry").inc()
        pause = exponential(failures, _LATER, _BACK_OFF_MAX)
        what = f"Model {request.model_id}: message {message.id} failed (attempt {failures} of {most})"
        log.warning("%s: %s. It is redelivered in %.0f s", what, sentence, pause)
        self._requeue(message, pause)

    def _remember(self, message: QueueMessage, failures: int) -> None:
        self._failures[message.id] = failures
        if len(self._failures) > _REMEMBERED:
            del self._failures[next(iter(self._failures))]

    def _tell_refused(self, message: QueueMessage, request: TrainingRequest, sentence: str) -> bool:
        """Whether the portal was told, or never will be: False where the message has to come again for it.

        Before the poison entry: a crash between loses the entry alone, and a person has to act at the portal anyway.
        """
        words = f"The cluster refuses this training. {sentence}. Change the request, or ask the operator"
        try:
            with self.locks.hold(request.model_id):
                self.launcher.tell_refused(_delivery(message), request, words)
        except OutOfTime:
            self._requeue(message, 0.0)
            return False
        except PortalRefused as error:
            log.warning("Model %s: the portal is not told that its Job was refused: %s", request.model_id, error)
        except (PortalError, ClusterError) as error:
            self._outage(message, request, error, "tell")
            return False
        self.breakers["portal"].record_success("tell")
        return True

    def _poison(self, message: QueueMessage, code: str, sentence: str) -> None:
        """Poison queue first, delete then. A crash between: redelivered, and a second entry of the same message id."""
        pair, breaker = self._pair(message), self.breakers.queue(message.queue)
        queued_at, now = rfc3339(message.queued_at), rfc3339(time.time())
        entry = PoisonEntry(code, sentence, message.id, message.delivery_count, queued_at, now, message.text)
        try:
            pair.poison.send(make_entry(entry, pair.secret))
        except QueueError as error:
            breaker.trip(str(error), pair.poison.try_rights, what="send")
            return  # redelivered when its visibility timeout expires
        breaker.record_success("send")
        log.warning("Message %s to the poison queue: %s: %s", message.id, code, sentence)
        self.metrics.messages.labels("poison").inc()
        self.metrics.poisoned.labels(code).inc()
        self.refusals.note(claimed_model(message.text), code, sentence, message.id, message.queue)
        self._delete(message)

    def _delete(self, message: QueueMessage) -> None:
        try:
            if not self._pair(message).requests.delete(message):
                log.info("Message %s has been received by another or is gone; a redelivery finds it done", message.id)
        except QueueError as error:
            log.warning("%s; message %s will be redelivered and found done", error, message.id)

    def _requeue(self, message: QueueMessage, after: float) -> None:
        try:
            self._pair(message).requests.requeue(message, after)
        except QueueError as error:
            log.warning("%s; message %s is redelivered when its visibility timeout expires", error, message.id)


def idle_pause(empty: int, shortest: float, longest: float) -> float:
    """Seconds until the next receive, at most, after so many (1 or more) in a row that returned nothing.

    About a twentieth of the time for which the queue has been quiet: a message waits hardly longer than it has to,
    and some fifty polls later the pauses are the longest.
    """
    return min(longest, shortest * _GROWTH ** min(empty - 1, 500))


def _delivery(message: QueueMessage) -> Delivery:
    return Delivery(message.id, message.queued_at, message.remaining, queue=message.queue)
