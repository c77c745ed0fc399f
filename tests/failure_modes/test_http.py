"""Failure modes of what a dispatcher serves over HTTP: clients that hold on to connections, names, address families."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.config.settings import Settings
from dispatcher.web import server as server_module
from dispatcher.web.guards import at_most, for_loopback, for_network
from dispatcher.web.health import HealthServer, Heartbeats, Readiness
from dispatcher.web.server import Answer, HttpServer, Request
from local_stack.processes import wait_until
from tests.world.dispatcher_process import Stage

PAGE = b"x" * 20_000_000
GET_PAGE = b"GET /page HTTP/1.0\r\n\r\n"


def page(request: Request) -> Answer | None:
    return Answer(200, PAGE) if request.path == "/page" else None


@pytest.fixture
def server() -> Iterator[HttpServer]:
    served = HealthServer("127.0.0.1", 0, Heartbeats(1e9), Readiness, CollectorRegistry(), [page])
    served.start()
    yield served
    served.stop()


def probe(port: int, host: str = "127.0.0.1", seconds: float = 5) -> int:
    with urllib.request.urlopen(f"http://{host}:{port}/livez", timeout=seconds) as answer:
        return int(answer.status)


def connect(port: int, first: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    if first:
        connection.sendall(first)
    return connection


def threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize(
    "first", [b"", b"GET /li", b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"GET /page HTTP/1.0\r\n\r\n"]
)
def test_f64_clients_that_hold_on_to_connections_cost_the_probes_nothing(server: HttpServer, first: bytes) -> None:
    """Idle, in the middle of the request line or of the headers, or not reading a large answer."""
    others = threads()  # of servers that tests before have stopped
    with ExitStack() as stack:
        for number in range(200):
            stack.enter_context(connect(server.port, first))
            if number % 50 == 49:
                assert probe(server.port) == 200
        assert len(server._since) <= 65
        wait_until(lambda: threads() <= 66 + others, 10)


def test_f64_a_connection_has_a_total_time_however_it_drips(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_PATIENCE", 0.5)
    before = threads()  # of other tests' servers, which may end meanwhile
    dripping, unread = (
        connect(server.port, b"GET /livez HTTP/1.1\r\n"),
        connect(server.port, b"GET /page HTTP/1.0\r\n\r\n"),
    )
    began = time.monotonic()

    def cut() -> bool:
        try:
            dripping.sendall(b"X: y\r\n")
        except OSError:
            return True
        return False

    with dripping, unread:
        wait_until(cut, 10)
        assert time.monotonic() - began < 5
        wait_until(lambda: not server._since, 10)
        wait_until(lambda: threads() <= before, 10)


def test_f64_a_flood_of_pages_leaves_the_probes_their_share() -> None:
    inside, go_on = threading.Semaphore(0), threading.Event()

    def slow(request: Request) -> Answer | None:
        inside.release()
        go_on.wait(20)
        return Answer(200, b"page")

    served = HealthServer("127.0.0.1", 0, Heartbeats(1e9), Readiness, CollectorRegistry(), [at_most(3, slow)])
    served.start()
    try:
        waiting = [connect(served.port, GET_PAGE) for _ in range(3)]
        for _ in waiting:
            assert inside.acquire(timeout=10)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{served.port}/page", timeout=5)
        assert (caught.value.code, caught.value.headers["Retry-After"]) == (503, "1")
        assert probe(served.port) == 200
        go_on.set()
        for connection in waiting:
            assert b"200" in connection.recv(100)
            connection.close()
        assert urllib.request.urlopen(f"http://127.0.0.1:{served.port}/page", timeout=5).status == 200
    finally:
        go_on.set()
        served.stop()


def named(request: Request) -> Answer | None:
    return Answer(200, b"names of models")


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        *(
            (host, True)
            for host in ("", "10.1.2.3:8080", "[fd00::2]:8080", "[fd00::2]", "localhost:8080", "dispatcher")
        ),
        *((host, True) for host in ("d.training.svc", "d.training.svc.cluster.local:80", "Status.Example.com.:443")),
        *(
            (host, False)
            for host in ("evil.example", "evil.example:8080", "10.0.0.1.evil.example", "x.svc.evil.example")
        ),
        *((host, False) for host in ("status.example.com.evil.example", "evil.example, localhost", "evil.example:x")),
    ],
)
def test_f64_a_page_that_others_reach_is_closed_to_names_that_lead_here(host: str, answered: bool) -> None:
    answer = for_network(named, ("status.example.com",))(Request("/", host=host))
    assert answer is not None
    assert answer.status == (200 if answered else 421)
    assert (b"STATUS_HOSTNAMES" in answer.body) != answered


def test_f64_a_name_that_is_listed_opens_a_page_on_loopback_too() -> None:
    answer = for_loopback(named, ("status.example.com",))(Request("/", host="status.example.com"))
    assert answer is not None
    assert answer.status == 200


def test_f64_beside_the_probes_the_page_asks_for_its_name_and_they_do_not(stage: Stage) -> None:
    stage.start(HEALTH_HOST="::", STATUS_HOSTNAMES="status.example.com")

    def status(path: str, host: str) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{stage.port}{path}", headers={"Host": host})
        try:
            return int(urllib.request.urlopen(request, timeout=5).status)
        except urllib.error.HTTPError as error:
            return error.code

    stage.wait(lambda: status("/livez", "evil.example") == 200)
    assert status("/", "evil.example") == status("/api/status", "evil.example:8080") == 421
    assert status("/", "status.example.com") == status("/", f"10.0.0.7:{stage.port}") == 200


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_f86_by_default_both_families_reach_the_probes() -> None:
    served = HealthServer(Settings.health_host, 0, Heartbeats(1e9), Readiness, CollectorRegistry())
    served.start()
    try:
        assert probe(served.port, "127.0.0.1") == probe(served.port, "[::1]") == 200
    finally:
        served.stop()


def test_f86_without_ipv6_the_probes_are_served_on_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    class OnlyIPv4(real):  # type: ignore[misc, valid-type]
        def __init__(self, family: int = socket.AF_INET, *arguments: int, **more: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *arguments, **more)

    monkeypatch.setattr(socket, "socket", OnlyIPv4)
    served = HealthServer("::", 0, Heartbeats(1e9), Readiness, CollectorRegistry())
    monkeypatch.undo()
    served.start()
    try:
        assert probe(served.port) == 200
    finally:
        served.stop()
