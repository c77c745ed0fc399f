"""Each terminal signal that a cluster can give, end to end: the code on the Job, the sentence at the portal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher.cluster import names
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage


def reported(stage: Stage, model: str) -> dict[str, Any]:
    """What the one patch noted on the Job."""
    job = stage.wait(lambda: (job := stage.job(model)) and objects.annotation(job, names.REPORTED) and job, 60)
    return dict(json.loads(objects.annotation(job, names.REPORTED) or ""))


def command(stage: Stage, script: str) -> None:
    stage.template["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", script]


def test_out_of_memory_names_the_limit(stage: Stage) -> None:
    container = stage.template["spec"]["template"]["spec"]["containers"][0]
    container["resources"]["limits"]["memory"] = "40Mi"
    stage.template["spec"]["backoffLimit"] = 0
    command(stage, "exec python -c 'import time; hold = bytearray(200_000_000); time.sleep(30)'")
    model = stage.submit("hungry")
    stage.start()
    assert reported(stage, model)["code"] == "OutOfMemory"
    assert "memory limit of 40Mi" in stage.message(model)


def test_a_kill_without_a_reason_is_called_a_kill(stage: Stage) -> None:
    stage.template["spec"]["backoffLimit"] = 0
    command(stage, "kill -9 $$$$")  # $$ is Kubernetes' own way to write a $
    model = stage.submit("killed")
    stage.start()
    assert reported(stage, model)["code"] == "Killed"
    assert "SIGKILL" in stage.message(model)


def test_the_trainers_own_word_on_gpu_memory_is_kept(stage: Stage) -> None:
    word = json.dumps({"message": "Out of GPU memory at batch size 1", "code": "GpuOutOfMemory", "exit": 81})
    command(stage, f"printf '%s' '{word}' > \"$TERMINATION_MESSAGE_PATH\"; exit 81")
    model = stage.submit("gpu")
    stage.start()
    assert reported(stage, model)["code"] == "GpuOutOfMemory"
    assert stage.message(model).startswith("Out of GPU memory at batch size 1. To train it again, set the model to")


def test_a_drained_node_costs_no_attempt_and_is_retried(stage: Stage) -> None:
    stage.template["spec"]["backoffLimit"] = 0
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    first = {objects.uid_of(pod) for pod in stage.pods(model)}
    stage.evict(model)
    stage.wait(lambda: any(objects.uid_of(p) not in first for p in stage.pods(model)) and stage.running(model), 60)
    assert stage.status(model) == "Processing"
    job = stage.wait(lambda: (job := stage.job(model)) and objects.annotation(job, names.DISRUPTED) and job)
    assert set(json.loads(objects.annotation(job, names.DISRUPTED) or "")) == first


def test_a_job_that_is_disrupted_for_ever_ends_with_the_last_reason(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start(MAX_DISRUPTIONS="1")
    for _ in range(2):
        stage.wait(lambda: stage.running(model) and _alive(stage, model) == 1, 60)
        stage.evict(model)
    assert reported(stage, model)["code"] == "Drained"
    assert "disrupted 2 times; the limit is 1" in stage.message(model)


def _alive(stage: Stage, model: str) -> int:
    return sum(not objects.pod_is_over(p) and not objects.is_deleting(p) for p in stage.pods(model))


def test_a_kubelets_eviction_quotes_the_kubelet(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start(MAX_DISRUPTIONS="1")
    for number in (1, 2):
        stage.wait(lambda: stage.running(model) and _alive(stage, model) == 1, 60)
        [pod] = [p for p in stage.pods(model) if not objects.pod_is_over(p)]
        text = f"The node was low on resource: ephemeral-storage. Container trainer was using {number}Gi."
        stage.cluster.evict_by_kubelet(stage.namespace, objects.name_of(pod), message=text)
    assert reported(stage, model)["code"] == "Evicted"
    assert "ephemeral-storage" in stage.message(model)


def test_a_node_that_refuses_the_pod_is_retried_before_it_is_told(stage: Stage) -> None:
    text = "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu"
    stage.cluster.reject_next_pods(1, message=text)
    model = stage.submit("done")
    stage.start()
    stage.wait_status(model, "Completed", 60)
    stage.cluster.reject_next_pods(2, message=text)
    second = stage.submit("done")
    assert reported(stage, second)["code"] == "NodeRejected"
    assert "no healthy devices" in stage.message(second)


@pytest.fixture
def lost_node(stage: Stage) -> Iterator[Stage]:
    yield stage
    stage.cluster.return_node()


def test_a_lost_node_is_retried_elsewhere_when_it_comes_back(lost_node: Stage) -> None:
    stage = lost_node
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    stage.cluster.lose_node(kill=True, evict_after=0.5)
    stage.wait(lambda: any(objects.condition(pod, "DisruptionTarget") for pod in stage.pods(model)))
    assert stage.status(model) == "Processing"
    stage.cluster.return_node()
    stage.wait(lambda: stage.running(model) and _alive(stage, model) == 1, 60)
    job = stage.wait(lambda: (job := stage.job(model)) and objects.annotation(job, names.DISRUPTED) and job)
    assert len(json.loads(objects.annotation(job, names.DISRUPTED) or "")) == 1


def test_a_program_that_exits_0_on_sigterm_is_not_called_completed(stage: Stage) -> None:
    command(stage, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    model = stage.submit("polite")
    stage.start()
    stage.wait(lambda: stage.running(model))
    stage.evict(model)
    assert reported(stage, model)["code"] == "Interrupted"
    assert stage.status(model) == "Failed"


def test_a_pod_that_the_api_server_refuses_is_waited_for_and_then_told(stage: Stage) -> None:
    stage.template["spec"]["template"]["spec"]["serviceAccountName"] = "never-made"
    model = stage.submit("done")
    stage.start(POD_CREATE_GRACE_SECONDS="5")
    assert reported(stage, model)["code"] == "PodCreateDenied"
    assert "never-made" in stage.message(model)


def test_an_image_with_an_invalid_name_is_told_at_once(stage: Stage) -> None:
    stage.template["spec"]["template"]["spec"]["containers"][0]["image"] = "UPPER CASE"
    model = stage.submit("done")
    stage.start()
    assert reported(stage, model)["code"] == "ImagePull"
    assert "invalid name" in stage.message(model)


def test_a_registrys_rate_limit_is_waited_out(stage: Stage) -> None:
    image = "registry.example/limited:1"
    stage.cluster.set_image(image, pull_error="429 Too Many Requests: toomanyrequests: rate limit exceeded")
    stage.template["spec"]["template"]["spec"]["containers"][0]["image"] = image
    model = stage.submit("done")
    stage.start(IMAGE_PULL_GRACE_SECONDS="1")
    stage.wait(lambda: "toomanyrequests" in stage.message(model), 60)
    stage.cluster.set_image(image)
    stage.wait_status(model, "Completed", 90)


def test_a_node_that_shuts_down_is_told_as_such_when_it_goes_on_for_ever(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start(MAX_DISRUPTIONS="1")
    for _ in range(2):
        stage.wait(lambda: stage.running(model) and _alive(stage, model) == 1, 60)
        [pod] = [p for p in stage.pods(model) if not objects.pod_is_over(p)]
        text = "Pod was terminated in response to imminent node shutdown."
        stage.cluster.evict_by_kubelet(stage.namespace, objects.name_of(pod), reason="Terminated", message=text)
    assert reported(stage, model)["code"] == "NodeShutdown"


def test_a_pod_of_higher_priority_costs_no_attempt_and_is_told_when_it_goes_on_for_ever(stage: Stage) -> None:
    stage.template["spec"]["backoffLimit"] = 0
    stage.template["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "8"
    model = stage.submit("runs")
    stage.start(MAX_DISRUPTIONS="1")
    for number in (1, 2):
        stage.wait(lambda: stage.running(model) and _alive(stage, model) == 1, 60)
        rival = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"rival-{number}"},
            "spec": {
                "priority": 1000,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "rival",
                        "image": "script:local",
                        "command": ["sh", "-c", "sleep 60"],
                        "resources": {"limits": {"nvidia.com/gpu": "8"}},
                    }
                ],
            },
        }
        path = f"/api/v1/namespaces/{stage.namespace}/pods"
        stage.cluster.api("POST", path, rival)
        its = f"{path}/rival-{number}"
        stage.wait(lambda its=its: objects.pod_phase(stage.cluster.api("GET", its)) == "Running", 60)
        stage.cluster.api("DELETE", its)
    told = reported(stage, model)
    assert told["code"] == "Preempted", told
    assert "higher priority" in stage.message(model)
