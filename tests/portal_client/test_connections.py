"""portal_client.connections, through the client: one deadline over a call, and pooled connections that were closed."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from portal_client import connections
from portal_client.client import PortalClient
from portal_client.errors import PortalError
from portal_client.statuses import ProcessingStatus
from tests.portal_client.portal_calls import failure_of_get, failure_of_put
from tests.portal_client.raw_portal import OK, drip, read_request, serving

KEY = "key-0123456789abcdef"
PATIENCE = 0.2

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "status line": drip(b"HTTP/1.1 200 ", b"O"),
    "header": drip(HEAD + b"X-Slow: ", b"x"),
    "100 continue": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 continue at full speed": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, pause=0),
    "header of 100 continue": drip(b"HTTP/1.1 100 Continue\r\nX-Slow: ", b"x"),
    "103 early hints": drip(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "chunk's size": drip(CHUNKED, b"0"),
    "chunk's extension": drip(CHUNKED + b"5;", b"x"),
    "chunks": drip(CHUNKED, b"1\r\n \r\n"),
    "trailer": drip(CHUNKED + b"0\r\nX-Slow: ", b"x"),
    "body": drip(HEAD + b"Content-Length: 60000\r\n\r\n", b" "),
    "body without a length": drip(HEAD + b"\r\n", b" "),
    "redirect's body": drip(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 60000\r\n\r\n", b" "),
    "nothing": drip(b"", b"", pause=1.0),
}


@pytest.mark.parametrize("what", DRIPS)
@pytest.mark.parametrize("writes", [False, True], ids=["GET", "PUT"])
def test_whatever_drips_a_call_ends_at_its_deadline(what: str, writes: bool) -> None:
    with serving(DRIPS[what]) as port:
        client = PortalClient(f"http://127.0.0.1:{port}", KEY, timeout=PATIENCE)
        began = time.monotonic()
        error = (failure_of_put if writes else failure_of_get)(client, "1")

    assert time.monotonic() - began < PATIENCE + 2
    assert f"did not answer within {PATIENCE:g} s" in str(error)
    assert error.ambiguous is writes, "a write may have been applied"


def test_both_headers_share_one_deadline() -> None:
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"

    def serve(connection: socket.socket) -> None:
        while read_request(connection):
            time.sleep(PATIENCE * 0.7)
            connection.sendall(refused)

    with serving(serve) as port:
        began = time.monotonic()
        failure_of_get(PortalClient(f"http://127.0.0.1:{port}", KEY, timeout=PATIENCE), "1")

    assert time.monotonic() - began < 1.3 * PATIENCE


# --- over TLS, and through a proxy --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.mark.parametrize("what", ["status line", "100 continue", "trailer", "body"])
def test_the_deadline_holds_over_tls(authority: trustme.CA, bundle: Path, what: str) -> None:
    with serving(DRIPS[what], server_tls(authority, "127.0.0.1")) as port:
        client = PortalClient(f"https://127.0.0.1:{port}", KEY, ca_bundle=bundle, timeout=PATIENCE)
        began = time.monotonic()
        error = failure_of_put(client, "1")

    assert time.monotonic() - began < PATIENCE + 2
    assert "did not answer within" in str(error)


def test_a_handshake_that_drips_ends_at_the_deadline() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a TLS record of 16 KiB, byte by byte
        while True:
            connection.sendall(b"\x02")
            time.sleep(0.01)

    with serving(serve) as port:
        began = time.monotonic()
        failure_of_get(PortalClient(f"https://127.0.0.1:{port}", KEY, timeout=PATIENCE), "1")

    assert time.monotonic() - began < PATIENCE + 2


def tunnel(connection: socket.socket, port: int) -> None:
    """What a proxy does after CONNECT."""
    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    with socket.create_connection(("127.0.0.1", port)) as onward:

        def back() -> None:
            with suppress(OSError):
                while data := onward.recv(65536):
                    connection.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        while data := connection.recv(65536):
            onward.sendall(data)


def use_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", url)
    monkeypatch.setenv("https_proxy", url)


@pytest.mark.parametrize("proxy_speaks_tls", [False, True])
def test_the_deadline_holds_through_a_proxy_and_its_tunnel(
    authority: trustme.CA, bundle: Path, monkeypatch: pytest.MonkeyPatch, proxy_speaks_tls: bool
) -> None:
    with serving(DRIPS["header"], server_tls(authority, "portal.test")) as port:

        def serve(connection: socket.socket) -> None:
            assert read_request(connection).startswith(b"CONNECT portal.test:443 ")
            tunnel(connection, port)

        with serving(serve, server_tls(authority, "127.0.0.1") if proxy_speaks_tls else None) as proxy:
            use_proxy(monkeypatch, f"{'https' if proxy_speaks_tls else 'http'}://127.0.0.1:{proxy}")
            client = PortalClient("https://portal.test", KEY, ca_bundle=bundle, timeout=PATIENCE * 2)
            began = time.monotonic()
            error = failure_of_get(client, "1")

    assert time.monotonic() - began < PATIENCE * 2 + 2
    assert "did not answer within" in str(error)


def test_a_proxy_that_drips_its_answer_to_connect_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(DRIPS["header"]) as proxy:
        use_proxy(monkeypatch, f"http://127.0.0.1:{proxy}")
        began = time.monotonic()
        failure_of_get(PortalClient("https://portal.test", KEY, timeout=PATIENCE), "1")

    assert time.monotonic() - began < PATIENCE + 2


def test_a_proxy_of_the_environment_is_used_with_our_key_and_its_own_password_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text(
        "machine portal.test login someone password else\n"
        "machine 127.0.0.1 login someone password else\n"
        "default login someone password else\n"
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    seen: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        while request := read_request(connection):
            seen.append(request)
            connection.sendall(OK)

    with serving(serve) as proxy:
        use_proxy(monkeypatch, f"http://user:pass@127.0.0.1:{proxy}")
        PortalClient("http://portal.test", KEY, "x-api-key").get_model_status("1")
        PortalClient(f"http://127.0.0.1:{proxy}", KEY, "x-api-key").get_model_status("1")  # without the proxy

    through, direct = (dict(line.split(b": ", 1) for line in head.splitlines()[1:] if line) for head in seen)
    assert through[b"x-api-key"] == direct[b"x-api-key"] == KEY.encode()
    assert b"Authorization" not in through
    assert b"Authorization" not in direct
    assert through[b"Proxy-Authorization"] == b"Basic dXNlcjpwYXNz"
    assert b"Proxy-Authorization" not in direct


# --- names and addresses ------------------------------------------------------------------------------------------


def test_a_resolver_that_does_not_answer_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        go_on.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    began = time.monotonic()
    error = failure_of_put(PortalClient("http://localhost:1", KEY, timeout=PATIENCE), "1")
    go_on.set()

    assert time.monotonic() - began < PATIENCE + 2
    assert not error.ambiguous
    assert "did not take a connection" in str(error)


def test_an_address_that_is_silent_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(OK)

    real = connections._Bounded.connect
    waits: list[float | None] = []

    def connect(self: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "127.0.0.2":
            waits.append(self.gettimeout())
            raise TimeoutError("timed out")
        real(self, address)  # type: ignore[arg-type]

    with serving(serve) as port:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(connections._Bounded, "connect", connect)

        assert PortalClient(f"http://localhost:{port}", KEY, timeout=20).get_model_status("1")
    assert waits[0] is not None
    assert waits[0] <= 10


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test"])
def test_a_name_that_cannot_be_one_is_said_to_be_unresolvable(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    failure_of_get(PortalClient(f"http://{host}", KEY), "1")


# --- pooled connections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goes_by", ["an end", "a reset"])
def test_a_read_on_a_connection_that_the_server_had_closed_is_asked_once_more_and_a_write_is_not(goes_by: str) -> None:
    """The server ends each connection as soon as its second request comes, as it does when it gave the first up."""
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        requests.append(read_request(connection))
        connection.sendall(OK)
        requests.append(read_request(connection))
        if goes_by == "a reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with serving(serve) as port:
        client = PortalClient(f"http://127.0.0.1:{port}", KEY, timeout=20)
        client.get_model_status("1")
        client.get_model_status("1")
        assert [request[:3] for request in requests] == [b"GET", b"GET", b"GET"], "the second was asked again"

        error = failure_of_put(client, "1")

    assert error.ambiguous
    assert "cut the connection" in str(error)
    assert [request[:3] for request in requests[3:]] == [b"PUT"], "it may have been applied"


def test_a_read_is_asked_again_once_and_not_on_a_new_connection_that_is_cut() -> None:
    connected = itertools.count()
    turns: list[int] = []

    def serve(connection: socket.socket) -> None:
        if (number := next(connected)) == 0:
            read_request(connection)
            connection.sendall(OK)
        turns.append(number)
        read_request(connection)

    with serving(serve) as port:
        client = PortalClient(f"http://127.0.0.1:{port}", KEY, timeout=20)
        client.get_model_status("1")
        assert "cut the connection" in str(failure_of_get(client, "1"))
        assert turns == [0, 1]
        failure_of_get(client, "1")
    assert turns == [0, 1, 2]


def test_a_write_of_which_nothing_could_be_sent_goes_out_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        while request := read_request(connection):
            writes.append(request)
            connection.sendall(OK)

    real = socket.socket.send
    broken = iter([True])

    def send(self: socket.socket, *arguments: object) -> int:
        if isinstance(self, connections._Bounded) and writes and next(broken, False):
            raise ConnectionResetError("reset before anything had left")
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "send", send, raising=False)
    with serving(serve) as port:
        client = PortalClient(f"http://127.0.0.1:{port}", KEY, timeout=20)
        client.get_model_status("1")
        client.update_model_status("1", ProcessingStatus.PROCESSING, "m")

    assert [request[:3] for request in writes] == [b"GET", b"PUT"]


def test_idle_connections_are_kept_known_to_the_load_balancers_on_their_way() -> None:
    seen: list[tuple[int, ...]] = []
    real = connections._connect

    def connect(*arguments: object) -> socket.socket:
        made = real(*arguments)  # type: ignore[arg-type]
        keys = (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        )
        seen.append(tuple(made.getsockopt(*key) for key in keys))
        return made

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(OK)

    with serving(serve) as port, pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "_connect", connect)
        PortalClient(f"http://127.0.0.1:{port}", KEY).get_model_status("1")

    [(alive, idle, no_delay)] = seen
    assert alive
    assert no_delay
    assert idle <= 120, "Azure's load balancer forgets a connection after four minutes"


def test_an_endless_redirect_is_not_read_to_its_end() -> None:
    endless = b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n" + b" " * 500_000

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(endless)
        time.sleep(5)

    with serving(serve) as port, pytest.raises(PortalError) as caught:
        PortalClient(f"http://127.0.0.1:{port}", KEY, timeout=4).get_model_status("1")
    assert caught.value.status_code == 302


@pytest.mark.parametrize("hint", [b"103 Early Hints", b"102 Processing", b"100 Continue"])
def test_what_comes_before_an_answer_is_neither_the_answer_nor_that_of_the_next_call(hint: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        while request := read_request(connection):
            connection.sendall(b"HTTP/1.1 %s\r\nLink: </a>\r\n\r\n" % hint)
            time.sleep(0.05)
            connection.sendall(OK if b"/models/1/" in request else OK.replace(b'"Created"', b'"Failed" '))

    with serving(serve) as port:
        client = PortalClient(f"http://127.0.0.1:{port}", KEY)
        for model_id, status in (("1", ProcessingStatus.CREATED), ("2", ProcessingStatus.FAILED)) * 2:
            assert client.get_model_status(model_id).status is status
