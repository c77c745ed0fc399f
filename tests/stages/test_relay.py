"""Trainings with credentials of their own tell the portal through a real dispatcher's relay, and nothing of others."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.cluster import names
from dispatcher.relay.tokens import RelayTokens
from local_stack.http_json import OPENER
from local_stack.processes import free_port
from local_stack.surroundings import scoped_settings
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage
from tests.world.repository import ROOT

KEY, NEW_KEY = "k" * 40, "n" * 40

# A trainer that only talks: it reads its status, tells progress, tries others' models, and tells how it ended; one
# whose id begins with "waits" only when the file GO_ON is there. What the test is to see it writes into the file SAID.
TALKS = f"""
import json, os, pathlib, sys, time
sys.path.insert(0, {str(ROOT)!r})
from portal_client.client import PortalClient
from portal_client.errors import PortalError
from portal_client.statuses import ProcessingStatus as S
from trainer_image.host.credentials import CredentialFiles
def say(*words):
    with open(os.environ["SAID"], "a") as file:
        print(*words, file=file)
files = CredentialFiles(pathlib.Path(os.environ["CREDENTIALS_DIR"]))
model = os.environ["MODEL_CONTAINER"].removeprefix("model-")
newer = lambda refused: files.newer("API_KEY", refused, seconds=0.0)
client = PortalClient(os.environ["API_BASE_URL"], files.read("API_KEY"), newer_key=newer)
def until(call):
    while True:
        try:
            return call()
        except PortalError as error:
            say("waits:", error)
            time.sleep(0.2)
until(lambda: client.get_model_status(model))
until(lambda: client.update_model_status(model, S.PROCESSING, "Epoch 1 of 3"))
for other in ("victim", "../victim", "victim%2fstatus?x="):
    for call in (client.get_model_status, lambda it: client.update_model_status(it, S.FAILED, "hacked")):
        try:
            say("STOLEN", call(other))
        except (PortalError, ValueError):
            pass
while model.startswith("waits") and not os.path.exists(os.environ["GO_ON"]):
    time.sleep(0.1)
until(lambda: client.update_model_status(model, S.COMPLETED, "Model training completed successfully"))
told = {{"message": "told", "code": "Completed", "exit": 0}}
pathlib.Path(os.environ["TERMINATION_MESSAGE_PATH"]).write_text(json.dumps(told))
"""


@pytest.fixture
def scoped(stage: Stage) -> Iterator[Stage]:
    """A stage whose dispatchers serve a relay, and whose trainers talk to it."""
    stage.settings |= scoped_settings() | {"RELAY_KEY": KEY}
    container = stage.template["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["python", "-c", TALKS]
    container["env"] = [{"name": name.upper(), "value": str(stage.folder / name)} for name in ("go_on", "said")]
    stage.portal.set_model("victim", "Created")
    yield stage
    assert stage.status("victim") == "Created"


def token_of(stage: Stage, model_id: str, key: str = KEY) -> str:
    run_id = objects.annotation(stage.job(model_id) or {}, names.RUN_ID)
    assert run_id
    return RelayTokens([key]).make(model_id, run_id)


def called(stage: Stage, method: str, path: str, token: str, body: Any = None) -> int:
    """The relay's answer, 0 where nobody listens: a dispatcher that has just started may not do so yet."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{stage.settings['RELAY_URL']}{path}", data, {"x-api-key": token}, method=method)
    try:
        with OPENER.open(request, timeout=40) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return 0


def outcome(model_id: str, status: int = 2) -> dict[str, Any]:
    return {"ModelId": model_id, "Status": status, "Message": "m"}


def said(stage: Stage) -> str:
    file = stage.folder / "said"
    return file.read_text() if file.exists() else ""


def test_a_training_tells_its_progress_and_outcome_with_a_token_for_its_run_alone(scoped: Stage) -> None:
    scoped.start()
    model = scoped.submit("done")
    scoped.wait_status(model, "Completed", 90)
    told = [(entry.status, entry.message) for entry in scoped.portal.model(model).history]
    assert told[-2:] == [("Processing", "Epoch 1 of 3"), ("Completed", "Model training completed successfully")]
    assert scoped.metric("relay_calls_total", call="outcome", result="passed") == 1
    assert "asks the relay for Completed: 200, passed" in scoped.log()
    assert KEY not in scoped.log()
    assert "STOLEN" not in said(scoped)
    scoped.wait(lambda: objects.is_reported(scoped.job(model) or {}))
    # Its run is over: the token is good for nothing any more.
    assert called(scoped, "PUT", "/api/external/models/status", token_of(scoped, model), outcome(model, 3)) == 410
    assert scoped.status(model) == "Completed"


def test_an_outage_of_the_portal_pauses_the_intake_and_not_the_relay(scoped: Stage) -> None:
    scoped.start()
    model = scoped.submit("waits")
    scoped.wait(lambda: scoped.message(model) == "Epoch 1 of 3", 60)
    scoped.portal.add_fault("status", status=503, count=None)
    other = scoped.submit("done")
    scoped.wait(lambda: "Intake pauses" in scoped.log())
    assert called(scoped, "GET", f"/api/external/models/{model}/status", token_of(scoped, model)) == 503
    (scoped.folder / "go_on").touch()
    scoped.wait(lambda: "waits: The portal cannot answer now" in said(scoped))
    scoped.portal.clear_faults()
    scoped.wait_status(model, "Completed", 60)
    scoped.wait_status(other, "Completed", 60)
    assert not scoped.poison()


def test_a_dispatcher_that_is_replaced_costs_a_training_nothing(scoped: Stage) -> None:
    first = scoped.start()
    model = scoped.submit("waits")
    scoped.wait(lambda: scoped.message(model) == "Epoch 1 of 3", 60)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    (scoped.folder / "go_on").touch()
    scoped.start()
    scoped.wait_status(model, "Completed", 60)
    assert [entry.message for entry in scoped.portal.model(model).history].count(
        "Model training completed successfully"
    ) == 1


def test_a_key_that_is_exchanged_reaches_trainings_that_run(scoped: Stage) -> None:
    first = scoped.start()
    model = scoped.submit("waits")
    scoped.wait(lambda: scoped.message(model) == "Epoch 1 of 3", 60)
    old = token_of(scoped, model)
    assert first.stop() == 0
    scoped.start(RELAY_KEY=f"{NEW_KEY},{KEY}")
    path = f"/api/external/models/{model}/status"
    scoped.wait(lambda: called(scoped, "GET", path, old) == 200)
    assert called(scoped, "GET", path, token_of(scoped, model, NEW_KEY)) == 200
    assert scoped.processes[-1].stop() == 0
    scoped.start(RELAY_KEY=NEW_KEY)
    scoped.wait(lambda: called(scoped, "GET", path, old) == 401)
    (scoped.folder / "go_on").touch()
    scoped.wait(lambda: "waits: The portal does not accept the API key" in said(scoped))
    # The Secret is renewed by itself within a minute or two; without the note of the last time, at once.
    job = f"/apis/batch/v1/namespaces/{scoped.namespace}/jobs/model-{model}"
    scoped.cluster.api("PATCH", job, {"metadata": {"annotations": {names.CREDENTIALS_UNTIL: None}}})
    scoped.wait_status(model, "Completed", 60)


def test_a_port_that_is_taken_names_the_setting(scoped: Stage, tmp_path: Path) -> None:
    scoped.start()
    code, _, errors = scoped.cli("run", HEALTH_PORT=str(free_port()))
    assert code != 0
    assert f"RELAY_PORT {scoped.settings['RELAY_PORT']} on 127.0.0.1 cannot be used" in errors
