"""Indexed Jobs: what a training on several nodes needs of the Job controller and the API server."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.world.kube import WAIT, Kube, Obj, container_state, find, is_running, wait_until

Names = Callable[[], str]

INDEX = "batch.kubernetes.io/job-completion-index"
RUNS = "trap 'exit 143' TERM; sleep 600 & wait"


def team(nodes: int, **spec: Any) -> Obj:
    """The parts of a Job's spec that make it one for several nodes."""
    return {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes, **spec}


def index_of(pod: Obj) -> int:
    return int(pod["metadata"]["annotations"][INDEX])


def running(kube: Kube, name: str, *indexes: int) -> dict[int, Obj]:
    """The Job's running pods by index, once there is one for each of `indexes` and nothing else runs."""

    def found() -> dict[int, Obj] | None:
        pods = [pod for pod in kube.pods(name) if is_running(pod) and "deletionTimestamp" not in pod["metadata"]]
        return {index_of(pod): pod for pod in pods} if sorted(map(index_of, pods)) == sorted(indexes) else None

    return wait_until(found, WAIT, what=lambda: f"running pods {indexes} of {name}: {kube.pods(name)}")


def test_every_container_of_every_pod_knows_its_index_and_the_host_name_that_goes_with_it(
    kube: Kube, job: Names
) -> None:
    name = job()
    by_annotation = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    variables = [
        {"name": "NODE_RANK", "valueFrom": by_annotation},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    check = '[ "$JOB_COMPLETION_INDEX" = "$NODE_RANK" ]'
    init = {"name": "setup", "image": kube.image, "env": variables, "command": ["/bin/sh", "-c", check]}
    pod = {"subdomain": "model-training", "initContainers": [init], "container": {"env": variables}}
    path = "${TERMINATION_MESSAGE_PATH:-/dev/termination-log}"
    kube.start(name, f'{check} && printf "$HOSTNAME $POD_IP" > {path}', pod=pod, **team(3))
    done = kube.wait_job(name, "Complete")
    assert (done["status"]["completedIndexes"], done["status"]["succeeded"]) == ("0-2", 3)
    pods = {index_of(pod): pod for pod in kube.pods(name)}
    assert sorted(pods) == [0, 1, 2]
    for index, made in pods.items():
        assert made["metadata"]["labels"][INDEX] == str(index)
        assert re.fullmatch(rf"{name}-{index}-[a-z0-9]{{5}}", made["metadata"]["name"])
        assert (made["spec"]["hostname"], made["spec"]["subdomain"]) == (f"{name}-{index}", "model-training")
        for container in (*made["spec"]["initContainers"], *made["spec"]["containers"]):
            [own] = [entry for entry in container["env"] if entry["name"] == "JOB_COMPLETION_INDEX"]
            assert own["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.labels['{INDEX}']"
        said = container_state(made)["terminated"]["message"]
        assert said == f"{name}-{index} {made['status']['podIP']}"


def test_a_pod_that_is_deleted_is_replaced_by_one_of_its_index_once_it_has_ended_and_the_others_stay(
    kube: Kube, job: Names
) -> None:
    name = job()
    slow_end = {"terminationGracePeriodSeconds": 10}
    kube.start(name, "trap 'sleep 1; exit 143' TERM; sleep 600 & wait", pod=slow_end, **team(2, backoffLimit=2))
    first = running(kube, name, 0, 1)
    with kube.watching("pods", labelSelector=f"batch.kubernetes.io/job-name={name}") as events:
        kube.delete("pods", first[0]["metadata"]["name"])
        wait_until(lambda: any(event["type"] == "ADDED" for event in events), WAIT)
        second = running(kube, name, 0, 1)
    assert second[1]["metadata"]["uid"] == first[1]["metadata"]["uid"]
    assert second[0]["metadata"]["uid"] != first[0]["metadata"]["uid"]
    assert second[0]["spec"]["hostname"] == first[0]["spec"]["hostname"]
    uid = first[0]["metadata"]["uid"]
    ended = [
        at
        for at, event in enumerate(events)
        if event["object"]["metadata"]["uid"] == uid and event["object"]["status"]["phase"] == "Failed"
    ]
    added = [at for at, event in enumerate(events) if event["type"] == "ADDED"]
    assert ended[0] < added[0]
    now = kube.get("jobs", name)
    assert now
    assert (now["status"]["failed"], now["status"].get("completedIndexes")) == (1, None)


def test_an_evicted_pod_of_a_team_is_a_disruption_that_does_not_count(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, RUNS, **team(2))
    first = running(kube, name, 0, 1)
    pod = first[1]["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    assert kube.call("POST", kube.path("pods", pod) + "/eviction", body).code == 201
    kube.wait_gone("pods", pod)
    second = running(kube, name, 0, 1)
    assert second[0]["metadata"]["uid"] == first[0]["metadata"]["uid"]
    now = kube.get("jobs", name)
    assert now
    assert "failed" not in now["status"]


def test_the_limit_of_retries_counts_the_failures_of_all_indexes(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 201", **team(2, backoffLimit=1))
    failed = kube.wait_job(name, "Failed")
    assert find(failed, "Failed")["reason"] == "BackoffLimitExceeded"
    assert failed["status"]["failed"] >= 2
    assert "completedIndexes" not in failed["status"]


def test_an_exit_code_that_fails_the_job_ends_the_pods_of_the_other_indexes(kube: Kube, job: Names) -> None:
    name = job()
    script = f'[ "$JOB_COMPLETION_INDEX" = 1 ] && sleep 1 && exit 66; {RUNS}'
    kube.start(name, script, **team(2, backoffLimit=3))
    failed = kube.wait_job(name, "Failed")
    assert find(failed, "Failed")["reason"] == "PodFailurePolicy"
    message = find(failed, "Failed")["message"]
    where = rf"Container trainer for pod {kube.namespace}/{name}-1-[a-z0-9]{{5}} failed with exit code 66 matching"
    assert re.fullmatch(rf"{where} FailJob rule at index 1", message)
    # The other one is counted, too, and is being removed.
    assert failed["status"]["failed"] == 2
    assert failed["status"]["terminating"] == 0
    assert [index_of(pod) for pod in kube.pods(name) if "deletionTimestamp" not in pod["metadata"]] == [1]


def test_an_index_that_has_succeeded_is_not_run_again_after_a_suspension_and_alone_completes_nothing(
    kube: Kube, job: Names
) -> None:
    name = job()
    kube.start(name, f'[ "$JOB_COMPLETION_INDEX" = 0 ] && exit 0; {RUNS}', **team(3))
    first = running(kube, name, 1, 2)

    def counted() -> Obj | None:
        now = kube.get("jobs", name)
        return now if now and now["status"].get("succeeded") else None

    now = wait_until(counted, WAIT)
    assert now["status"]["completedIndexes"] == "0"
    assert not find(now, "Complete")
    kube.patch("jobs", name, {"spec": {"suspend": True}})
    kube.wait_job(name, "Suspended")
    for pod in first.values():
        kube.wait_gone("pods", pod["metadata"]["name"])
    kube.patch("jobs", name, {"spec": {"suspend": False}})
    second = running(kube, name, 1, 2)
    assert {pod["metadata"]["uid"] for pod in second.values()}.isdisjoint(
        pod["metadata"]["uid"] for pod in first.values()
    )
    resumed = kube.get("jobs", name)
    assert resumed
    assert (resumed["status"]["completedIndexes"], resumed["status"].get("failed")) == ("0", None)


def test_a_team_that_is_made_smaller_loses_the_pods_of_its_last_indexes(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, RUNS, **team(2))
    first = running(kube, name, 0, 1)
    refused = kube.patch("jobs", name, {"spec": {"completions": 1}})
    assert (refused.code, refused.reason) == (422, "Invalid")
    assert "can only be modified in tandem with spec.parallelism" in refused.message
    assert kube.patch("jobs", name, {"spec": {"completions": 1, "parallelism": 1}}).code == 200
    left = running(kube, name, 0)
    assert left[0]["metadata"]["uid"] == first[0]["metadata"]["uid"]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"completions": None}, "spec.completions", "when completion mode is Indexed"),
        ({"parallelism": 100_001}, "spec.parallelism", "must be less than or equal to 100000"),
    ],
)
def test_an_indexed_job_has_to_say_how_many_indexes_it_has(
    kube: Kube, job: Names, change: Obj, field: str, words: str
) -> None:
    body = kube.job_body(job(), "exit 0", **team(2), **{"suspend": True})
    body["spec"].update(change)
    answer = kube.call("POST", kube.path("jobs"), body)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert any(words in cause["message"] for cause in answer.body["details"]["causes"] if cause["field"] == field)


@pytest.mark.parametrize(("length", "nodes", "code"), [(61, 10, 201), (61, 11, 422), (62, 1, 422)])
def test_the_name_of_an_indexed_job_leaves_room_for_its_last_index_in_a_host_name(
    kube: Kube, job: Names, length: int, nodes: int, code: int
) -> None:
    name = job().ljust(length, "x")
    answer = kube.call("POST", kube.path("jobs"), kube.job_body(name, "exit 0", **team(nodes, suspend=True)))
    kube.clear(name)
    assert answer.code == code, answer.message
    if code != 201:
        assert f"will not able to create pod with invalid DNS label: {name}-{nodes - 1}" in answer.message


def test_a_job_does_not_become_an_indexed_one(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    for change in ({"completionMode": "Indexed"}, {"completions": 2, "parallelism": 2}):
        answer = kube.patch("jobs", name, {"spec": change})
        assert (answer.code, answer.reason) == (422, "Invalid")
        assert "field is immutable" in answer.message
