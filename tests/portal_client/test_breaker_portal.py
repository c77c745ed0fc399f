"""A portal that answers byte by byte: the time-out holds for the whole answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from portal_client.client import PortalClient
from portal_client.errors import PortalUnavailable
from portal_client.statuses import ProcessingStatus

# In a read of 1 KiB that waits until it is full, each byte has a time-out of its own.
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n"


@pytest.fixture
def dripping() -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(HEAD)
                    while not ended.wait(0.1):
                        connection.sendall(b" ")
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    ended.set()
    listener.close()
    thread.join(5)


def test_an_answer_that_drips_is_given_up_after_the_time_out(dripping: str) -> None:
    client = PortalClient(dripping, "key-0123456789abcdef", timeout=1.0)
    began = time.monotonic()
    with pytest.raises(PortalUnavailable, match="did not answer within 1 s"):
        client.get_model_status("1")
    with pytest.raises(PortalUnavailable) as put:
        client.update_model_status("1", ProcessingStatus.PROCESSING, "m")
    assert put.value.ambiguous, "it may have been applied"
    assert time.monotonic() - began < 10
    client.close()
