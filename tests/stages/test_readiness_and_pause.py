"""Readiness as a roll-out sees it, and the operator's switch: pause, resume, drain. With two replicas."""

from __future__ import annotations

import signal
import urllib.error

import pytest

from dispatcher.cli import pause as pausing
from dispatcher.cluster import names
from local_stack.http_json import OPENER
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage


def readyz(stage: Stage) -> tuple[int, str]:
    try:
        with OPENER.open(f"http://127.0.0.1:{stage.port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"API_BASE_URL": "https://portal.example.com"}, "API_BASE_URL still has the placeholder portal.example.com"),
        ({"API_KEY": "wrong-key-0123456789"}, "no answer of the portal since the start"),
        ({"QUEUE_NAME": "never-made"}, "it does not exist; create it"),
    ],
)
def test_settings_that_cannot_work_are_never_ready_and_take_no_message(
    stage: Stage, settings: dict[str, str], sentence: str
) -> None:
    stage.submit("done")
    stage.start(**settings)
    stage.wait(lambda: "Not ready, and a roll-out waits" in stage.log())
    code, said = stage.wait(lambda: (found := readyz(stage)) and sentence in found[1] and found)
    assert code == 503
    assert sentence in stage.log()
    assert "wrong-key" not in said + stage.log()
    [message] = stage.queue.peek()
    assert message.delivery_count == 0, "no delivery was spent on it"


def test_a_portal_that_is_down_at_the_start_makes_ready_when_it_is_back_and_later_takes_nothing_away(
    stage: Stage,
) -> None:
    stage.portal.add_fault("status", method="GET", status=503, count=None)
    stage.start()
    stage.wait(lambda: readyz(stage)[0] == 503 and "no answer of the portal since the start" in readyz(stage)[1])
    stage.portal.clear_faults()
    stage.wait(lambda: readyz(stage)[0] == 200)
    stage.portal.add_fault("status", method="GET", status=503, count=None)
    stage.submit("done")
    code, said = stage.wait(lambda: (found := readyz(stage)) and "intake pauses" in found[1] and found)
    assert (code, said.splitlines()[0]) == (200, "ok")


def test_a_pause_holds_for_two_replicas_and_through_a_restart_until_it_is_resumed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pausing, "_ALL_HAVE_LOOKED", 3.0)
    runs = stage.submit("runs")
    first = stage.start()
    stage.start()
    stage.wait(lambda: stage.running(runs))

    code, said, err = stage.cli("drain", "--reason", "storage moves")
    assert code == 0, err
    assert "Nothing is in hand: 2 dispatchers have answered" in said
    assert readyz(stage)[0] == 200, "a roll-out goes on while it is paused"
    assert "storage moves; `dispatcher resume` ends it" in readyz(stage)[1]
    assert stage.metric("intake_paused", reason="operator") == 1
    code, said, _ = stage.cli("check")
    assert "WARN switch of pause: no message is received" in said
    assert "was paused already" in stage.cli("pause")[1]

    first.send_signal(signal.SIGKILL)
    first.wait(10)
    waits = stage.submit("done")
    stage.start()
    stage.wait(lambda: "Intake is paused since" in stage.log() and readyz(stage)[0] == 200)
    stage.delete_job(runs)
    stage.wait_status(runs, "Failed")  # what ends is reported meanwhile
    assert [m.delivery_count for m in stage.queue.peek()] == [0]
    assert stage.job(waits) is None

    code, said, _ = stage.cli("resume")
    assert (code, "it was paused since" in said) == (0, True)
    stage.wait_status(waits, "Completed")
    assert "and was not paused" in stage.cli("resume")[1]
    stage.wait(stage.drained)


def test_drain_waits_for_what_is_in_hand_and_says_what_that_is(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "_ALL_HAVE_LOOKED", 0.0)
    code, _, err = stage.cli("drain")
    assert code == 1
    assert "No dispatcher of namespace" in err
    assert stage.cli("resume")[0] == 0

    stage.portal.add_fault("hang", method="PUT", seconds=6, count=1)
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.job(model))
    assert stage.cli("pause")[0] == 0
    stage.wait(lambda: "Intake is paused" in stage.log())
    code, said, err = stage.cli("drain")
    assert (code, "1 dispatcher has answered" in said) == (0, True)
    assert "1 messages in hand at dispatcher" in err or "1 Jobs being launched" in err
    assert objects.is_launched(stage.job(model) or {})
    code, _, err = stage.cli("drain", "--trainings", "--wait", "1")
    assert code == 1
    assert "1 trainings not ended or not reported" in err


def test_a_kubeconfig_is_all_that_pausing_needs(stage: Stage) -> None:
    nothing = dict.fromkeys(
        ("QUEUE_NAME", "AZURE_STORAGE_CONNECTION_STRING", "API_BASE_URL", "API_KEY", "JOB_TEMPLATE"), ""
    )
    stage.write_template()
    code, said, err = stage.cli("pause", **nothing)
    assert (code, "is paused since" in said) == (0, True), err
    code, said, err = stage.cli("resume", **nothing)
    assert (code, "it was paused since" in said) == (0, True), err
    code, _, err = stage.cli("cancel", "model-1", **nothing)
    assert (code, "QUEUE_NAME" in err) == (1, False)


@pytest.mark.parametrize("command", ["pause", "resume", "drain"])
def test_without_the_switch_or_the_cluster_the_commands_say_whose_turn_it_is(stage: Stage, command: str) -> None:
    stage.cluster.api("DELETE", f"/api/v1/namespaces/{stage.namespace}/configmaps/{names.PAUSE}")
    code, _, err = stage.cli(command)
    assert code == 1
    assert "Apply manifests/base/pause.yaml" in err
    stage.cluster.deny({"verb": "get", "resource": "configmaps", "namespace": stage.namespace})
    code, _, err = stage.cli(command)
    assert (code, err.count("\n")) == (69, 1)
    assert "configmaps" in err


def test_a_dispatcher_of_another_namespace_on_the_same_queue_is_named(stage: Stage) -> None:
    other = f"{stage.namespace}-b"
    stage.cluster.create_namespace(other)
    stage.start(NAMESPACE=other)
    stage.wait(lambda: readyz(stage)[0] == 200 and stage.queue.metadata())
    stage.start()
    stage.wait(lambda: f"Dispatchers of namespace {other} read this queue, too" in stage.log())
    stage.processes[0].stop()
    model = stage.submit("done", status="Processing")
    stage.wait(lambda: f"perhaps a dispatcher of namespace {other}, which reads this queue" in stage.log(), 40)
    assert stage.status(model) == "Processing"
    assert f"WARN readers of the queue: dispatchers of namespace {other}" in stage.cli("check")[1]
    for command in ("status", "explain"):
        assert f"perhaps a dispatcher of namespace {other}, which reads this queue" in stage.cli(command, model)[1]
