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
# Given method and path with its query: status, x-ms-error-code ("" for none) and body of another answer than Azurite's.
Instead = Callable[[str, str], tuple[int, str, bytes] | None]


def error_body(code: str) -> bytes:
    """As Azure writes it."""
    return (
        f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}, in words.\n'
        "RequestId:0\nTime:2026-11-28T00:00:00Z</Message></Error>"
    ).encode()


class Answer(BaseHTTPRequestHandler):
    """One connection; requests are handed on to Azurite as they are."""

    server: _Server

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if (instead := self.server.instead(self.command, self.path)) is not None:
            status, code, body = instead
            named = {"x-ms-error-code": code} if code else {}
            self.send(status, {"Content-Type": "application/xml", **named} if b"<?xml" in body else named, body)
            return
        upstream = http.client.HTTPConnection(self.server.target, timeout=20)
        # As a proxy of the environment it is given a whole URL.
        path = self.path[self.path.index("/", 8) :] if self.path.startswith("http://") else self.path
        headers = {**dict(self.headers.items()), "Host": self.server.target}
        upstream.request(self.command, path, content or None, headers=headers)
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

    do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815 (the standard library's names)

    def send(self, status: int, headers: dict[str, str], body: bytes, promised: int | None = None) -> None:
        """Answers; `promised`: another Content-Length than the body's."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, fault: Fault, instead: Instead) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.target, self.fault, self.instead = target, fault, instead
        self.asked: list[str] = []
        self.guard = threading.Lock()
        self.over = threading.Event()


class BlobProxy:
    """In front of `connection_string`'s blob endpoint; `asked` lists the ranges that were asked for, in order."""

    def __init__(
        self,
        connection_string: str,
        fault: Fault = lambda answer, number, status, headers, body: False,
        instead: Instead = lambda method, path: None,
    ) -> None:
        settings = dict(part.split("=", 1) for part in connection_string.split(";") if part)
        endpoint = urlsplit(settings["BlobEndpoint"])
        self._server = _Server(endpoint.netloc, fault, instead)
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
