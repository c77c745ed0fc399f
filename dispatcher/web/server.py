"""A small read-only HTTP server: GET and HEAD of routes, each an answer or None; any other method is refused."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

log = logging.getLogger(__name__)

# Seconds that a connection may last in all, however it drips: each has a thread and a file descriptor.
_PATIENCE = 30.0
# Connections at a time. One more, and the oldest is cut: who asks and reads at once is through long before.
_MOST_CONNECTIONS = 64
_FIELDS = 20
# A Host header, or a host alone. urllib and browsers send a name in lower case, curl as it was typed.
_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_PORT = re.compile(r":[0-9]{1,5}$", re.ASCII)
# Names that only a cluster's own DNS answers for.
_CLUSTERS = (".svc", ".svc.cluster.local")
# What a listener on every address of both families is asked for by; it accepts IPv4, too.
_EVERYWHERE = "::"
# Seconds that `stop` may take.
_STOP_WITHIN = 0.1


@dataclass(frozen=True)
class Request:
    """path: decoded, without the query; query: the last value of each name; etag, host: headers, "" where none."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""
    host: str = ""


@dataclass(frozen=True)
class Answer:
    """headers: besides Content-Type and Content-Length."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Route = Callable[[Request], Answer | None]
"""The answer to a request, None where another route has its path."""


def for_loopback(route: Route, hostnames: Collection[str] = ()) -> Route:
    """`route` for a listener on loopback, closed to browsers that another site's name led here (DNS rebinding).

    Such a name resolves to the viewer's own machine, where `kubectl port-forward` listens. hostnames: allowed besides.
    """

    def guarded(request: Request) -> Answer | None:
        if request.host and not (_LOOPBACK.fullmatch(request.host) or _name(request.host) in hostnames):
            return Answer(421, b"This is served on loopback; http://localhost:PORT/ would be right\n")
        return route(request)

    return guarded


def for_network(route: Route, hostnames: Collection[str] = ()) -> Route:
    """`route` for a listener that others reach. Rebinding takes a name that its owner lets resolve to us.

    So addresses, names without a dot and names of a cluster's own are allowed, and hostnames (lower case) besides.
    """

    def guarded(request: Request) -> Answer | None:
        name = _name(request.host)
        if not (_is_address(name) or "." not in name or name.endswith(_CLUSTERS) or name in hostnames):
            text = b"This is not served under that name; STATUS_HOSTNAMES lists those that it has besides addresses\n"
            return Answer(421, text)
        return route(request)

    return guarded


def at_most(number: int, route: Route) -> Route:
    """`route`, with at most `number` answers under way: a flood of pages leaves the probes their share."""
    slots = threading.BoundedSemaphore(number)

    def bounded(request: Request) -> Answer | None:
        if not slots.acquire(blocking=False):
            return Answer(503, b"Too many requests at a time; try again\n", headers={"Retry-After": "1"})
        try:
            return route(request)
        finally:
            slots.release()

    return bounded


def _name(host: str) -> str:
    """A Host header without its port, in lower case."""
    return _PORT.sub("", host).strip("[]").removesuffix(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine (in a pod: this pod) reaches a listener on `host`."""
    return _LOOPBACK.fullmatch(f"[{host}]" if ":" in host else host) is not None


class HttpServer(ThreadingHTTPServer):
    """Serves `routes`, the first that answers. paths: named by a 404. Raises OSError where the port is taken."""

    daemon_threads = True
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, host: str, port: int, routes: Sequence[Route], *, name: str, paths: str) -> None:
        self.routes = routes
        self.name = name
        self.paths = paths
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}  # open connections, the oldest first
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (TypeError, UnicodeError):
            raise OSError(f"{ascii(host)[:80]} is no host") from None
        except OSError:
            if host != _EVERYWHERE:
                raise
            # A machine without IPv6.
            self.address_family = socket.AF_INET
            super().__init__(("", port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # Else a system may have "::" mean IPv6 alone.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(self.server_address[0] != _EVERYWHERE))
        # Not HTTPServer's, which asks DNS for our name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.port

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._since[request] = time.monotonic()
            surplus = next(iter(self._since)) if len(self._since) > _MOST_CONNECTIONS else None
        if surplus is not None:
            self._cut(surplus)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Several times a second: end the connections whose time is over."""
        latest = time.monotonic() - _PATIENCE
        with self._lock:
            over = [request for request, since in self._since.items() if since < latest]
        for request in over:
            self._cut(request)

    def _cut(self, request: socket.socket) -> None:
        """Wakes its thread, which then closes it."""
        with self._lock:
            self._since.pop(request, None)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    @property
    def port(self) -> int:
        """The port that it listens on; chosen by the kernel where 0 was asked for."""
        return int(self.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(_STOP_WITHIN,), name=self.name, daemon=True).start()

    def stop(self) -> None:
        """Also frees the port. `server_close` alone is enough for a server that was never started."""
        self.shutdown()
        self.server_close()

    def answer(self, request: Request) -> Answer:
        try:
            answers = (route(request) for route in self.routes)
            return next((a for a in answers if a is not None), Answer(404, f"{self.paths}\n".encode()))
        except Exception:
            log.exception("The server %s has no answer to %s", self.name, ascii(request.path)[:200])
            return Answer(500, b"The dispatcher failed on this request; its log tells more\n")

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # the client has gone: no reason for a traceback
            log.error("A request to the server %s failed", self.name, exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    server_version, sys_version = "training-dispatcher", ""
    timeout = _PATIENCE

    def __getattr__(self, attribute: str) -> Callable[[], None]:
        # The base class looks for do_METHOD: any method but these two is refused, whatever its name.
        if attribute in ("do_GET", "do_HEAD"):
            return self._serve
        if attribute.startswith("do_"):
            return self._refuse
        raise AttributeError(attribute)

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        try:
            fields = dict(parse_qsl(query, max_num_fields=_FIELDS))
        except ValueError:
            self._send(Answer(400, f"The query has more than {_FIELDS} fields\n".encode()))
            return
        etag, host = self.headers.get("If-None-Match", ""), self.headers.get("Host", "")
        self._send(self.server.answer(Request(unquote(path), fields, etag, host)))

    def _refuse(self) -> None:
        self._send(Answer(405, b"GET or HEAD\n", headers={"Allow": "GET, HEAD"}))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        for header, value in answer.headers.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD" and answer.status != 304:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: nothing is logged."""
