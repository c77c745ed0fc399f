"""Circuit breakers of queues, portal, cluster, storage and template: whether, and how many, messages are received.

closed      working: as many messages as there is room for
open        something is out of reach: no message, so that an outage costs each message at most one delivery
half-open   the pause is over and the probe has answered: one message at a time

What closes a breaker is a success of what had failed: a message that went through it, or, where none comes, the probe a
second time, after the longest pause. A queue without messages proves nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

from dispatcher.decisions.codes import CAUSES, QUEUE
from training_common.backoff import exponential, jittered

log = logging.getLogger(__name__)

Probe = Callable[[], object]
"""Does what had failed, without an effect. Raises while it fails; the error may have `retry_after` (seconds)."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """One of them. Thread-safe. pause_max: seconds; the pause doubles from a hundredth of it, with jitter.

    what: that it holds back, for the log.
    """

    def __init__(self, pause_max: float, clock: Callable[[], float] = time.monotonic, what: str = "Intake") -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._pause_max = pause_max
        self._what = what
        self._failures = 0  # since it was closed
        self._open_until = 0.0
        self._answered_at: float | None = None  # when the probe answered: half-open since then
        self._asking = False  # the probe is under way
        self._probes: dict[str, Probe] = {}  # of what has failed and not succeeded since
        self.reason = ""  # why it is not closed; "" while it is

    @property
    def state(self) -> State:
        with self._lock:
            if not self._failures:
                return State.CLOSED
            return State.OPEN if self._answered_at is None else State.HALF_OPEN

    def trip(self, reason: str, probe: Probe, *, what: str = "", retry_after: float | None = None) -> None:
        """Open. reason: a sentence; what: of several things that may fail; retry_after: seconds, the service's wish."""
        with self._lock:
            self._probes[what] = probe
            if not self._failures or self._clock() >= self._open_until:
                self._open(reason, retry_after)
            # Else several launches in flight have met the same outage.

    def record_success(self, what: str = "") -> None:
        """What had failed went through. While it is open that proves nothing: it was in flight before."""
        with self._lock:
            if self._answered_at is None:
                return
            self._probes.pop(what, None)
            if not self._probes:
                self._close()

    def ask(self) -> State:
        """The state now. Runs the probes where they are due; several threads run them once."""
        with self._lock:
            if not self._failures:
                return State.CLOSED
            if self._answered_at is not None and self._clock() < self._answered_at + self._pause_max:
                return State.HALF_OPEN
            if self._asking or self._clock() < self._open_until:
                return State.OPEN
            self._asking = True
            probes = tuple(self._probes.values())
        error = _first_error(probes)
        with self._lock:
            self._asking = False
            if error is not None:
                self._open(str(error) or type(error).__name__, getattr(error, "retry_after", None))
                return State.OPEN
            if self._clock() < self._open_until:  # it has failed again meanwhile
                return State.OPEN
            if self._answered_at is not None:
                self._close()
                return State.CLOSED
            self._answered_at = self._clock()
            log.debug("%s tries one message at a time; it had paused: %s", self._what, self.reason)
            return State.HALF_OPEN

    def wait_hint(self) -> float:
        """Seconds until the next probe; 0 unless open."""
        with self._lock:
            return max(0.0, self._open_until - self._clock())

    def _open(self, reason: str, retry_after: float | None) -> None:
        self._failures += 1
        self._answered_at = None
        pause = jittered(exponential(self._failures, self._pause_max / 100, self._pause_max), 0.75, 1.0)
        wait = max(pause, min(retry_after or 0.0, self._pause_max))
        self._open_until = self._clock() + wait
        if reason != self.reason:
            log.warning("%s pauses: %s. Messages stay on the queue; next try in %.1f s", self._what, reason, wait)
        else:
            log.debug("%s still pauses: %s. Next try in %.1f s", self._what, reason, wait)
        self.reason = reason

    def _close(self) -> None:
        log.info("%s continues; it had paused: %s", self._what, self.reason)
        self._failures, self._open_until, self._answered_at, self.reason = 0, 0.0, None, ""
        self._probes.clear()


class CircuitBreakers:
    """One for each cause, of several queues one for each; each opens and closes by itself.

    One that is not closed holds back the intake; one of a queue's, where there are several, only what comes from there.
    """

    def __init__(
        self, pause_max: float, clock: Callable[[], float] = time.monotonic, queues: Sequence[str] = ()
    ) -> None:
        self._queues = {name: f"{QUEUE} {name}" for name in queues} if len(queues) > 1 else {}
        self._shared = {cause: CircuitBreaker(pause_max, clock) for cause in CAUSES if cause != QUEUE}
        self._all = {
            **{key: CircuitBreaker(pause_max, clock, f"Intake from {key}") for key in self._queues.values()},
            **({} if self._queues else {QUEUE: CircuitBreaker(pause_max, clock)}),
            **self._shared,
        }

    def __getitem__(self, cause: str) -> CircuitBreaker:
        """cause: one of `codes.CAUSES`; for a queue see `cause_of`."""
        return self._all[cause]

    def cause_of(self, queue: str) -> str:
        """`queue`, or `queue NAME` where there are several."""
        return self._queues.get(queue, QUEUE)

    def queue(self, name: str) -> CircuitBreaker:
        return self._all[self.cause_of(name)]

    def of(self, cause: str) -> list[CircuitBreaker]:
        """cause: one of `codes.CAUSES`; of several queues all."""
        return [self._all[key] for key in (self._queues.values() if cause == QUEUE and self._queues else [cause])]

    def limit(self, most: int, queue: str = "", in_flight: int = 0, from_there: int = 0) -> int:
        """How many messages may be received from a queue now: 0 where a breaker is open, else `most`; while one is
        half-open, 1 at a time.

        in_flight: messages in hand; from_there: those of this queue.
        """
        shared = {breaker.ask() for breaker in self._shared.values()}
        own = self.queue(queue).ask()
        if State.OPEN in {*shared, own}:
            return 0
        if State.HALF_OPEN not in {*shared, own}:
            return most
        in_hand = in_flight if State.HALF_OPEN in shared else from_there
        return 0 if in_hand else min(most, 1)

    def is_open(self, queue: str = "") -> bool:
        return any(breaker.state is State.OPEN for breaker in (*self._shared.values(), self.queue(queue)))

    @property
    def reasons(self) -> list[str]:
        """Why they are not closed; empty while all are."""
        return [reason for breaker in self._all.values() if (reason := breaker.reason)]

    def wait_hint(self, queue: str = "") -> float:
        """Seconds until the last of the open ones is probed that hold back this queue; 0 unless one is open."""
        return max(breaker.wait_hint() for breaker in (*self._shared.values(), self.queue(queue)))


def _first_error(probes: tuple[Probe, ...]) -> Exception | None:
    for probe in probes:
        try:
            probe()
        except Exception as error:  # whatever it is, the outage goes on
            return error
    return None
