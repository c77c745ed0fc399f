"""Kubernetes' probes and Prometheus' scrapes: live = every loop makes progress; ready = may take work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dispatcher.web.server import Answer, HttpServer, Request, Route

# Seconds. Longer than the longest call that a loop may wait for (a watch beats at each event and bookmark).
_SILENCE = 180.0


class Heartbeats:
    """When each loop last made progress, by the monotonic clock. silence: seconds after which a loop is stuck."""

    def __init__(self, silence: float = _SILENCE) -> None:
        self._lock = threading.Lock()
        self._beats: dict[str, float] = {}
        self._silence = silence

    def beat(self, loop: str) -> Callable[[], None]:
        """A function that records progress of `loop`."""

        def alive() -> None:
            with self._lock:
                self._beats[loop] = time.monotonic()

        alive()
        return alive

    def silence(self, loop: str) -> float:
        """Seconds since `loop` last made progress; of several threads (`loop-0`, `loop-1`), the most silent one's."""
        now = time.monotonic()
        with self._lock:
            ages = [now - at for name, at in self._beats.items() if loop_of(name) == loop]
        return max(ages, default=0.0)

    def stuck(self) -> list[str]:
        now = time.monotonic()
        with self._lock:
            return sorted(loop for loop, at in self._beats.items() if now - at > self._silence)


def loop_of(name: str) -> str:
    """The loop that a thread runs: `reconcile-3` → `reconcile`."""
    return name.rstrip("0123456789").removesuffix("-")


class HealthServer(HttpServer):
    """/livez, /readyz, /metrics, and `pages` beside them. not_ready(): the reasons, empty when ready.

    Raises OSError where the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        heartbeats: Heartbeats,
        not_ready: Callable[[], list[str]],
        registry: CollectorRegistry,
        pages: Sequence[Route] = (),
    ) -> None:
        def probes(request: Request) -> Answer | None:
            if request.path == "/livez":
                return _verdict([f"loop {loop} is stuck" for loop in heartbeats.stuck()])
            if request.path == "/readyz":
                return _verdict(_reasons(not_ready))
            if request.path == "/metrics":
                return Answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            return None

        paths = "/livez, /readyz or /metrics" + (", or / for the status page" if pages else "")
        super().__init__(host, port, (probes, *pages), name="health", paths=paths)


def _verdict(problems: list[str]) -> Answer:
    return Answer(503 if problems else 200, ("\n".join(problems or ["ok"]) + "\n").encode())


def _reasons(not_ready: Callable[[], list[str]]) -> list[str]:
    try:
        return not_ready()
    except Exception as error:  # a probe without an answer would only show "timed out"
        return [f"readiness cannot be determined: {type(error).__name__}: {error}"]
