"""The Job controller: conditions and their order, retries, suspension, deadlines, deletion, clean-up."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.world.kube import FINALIZER, Kube, Obj, container_state, find, is_running, wait_until

Names = Callable[[], str]


def _reasons(kube: Kube, name: str) -> set[str]:
    return {event["reason"] for event in kube.events(name)}


def test_a_job_that_succeeds_carries_both_conditions_and_its_times(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0")
    done = kube.wait_job(name, "Complete")
    assert [condition["type"] for condition in done["status"]["conditions"]] == [
        "SuccessCriteriaMet",
        "Complete",
    ]
    assert find(done, "Complete")["reason"] == "CompletionsReached"
    status = done["status"]
    assert status["succeeded"] == 1
    assert status["completionTime"] >= status["startTime"]
    assert status["uncountedTerminatedPods"] == {}
    assert "active" not in status
    wait_until(lambda: {"SuccessfulCreate", "Completed"} <= _reasons(kube, name))
    pod = kube.pod(name)
    assert pod
    assert not pod["metadata"].get("finalizers")
    assert pod["metadata"]["ownerReferences"][0]["uid"] == done["metadata"]["uid"]


def test_a_permanent_exit_code_fails_the_job_at_once(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 66", backoffLimit=3)
    failed = kube.wait_job(name, "Failed")
    assert find(failed, "Failed")["reason"] == "PodFailurePolicy"
    assert find(failed, "FailureTarget")["status"] == "True"
    pods = kube.pods(name)
    assert len(pods) == 1
    where = f"{kube.namespace}/{pods[0]['metadata']['name']}"
    assert find(failed, "Failed")["message"] == (
        f"Container trainer for pod {where} failed with exit code 66 matching FailJob rule at index 1"
    )
    wait_until(lambda: "PodFailurePolicy" in _reasons(kube, name))


def test_a_retryable_exit_code_is_tried_again_until_the_limit(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 201", backoffLimit=1)
    failed = kube.wait_job(name, "Failed")
    assert find(failed, "Failed")["reason"] == "BackoffLimitExceeded"
    assert find(failed, "Failed")["message"] == "Job has reached the specified backoff limit"
    assert failed["status"]["failed"] == 2
    assert len(kube.pods(name)) == 2


def test_a_suspended_job_has_no_pod_until_one_merge_patch_resumes_it(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    suspended = kube.wait_job(name, "Suspended")
    assert "startTime" not in suspended["status"]
    assert kube.pods(name) == []
    kube.patch("jobs", name, {"spec": {"suspend": False}})
    done = kube.wait_job(name, "Complete")
    resumed = find(done, "Suspended")
    assert (resumed["status"], resumed["reason"]) == ("False", "JobResumed")
    assert done["metadata"]["generation"] == 2


def test_suspending_a_running_job_deletes_its_pod_and_counts_no_failure(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 600")
    first = kube.wait_pod(name, is_running)
    kube.patch("jobs", name, {"spec": {"suspend": True}})
    kube.wait_job(name, "Suspended")
    kube.wait_gone("pods", first["metadata"]["name"])
    kube.patch("jobs", name, {"spec": {"suspend": False}})
    second = kube.wait_pod(name, is_running)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    now = kube.get("jobs", name)
    assert now
    assert "failed" not in now["status"]


def test_a_deadline_ends_the_pod_then_the_job(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 600", activeDeadlineSeconds=1)
    failed = kube.wait_job(name, "Failed")
    assert find(failed, "FailureTarget")["reason"] == find(failed, "Failed")["reason"] == "DeadlineExceeded"
    assert find(failed, "Failed")["message"] == "Job was active longer than specified deadline"
    assert failed["status"]["terminating"] == 0


def test_a_deadline_set_later_stops_a_job_that_would_go_on(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 600")
    kube.wait_pod(name, is_running)
    kube.patch("jobs", name, {"spec": {"activeDeadlineSeconds": 1}})
    assert find(kube.wait_job(name, "Failed"), "Failed")["reason"] == "DeadlineExceeded"


def test_a_deleted_job_with_a_finalizer_keeps_its_pod_running(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 600", finalizer=True)
    pod = kube.wait_pod(name, is_running)["metadata"]
    answer = kube.delete("jobs", name, propagationPolicy="Background")
    assert answer.body["metadata"]["deletionTimestamp"]
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        now = kube.get("pods", pod["name"])
        assert now
        assert is_running(now)
        assert "deletionTimestamp" not in now["metadata"]
        time.sleep(0.2)
    kube.patch("jobs", name, {"metadata": {"finalizers": None}})
    kube.wait_gone("jobs", name)
    kube.wait_gone("pods", pod["name"])


def test_pods_of_a_deleted_job_are_not_replaced(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 600", finalizer=True, backoffLimit=3)
    pod = kube.wait_pod(name, is_running)["metadata"]["name"]
    kube.delete("jobs", name, propagationPolicy="Background")
    kube.delete("pods", pod)
    kube.wait_gone("pods", pod)

    def quiet() -> Obj | None:
        now = kube.get("jobs", name)
        assert now
        return now if now["status"].get("terminating") == 0 and "active" not in now["status"] else None

    wait_until(quiet)
    assert kube.pods(name) == []
    assert not find(kube.get("jobs", name) or {}, "Failed")


def test_one_patch_after_the_report_lets_the_finished_job_go(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", finalizer=True)
    kube.wait_job(name, "Complete")
    pod = kube.pods(name)[0]["metadata"]["name"]
    patch = {
        "metadata": {"finalizers": None, "annotations": {"training-dispatcher/reported": "Completed"}},
        "spec": {"ttlSecondsAfterFinished": 1},
    }
    answer = kube.patch("jobs", name, patch)
    assert answer.code == 200
    assert "finalizers" not in answer.body["metadata"]
    kube.wait_gone("jobs", name)
    kube.wait_gone("pods", pod)


def test_a_ttl_does_not_remove_a_job_that_was_not_reported(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", finalizer=True, ttlSecondsAfterFinished=0)
    kube.wait_job(name, "Complete")

    def marked() -> Obj | None:
        now = kube.get("jobs", name)
        assert now
        return now if now["metadata"].get("deletionTimestamp") else None

    marked_job = wait_until(marked)
    assert FINALIZER in marked_job["metadata"]["finalizers"]
    assert find(marked_job, "Complete")["status"] == "True"


def test_a_plain_delete_of_a_job_orphans_its_pods_and_warns(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0")
    kube.wait_job(name, "Complete")
    pod = kube.pods(name)[0]["metadata"]["name"]
    answer = kube.call("DELETE", kube.path("jobs", name))
    assert "child pods are preserved by default" in answer.headers["warning"]
    kube.wait_gone("jobs", name)

    def orphaned() -> bool:
        now = kube.get("pods", pod)
        assert now
        return not now["metadata"].get("ownerReferences")

    wait_until(orphaned)
    kube.delete("pods", pod)


def test_a_quota_is_an_event_and_no_pod(kube: Kube, job: Names) -> None:
    name = job()
    hard = {"requests.nvidia.com/gpu": "0"}
    kube.create("resourcequotas", {"metadata": {"name": f"quota-{kube.run}"}, "spec": {"hard": hard}})
    try:
        gpu = {"container": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
        kube.start(name, "exit 0", pod=gpu)
        event = wait_until(lambda: next((e for e in kube.events(name) if e["reason"] == "FailedCreate"), None), 30.0)
        assert event["type"] == "Warning"
        assert event["message"].endswith(
            f"is forbidden: exceeded quota: quota-{kube.run}, requested: requests.nvidia.com/gpu=1, "
            "used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=0"
        )
        assert kube.pods(name) == []
        now = kube.get("jobs", name)
        assert now
        assert "active" not in now["status"]
    finally:
        kube.delete("resourcequotas", f"quota-{kube.run}")


def test_a_pod_deleted_by_hand_is_replaced_and_counted(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "trap 'exit 143' TERM; sleep 600 & wait", backoffLimit=2)
    first = kube.wait_pod(name, is_running)["metadata"]
    kube.delete("pods", first["name"])
    second = kube.wait_pod(name, lambda pod: pod["metadata"]["uid"] != first["uid"] and is_running(pod))
    assert second
    now = kube.get("jobs", name)
    assert now
    assert now["status"]["failed"] == 1


def test_an_evicted_pod_is_a_disruption_that_does_not_count(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 600", backoffLimit=0)
    first = kube.wait_pod(name, is_running)["metadata"]
    with kube.watching("pods", fieldSelector=f"metadata.name={first['name']}") as events:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": first["name"]}}
        answer = kube.call("POST", kube.path("pods", first["name"]) + "/eviction", body)
        assert answer.code == 201
        kube.wait_gone("pods", first["name"])
        wait_until(lambda: events and events[-1]["type"] == "DELETED")
    last = events[-1]["object"]
    target = find(last, "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "EvictionByEvictionAPI")
    assert container_state(last)["terminated"]["exitCode"] == 137
    kube.wait_pod(name, lambda pod: pod["metadata"]["uid"] != first["uid"])
    now = kube.get("jobs", name)
    assert now
    assert "failed" not in now["status"]
