"""What may stand between a trainer and storage: a proxy before the real Azurite that breaks what it is told to."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

# Given the number (from 0) of a request for a range and what storage answers, it does something else and says True.
Fault = Callable[["Answer", int, int, dict[str, str], bytes], bool]


class Answer(BaseHTTPRequestHandler):
    """One connection; requests are handed on to Azurite as they are."""

    server: _Server

    def do_GET(self) -> None:
        upstream = http.client.HTTPConnection(self.server.target, timeout=20)
        upstream.request("GET", self.path, headers=dict(self.headers.items()))
        response = upstream.getresponse()
        body = response.read()
        headers = {k: v for k, v in response.getheaders() if k.lower() not in ("connection", "transfer-encoding")}
        upstream.close()
        ranged = self.headers.get("x-ms-range")
        if ranged:
            with self.server.guard:
                number = len(self.server.asked)
                self.server.asked.append(ranged)
            if self.server.fault(self, number, response.status, headers, body):
                self.close_connection = True
                return
        self.send(response.status, headers, body)

    def send(self, status: int, headers: dict[str, str], body: bytes, promised: int | None = None) -> None:
        """Answers; `promised`: another Content-Length than the body's."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, fault: Fault) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.target, self.fault = target, fault
        self.asked: list[str] = []
        self.guard = threading.Lock()
        self.over = threading.Event()


class BlobProxy:
    """In front of `connection_string`'s blob endpoint; `asked` lists the ranges that were asked for, in order."""

    def __init__(self, connection_string: str, fault: Fault) -> None:
        settings = dict(part.split("=", 1) for part in connection_string.split(";") if part)
        endpoint = urlsplit(settings["BlobEndpoint"])
        self._server = _Server(endpoint.netloc, fault)
        address = f"http://127.0.0.1:{self._server.server_port}{endpoint.path}"
        self.connection_string = ";".join(f"{k}={v}" for k, v in {**settings, "BlobEndpoint": address}.items())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def asked(self) -> list[str]:
        return self._server.asked

    @property
    def over(self) -> threading.Event:
        """Set when the proxy goes away: what an answer that stalls waits for."""
        return self._server.over

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.over.set()
        self._server.shutdown()
        self._server.server_close()
