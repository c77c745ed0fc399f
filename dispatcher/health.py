"""What Kubernetes' probes and Prometheus ask: live = every loop makes progress; ready = may take work."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

# Longer than the longest call that a loop may wait for (a watch of RESYNC_SECONDS tells by itself).
_SILENCE = 180.0


class Heartbeats:
    """When each loop last made progress, by the monotonic clock. silence: seconds after which a loop is stuck."""

    def __init__(self, silence: float = _SILENCE) -> None:
        self._lock = threading.Lock()
        self._beats: dict[str, float] = {}
        self._silence = silence

    def beat(self, loop: str) -> Callable[[], None]:
        """A function that says that `loop` is alive."""

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
        """Loops that have been silent for too long."""
        now = time.monotonic()
        with self._lock:
            return sorted(loop for loop, at in self._beats.items() if now - at > self._silence)


def loop_of(name: str) -> str:
    """The loop that a thread runs: `reconcile-3` → `reconcile`."""
    return name.rstrip("0123456789").removesuffix("-")


class HealthServer:
    """/livez, /readyz, /metrics. not_ready(): the reasons, empty when ready. Raises OSError where the port is taken."""

    def __init__(
        self,
        host: str,
        port: int,
        heartbeats: Heartbeats,
        not_ready: Callable[[], list[str]],
        registry: CollectorRegistry,
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/livez":
                    self._answer([f"loop {loop} is stuck" for loop in heartbeats.stuck()])
                elif path == "/readyz":
                    self._answer(_reasons(not_ready))
                elif path == "/metrics":
                    self._send(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                else:
                    self._send(404, b"/livez, /readyz or /metrics\n")

            def _answer(self, problems: list[str]) -> None:
                self._send(503 if problems else 200, ("\n".join(problems or ["ok"]) + "\n").encode())

            def _send(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes come every few seconds: nothing to log."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            # "::" where a cluster's pods have IPv6 addresses; it takes IPv4 as well.
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(sys.exception(), OSError):  # who asked has gone: no reason for a traceback
                    super().handle_error(request, client_address)

        try:
            self._server = Server((host, port), Handler)
        except (TypeError, UnicodeError):
            raise OSError(f"{ascii(host)[:80]} is no host") from None

    @property
    def port(self) -> int:
        """The port that it listens on; the kernel's choice where 0 was asked for."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self.close()

    def close(self) -> None:
        """Let the port go; enough where it was never started."""
        self._server.server_close()


def _reasons(not_ready: Callable[[], list[str]]) -> list[str]:
    try:
        return not_ready()
    except Exception as error:  # a probe without an answer would only say "timed out"
        return [f"readiness cannot be told: {type(error).__name__}: {error}"]
