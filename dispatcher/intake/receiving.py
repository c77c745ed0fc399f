"""Launch step 1: from which queue messages are received, and how many. A crash after it: they are redelivered."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dispatcher.config.settings import Settings
from dispatcher.decisions import fairness
from dispatcher.decisions.fairness import Lane, Turns
from dispatcher.intake.circuit_breaker import CircuitBreakers
from dispatcher.ports import Queue
from dispatcher.queue.messages import MAX_BATCH, QueueError, QueueMessage, QueuePair
from dispatcher.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Receiving:
    """For one thread. active(), holds(): see `Intake`."""

    queues: Mapping[Lane, QueuePair[Queue]]
    breakers: CircuitBreakers
    metrics: Metrics
    settings: Settings
    active: Callable[[], Mapping[str, int]]
    holds: Callable[[str], bool]

    is_under_way: bool = field(default=False, init=False)  # until what was received is in flight
    _turns: Turns = field(default_factory=Turns, init=False)
    _full: set[str] = field(default_factory=set, init=False)  # queues that have no room

    def receive(
        self, in_flight: int, in_hand: Counter[str], alive: Callable[[], None] = lambda: None
    ) -> list[QueueMessage]:
        """Some messages of the first queue that has any, in the order of whose turn it is.

        in_flight: messages that are not settled; in_hand: of which queues they are; alive: called for each queue, since
        while storage is silent each of them takes minutes.
        """
        rooms = fairness.rooms([*self.queues], in_hand + Counter(self.active()), self.settings.max_active_jobs)
        self._tell_full(rooms)
        # At most two messages for each thread: what waits here is hidden from other dispatchers.
        most = min(MAX_BATCH, 2 * self.settings.launch_concurrency - in_flight)
        for lane in self._turns.order([*self.queues]):
            alive()
            limit = self.breakers.limit(min(most, rooms[lane.name]), lane.name, in_flight, in_hand[lane.name])
            if limit <= 0:
                continue
            # First this, then the question: whoever pauses meanwhile finds one in hand or no message received.
            self.is_under_way = True
            if self.holds(lane.name):
                continue
            if messages := self._receive_from(self.queues[lane], limit):
                self._turns = self._turns.took(lane, len(messages))
                self.metrics.queue_received.labels(lane.name).inc(len(messages))
                return messages
        return []

    def _receive_from(self, pair: QueuePair[Queue], most: int) -> list[QueueMessage]:
        breaker = self.breakers.queue(pair.name)
        try:
            messages = pair.requests.receive(most, self.settings.visibility_timeout)
        except QueueError as error:
            breaker.trip(str(error), pair.requests.depth, what="receive")
            return []
        breaker.record_success("receive")
        for message in messages:
            message.queue = pair.name
        return messages

    def _tell_full(self, rooms: Mapping[str, int]) -> None:
        full = {name for name, room in rooms.items() if room <= 0}
        for name in sorted(full ^ self._full):
            if len(rooms) == 1:
                why = "waits: MAX_ACTIVE_JOBS unfinished Jobs exist" if full else "continues: Jobs have ended"
                log.info("Intake %s", why)
            else:
                why = "waits: no more of its Jobs may be unfinished" if name in full else "continues: Jobs have ended"
                log.info("Intake from queue %s %s", name, why)
        self._full = full
