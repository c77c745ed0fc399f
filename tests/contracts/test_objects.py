"""Names, versions, patches, selectors, pages: what the dispatcher's writes and lists rely on."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import urllib3

from tests.world.kube import FINALIZER, JSON_PATCH, STRATEGIC, Kube, Obj

Names = Callable[[], str]


def test_a_taken_name_is_a_conflict_that_names_the_object(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    answer = kube.call("POST", kube.path("jobs"), kube.job_body(name, "exit 0"))
    assert (answer.code, answer.reason) == (409, "AlreadyExists")
    assert answer.message == f'jobs.batch "{name}" already exists'
    assert answer.body["details"] == {"name": name, "group": "batch", "kind": "jobs"}


def test_an_absent_object_is_not_found_with_its_name(kube: Kube) -> None:
    answer = kube.call("GET", kube.path("jobs", "model-absent"))
    assert (answer.code, answer.reason) == (404, "NotFound")
    assert answer.message == 'jobs.batch "model-absent" not found'


def test_the_server_completes_a_job_and_says_so_in_its_answer(kube: Kube, job: Names) -> None:
    name = job()
    created = kube.start(name, "exit 0", suspend=True, finalizer=True)
    meta, spec = created["metadata"], created["spec"]
    assert meta["finalizers"] == [FINALIZER]
    assert meta["generation"] == 1
    assert spec["parallelism"] == spec["completions"] == 1
    assert spec["completionMode"] == "NonIndexed"
    labels = spec["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/controller-uid"] == labels["controller-uid"] == meta["uid"]
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == name
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": meta["uid"]}}


def test_a_stale_update_is_a_conflict_and_changes_nothing(kube: Kube, job: Names) -> None:
    name = job()
    old = kube.start(name, "exit 0", suspend=True)
    assert kube.patch("jobs", name, {"metadata": {"annotations": {"a": "1"}}}).code == 200
    old["metadata"]["annotations"] = {"a": "2"}
    answer = kube.call("PUT", kube.path("jobs", name), old)
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert answer.message == (
        f'Operation cannot be fulfilled on jobs.batch "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    stale = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"], "annotations": {"a": "3"}}}
    assert kube.patch("jobs", name, stale).reason == "Conflict"
    job_now = kube.get("jobs", name)
    assert job_now
    assert job_now["metadata"]["annotations"] == {"a": "1"}


def test_a_patch_that_changes_nothing_makes_no_new_version(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    kube.wait_job(name, "Suspended")
    first = kube.patch("jobs", name, {"metadata": {"labels": {"a": "b"}}}).body
    second = kube.patch("jobs", name, {"metadata": {"labels": {"a": "b"}}}).body
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_each_kind_of_patch_does_what_its_name_says(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True, finalizer=True)
    merged = kube.patch("jobs", name, {"metadata": {"annotations": {"a": "1", "b": "2"}}}).body
    assert merged["metadata"]["annotations"] == {"a": "1", "b": "2"}
    merged = kube.patch("jobs", name, {"metadata": {"annotations": {"a": None}}}).body
    assert merged["metadata"]["annotations"] == {"b": "2"}
    strategic = kube.patch("jobs", name, {"metadata": {"finalizers": ["example.com/second"]}}, STRATEGIC)
    assert sorted(strategic.body["metadata"]["finalizers"]) == ["example.com/second", FINALIZER]
    replaced = kube.patch("jobs", name, {"metadata": {"finalizers": [FINALIZER]}})
    assert replaced.body["metadata"]["finalizers"] == [FINALIZER]
    operations = [
        {"op": "test", "path": "/metadata/annotations/b", "value": "2"},
        {"op": "add", "path": "/metadata/annotations/c~1d", "value": "3"},
    ]
    assert kube.patch("jobs", name, operations, JSON_PATCH).body["metadata"]["annotations"]["c/d"] == "3"
    operations[0]["value"] = "other"
    assert kube.patch("jobs", name, operations, JSON_PATCH).code == 422


@pytest.mark.parametrize("wrong", ["uid", "resourceVersion"])
def test_a_delete_whose_precondition_fails_is_a_conflict(kube: Kube, job: Names, wrong: str) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    answer = kube.delete("jobs", name, preconditions={wrong: "1"}, propagationPolicy="Background")
    assert (answer.code, answer.reason) == (409, "Conflict")
    # 1.36's words, and those of before.
    assert re.search("in the precondition (.*) does not match the|Precondition failed", answer.message)
    assert kube.get("jobs", name)


def test_a_dry_run_leaves_no_trace(kube: Kube, job: Names) -> None:
    name = job()
    answer = kube.call("POST", kube.path("jobs"), kube.job_body(name, "exit 0"), query={"dryRun": "All"})
    assert answer.code == 201
    assert answer.body["metadata"]["uid"]
    assert kube.get("jobs", name) is None


def test_a_generated_name_is_new_each_time(kube: Kube, job: Names) -> None:
    body: Obj = {"metadata": {"generateName": "contract-"}, "data": {"a": "b"}}
    first = kube.create("configmaps", body)["metadata"]["name"]
    second = kube.create("configmaps", body)["metadata"]["name"]
    try:
        assert first != second
        assert first.startswith("contract-")
        assert len(first) == len("contract-") + 5
    finally:
        for name in (first, second):
            kube.delete("configmaps", name)


def test_selectors_choose_and_unknown_field_selectors_are_refused(kube: Kube, job: Names) -> None:
    first, second = job(), job()
    for name in (first, second):
        kube.start(name, "exit 0", suspend=True)
    kube.patch("jobs", first, {"metadata": {"labels": {"colour": "red"}}})

    def named(**query: str) -> set[str]:
        items = kube.list_all("jobs", **query)
        return {item["metadata"]["name"] for item in items} & {first, second}

    assert named(labelSelector=f"contracts={kube.run}") == {first, second}
    assert named(labelSelector="colour=red") == {first}
    assert named(labelSelector="colour!=red,contracts") == {second}
    assert named(labelSelector="colour in (red, blue)") == {first}
    assert named(labelSelector="!colour") == {second}
    assert named(fieldSelector=f"metadata.name={second}") == {second}
    answer = kube.call("GET", kube.path("jobs"), query={"fieldSelector": "spec.suspend=true"})
    assert answer.code == 400
    # The first is what a Job's own conversion says (1.31 to 1.36), the second what core kinds say.
    assert re.search('field label "spec.suspend" not supported for Job|field label not supported: ', answer.message)


def test_pages_show_one_moment_and_nothing_twice(kube: Kube, job: Names) -> None:
    names = [job() for _ in range(5)]
    for name in names:
        kube.start(name, "exit 0", suspend=True)
    query = {"labelSelector": f"contracts={kube.run}", "limit": 2}
    found: list[str] = []
    pages = 0
    while True:
        answer = kube.call("GET", kube.path("jobs"), query=query)
        found += [item["metadata"]["name"] for item in answer.body["items"]]
        pages += 1
        token = answer.body["metadata"].get("continue")
        # With a selector the server cannot know it.
        assert "remainingItemCount" not in answer.body["metadata"]
        if not token:
            break
        if pages == 1:
            kube.start(job(), "exit 0", suspend=True)
        query["continue"] = token
    assert set(names) <= set(found)
    assert len(found) == len(set(found))
    assert pages >= 3


def test_items_of_a_list_carry_no_kind_of_their_own(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    answer = kube.call("GET", kube.path("jobs"))
    assert answer.body["kind"] == "JobList"
    assert all("kind" not in item for item in answer.body["items"])


def test_a_lease_update_needs_the_version_it_saw(kube: Kube) -> None:
    name = f"lease-{kube.run}"
    lease = kube.create(
        "leases", {"metadata": {"name": name}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}
    )
    try:
        lease["spec"]["holderIdentity"] = "b"
        assert kube.call("PUT", kube.path("leases", name), lease).code == 200
        lease["spec"]["holderIdentity"] = "c"
        assert kube.call("PUT", kube.path("leases", name), lease).reason == "Conflict"
    finally:
        kube.delete("leases", name)


def test_a_secret_takes_plain_text_and_gives_base64(kube: Kube) -> None:
    name = f"secret-{kube.run}"
    secret = kube.create("secrets", {"metadata": {"name": name}, "stringData": {"KEY": "value"}})
    kube.delete("secrets", name)
    assert secret["data"] == {"KEY": "dmFsdWU="}
    assert "stringData" not in secret


def test_a_wrong_token_is_unauthorized(kube: Kube) -> None:
    answer = kube.call("GET", kube.path("jobs"))
    assert answer.code == 200
    host = kube._api.configuration.host
    pool = urllib3.PoolManager(cert_reqs="CERT_NONE")
    refused = pool.request("GET", host + kube.path("jobs"), headers={"Authorization": "Bearer wrong"})
    assert refused.status == 401
    assert refused.json()["reason"] == "Unauthorized"


def test_an_access_review_answers_without_trying(kube: Kube) -> None:
    attributes = {"verb": "create", "resource": "jobs", "group": "batch", "namespace": kube.namespace}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = kube.call("POST", path, {"spec": {"resourceAttributes": attributes}})
    assert answer.code == 201
    assert answer.body["status"]["allowed"] is True


def test_an_event_about_a_job_is_found_by_its_name(kube: Kube, job: Names) -> None:
    name = job()
    meta = kube.start(name, "exit 0", suspend=True)["metadata"]
    about = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "namespace": kube.namespace, "uid": meta["uid"]}
    event = {
        "metadata": {"generateName": f"{name}."},
        "involvedObject": about,
        "reason": "ReportRefused",
        "message": "the portal does not know this model",
        "type": "Warning",
        "source": {"component": "training-dispatcher"},
        "firstTimestamp": meta["creationTimestamp"],
        "lastTimestamp": meta["creationTimestamp"],
        "count": 1,
    }
    kube.create("events", event, fieldValidation="Strict")
    assert "ReportRefused" in {found["reason"] for found in kube.events(name)}
