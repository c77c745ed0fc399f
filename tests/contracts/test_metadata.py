"""Metadata alone, in place of whole objects: lists and their pages, single objects, writes and watches."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.world.kube import Kube, wait_until

Names = Callable[[], str]

_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_HEAD = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}


@pytest.mark.parametrize("plural", ["jobs", "pods"])
def test_a_list_of_metadata_has_what_the_list_of_objects_has(kube: Kube, job: Names, plural: str) -> None:
    name = job()
    kube.start(name, "sleep 600")
    kube.wait_pod(name, lambda pod: pod)
    labels, fields = f"batch.kubernetes.io/job-name={name}", f"metadata.name={name}"
    query = {"labelSelector": labels} if plural == "pods" else {"fieldSelector": fields}

    def same() -> bool:
        # Controllers go on writing: until nobody did between the two lists.
        whole = kube.call("GET", kube.path(plural), query=query).body
        partial = kube.call("GET", kube.path(plural), query=query, accept=_LIST).body
        assert (partial["kind"], partial["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
        return bool(
            whole["items"] and partial["items"] == [{**_HEAD, "metadata": each["metadata"]} for each in whole["items"]]
        )

    wait_until(same)


def test_metadata_is_selected_by_what_it_does_not_show(kube: Kube, job: Names) -> None:
    """The phase of a pod, and its Job's uid by Kubernetes' own label."""
    name = job()
    made = kube.start(name, "sleep 600")
    kube.wait_pod(name, lambda pod: pod)
    labels = f"batch.kubernetes.io/controller-uid={made['metadata']['uid']}"
    for fields, count in {"status.phase!=Succeeded": 1, "status.phase=Succeeded": 0}.items():
        query = {"labelSelector": labels, "fieldSelector": fields}
        items = kube.call("GET", kube.path("pods"), query=query, accept=_LIST).body["items"] or []
        assert len(items) == count, fields
        assert not any("status" in item for item in items)


def test_pages_of_metadata_show_one_moment_and_nothing_twice(kube: Kube, job: Names) -> None:
    names = [job() for _ in range(5)]
    for name in names:
        kube.start(name, "exit 0", suspend=True)
    query = {"labelSelector": f"contracts={kube.run}", "limit": "2"}
    found: list[str] = []
    versions = set()
    while "continue" not in query or query["continue"]:
        page = kube.call("GET", kube.path("jobs"), query=query, accept=_LIST).body
        assert len(page["items"]) <= 2
        found += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        query["continue"] = page["metadata"].get("continue", "")
        kube.start(job(), "exit 0", suspend=True)
    assert set(names) <= set(found)
    assert len(found) == len(set(found))
    assert len(versions) == 1


def test_a_list_of_metadata_of_nothing_has_no_items(kube: Kube) -> None:
    page = kube.call("GET", kube.path("jobs"), query={"labelSelector": "nobody=has-this"}, accept=_LIST)
    # Null, not an empty list.
    assert (page.code, page.body.get("items") or []) == (200, [])
    assert page.body["metadata"]["resourceVersion"]


def test_one_object_is_read_and_written_with_its_metadata_alone_as_answer(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    kube.wait_job(name, "Suspended")
    patch = {"metadata": {"annotations": {"a": "1"}}}
    content = "application/merge-patch+json"
    patched = kube.call("PATCH", kube.path("jobs", name), patch, content=content, accept=_ONE).body
    assert set(patched) == {*_HEAD, "metadata"}
    assert patched["metadata"]["annotations"] == {"a": "1"}
    assert kube.call("GET", kube.path("jobs", name), accept=_ONE).body == patched
    whole = kube.get("jobs", name)
    assert whole
    assert patched == {**_HEAD, "metadata": whole["metadata"]}


def test_an_absent_object_is_a_plain_refusal(kube: Kube) -> None:
    answer = kube.call("GET", kube.path("jobs", "model-absent"), accept=_ONE)
    assert (answer.code, answer.reason, answer.body["kind"]) == (404, "NotFound", "Status")


def test_a_watch_sends_metadata_alone_in_events_and_bookmarks(kube: Kube, job: Names) -> None:
    name = job()
    version = kube.call("GET", kube.path("jobs"), query={"limit": 1}).body["metadata"]["resourceVersion"]
    kube.start(name, "exit 0", suspend=True)
    kube.wait_job(name, "Suspended")
    asked = {"resourceVersion": version, "fieldSelector": f"metadata.name={name}", "allowWatchBookmarks": "true"}
    events = list(kube.watch("jobs", 4, accept=_ONE, **asked))
    assert [event["type"] for event in events][:2] == ["ADDED", "MODIFIED"]
    assert events[-1]["type"] == "BOOKMARK"
    assert all(event["object"].keys() == {*_HEAD, "metadata"} for event in events)
    assert all(event["object"]["kind"] == _HEAD["kind"] for event in events)
    assert set(events[-1]["object"]["metadata"]) == {"resourceVersion"}


@pytest.mark.parametrize(("accept", "name"), [(_ONE, False), (_LIST, True)])
def test_a_list_is_not_one_object_and_one_object_is_no_list(kube: Kube, job: Names, accept: str, name: bool) -> None:
    there = job()
    kube.start(there, "exit 0", suspend=True)
    answer = kube.call("GET", kube.path("jobs", there if name else ""), accept=accept)
    assert (answer.code, answer.reason) == (406, "NotAcceptable")


def test_a_form_that_the_server_does_not_have_is_passed_over(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    other = "application/json;as=Other;g=meta.k8s.io;v=v1"
    assert kube.call("GET", kube.path("jobs", name), accept=f"{other},application/json").body["kind"] == "Job"
    assert kube.call("GET", kube.path("jobs", name), accept=other).code == 406
