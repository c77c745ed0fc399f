"""What is told of the intake at each scrape: why it pauses, and how each queue stands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dispatcher.decisions import fairness
from dispatcher.decisions.codes import CAUSES
from dispatcher.decisions.fairness import Lane
from dispatcher.intake.circuit_breaker import CircuitBreakers, State
from dispatcher.telemetry.metrics import Metrics

_WORST_FIRST = (State.OPEN, State.HALF_OPEN, State.CLOSED)


@dataclass(frozen=True)
class IntakeGauges:
    """active(), most: unfinished Jobs as `fairness.rooms` takes them.

    is_switched_off(queue): whether people have paused this queue alone.
    """

    breakers: CircuitBreakers
    lanes: Sequence[Lane]
    active: Callable[[], Mapping[str, int]]
    most: int
    is_switched_off: Callable[[str], bool]

    def connect(self, metrics: Metrics) -> None:
        metrics.max_active_jobs.set(self.most)
        for cause in CAUSES:
            metrics.pauses(cause, functools.partial(self._is_out_of_reach, cause))
            for state in State:
                metrics.breaker_is(cause, state, functools.partial(self._breaker_is, cause, state))
        for lane in self.lanes:
            metrics.queue_received.labels(lane.name)
            metrics.queue_active_jobs.labels(lane.name).set_function(functools.partial(self._own, lane.name))
            metrics.queue_room.labels(lane.name).set_function(functools.partial(self._room, lane.name))
            metrics.queue_paused.labels(lane.name).set_function(functools.partial(self._is_paused, lane.name))
            metrics.queue_switched_off.labels(lane.name).set_function(
                functools.partial(lambda name: float(self.is_switched_off(name)), lane.name)
            )
        metrics.pauses("full", lambda: not any(self._room(lane.name) for lane in self.lanes))

    def _own(self, queue: str) -> int:
        return fairness.own(self.lanes, self.active())[queue]

    def _room(self, queue: str) -> int:
        return fairness.rooms(self.lanes, self.active(), self.most)[queue]

    def _is_paused(self, queue: str) -> bool:
        return self.breakers.queue(queue).state is not State.CLOSED

    def _is_out_of_reach(self, cause: str) -> bool:
        return any(breaker.state is not State.CLOSED for breaker in self.breakers.of(cause))

    def _breaker_is(self, cause: str, state: State) -> bool:
        """Of several queues as the worst of them is."""
        found = {breaker.state for breaker in self.breakers.of(cause)}
        return next(worst for worst in _WORST_FIRST if worst in found) is state
