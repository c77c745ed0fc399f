"""From a message to the portal's last word: what a user gets to read, whatever happens to the Job."""

from __future__ import annotations

import pytest

from dispatcher.cluster import names
from local_stack.http_json import call_json
from tests.world import json_objects as objects
from tests.world.dispatcher_process import SCRIPT, Stage

# Node 1 waits for the others, as a team does; the last one does what the model's id says.
_TOGETHER = f'[ "$NODE_RANK" = 1 ] || {{ trap "exit 143" TERM; while :; do sleep 0.1; done; }}\n{SCRIPT}'


@pytest.mark.parametrize(
    ("kind", "status", "sentence"),
    [
        ("done", "Completed", "Model training completed successfully"),
        ("invalid", "Failed", "Invalid dataset: train.csv: it is empty"),
        ("tail", "Failed", "ValueError: secret sauce missing"),
        ("retry", "Failed", "Storage is out of reach (after 2 attempts)"),
    ],
)
def test_the_end_of_a_training_reaches_the_portal(stage: Stage, kind: str, status: str, sentence: str) -> None:
    model = stage.submit(kind)
    stage.start()
    stage.wait_status(model, status, 60)
    assert sentence in stage.message(model)
    history = [entry.status for entry in stage.portal.model(model).history]
    assert history == ["Created", "Processing", status]
    assert stage.drained()


def test_after_the_report_one_patch_lets_the_job_go(stage: Stage) -> None:
    model = stage.submit("done")
    stage.start(TTL_AFTER_REPORT_SECONDS="200")
    stage.wait_status(model, "Completed")
    job = stage.wait(lambda: (job := stage.job(model)) and objects.is_reported(job) and job)
    assert names.FINALIZER not in (objects.meta(job).get("finalizers") or [])
    assert job["spec"]["ttlSecondsAfterFinished"] == 200
    assert objects.annotation(job, names.REPORTED_AT)


