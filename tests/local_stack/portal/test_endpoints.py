"""local_stack.portal.__main__: that the stand-in portal is as strict as a real one, and fails as it is told."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import trustme

from local_stack.portal.client import StandInPortal, start_portal
from local_stack.processes import wait_until
from tests.local_stack.portal.by_hand import KEY, an_update, get, put


def get_nothing(portal: StandInPortal) -> None:
    with pytest.raises((OSError, HTTPException)):
        get(portal, "1")


@pytest.fixture
def own_portal(tmp_path: Path) -> Iterator[Any]:
    """Starts stand-in portals with options of the test's own."""
    started: list[StandInPortal] = []

    def start(*options: str) -> StandInPortal:
        started.append(start_portal(tmp_path / str(len(started)), KEY, *options))
        return started[-1]

    yield start
    for portal in started:
        portal.service.stop()


def test_a_model_has_the_status_it_was_given_and_a_history(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id, "Reconfigure", "again")
    assert get(portal, model_id) == (200, {"status": "Reconfigure", "message": "again"})

    assert put(portal, an_update(model_id, 1))[0] == 200
    assert put(portal, an_update(model_id, "Completed"))[0] == 200

    model = portal.model(model_id)
    assert (model.status, model.message) == ("Completed", "m")
    assert [(entry.status, entry.by) for entry in model.history] == [
        ("Reconfigure", "control"),
        ("Processing", "api"),
        ("Completed", "api"),
    ]
    assert model.history[0].monotonic <= model.history[2].monotonic

    portal.delete_model(model_id)
    assert get(portal, model_id)[0] == 404
    assert put(portal, an_update(model_id))[0] == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        ([], 400),
        ({}, 400),
        ({"ModelId": 5, "Status": 1}, 400),
        ({"ModelId": "", "Status": 1}, 400),
        ({"ModelId": "x", "Status": 9}, 400),
        ({"ModelId": "x", "Status": True}, 400),
        ({"ModelId": "x"}, 400),
        ({"ModelId": "x", "Status": 1, "Message": 3}, 400),
    ],
)
def test_a_bad_update_is_refused(portal: StandInPortal, body: object, status: int) -> None:
    assert put(portal, body)[0] == status


def test_an_update_that_is_not_declared_json_is_refused(portal: StandInPortal, model_id: str) -> None:
    assert put(portal, an_update(model_id), **{"Content-Type": "text/plain"})[0] == 415


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", "\u00e9"])
def test_a_wrong_key_is_a_401_before_anything_else_is_said(portal: StandInPortal, key: str) -> None:
    assert get(portal, "unknown", **{"x-api-key": key})[0] == 401
    assert put(portal, b"{", **{"x-api-key": key})[0] == 401


def test_each_auth_option_takes_its_own_header_only(own_portal: Any) -> None:
    under_x, under_bearer = {"x-api-key": KEY}, {"x-api-key": "", "Authorization": f"Bearer {KEY}"}

    answers = [
        [get(portal, "1", **headers)[0] for headers in (under_x, under_bearer)]
        for portal in (own_portal("--auth", option) for option in ("both", "x-api-key", "bearer"))
    ]

    assert answers == [[404, 404], [404, 401], [401, 404]]


def test_numbers_and_unknown_models_by_option(own_portal: Any) -> None:
    portal = own_portal("--numeric", "--create-unknown")

    assert put(portal, an_update("new", 3))[0] == 200
    assert get(portal, "new") == (200, {"status": 3, "message": "m"})
    assert get(portal, "other")[0] == 404


def test_calls_are_recorded_without_the_key(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    get(portal, model_id)
    put(portal, an_update(model_id), **{"x-api-key": "", "Authorization": f"Bearer {portal.api_key}"})
    put(portal, b"{", **{"x-api-key": ""})

    first, second, third = portal.calls()
    assert (first.method, first.path, first.model, first.body, first.auth, first.status) == (
        "GET",
        f"/api/external/models/{model_id}/status",
        model_id,
        None,
        "x-api-key",
        200,
    )
    assert (second.method, second.model, second.body) == ("PUT", model_id, an_update(model_id))
    assert (second.auth, second.status) == ("bearer", 200)
    assert (third.body, third.auth, third.status) == ("{", "none", 401)
    assert portal.api_key not in repr(portal.calls())
    assert portal.calls(method="PUT", model=model_id) == [second]

    portal.clear_calls()
    assert portal.calls() == []


def test_https_with_a_given_certificate(tmp_path: Path, own_portal: Any) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))

    portal = own_portal("--tls-cert", str(tmp_path / "both.pem"), "--tls-key", str(tmp_path / "both.pem"))

    portal.set_model("1")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    request = urllib.request.Request(portal.url + "/api/external/models/1/status", headers={"x-api-key": KEY})
    with urllib.request.urlopen(request, timeout=30, context=trusting) as response:
        assert json.load(response)["status"] == "Created"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_even_while_a_call_hangs(tmp_path: Path, number: signal.Signals) -> None:
    with start_portal(tmp_path, KEY) as portal:
        portal.add_fault("hang")
        thread = threading.Thread(target=get_nothing, args=(portal,))
        thread.start()
        wait_until(lambda: len(portal.calls()) == 1, 20)

        portal.service.send_signal(number)

        assert portal.service.wait(30) == 0
        thread.join(20)
        assert portal.service.log.read_text() == f"The stand-in portal listens on {portal.url}\n"


def test_a_port_that_is_taken_is_a_sentence(portal: StandInPortal) -> None:
    port = portal.url.rsplit(":", 1)[1]

    done = subprocess.run(
        [sys.executable, "-m", "local_stack.portal", "--api-key", KEY, "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert f"cannot start on port {port}" in done.stderr
    assert "Traceback" not in done.stderr
