"""local_stack.portal.faults: that the stand-in portal fails as it is told, and only then."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.client import HTTPException
from urllib.parse import urlsplit

import pytest

from local_stack.portal.client import StandInPortal
from local_stack.processes import wait_until
from tests.local_stack.portal.by_hand import an_update, call, get, put


def test_a_fault_strikes_the_calls_it_names_as_often_as_it_says(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.set_model(model_id + "b")
    number = portal.add_fault("status", status=503, headers={"Retry-After": "7"}, method="GET", model=model_id, count=2)

    answers = [
        get(portal, model_id + "b")[0],
        put(portal, an_update(model_id))[0],
        get(portal, model_id)[0],
        get(portal, model_id)[0],
        get(portal, model_id)[0],
    ]

    assert answers == [200, 200, 503, 503, 200]
    assert [call.fault for call in portal.calls()] == [None, None, number, number, None]


def test_faults_after_the_write_leave_it_written(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("status", method="PUT", after=True)

    assert put(portal, an_update(model_id), **{"x-api-key": "wrong"})[0] == 401
    assert put(portal, an_update(model_id))[0] == 500
    assert portal.model(model_id).status == "Processing"


def test_faults_before_the_write_leave_it_unwritten(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("status", method="PUT")

    assert put(portal, an_update(model_id))[0] == 500
    assert portal.model(model_id).status == "Created"


@pytest.mark.parametrize(
    ("kind", "status", "start"), [("html", 200, b"<!DOCTYPE html>"), ("empty", 200, b""), ("garbage", 200, b"{")]
)
def test_bodies_that_no_client_can_use(
    portal: StandInPortal, model_id: str, kind: str, status: int, start: bytes
) -> None:
    portal.set_model(model_id)
    portal.add_fault(kind)
    portal.add_fault(kind, status=418)

    answered, body = get(portal, model_id)
    assert (answered, body[: len(start)]) == (status, start)
    assert get(portal, model_id)[0] == 418
    assert get(portal, model_id)[0] == 200


def test_a_cut_gives_no_answer(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("cut", count=None)

    with pytest.raises((OSError, HTTPException)):
        get(portal, model_id)
    portal.clear_faults()
    assert get(portal, model_id)[0] == 200
    assert [call.status for call in portal.calls()] == [None, 200]


def test_a_hang_ends_when_the_faults_are_cleared(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("hang")
    ended: list[BaseException] = []

    def hang() -> None:
        try:
            get(portal, model_id)
        except (OSError, HTTPException) as error:
            ended.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    wait_until(lambda: len(portal.calls()) == 1, 20)
    assert portal.calls()[0].status is None
    portal.clear_faults()
    thread.join(20)

    assert len(ended) == 1


def test_a_slow_answer_is_a_proper_one(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("hang", seconds=0.05, count=2)
    portal.add_fault("hang", seconds=0.05, after=True)

    assert get(portal, model_id) == (200, {"status": "Created", "message": ""})
    assert put(portal, an_update(model_id))[0] == 200
    assert put(portal, an_update(model_id, 2)) == (200, {"modelId": model_id, "status": "Completed"})


def test_a_drip_never_ends_by_itself(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("drip")
    with socket.create_connection(("127.0.0.1", urlsplit(portal.url).port or 0)) as connection:
        path = f"/api/external/models/{model_id}/status"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {portal.api_key}\r\n\r\n".encode())
        seen = b""
        while not seen.endswith(b"X-Slow: xxx"):
            seen += connection.recv(1)
        portal.clear_faults()
        with suppress(ConnectionResetError):
            while connection.recv(100):
                continue


def test_a_stale_read_shows_what_stood_there(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("stale", count=2, seconds=60)
    assert put(portal, an_update(model_id))[0] == 200

    assert [get(portal, model_id)[1]["status"] for _ in range(3)] == ["Created", "Created", "Processing"]


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [("denied", 200, b'{"success": false'), ("login", 302, b""), ("longer", 400, b'{"title": "One or more validation')],
)
def test_refusals_of_other_portals(portal: StandInPortal, model_id: str, kind: str, status: int, said: bytes) -> None:
    portal.set_model(model_id)
    portal.add_fault(kind, method="PUT", most=5, count=None)

    answered, body = put(portal, an_update(model_id) | {"Message": "longer than that"})
    assert answered == status
    assert (body if isinstance(body, bytes) else json.dumps(body).encode()).startswith(said)
    assert portal.model(model_id).status == "Created"
    assert put(portal, an_update(model_id) | {"Message": "short"})[0] == (200 if kind == "longer" else status)


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"kind": "explode"},
        {"kind": "cut", "method": "POST"},
        {"kind": "cut", "times": 3},
        {"kind": "status", "status": 99},
    ],
)
def test_a_misspelt_fault_is_refused(portal: StandInPortal, fault: dict[str, object]) -> None:
    assert call(portal, "POST", "/_stub/faults", fault)[0] == 400
