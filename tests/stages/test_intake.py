"""Messages: good ones among bad ones, a stop and a kill while some are being handled."""

from __future__ import annotations

import base64
import json
import signal
from itertools import groupby

from local_stack.http_json import OPENER
from tests.world.dispatcher_process import Stage


def test_bad_messages_go_to_the_poison_queue_and_spoil_nothing_else(stage: Stage) -> None:
    bad = {
        "neither JSON nor base64 \u2603": "NotJson",
        "[1]": "NotAnObject",
        '{"task": "predict", "model_container_name": "model-1"}': "UnknownTask",
        '{"task": "train"}': "MissingField",
        '{"task": "train", "model_container_name": "training-1"}': "InvalidContainerName",
        '{"task": "train", "model_container_name": "model-1", "resources": {"gpus": 99}}': "InvalidField",
    }
    for text in bad:
        stage.queue.send(text)
    good = [stage.submit("done") for _ in range(2)]
    text = json.dumps({"task": "train", "model_container_name": f"model-{good[0]}"})
    encoded = stage.submit("done")
    stage.queue.send(base64.b64encode(text.replace(good[0], encoded).encode()).decode())
    stage.start()
    for model in [*good, encoded]:
        stage.wait_status(model, "Completed", 60)
    stage.wait(stage.drained)
    found = {entry.original: entry for entry in stage.poison()}
    assert {text: entry.code for text, entry in found.items()} == bad
    assert all(entry.sentence and entry.poisoned_at and entry.delivery_count == 1 for entry in found.values())
    assert "No model ID extracted: Model container name 'training-1' does not start with 'model-'" in stage.log()


def test_a_model_that_the_portal_does_not_know_is_tried_again_and_then_told(stage: Stage) -> None:
    stage.send("unknown-1")
    stage.start(MAX_DELIVERIES="2")
    entries = stage.wait(stage.poison, 40)
    assert [entry.code for entry in entries] == ["ModelUnknown"]
    assert entries[0].delivery_count == 2


def test_models_that_may_not_start_are_refused_without_a_job(stage: Stage) -> None:
    models = {status: stage.submit("done", status) for status in ("Processing", "Completed", "Failed")}
    stage.start()
    stage.wait(stage.drained)
    for status, model in models.items():
        assert stage.status(model) == status
        assert f"Model {model}: training blocked (refuse): status {status}" in stage.log()
    assert stage.cluster.jobs(stage.namespace) == []
    assert not stage.poison()


def test_sigterm_finishes_the_launches_under_way_and_leaves_jobs_alone(stage: Stage) -> None:
    running = stage.submit("runs")
    service = stage.start()
    stage.wait(lambda: stage.running(running))
    stage.portal.add_fault("hang", method="GET", seconds=2, count=1)
    slow = stage.submit("runs")
    stage.wait(lambda: not stage.queue.peek())
    service.send_signal(signal.SIGTERM)
    assert service.wait(40) == 0
    assert stage.running(running)
    launched = stage.job(slow) is not None
    assert launched != bool(stage.queue.depth()), "either launched, or still on the queue: never lost, never both"


def test_a_kill_while_messages_are_handled_loses_none(stage: Stage) -> None:
    models = [stage.submit("done") for _ in range(20)]
    first = stage.start(VISIBILITY_TIMEOUT_SECONDS="10")
    stage.wait(lambda: any(stage.job(model) for model in models))
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    stage.start(VISIBILITY_TIMEOUT_SECONDS="10")
    for model in models:
        stage.wait_status(model, "Completed", 90)
        processings = [e for e in stage.portal.model(model).history if e.status == "Completed"]
        assert len(processings) == 1
    stage.wait(stage.drained)
    assert not stage.poison()


def test_two_dispatchers_share_a_queue_and_double_nothing(stage: Stage) -> None:
    models = [stage.submit("done") for _ in range(30)]
    for model in models[:10]:
        stage.send(model)
    stage.start()
    stage.start()
    for model in models:
        stage.wait_status(model, "Completed", 90)
        history = [e.status for e in stage.portal.model(model).history]
        # Where the launching replica gets no core for seconds, the other one tells the same outcome beside it.
        assert [status for status, _ in groupby(history)] == ["Created", "Processing", "Completed"]
        assert history.count("Processing") == 1
    stage.wait(stage.drained)


def test_probes_and_metrics_answer(stage: Stage) -> None:
    model = stage.submit("done")
    stage.start()
    stage.wait_status(model, "Completed")

    def get(path: str) -> str:
        with OPENER.open(f"http://127.0.0.1:{stage.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    assert get("/livez") == "ok\n"
    assert get("/readyz") == "ok\n"
    stage.wait(lambda: 'training_dispatcher_outcomes_total{code="Completed",fault="none"} 1.0' in get("/metrics"))
    assert 'training_dispatcher_messages_total{result="launch"} 1.0' in get("/metrics")