def test_a_deleted_job_is_reported_and_its_pod_stopped(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    stage.delete_job(model)
    stage.wait_status(model, "Failed")
    assert "was deleted at" in stage.message(model)
    stage.wait(lambda: stage.job(model) is None and not stage.pods(model))


def test_a_deletion_while_no_dispatcher_runs_is_reported_by_the_next(stage: Stage) -> None:
    model = stage.submit("runs")
    first = stage.start()
    stage.wait(lambda: stage.running(model))
    assert first.stop() == 0
    stage.delete_job(model)
    assert stage.job(model) is not None, "the finalizer holds it"
    stage.start()
    stage.wait_status(model, "Failed")
    stage.wait(lambda: stage.job(model) is None)


def test_an_image_that_cannot_be_pulled_stops_the_job_first(stage: Stage) -> None:
    stage.template["spec"]["template"]["spec"]["containers"][0]["image"] = "localhost:1/none:1"
    model = stage.submit("done")
    stage.start(IMAGE_PULL_GRACE_SECONDS="1")
    stage.wait_status(model, "Failed")
    assert "localhost:1/none:1 cannot be pulled" in stage.message(model)
    job = stage.wait(lambda: (job := stage.job(model)) and objects.is_finished(job) and job)
    assert objects.condition(job, "Failed")


def test_a_missing_secret_is_named(stage: Stage) -> None:
    container = stage.template["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "API_KEY"}}}]
    model = stage.submit("done")
    stage.start(CONTAINER_CONFIG_GRACE_SECONDS="1")
    stage.wait_status(model, "Failed")
    assert 'secret "gone" not found' in stage.message(model)


def test_a_pod_that_no_node_takes_is_told_and_then_stopped(stage: Stage) -> None:
    model = stage.submit("done", resources={"gpus": 8})
    stage.template["spec"]["template"]["spec"]["nodeSelector"] = {"gpu": "none-such"}
    stage.start(UNSCHEDULABLE_LIMIT_SECONDS="5")
    stage.wait(lambda: stage.message(model).startswith("Waiting for a GPU: 0/1 nodes are available"))
    stage.wait_status(model, "Failed")
    assert "nodes are available" in stage.message(model)


def test_a_quota_is_told_and_waited_for(stage: Stage) -> None:
    stage.cluster.set_quota(stage.namespace, {"requests.nvidia.com/gpu": "0"})
    model = stage.submit("done")
    stage.start()
    stage.wait(lambda: "exceeded quota" in stage.message(model), 45)
    assert stage.status(model) == "Processing"
    stage.cluster.set_quota(stage.namespace, None)
    stage.wait_status(model, "Completed", 60)


def test_a_time_limit_of_the_message_ends_the_training(stage: Stage) -> None:
    model = stage.submit("runs", time_limit_seconds=2)
    stage.start()
    stage.wait_status(model, "Failed")
    assert "time limit of 2 seconds" in stage.message(model)


def test_a_reconfigured_model_replaces_its_old_running_job(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    old = objects.uid_of(stage.job(model) or {})
    stage.portal.set_model(model, "Reconfigure")
    stage.send(model)
    stage.wait(lambda: (job := stage.job(model)) and objects.uid_of(job) != old and stage.running(model), 60)
    assert stage.status(model) == "Processing"
    assert "Failed" not in [entry.status for entry in stage.portal.model(model).history]


def test_a_finished_model_is_trained_again_when_it_is_reconfigured(stage: Stage) -> None:
    model = stage.submit("done")
    stage.start()
    stage.wait_status(model, "Completed")
    stage.wait(lambda: (job := stage.job(model)) and objects.is_reported(job))
    old = objects.uid_of(stage.job(model) or {})
    stage.portal.set_model(model, "Reconfigure")
    stage.send(model)
    stage.wait(lambda: (job := stage.job(model)) and objects.uid_of(job) != old and objects.is_reported(job), 60)
    assert stage.status(model) == "Completed"


def test_a_second_message_for_a_running_model_is_consumed_without_a_second_job(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    uid = objects.uid_of(stage.job(model) or {})
    stage.send(model)
    stage.wait(stage.drained)
    assert objects.uid_of(stage.job(model) or {}) == uid
    assert "status Processing; only Created and Reconfigure may start" in stage.log()


def test_an_outcome_that_the_portal_refuses_is_an_event_and_stays_on_its_job(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    stage.portal.delete_model(model)
    pod = stage.pods(model)[0]
    call_json("POST", f"{stage.cluster.url}/_stub/pods/{stage.namespace}/{objects.name_of(pod)}/evict", {})
    stage.delete_job(model)

    def told() -> bool:
        events = stage.cluster.api("GET", f"/api/v1/namespaces/{stage.namespace}/events")["items"]
        return any(event["reason"] == "ReportDelayed" and "does not know" in event["message"] for event in events)

    stage.wait(told, 60)
    job = stage.wait(lambda: (job := stage.job(model)) and objects.annotation(job, names.REFUSED_AT) and job)
    assert names.FINALIZER in job["metadata"]["finalizers"]
    stage.portal.set_model(model, "Processing")
    stage.wait(lambda: stage.job(model) is None, 60)
    assert stage.status(model) == "Failed"


def test_of_a_team_the_node_is_told_that_failed_and_the_one_that_found_no_place(stage: Stage) -> None:
    stage.template["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", _TOGETHER]
    invalid = stage.submit("invalid", resources={"nodes": 2, "gpus": 1})
    stage.start(MAX_NODES="2", TEAM_WAIT_SECONDS="3")
    stage.wait_status(invalid, "Failed", 60)
    assert stage.message(invalid).startswith("node 2 of 2 (local-node): Invalid dataset: train.csv: it is empty. To")
    job = stage.wait(lambda: (job := stage.job(invalid)) and objects.is_reported(job) and job)
    assert job["status"]["failed"] == 2, "Kubernetes counts the other pod, too"
    large = stage.submit("runs", resources={"nodes": 2, "gpus": 5})
    stage.wait(
        lambda: stage.message(large).startswith("1 of 2 pods run; node 2 of 2: waiting for a GPU: 0/1 nodes"), 60
    )
    stage.wait_status(large, "Failed", 60)
    assert stage.message(large).startswith("1 of 2 pods held a node for 3 seconds while the team was not whole; node 2")
