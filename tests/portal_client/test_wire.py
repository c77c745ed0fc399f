"""portal_client against the stand-in portal's process: what only a real connection shows."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from local_stack.portal.client import StandInPortal, start_portal
from portal_client.client import PortalClient
from portal_client.errors import PortalUnauthorized
from portal_client.statuses import ProcessingStatus
from tests.portal_client.portal_calls import failure_of_get, failure_of_put

KEY = "key-0123456789abcdef"


@pytest.fixture
def client(portal: StandInPortal) -> Iterator[PortalClient]:
    client = PortalClient(portal.url, portal.api_key, timeout=20)
    yield client
    client.close()


def test_a_training_is_marked_from_created_to_completed(
    portal: StandInPortal, client: PortalClient, model_id: str
) -> None:
    portal.set_model(model_id, "Created", "ready")

    assert client.get_model_status(model_id).message == "ready"
    client.update_model_status(model_id, ProcessingStatus.PROCESSING, "Model training started")
    client.update_model_status(model_id, ProcessingStatus.COMPLETED, "Model training completed successfully")

    assert client.get_model_status(model_id).status is ProcessingStatus.COMPLETED
    assert portal.calls(method="PUT")[0].body == {
        "ModelId": model_id,
        "Status": 1,
        "Message": "Model training started",
    }


@pytest.mark.parametrize("after", [False, True])
def test_a_cut_connection_leaves_open_whether_the_write_arrived(
    portal: StandInPortal, client: PortalClient, model_id: str, after: bool
) -> None:
    portal.set_model(model_id)
    portal.add_fault("cut", method="PUT", after=after)

    error = failure_of_put(client, model_id)

    assert error.ambiguous
    assert "cut the connection" in str(error)
    assert portal.model(model_id).status == ("Processing" if after else "Created")


def test_a_cut_read_is_not_ambiguous(portal: StandInPortal, client: PortalClient, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("cut")

    assert not failure_of_get(client, model_id).ambiguous


def test_a_portal_that_hangs_is_given_up(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("hang", after=True)
    impatient = PortalClient(portal.url, portal.api_key, timeout=0.2)

    error = failure_of_put(impatient, model_id)

    assert "did not answer within 0.2 s" in str(error)
    assert error.ambiguous
    assert portal.model(model_id).status == "Processing"


def raw_server(answer: bytes, *, stay_open: bool, drip: bool = False) -> Iterator[str]:
    """A TCP server that sends `answer` to the first client, and then closes, waits or sends a space now and again."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            while stay_open and not done.wait(0.1):
                if drip:
                    with suppress(OSError):
                        connection.sendall(b" ")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    done.set()
    listener.close()
    thread.join(20)


HALF_AN_ANSWER = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"status": "Created"}'
)


def test_half_an_answer_is_none() -> None:
    for url in raw_server(HALF_AN_ANSWER, stay_open=False):
        error = failure_of_put(PortalClient(url, KEY, timeout=20), "1")

        assert "cut the connection" in str(error)
        assert error.ambiguous


def test_an_answer_that_stops_half_way_is_given_up() -> None:
    for url in raw_server(HALF_AN_ANSWER, stay_open=True):
        error = failure_of_put(PortalClient(url, KEY, timeout=0.2), "1")

        assert "did not answer within 0.2 s" in str(error)
        assert error.ambiguous


def test_an_answer_that_drips_is_given_up_after_the_time_out() -> None:
    """In a read of 1 KiB that waits until it is full, each byte would have a time-out of its own."""
    for failure_of, ambiguous in ((failure_of_get, False), (failure_of_put, True)):
        for url in raw_server(HALF_AN_ANSWER, stay_open=True, drip=True):
            began = time.monotonic()
            error = failure_of(PortalClient(url, KEY, timeout=1.0), "1")

            assert "did not answer within 1 s" in str(error)
            assert error.ambiguous is ambiguous, "a write may have been applied"
            assert time.monotonic() - began < 10


def test_what_is_no_http_at_all_is_unavailable() -> None:
    for url in raw_server(b"SSH-2.0-OpenSSH_9.6\r\n", stay_open=False):
        failure_of_get(PortalClient(url, KEY, timeout=20), "1")


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * 200_000

    for url in raw_server(endless, stay_open=True):
        error = failure_of_get(PortalClient(url, KEY, timeout=20), "1")

        assert "more than 64 KiB" in str(error)


def test_a_refused_connection_is_not_ambiguous() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    error = failure_of_put(PortalClient(f"http://127.0.0.1:{port}", KEY), "1")

    assert not error.ambiguous
    assert "cannot be connected to" in str(error)
    assert error.detail.startswith(f"HTTPConnectionPool(host='127.0.0.1', port={port}): Max retries exceeded")


def test_a_host_name_that_does_not_exist_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_host(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    error = failure_of_put(PortalClient("http://portal.invalid", KEY), "1")

    assert "cannot be resolved (portal.invalid)" in str(error)
    assert not error.ambiguous


# --- many threads -------------------------------------------------------------------------------------------------


def test_threads_share_a_client_and_its_connections(portal: StandInPortal, model_id: str) -> None:
    names = [f"{model_id}{number}" for number in range(40)]
    for name in names:
        portal.set_model(name)
    client = PortalClient(portal.url, portal.api_key, pool_size=8)

    def train(name: str) -> ProcessingStatus:
        client.update_model_status(name, ProcessingStatus.COMPLETED, name)
        return client.get_model_status(name).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(train, names)) == {ProcessingStatus.COMPLETED}

    assert {name: portal.models()[name].message for name in names} == {name: name for name in names}
    assert len(portal.calls()) == 80


def test_more_threads_than_pooled_connections_work(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    client = PortalClient(portal.url, portal.api_key, pool_size=1)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.get_model_status(model_id).status, range(40)))

    assert found == [ProcessingStatus.CREATED] * 40


def test_auto_settles_on_bearer_with_many_threads(tmp_path: Path) -> None:
    with start_portal(tmp_path, KEY, "--auth", "bearer") as portal:
        portal.set_model("1")
        client = PortalClient(portal.url, KEY)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: client.get_model_status("1"), range(40)))
        portal.clear_calls()

        client.get_model_status("1")

        assert [call.auth for call in portal.calls()] == ["bearer"]
        with pytest.raises(PortalUnauthorized):
            PortalClient(portal.url, KEY + "x").get_model_status("1")
