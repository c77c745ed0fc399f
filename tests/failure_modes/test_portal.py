"""Failure modes of the portal: answers that drip, lie, lag behind, or are somebody else's."""

from __future__ import annotations

import threading
import time
import urllib.error
from urllib.parse import quote

import pytest

from dispatcher.decisions.admission import Action, Decision
from dispatcher.launch.launcher import Delivery
from dispatcher.launch.request import TrainingRequest
from dispatcher.web.health import Heartbeats
from local_stack.http_json import OPENER
from local_stack.portal.client import StandInPortal
from local_stack.processes import wait_until
from portal_client.client import PortalClient
from portal_client.errors import PortalUnauthorized
from tests.failure_modes.bench import a_world
from tests.portal_client.portal_calls import failure_of_get, failure_of_put
from tests.portal_client.raw_portal import always, serving
from tests.world.dispatcher_process import Stage
from tests.world.simulated.dispatcher import Process


def test_f60_a_404_without_words_stops_nobody_and_condemns_nobody_until_the_portal_knows_models(stage: Stage) -> None:
    missing = stage.submit("done")
    stage.portal.add_fault("empty", status=404, model=missing, count=None)
    stage.start(MAX_DELIVERIES="2")
    stage.wait(lambda: "this counts as an outage" in stage.log())
    assert not stage.poison()

    known = stage.submit("done")
    stage.wait(lambda: stage.status(known) == "Completed", 60)
    stage.wait(lambda: [entry.code for entry in stage.poison()] == ["ModelUnknown"], 60)
    assert f"it knows model {known}" in stage.poison()[0].sentence


def test_f60_check_says_that_a_404_without_words_proves_nothing(stage: Stage) -> None:
    stage.portal.add_fault("empty", status=404)
    code, out, _ = stage.cli("check")
    assert code == 0, "nothing is known to be wrong"
    [line] = [line for line in out.splitlines() if line[5:].startswith("portal:")]
    assert line.startswith("WARN")
    assert "a wrong path in API_BASE_URL and a portal that is being rolled out look alike here" in line


def test_f61_a_portal_that_drips_holds_no_call_beyond_its_time(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("drip", count=None)
    client = PortalClient(portal.url, portal.api_key, timeout=0.3)
    began = time.monotonic()
    assert not failure_of_get(client, model_id).ambiguous
    assert failure_of_put(client, model_id).ambiguous
    assert time.monotonic() - began < 5


def test_f61_liveness_sees_a_launch_that_never_returns() -> None:
    world = a_world()
    process = Process(world)
    hearts = Heartbeats(silence=0.05)
    go_on = threading.Event()
    process.intake.working = lambda: hearts.work("launch", 0.05)

    def launch(delivery: Delivery, request: TrainingRequest) -> Decision:
        go_on.wait(20)
        return Decision(Action.LATER, "at last")

    process.launcher.launch = launch  # type: ignore[method-assign]
    [message] = process.queue.receive(1, 60)
    hand = threading.Thread(target=process.intake.handle, args=(message,), daemon=True)
    hand.start()
    try:
        wait_until(lambda: hearts.stuck() == ["launch-0"], 20)
    finally:
        go_on.set()
        hand.join(20)
    assert hearts.stuck() == []


def test_f62_a_key_that_the_portal_repeats_in_any_form_reaches_no_sentence(stage: Stage) -> None:
    key = "Ab+9/=&x-0123456789"
    spelt = "".join(f"\\u{ord(character):04X}" for character in key)
    body = f'{{"detail": "Your key {spelt}, {quote(key, safe="")} or {key[:12]} is not known"}}'.encode()
    status = [503]

    def answer() -> bytes:
        head = f"HTTP/1.1 {status[0]} Odd\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    with serving(always(answer)) as port:
        stage.submit("done")
        stage.start(ready=False, API_BASE_URL=f"http://127.0.0.1:{port}", API_KEY=key, MAX_DELIVERIES="1")
        said = "Your key [redacted], [redacted] or [redacted] is not known"
        stage.wait(lambda: said in stage.log())
        with pytest.raises(urllib.error.HTTPError) as caught:
            OPENER.open(f"http://127.0.0.1:{stage.port}/readyz", timeout=10)
        ready = caught.value.read().decode()
        status[0] = 400
        [entry] = stage.wait(stage.poison)
    assert said in ready
    assert said in entry.sentence
    for piece in (key, spelt, quote(key, safe=""), key[:12]):
        assert piece not in stage.log() + ready + entry.sentence


def test_f82_a_key_that_is_refused_by_a_redirect_falls_back_to_the_other_header(
    portal: StandInPortal, model_id: str
) -> None:
    portal.set_model(model_id)
    portal.add_fault("login")
    client = PortalClient(portal.url, portal.api_key)
    assert client.get_model_status(model_id).status.title == "Created"
    assert [call.auth for call in portal.calls()] == ["x-api-key", "bearer"]

    portal.add_fault("login", count=None)
    with pytest.raises(PortalUnauthorized, match="API_KEY and MODEL_API_AUTH_METHOD"):
        client.get_model_status(model_id)
