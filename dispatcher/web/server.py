"""A small HTTP server: routes, each with an answer to a request or None. Read-only, where nothing else is asked for.

Every connection has a thread, and so they are bounded in number and in time, however a client drips or idles.
"""

from __future__ import annotations

import logging
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

log = logging.getLogger(__name__)

# Seconds that a connection may last in all, however it drips: each has a thread and a file descriptor. With keep-alive,
# each request and its answer may.
_PATIENCE = 30.0
# Seconds that a connection is kept for a next request.
_IDLE = 5.0
# Connections at a time. One more, and the oldest of who has most is cut: who asks and reads at once is through before.
_MOST_CONNECTIONS = 64
_FIELDS = 20
_READS = ("GET", "HEAD")
_LENGTH = re.compile(r"[0-9]{1,9}", re.ASCII)
# What a listener on every address of both families is asked for by; it accepts IPv4, too.
_EVERYWHERE = "::"
# Seconds that `stop` may take.
_STOP_WITHIN = 0.1


@dataclass(frozen=True)
class Request:
    """path: decoded, without the query; query: the last value of each name; etag, host: headers, "" where none.

    target: path and query as they came; headers: name in lower case → every value that came with it.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""
    host: str = ""
    method: str = "GET"
    target: str = ""
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """headers: besides Content-Type and Content-Length."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Route = Callable[[Request], Answer | None]
"""The answer to a request, None where another route has its path."""


class HttpServer(ThreadingHTTPServer):
    """Serves `routes`, the first that answers. paths: named by a 404. Raises OSError where the port is taken.

    methods: any other is refused; most_body: bytes that a request may bring; most: connections at a time; keep_alive:
    whether a connection serves several requests.
    """

    daemon_threads = True

    def __init__(
        self,
        host: str,
        port: int,
        routes: Sequence[Route],
        *,
        name: str,
        paths: str,
        methods: Collection[str] = _READS,
        most_body: int = 0,
        most: int = _MOST_CONNECTIONS,
        keep_alive: bool = False,
    ) -> None:
        self.routes = routes
        self.name = name
        self.paths = paths
        self.methods = methods
        self.most_body = most_body
        self.keep_alive = keep_alive
        self.request_queue_size = self._most = most
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}  # open connections, the oldest first
        self._hosts: dict[socket.socket, str] = {}  # whose they are
        self._asking: set[socket.socket] = set()  # those whose answer is being found: their route bounds its time
        self._unanswered = 0  # requests whose answer is being found or sent
        self._all_answered = threading.Condition(self._lock)
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
            self._since[request], self._hosts[request] = time.monotonic(), str(client_address[0])
            surplus = self._surplus() if len(self._since) > self._most else None
        if surplus is not None:
            self._cut(surplus)
        super().process_request(request, client_address)

    def _surplus(self) -> socket.socket:
        """Of who has most the oldest; where everybody waits for an answer, it is the one that has come last."""
        waiting = [other for other in self._since if other not in self._asking]
        held = Counter(self._hosts[other] for other in self._since)
        most = max(held[self._hosts[other]] for other in waiting)
        return next(other for other in waiting if held[self._hosts[other]] == most)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
            self._hosts.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Several times a second: end the connections whose time is over."""
        latest = time.monotonic() - _PATIENCE
        with self._lock:
            over = [other for other, since in self._since.items() if since < latest and other not in self._asking]
        for request in over:
            self._cut(request)

    @contextmanager
    def serving(self, request: socket.socket) -> Iterator[None]:
        """While a request's answer is found and sent."""
        with self._lock:
            self._unanswered += 1
        try:
            yield
        finally:
            with self._all_answered:
                self._unanswered -= 1
                self._restart(request)
                self._all_answered.notify_all()

    def _restart(self, request: socket.socket) -> None:
        """Its time begins anew, unless it was cut."""
        if self._since.pop(request, None) is not None:
            self._since[request] = time.monotonic()

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

    def finish(self, seconds: float) -> None:
        """Stop; wait at most so long for the answers to what was asked before."""
        self.stop()
        self.keep_alive = False
        with self._all_answered:
            self._all_answered.wait_for(lambda: not self._unanswered, max(0.0, seconds))

    def answer(self, request: Request, connection: socket.socket) -> Answer:
        with self._lock:
            self._asking.add(connection)
        try:
            answers = (route(request) for route in self.routes)
            return next((a for a in answers if a is not None), Answer(404, f"{self.paths}\n".encode()))
        except Exception:
            log.exception("The server %s has no answer to %s", self.name, ascii(request.path)[:200])
            return Answer(500, b"The dispatcher failed on this request; its log tells more\n")
        finally:
            with self._lock:
                self._asking.discard(connection)
                self._restart(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # the client has gone: no reason for a traceback
            log.error("A request to the server %s failed", self.name, exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    server_version, sys_version = "training-dispatcher", ""
    timeout = _PATIENCE

    def setup(self) -> None:
        if self.server.keep_alive:
            self.protocol_version = "HTTP/1.1"
        super().setup()

    def __getattr__(self, attribute: str) -> Callable[[], None]:
        # The base class looks for do_METHOD: any method but the server's is refused, whatever its name.
        if attribute.startswith("do_"):
            return self._serve if attribute.removeprefix("do_") in self.server.methods else self._refuse
        raise AttributeError(attribute)

    def _serve(self) -> None:
        with self.server.serving(self.connection):
            if isinstance(body := self._body(), Answer):
                self.close_connection = True  # what is left of the body would be taken for a request
                self._send(body)
            else:
                self._send(self._found(body))
            self.close_connection = self.close_connection or not self.server.keep_alive
        self.connection.settimeout(_IDLE)

    def _found(self, body: bytes) -> Answer:
        path, _, query = self.path.partition("?")
        try:
            fields = dict(parse_qsl(query, max_num_fields=_FIELDS))
        except ValueError:
            return Answer(400, f"The query has more than {_FIELDS} fields\n".encode())
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        etag, host = self.headers.get("If-None-Match", ""), self.headers.get("Host", "")
        request = Request(unquote(path), fields, etag, host, self.command, self.path, headers, body)
        return self.server.answer(request, self.connection)

    def _body(self) -> bytes | Answer:
        """What the request brings; a refusal, where that is not wanted or has no one length."""
        most = self.server.most_body
        if not most:
            return b""  # it goes with the connection
        lengths = self.headers.get_all("Content-Length") or ["0"]
        if self.headers.get_all("Transfer-Encoding"):
            return Answer(411, b"Content-Length, and no Transfer-Encoding\n")
        if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
            return Answer(400, b"One Content-Length would be right\n")
        if int(lengths[0]) > most:
            return Answer(413, f"At most {most} bytes\n".encode())
        body = self.rfile.read(int(lengths[0]))
        return body if len(body) == int(lengths[0]) else Answer(400, b"The body is shorter than its Content-Length\n")

    def _refuse(self) -> None:
        self.close_connection = True
        allowed = ", ".join(self.server.methods)
        spelt = " or ".join(self.server.methods)
        self._send(Answer(405, f"{spelt}\n".encode(), headers={"Allow": allowed}))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        for header, value in answer.headers.items():
            self.send_header(header, value)
        if self.server.keep_alive and self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and answer.status != 304:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: nothing is logged."""
