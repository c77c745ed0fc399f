"""What a person sees of one training afterwards: its Job's Events, and log lines that name model, Job and message."""

from __future__ import annotations

import json
import signal
from typing import Any

from dispatcher.cluster import names
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage


def reasons(stage: Stage, model: str) -> list[str]:
    """Reasons of our Events on the model's Jobs, in the order in which they were written, each once."""
    found = stage.cluster.api("GET", f"/api/v1/namespaces/{stage.namespace}/events")["items"]
    ours = [
        event
        for event in found
        if (event.get("source") or {}).get("component") == names.MANAGER
        and event["involvedObject"]["name"] == f"model-{model}"
    ]
    ours.sort(key=lambda event: int(objects.meta(event)["resourceVersion"]))
    return [event["reason"] for event in ours]


def test_the_events_of_a_training_are_written_once_and_in_order(stage: Stage) -> None:
    stage.cluster.set_gpus(0)
    try:
        drained, cancelled = stage.submit("runs"), stage.submit("runs")
        stage.start()
        stage.start()
        for model in (drained, cancelled):
            stage.wait(lambda model=model: "Waiting" in reasons(stage, model))
    finally:
        stage.cluster.set_gpus(8)
    stage.wait(lambda: stage.running(drained) and stage.running(cancelled))
    stage.evict(drained)
    assert stage.cli("cancel", cancelled)[0] == 0
    stage.wait(lambda: "Disrupted" in reasons(stage, drained))
    # Between two pods nothing would be ended, and nothing be said of it.
    stage.wait(
        lambda: any("running" in objects.trainer_state(p) for p in stage.pods(drained) if not objects.is_deleting(p))
    )
    stage.portal.add_fault("status", method="PUT", status=503, count=2)
    stage.delete_job(drained)
    stage.wait_status(drained, "Failed")
    stage.wait_status(cancelled, "Failed")
    launch = ["Launched", "Waiting"]
    stage.wait(lambda: reasons(stage, cancelled)[-1] == "Failed")
    told = reasons(stage, cancelled)
    assert [reason for reason in told if reason != "ReportDelayed"] == [*launch, "Cancelled", "Failed"]
    stage.wait(lambda: "Failed" in reasons(stage, drained))
    told = [reason for reason in reasons(stage, drained) if reason != "ReportDelayed"]
    assert told == [*launch, "Disrupted", "Deleted", "Failed"]
    assert "ReportDelayed" in {*reasons(stage, drained), *reasons(stage, cancelled)}


def lines(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stage.log().splitlines()]


def test_a_line_names_its_message_and_job_and_an_idle_dispatcher_logs_nothing(stage: Stage) -> None:
    model, untouched = stage.submit("invalid"), stage.submit("done", status="Completed")
    stage.queue.send("no json")
    service = stage.start(LOG_FORMAT="json", RESYNC_SECONDS="1")
    stage.wait_status(model, "Failed")
    stage.wait(lambda: stage.drained() and stage.poison())
    stage.wait(lambda: any("DatasetInvalid" in line["message"] for line in lines(stage)))
    before, resyncs = len(lines(stage)), stage.metric("watch_restarts_total", kind="jobs", reason="resync")
    # A minute each: a watch is renewed, names and versions are compared. The queue is polled every second.
    stage.wait(lambda: stage.metric("watch_restarts_total", kind="jobs", reason="resync") > resyncs, 90)
    assert [line["message"] for line in lines(stage)[before:]] == []
    service.send_signal(signal.SIGTERM)
    assert service.wait(40) == 0

    spoken = [line for line in lines(stage) if model in line["message"]]
    assert spoken
    for line in spoken:
        assert (line["model"], line["job"], bool(line["message_id"])) == (model, f"model-{model}", True), line
        assert line["attempt"] == 1, line
    launched = {line["message_id"] for line in spoken if "launched" in line["message"]}
    assert {line["message_id"] for line in spoken} == launched, "the launch's lines and those of the report"
    [poisoned] = [line for line in lines(stage) if "NotJson" in line["message"]]
    assert poisoned["message_id"] in poisoned["message"]
    assert (poisoned["level"], poisoned["attempt"]) == ("warning", 1)
    [refused] = [line for line in lines(stage) if "training blocked" in line["message"]]
    assert (refused["level"], refused["model"]) == ("warning", untouched)
    assert all(line["level"] == "info" for line in spoken if "status updated to" in line["message"])
