"""dispatcher.queue.azure: what else may answer where the queue should, and connections that died while idle."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3

from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import QueueError, QueueForbidden, QueueMessage, QueueUnavailable
from local_stack.azurite import Azurite

XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Sign in</p></body></html>'
HTML = b"<!DOCTYPE html><html><body>Sign in<br></body></html>"
LATIN = "<html>Accès refusé</html>".encode("latin-1")
BLOBS = b'<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs /><NextMarker /></EnumerationResults>'
STORAGES = {"x-ms-request-id": "1", "x-ms-version": "2024-08-04", "Content-Type": "application/xml"}
A_MESSAGE = QueueMessage("id", "text", 1, 0.0, "receipt", 0.0)


def storage_error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Words of {code}.</Message></Error>'.encode()


class Answering:
    """Answers every request so. seen: the Authorization headers."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.seen: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append(self.headers.get("Authorization", ""))
                self.send_response_only(status)
                self.send_header("Server", "nginx/1.27")
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(body)

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):
                    return self._answer
                raise AttributeError(name)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.queue = a_queue(f"http://127.0.0.1:{self.server.server_address[1]}/account")


def a_queue(endpoint: str) -> TrainingQueue:
    return TrainingQueue(
        "requests", connection_string=f"AccountName=account;AccountKey=a2V5LWtleS1rZXk=;QueueEndpoint={endpoint}"
    )


@contextmanager
def answering(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Iterator[Answering]:
    served = Answering(status, body, headers or {"Content-Type": "text/html"})
    try:
        yield served
    finally:
        served.queue.close()
        served.server.shutdown()
        served.server.server_close()


CALLS: list[Callable[[TrainingQueue], object]] = [
    lambda queue: queue.receive(1, 30),
    lambda queue: queue.peek(),
    lambda queue: queue.depth(),
    lambda queue: queue.send("text"),
    lambda queue: queue.delete(A_MESSAGE),
    lambda queue: queue.requeue(A_MESSAGE, 1),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, HTML, "text/html; charset=utf-8"),
        (200, XHTML, "application/xhtml+xml"),
        (200, XHTML, "application/xml"),
        (200, BLOBS, "application/xml"),
        (200, b"", "text/html"),
        (200, LATIN, "text/html; charset=utf-8"),
        (500, LATIN, "text/html"),
        (201, b"{}", "application/json"),
        (204, b"", "text/html"),
        (404, HTML, "text/html"),
        (404, b"", "text/plain"),
        (403, HTML, "text/html"),
        (401, HTML, "text/html"),
    ],
)
def test_what_is_no_queue_says_what_answered_and_what_to_look_at(
    call: Callable[[TrainingQueue], object], status: int, body: bytes, kind: str
) -> None:
    with answering(status, body, {"Content-Type": kind}) as served:
        with pytest.raises(QueueUnavailable) as caught:
            call(served.queue)
        shown = kind.removesuffix("; charset=utf-8")
        for words in ("Cannot ", f"nginx/1.27 answered HTTP {status} ({shown})", "127.0.0.1", "queue endpoint"):
            assert words in str(caught.value)
        assert "a2V5" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b"\xff\xff"),
        (200, b"<QueueMessagesList><broken"),
        (
            200,
            b"<QueueMessagesList><QueueMessage><InsertionTime>now</InsertionTime></QueueMessage></QueueMessagesList>",
        ),
    ],
)
def test_what_storage_is_made_to_say_on_its_way_ends_no_loop_of_ours(status: int, body: bytes) -> None:
    with answering(status, body, STORAGES) as served, pytest.raises(QueueError, match="Cannot receive from queue"):
        served.queue.receive(1, 30)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AuthorizationFailure", "network rules"),
        (403, "AuthorizationPermissionMismatch", "Storage Queue Data Contributor"),
        (403, "KeyBasedAuthenticationNotPermitted", "AZURE_STORAGE_QUEUE_URL"),
        (403, "AuthenticationFailed", "check the credentials"),
        (409, "QueueBeingDeleted", "create it anew"),
        (404, "QueueNotFound", "it does not exist; create it"),
        (404, "ResourceNotFound", "is it the queue endpoint"),
        (400, "InvalidUri", "Words of InvalidUri"),
        (403, "AccountIsDisabled", "Words of AccountIsDisabled"),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_refusal_of_storage_keeps_its_words_and_says_what_to_look_at(
    call: Callable[[TrainingQueue], object], status: int, code: str, hint: str
) -> None:
    with answering(status, storage_error(code), STORAGES) as served:
        with pytest.raises(QueueError) as caught:
            call(served.queue)
        assert hint in str(caught.value)
        assert str(caught.value).startswith("Cannot ")
        assert isinstance(caught.value, QueueUnavailable) == (status == 409)


