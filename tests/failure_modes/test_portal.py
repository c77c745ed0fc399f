"""Failure modes of the portal: answers that drip, lie, lag behind, or are somebody else's."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
from typing import Any
from urllib.parse import quote

import pytest

from dispatcher.cluster import names
from dispatcher.decisions.admission import Action, Decision
from dispatcher.launch.delivery import Delivery
from dispatcher.launch.request import TrainingRequest
from dispatcher.web.health import Heartbeats
from local_stack.http_json import OPENER
from local_stack.portal.client import StandInPortal
from local_stack.processes import wait_until
from portal_client.client import PortalClient
from portal_client.errors import (
    PortalError,
    PortalRefused,
    PortalUnauthorized,
    StatusInDoubt,
    StatusUnreadable,
    WriteConflict,
)
from portal_client.reporting import PLAUSIBLE_LAG
from portal_client.statuses import ProcessingStatus
from tests.failure_modes.bench import Bench, S, a_world, calls, disturb, live, released, statuses, undisturbed
from tests.portal_client.portal_calls import failure_of_get, failure_of_put
from tests.portal_client.raw_portal import always, serving
from tests.world import json_objects as objects
from tests.world.builders import T0, failed, job_json, pod_json, terminated
from tests.world.dispatcher_process import Stage
from tests.world.simulated.dispatcher import Process
from training_common.times import rfc3339


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


def an_ended_job(model: str = "1", before: str | None = "Created", launched: float = T0 - 5) -> dict[str, Any]:
    job = job_json(*failed(), model_id=model, uid=f"job-{model}")
    job["metadata"]["annotations"][names.LAUNCHED_AT] = rfc3339(launched)
    if before is not None:
        job["metadata"]["annotations"][names.STATUS_BEFORE] = before
    return job


def ended(bench: Bench, status: ProcessingStatus | None, model: str = "1", **job: Any) -> None:
    """Have a failed Job of this model, whose portal shows `status`."""
    pod = pod_json(name=f"pod-{model}", model_id=model, job_uid=f"job-{model}", phase="Failed", state=terminated(65))
    bench.put(an_ended_job(model, **job), pod, status=status)


def result(bench: Bench, model: str = "1") -> str:
    return str(json.loads(objects.annotation(bench.job(model), names.REPORTED) or "{}").get("portal"))


@pytest.mark.parametrize(("before", "old"), [("Created", S.CREATED), ("Reconfigure", S.RECONFIGURE), (None, S.CREATED)])
def test_f77_an_old_answer_after_our_processing_loses_no_outcome(before: str | None, old: ProcessingStatus) -> None:
    bench = Bench()
    ended(bench, old, before=before)
    for _ in range(5):
        with pytest.raises(StatusInDoubt):
            bench.look()
        bench.pass_time(10)
    assert "portal.put" not in calls(bench.world), "it may be somebody's"
    bench.put(an_ended_job(before=before), status=S.PROCESSING)
    bench.look()
    assert (bench.portal()[0], result(bench)) == ("Failed", "reported")


def test_f77_somebody_has_moved_on_where_it_still_stands_there_after_any_lag(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    ended(bench, S.CREATED)
    with pytest.raises(StatusInDoubt):
        bench.look()
    bench.pass_time(PLAUSIBLE_LAG)
    with caplog.at_level(logging.WARNING, "dispatcher"):
        bench.look()
    assert (bench.portal()[0], result(bench)) == ("Created", "superseded")
    assert any("somebody has moved on" in r.getMessage() for r in caplog.records if r.levelname == "WARNING")


def test_f77_what_cannot_have_stood_there_before_is_believed_at_once() -> None:
    bench = Bench()
    ended(bench, S.RECONFIGURE, before="Created")
    bench.look()
    assert (bench.portal()[0], result(bench)) == ("Reconfigure", "superseded")


def test_f77_a_duplicate_beside_an_old_answer_stops_no_healthy_training() -> None:
    world = a_world("hang")
    process = Process(world)
    process.tick()
    uid = objects.uid_of(world.jobs["model-1"])
    world.models["1"].status = S.CREATED  # what a cache still has
    world.enqueue("1")
    process.take()
    assert objects.uid_of(world.jobs["model-1"]) == uid
    assert not objects.is_deleting(world.jobs["model-1"])
    assert len(world.messages) == 1, "it comes again later"


def test_f78_a_success_that_its_body_denies_releases_no_job(stage: Stage) -> None:
    model = stage.submit("failed")
    stage.portal.add_fault("denied", method="PUT", model=model, count=6, after=False)
    stage.start()
    stage.wait(lambda: "did not take the status saying 'This failure was scripted'" in stage.log())
    stage.wait_status(model, "Failed", 60)


def test_f79_a_message_that_is_refused_is_sent_with_fewer_words_before_anything_is_given_up() -> None:
    """A column that is too short, or a firewall that dislikes a word: the status arrives all the same."""
    bench = Bench()
    ended(bench, S.PROCESSING)
    put = bench.process.reporter.portal.update_model_status  # type: ignore[union-attr]

    def narrow(model_id: str, status: ProcessingStatus, message: str) -> None:
        if len(message) > 20:
            raise PortalRefused("too long", status_code=400)
        put(model_id, status, message)

    bench.process.reporter.portal.update_model_status = narrow  # type: ignore[union-attr, method-assign]
    bench.look()
    assert bench.portal() == ("Failed", "DatasetInvalid")
    assert result(bench) == "reported"


@pytest.mark.parametrize("status", [409, 412, 423])
def test_f80_a_conflict_is_looked_at_and_written_again(portal: StandInPortal, model_id: str, status: int) -> None:
    portal.set_model(model_id, "Processing")
    portal.add_fault("status", status=status, method="PUT", count=8)
    client = PortalClient(portal.url, portal.api_key)
    bench = Bench()
    ended(bench, S.PROCESSING, model=model_id)
    bench.process.reporter.portal = bench.process.reporter._tries.portal = client
    for _ in range(8):
        with pytest.raises(WriteConflict):
            bench.look(model_id)
        assert not released(bench.job(model_id))
    bench.look(model_id)
    assert portal.model(model_id).status == "Failed"
    methods = [call.method for call in portal.calls()]
    assert methods == ["GET", "PUT"] * 9, "compared before each write"


def test_f80_an_end_that_stands_there_after_a_conflict_is_final(portal: StandInPortal, model_id: str) -> None:
    portal.set_model(model_id, "Processing")
    portal.add_fault("status", status=409, method="PUT")
    bench = Bench()
    ended(bench, S.PROCESSING, model=model_id)
    bench.process.reporter.portal = bench.process.reporter._tries.portal = PortalClient(portal.url, portal.api_key)
    with pytest.raises(WriteConflict):
        bench.look(model_id)
    portal.set_model(model_id, "Completed")
    bench.look(model_id)
    assert (portal.model(model_id).status, result(bench, model_id)) == ("Completed", "reported")


def test_f81_a_portal_that_refuses_every_outcome_is_an_outage_and_every_job_is_kept() -> None:
    bench = Bench()
    told: list[str] = []
    bench.process.reporter._tries.on_outage = lambda sentence, model_id: told.append(sentence)
    put = bench.process.reporter.portal.update_model_status  # type: ignore[union-attr]

    def refuse(model_id: str, status: ProcessingStatus, message: str) -> None:
        raise PortalRefused("The portal refuses this call saying 'a bad release'", status_code=405)

    bench.process.reporter.portal.update_model_status = refuse  # type: ignore[union-attr, method-assign]
    for model in ("1", "2"):
        ended(bench, S.PROCESSING, model=model)
    for _ in range(50):  # two days
        for model in ("1", "2"):
            with pytest.raises(PortalRefused):
                bench.look(model)
        bench.pass_time(3600)
    assert not any(released(bench.job(model)) for model in ("1", "2"))
    assert "takes no outcome of any model" in told[0]
    assert "a bad release" in told[0]

    bench.process.reporter.portal.update_model_status = put  # type: ignore[union-attr, method-assign]
    told.clear()
    for model in ("1", "2"):
        bench.look(model)
    assert [bench.portal(model)[0] for model in ("1", "2")] == ["Failed", "Failed"]
    assert not told


def test_f81_the_breaker_opens_while_no_outcome_is_taken_and_closes_when_one_is(stage: Stage) -> None:
    models = [stage.submit("runs") for _ in range(2)]
    stage.start()
    stage.wait(lambda: all(stage.running(model) for model in models))
    stage.portal.add_fault("status", status=405, method="PUT", count=None)
    for model in models:
        stage.delete_job(model)
    stage.wait(lambda: "Intake pauses: The portal takes no outcome of any model" in stage.log(), 60)
    later = stage.submit("done")
    stage.portal.clear_faults()
    for model in models:
        stage.wait_status(model, "Failed", 90)
    stage.wait_status(later, "Completed", 60)
    assert "Intake continues; it had paused: The portal takes no outcome of any model" in stage.log()


@pytest.mark.parametrize(
    "error",
    [StatusUnreadable("a status that is not understood: 'Paused'"), PortalRefused("400", status_code=400)],
    ids=repr,
)
def test_f81_a_portal_that_has_a_word_for_no_model_is_an_outage_and_no_requests_fault(error: PortalError) -> None:
    world = a_world("complete")
    world.set_status("2", S.CREATED)
    world.enqueue("2")
    disturb(world, "portal.get", "before", error, times=None)
    live(world, most=60, until_settled=False)
    assert (world.poison, len(world.messages)) == ([], 2)
    assert max(message.deliveries for message in world.messages.values()) <= 3
    undisturbed(world)
    live(world)
    assert [statuses(world, model)[-1] for model in ("1", "2")] == ["Completed", "Completed"]


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
