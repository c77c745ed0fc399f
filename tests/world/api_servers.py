"""API servers that misbehave on the wire, with a kubeconfig and a client for each."""

from __future__ import annotations

import json
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

import yaml

from dispatcher.cluster.client import KubernetesJobs


def write_kubeconfig(file: Path, server: str, token: str) -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "training"}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    file.write_text(yaml.safe_dump(content))


class _Listening:
    port: int

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.kubeconfig = Path(self._folder.name) / "kubeconfig"
        self.token = ""

    def rotate(self) -> None:
        """A new token in the kubeconfig, as the kubelet writes a new one into a pod."""
        self.token = secrets.token_hex(8)
        write_kubeconfig(self.kubeconfig, f"http://127.0.0.1:{self.port}", self.token)

    @contextmanager
    def client(self) -> Iterator[KubernetesJobs]:
        # Read by the library when it is imported: too early for a test's environment.
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        with mock.patch(location, str(self.kubeconfig)):
            yield KubernetesJobs()

    def close(self) -> None:
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class SilentServer(_Listening):
    """Accepts connections and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.rotate()

    def close(self) -> None:
        self._socket.close()
        super().close()


class _Http(_Listening):
    """Answers GET with what `answer` makes of it; `paths`: what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.paths.append(self.path)
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.rotate()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        super().close()


class ErrorPage(_Http):
    """A proxy that knows no API server: 404 and a page for people."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        _send(request, 404, "text/html", b"<html>404 Not Found: nginx</html>")


class ApiServer(_Http):
    """Answers every call with an empty object where the token is the newest, with 401 else.

    silent_watches: a watch gets its headers and then nothing more. refused: how many 401.
    """

    def __init__(self, *, silent_watches: bool = False) -> None:
        self.refused = 0
        self._silent_watches = silent_watches
        self._ended = threading.Event()
        super().__init__()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            self.refused += 1
            status = {"kind": "Status", "code": 401, "message": "Unauthorized"}
            _send(request, 401, "application/json", json.dumps(status).encode())
        elif self._silent_watches and "watch=true" in request.path:
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            self._ended.wait(30)
        else:
            _send(request, 200, "application/json", b'{"metadata": {"name": "model-1"}}')

    def close(self) -> None:
        self._ended.set()
        super().close()


def _send(request: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