@pytest.mark.parametrize("code", ["MessageNotFound", "PopReceiptMismatch"])
def test_a_message_that_is_gone_is_only_so_by_storages_own_words(code: str) -> None:
    with answering(404, storage_error(code), STORAGES) as served:
        assert not served.queue.delete(A_MESSAGE)
        assert not served.queue.requeue(A_MESSAGE, 1)
        with pytest.raises(QueueError, match=f"Cannot receive from queue requests: {code}"):
            served.queue.receive(1, 30)


def test_a_queue_that_is_being_deleted_is_not_there_already() -> None:
    answer = answering(409, storage_error("QueueBeingDeleted"), STORAGES)
    with answer as served, pytest.raises(QueueError, match="somebody has deleted it"):
        served.queue.create()


def test_a_netrc_does_not_replace_our_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with answering(200, b"", STORAGES) as served, suppress(QueueError):
        served.queue.depth()
    assert served.seen
    assert all(seen.startswith("SharedKey ") for seen in served.seen)


def test_without_a_token_the_identity_is_named_and_not_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    queue = TrainingQueue("requests", account_url="https://account.queue.core.windows.net")
    with pytest.raises(QueueForbidden, match="there is no token for the managed identity"):
        queue.depth()


class Forwarder:
    """Passes connections on to `port`; `reset` ends those that there are without the courtesy of a FIN."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._ends: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                self.accepted += 1
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while chunk := one.recv(65536):
                other.sendall(chunk)

    def reset(self) -> None:
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
            end.close()
        self._ends.clear()

    def close(self) -> None:
        self._socket.close()
        self.reset()


def test_connections_that_died_while_they_were_idle_are_no_outage(azurite: Azurite, queue_name: str) -> None:
    straight = TrainingQueue(queue_name, connection_string=azurite.connection_string)
    straight.create()
    port = int(azurite.queue_endpoint.split(":")[2].split("/")[0])
    forwarder = Forwarder(port)
    queue = TrainingQueue(
        queue_name, connection_string=azurite.connection_string.replace(f":{port}/", f":{forwarder.port}/")
    )
    # Several idle ones in the pool.
    threads = [threading.Thread(target=queue.depth) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    forwarder.reset()
    before = forwarder.accepted
    queue.send("after a pause")
    assert [message.text for message in queue.receive(1, 30)] == ["after a pause"]
    assert forwarder.accepted > before
    queue.close()
    forwarder.close()


def test_idle_connections_are_kept_known_to_load_balancers(azurite: Azurite, queue_name: str) -> None:
    made: list[dict[tuple[int, int], int]] = []
    real = urllib3.util.connection.create_connection

    def connect(*arguments: Any, **options: Any) -> socket.socket:
        connection = real(*arguments, **options)
        keys = (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        )
        made.append({key: connection.getsockopt(*key) for key in keys})
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib3.util.connection, "create_connection", connect)
        queue = TrainingQueue(queue_name, connection_string=azurite.connection_string)
        queue.create()
        queue.close()
    (options,) = made
    assert all(options.values())
    assert options[socket.IPPROTO_TCP, socket.TCP_KEEPIDLE] <= 120, "Azure's load balancer forgets after four minutes"
