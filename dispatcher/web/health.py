"""Kubernetes' probes and Prometheus' scrapes: live = all loops and hands make progress; ready = may take work."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dispatcher.web.server import Answer, HttpServer, Request, Route

# Seconds. Longer than the calls that a loop may wait for in a row (a watch beats at each event and bookmark).
_SILENCE = 180.0


class Heartbeats:
    """When each loop last made progress, by the monotonic clock, and since when each piece of work in hand lasts.

    silence: seconds after which a loop is stuck.
    """

    def __init__(self, silence: float = _SILENCE) -> None:
        self._lock = threading.Lock()
        self._beats: dict[str, tuple[float, float]] = {}  # when, and the seconds after which it is stuck
        self._silence = silence
        self._numbers = itertools.count()

    def beat(self, loop: str) -> Callable[[], None]:
        """A function that records progress of `loop`."""

        def alive() -> None:
            with self._lock:
                self._beats[loop] = time.monotonic(), self._silence

        alive()
        return alive

    @contextmanager
    def work(self, loop: str, at_most: float = 0.0) -> Iterator[None]:
        """One piece of work of a pool that has no loop of its own: it is stuck where it does not end.

        at_most: seconds that it may take beside a loop's silence.
        """
        name = f"{loop}-{next(self._numbers)}"
        with self._lock:
            self._beats[name] = time.monotonic(), self._silence + at_most
        try:
            yield
        finally:
            with self._lock:
                del self._beats[name]

    def silence(self, loop: str) -> float:
        """Seconds since `loop` last made progress; of several threads (`loop-0`, `loop-1`), the most silent one's."""
        now = time.monotonic()
        with self._lock:
            ages = [now - at for name, (at, _) in self._beats.items() if loop_of(name) == loop]
        return max(ages, default=0.0)

    def stuck(self) -> list[str]:
        now = time.monotonic()
        with self._lock:
            return sorted(loop for loop, (at, longest) in self._beats.items() if now - at > longest)


def loop_of(name: str) -> str:
    """The loop that a thread runs: `reconcile-3` → `reconcile`."""
    return name.rstrip("0123456789").removesuffix("-")


@dataclass(frozen=True)
class Readiness:
    """problems: why it is not ready, empty when it is. details: what is told of one that is ready."""

    problems: Sequence[str] = ()
    details: Sequence[str] = ()


class HealthServer(HttpServer):
    """/livez, /readyz, /metrics, and `pages` beside them.

    Raises OSError where the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        heartbeats: Heartbeats,
        readiness: Callable[[], Readiness],
        registry: CollectorRegistry,
        pages: Sequence[Route] = (),
    ) -> None:
        def probes(request: Request) -> Answer | None:
            if request.path == "/livez":
                return _verdict(Readiness([f"loop {loop} is stuck" for loop in heartbeats.stuck()]))
            if request.path == "/readyz":
                return _verdict(_looked_at(readiness))
            if request.path == "/metrics":
                return Answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            return None

        paths = "/livez, /readyz or /metrics" + (", or / for the status page" if pages else "")
        super().__init__(host, port, (probes, *pages), name="health", paths=paths)


def _verdict(found: Readiness) -> Answer:
    lines = [*(found.problems or ["ok"]), *found.details]
    return Answer(503 if found.problems else 200, ("\n".join(lines) + "\n").encode())


def _looked_at(readiness: Callable[[], Readiness]) -> Readiness:
    try:
        return readiness()
    except Exception as error:  # a probe without an answer would only show "timed out"
        return Readiness([f"readiness cannot be determined: {type(error).__name__}: {error}"])
