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


class _Listening:
    port: int

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.kubeconfig = Path(self._folder.name) / "kubeconfig"
        self.token = ""

    def rotate(self) -> None:
        """A new token in the kubeconfig, as the kubelet writes a new one into a pod."""
        self.token = secrets.token_hex(8)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "training"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": self.token}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(content))

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


class ApiServer(_Listening):
    """Answers every call with an empty object where the token is the newest, with 401 else.

    silent_watches: a watch gets its headers and then nothing more. paths: what was asked; refused: how many 401.
    """

    def __init__(self, *, silent_watches: bool = False) -> None:
        super().__init__()
        self.paths: list[str] = []
        self.refused = 0
        self._ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.paths.append(self.path)
                if self.headers.get("Authorization") != f"Bearer {outer.token}":
                    outer.refused += 1
                    self._answer(401, {"kind": "Status", "code": 401, "message": "Unauthorized"})
                elif silent_watches and "watch=true" in self.path:
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    outer._ended.wait(30)
                else:
                    self._answer(200, {"metadata": {"name": "model-1"}})

            def _answer(self, status: int, body: object) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.rotate()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        super().close()
