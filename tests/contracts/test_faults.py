"""The stand-in's own powers, which the dispatcher's tests use: skipped on a real cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import urllib3

from local_stack.cluster.client import StandInCluster, start_cluster
from tests.world.kube import Kube, container_state, find, is_running, wait_until

Names = Callable[[], str]


def test_a_scripted_status_is_answered_as_often_as_asked(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    name = job()
    stand_in.fail("create", "jobs", status=429, retry_after=7, count=2)
    for _ in range(2):
        answer = kube.call("POST", kube.path("jobs"), kube.job_body(name, "exit 0", suspend=True))
        assert (answer.code, answer.reason, answer.headers["retry-after"]) == (429, "TooManyRequests", "7")
    assert kube.get("jobs", name) is None
    kube.start(name, "exit 0", suspend=True)


def test_a_fault_after_the_call_leaves_the_object_there(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    name = job()
    stand_in.fail("create", "jobs", status=504, after=True)
    assert kube.call("POST", kube.path("jobs"), kube.job_body(name, "exit 0", suspend=True)).code == 504
    assert kube.get("jobs", name)
    stand_in.cut("patch", "jobs", name=name, after=True)
    with pytest.raises(urllib3.exceptions.HTTPError):
        kube.patch("jobs", name, {"metadata": {"annotations": {"a": "1"}}})
    now = kube.get("jobs", name)
    assert now
    assert now["metadata"]["annotations"] == {"a": "1"}


def test_a_call_that_hangs_is_the_clients_to_give_up(kube: Kube, stand_in: StandInCluster) -> None:
    stand_in.hang("list", "jobs")
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        kube.call("GET", kube.path("jobs"), timeout=0.3)
    assert kube.list_all("jobs") is not None


def test_a_denied_verb_is_forbidden_in_kubernetes_words(kube: Kube, stand_in: StandInCluster) -> None:
    stand_in.deny({"verb": "create", "resource": "jobs"})
    answer = kube.call("POST", kube.path("jobs"), kube.job_body("model-denied", "exit 0"))
    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert answer.message.startswith("jobs.batch is forbidden: User ")
    assert answer.message.endswith(
        f'cannot create resource "jobs" in API group "batch" in the namespace "{kube.namespace}"'
    )
    attributes = {"verb": "create", "resource": "jobs", "group": "batch", "namespace": kube.namespace}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    review = kube.call("POST", path, {"spec": {"resourceAttributes": attributes}})
    assert review.body["status"]["allowed"] is False


def test_calls_are_counted_by_verb_and_resource(kube: Kube, stand_in: StandInCluster) -> None:
    stand_in.clear_calls()
    kube.list_all("jobs")
    kube.list_all("jobs")
    kube.get("pods", "none")
    assert stand_in.calls() == {"list jobs": 2, "get pods": 1}


def test_a_cut_watch_breaks_its_connection(kube: Kube, stand_in: StandInCluster) -> None:
    watch = kube.watch("leases", 30)
    stand_in.clear_calls()

    def read() -> None:
        for _ in watch:
            raise AssertionError("nothing happens to leases here")

    import threading

    failed: list[BaseException] = []

    def run() -> None:
        try:
            read()
        except urllib3.exceptions.HTTPError as why:
            failed.append(why)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: "leases" in stand_in.open_watches())
    assert stand_in.cut_watches("leases") == 1
    thread.join(timeout=10)
    assert failed


def test_a_silent_watch_stays_open_and_tells_nothing(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    import threading

    name = job()
    found: list[str] = []
    watch = kube.watch("jobs", 0.5, fieldSelector=f"metadata.name={name}", resourceVersion="0")

    def run() -> None:
        try:
            found.extend(event["type"] for event in watch)
        except urllib3.exceptions.HTTPError:
            found.append("broken")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: "jobs" in stand_in.open_watches())
    stand_in.silence_watches("jobs")
    kube.start(name, "exit 0", suspend=True)
    kube.wait_job(name, "Suspended")
    time.sleep(1.0)
    assert found == []
    assert thread.is_alive()
    stand_in.cut_watches("jobs")
    thread.join(timeout=10)
    assert found == ["broken"]


def test_a_pod_waits_until_gpus_are_there(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    name = job()
    stand_in.set_gpus(0)
    try:
        kube.start(name, "exit 0", pod={"container": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}})
        kube.wait_pod(name, lambda pod: find(pod, "PodScheduled").get("reason") == "Unschedulable")
    finally:
        stand_in.set_gpus(8)
    kube.wait_job(name, "Complete")


def test_a_pod_evicted_by_the_kubelet_fails_with_its_reason(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 600", backoffLimit=0)
    first = kube.wait_pod(name, is_running)["metadata"]
    stand_in.evict_by_kubelet(kube.namespace, first["name"])
    wait_until(lambda: (kube.get("pods", first["name"]) or {})["status"]["phase"] == "Failed")
    pod = kube.get("pods", first["name"])
    assert pod
    assert pod["status"]["reason"] == "Evicted"
    assert "low on resource: memory" in pod["status"]["message"]
    assert find(pod, "DisruptionTarget")["reason"] == "TerminationByKubelet"
    kube.wait_pod(name, lambda pod: pod["metadata"]["uid"] != first["uid"] and is_running(pod))


def test_a_pod_refused_by_its_node_has_no_container_status(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    name = job()
    stand_in.reject_next_pods()
    kube.start(name, "exit 0", backoffLimit=0)
    pod = kube.wait_pod(name, lambda pod: pod["status"]["phase"] == "Failed")
    assert pod["status"]["reason"] == "UnexpectedAdmissionError"
    assert "containerStatuses" not in pod["status"]
    assert find(kube.wait_job(name, "Failed"), "Failed")["reason"] == "BackoffLimitExceeded"


def test_a_lost_nodes_pod_stays_terminating_until_the_node_is_back(
    kube: Kube, stand_in: StandInCluster, job: Names
) -> None:
    name = job()
    kube.start(name, "sleep 600", backoffLimit=0)
    first = kube.wait_pod(name, is_running)["metadata"]
    stand_in.lose_node(evict_after=0)
    try:
        pod = kube.wait_pod(name, lambda pod: pod["metadata"].get("deletionTimestamp"))
        assert find(pod, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
        assert pod["status"]["phase"] == "Running"
    finally:
        stand_in.return_node()
    kube.wait_gone("pods", first["name"])
    kube.wait_pod(name, is_running)


def test_a_pull_error_can_be_any_text_and_can_pass(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    name, image = job(), "registry.example/limited:1"
    stand_in.set_image(image, pull_error="toomanyrequests: You have reached your pull rate limit")
    kube.start(name, "exit 0", pod={"container": {"image": image}})
    pod = kube.wait_pod(
        name, lambda pod: "waiting" in container_state(pod) and "message" in container_state(pod)["waiting"]
    )
    assert "toomanyrequests" in container_state(pod)["waiting"]["message"]
    stand_in.set_image(image)
    kube.wait_job(name, "Complete")
    stand_in.set_image(image, absent=True)


def test_an_instant_image_ends_as_its_annotations_say(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    name, image = job(), "instant:1"
    stand_in.set_image(image, instant=True)
    body = kube.job_body(name, "exit 0", pod={"container": {"image": image}})
    notes = {"stand-in/exit": "66", "stand-in/message": "as told", "stand-in/seconds": "0.1"}
    body["spec"]["template"]["metadata"] = {"annotations": notes}
    kube.create("jobs", body)
    kube.wait_job(name, "Failed")
    ended = container_state(kube.pods(name)[0])["terminated"]
    assert (ended["exitCode"], ended["message"]) == (66, "as told")


def test_a_lost_nodes_process_goes_on_beside_its_replacement(tmp_path: Path) -> None:
    with start_cluster(
        tmp_path, "--node", "a=1", "--node", "b=1", "--job-backoff", "0.1", images={"shell:1": None}
    ) as it:
        kube = Kube(it.kubeconfig, "default", "shell:1")
        gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
        beat = tmp_path / "beat"
        script = f"while true; do echo $POD >> {beat}; sleep 0.05; done"
        env = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        kube.start("model-1", script, pod={"container": {**gpu, "env": env}})
        first = kube.wait_pod("model-1", is_running)
        node, name = first["spec"]["nodeName"], first["metadata"]["name"]
        it.remove_node(node)
        second = kube.wait_pod("model-1", lambda pod: pod["metadata"]["name"] != name and is_running(pod))
        assert second["spec"]["nodeName"] != node
        wait_until(lambda: second["metadata"]["name"] in beat.read_text())
        beat.write_text("")
        wait_until(lambda: {name, second["metadata"]["name"]} <= set(beat.read_text().split()))
        it.return_node(node)

        def silent() -> bool:
            beat.write_text("")
            wait_until(lambda: second["metadata"]["name"] in beat.read_text())
            return name not in beat.read_text()

        wait_until(silent)


def test_a_container_is_restarted_in_its_pod_when_its_policy_says_so(
    kube: Kube, stand_in: StandInCluster, job: Names
) -> None:
    del stand_in  # a real kubelet waits ten seconds
    name = job()
    body = kube.job_body(name, "test -e again || { touch again; exit 1; }", pod={"restartPolicy": "OnFailure"})
    del body["spec"]["podFailurePolicy"]
    body["spec"]["backoffLimit"] = 3
    kube.create("jobs", body)
    kube.wait_job(name, "Complete")
    status = kube.pods(name)[0]["status"]["containerStatuses"][0]
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 1
