"""Watches: from a version on, filtered, resumable, and 410 inside a 200 when history is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client, config, watch

from local_stack.cluster.client import StandInCluster
from tests.world.kube import Kube, wait_until

Names = Callable[[], str]


def _version(kube: Kube) -> str:
    answer = kube.call("GET", kube.path("jobs"))
    return str(answer.body["metadata"]["resourceVersion"])


def test_a_watch_resumed_at_a_version_misses_nothing_and_repeats_nothing(kube: Kube, job: Names) -> None:
    version, name = _version(kube), job()
    kube.start(name, "exit 0", suspend=True)
    kube.wait_job(name, "Suspended")
    kube.patch("jobs", name, {"metadata": {"annotations": {"a": "1"}}})
    query: dict[str, Any] = {"fieldSelector": f"metadata.name={name}"}
    events = list(kube.watch("jobs", 1, resourceVersion=version, **query))
    assert events[0]["type"] == "ADDED"
    assert events[0]["object"]["kind"] == "Job"
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    middle = events[len(events) // 2]["object"]["metadata"]["resourceVersion"]
    again = list(kube.watch("jobs", 1, resourceVersion=middle, **query))
    assert again == events[len(events) // 2 + 1 :]


def test_a_watch_without_a_version_begins_with_what_there_is(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    events = list(kube.watch("jobs", 1, fieldSelector=f"metadata.name={name}"))
    assert events[0]["type"] == "ADDED"
    assert events[0]["object"]["metadata"]["name"] == name


def test_an_object_that_leaves_the_selector_is_deleted_for_the_watcher(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    kube.wait_job(name, "Suspended")
    with kube.watching("jobs", labelSelector="colour=blue") as events:
        kube.patch("jobs", name, {"metadata": {"labels": {"colour": "blue"}}})
        last = kube.patch("jobs", name, {"metadata": {"labels": {"colour": None}}}).body
        wait_until(lambda: len(events) == 2, what=lambda: f"two events: {events}")
    assert [event["type"] for event in events] == ["ADDED", "DELETED"]
    gone = events[1]["object"]["metadata"]
    assert gone["labels"]["colour"] == "blue"
    assert gone["resourceVersion"] == last["metadata"]["resourceVersion"]


def test_a_deletion_is_an_event_with_the_last_state(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    with kube.watching("jobs", fieldSelector=f"metadata.name={name}") as events:
        kube.delete("jobs", name, propagationPolicy="Background")
        wait_until(lambda: events and events[-1]["type"] == "DELETED")
    assert events[-1]["object"]["spec"]["suspend"] is True


def test_a_watch_ends_when_its_time_is_over(kube: Kube) -> None:
    assert list(kube.watch("leases", 1, resourceVersion=_version(kube))) == []


def test_a_malformed_selector_is_refused_before_the_watch_begins(kube: Kube) -> None:
    query = {"watch": "true", "timeoutSeconds": 1, "labelSelector": "a b c"}
    assert kube.call("GET", kube.path("jobs"), query=query).code == 400


def test_an_expired_version_is_an_error_event_inside_a_good_answer(
    kube: Kube, stand_in: StandInCluster, job: Names
) -> None:
    version = _version(kube)
    kube.start(job(), "exit 0", suspend=True)
    stand_in.compact()
    events = list(kube.watch("jobs", 1, resourceVersion=version))
    assert [event["type"] for event in events] == ["ERROR"]
    status = events[0]["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith("too old resource version: ")


@pytest.mark.parametrize(
    ("deserialize", "raised"),
    [
        (True, client.ApiException),
        # Release 37 looks for the deserialized event that it was told not to make.
        (False, KeyError),
    ],
)
def test_the_pinned_clients_watch_raises_at_an_expired_version(
    kube: Kube, stand_in: StandInCluster, job: Names, deserialize: bool, raised: type[Exception]
) -> None:
    version = _version(kube)
    kube.start(job(), "exit 0", suspend=True)
    stand_in.compact()
    untyped: Any = config, watch
    api = client.BatchV1Api(untyped[0].new_client_from_config(str(kube.kubeconfig)))
    stream = (
        untyped[1]
        .Watch()
        .stream(
            api.list_namespaced_job,
            kube.namespace,
            resource_version=version,
            timeout_seconds=1,
            deserialize=deserialize,
        )
    )
    with pytest.raises(raised) as caught:
        list(stream)
    assert getattr(caught.value, "status", 410) == 410


def test_a_token_for_the_next_page_expires_with_the_history(kube: Kube, stand_in: StandInCluster, job: Names) -> None:
    for _ in range(2):
        kube.start(job(), "exit 0", suspend=True)
    token = kube.call("GET", kube.path("jobs"), query={"limit": 1}).body["metadata"]["continue"]
    stand_in.compact()
    answer = kube.call("GET", kube.path("jobs"), query={"limit": 1, "continue": token})
    assert (answer.code, answer.reason) == (410, "Expired")


def test_a_watch_gets_a_bookmark_just_before_its_time_is_over_and_is_renewed_from_there(kube: Kube, job: Names) -> None:
    nothing = f"contracts={kube.run}-nothing"
    kube.start(job(), "exit 0", suspend=True)
    version = _version(kube)
    events = list(kube.watch("jobs", 4, resourceVersion=version, allowWatchBookmarks="true", labelSelector=nothing))
    assert {event["type"] for event in events} == {"BOOKMARK"}
    mark = events[-1]["object"]
    assert (mark["kind"], mark["apiVersion"], set(mark["metadata"])) == ("Job", "batch/v1", {"resourceVersion"})
    assert int(mark["metadata"]["resourceVersion"]) >= int(version)
    name = job()
    kube.start(name, "exit 0", suspend=True)
    renewed = kube.watch(
        "jobs", 1, resourceVersion=mark["metadata"]["resourceVersion"], fieldSelector=f"metadata.name={name}"
    )
    assert next(renewed)["object"]["metadata"]["name"] == name


def test_nobody_gets_a_bookmark_who_did_not_ask_for_it(kube: Kube) -> None:
    assert list(kube.watch("leases", 3, resourceVersion=_version(kube))) == []


@pytest.mark.parametrize("left", ["status.phase=Pending", "status.phase!=Succeeded,status.phase!=Failed"])
def test_a_pod_that_leaves_a_field_selector_is_deleted_for_the_watcher_with_what_it_was(
    kube: Kube, job: Names, left: str
) -> None:
    name = job()
    mine = f"batch.kubernetes.io/job-name={name}"
    with (
        kube.watching("pods", labelSelector=mine) as everything,
        kube.watching("pods", labelSelector=mine, fieldSelector=left) as chosen,
    ):
        kube.start(name, "exit 0")
        kube.wait_pod(name, lambda pod: pod["status"]["phase"] == "Succeeded")
        wait_until(lambda: chosen and chosen[-1]["type"] == "DELETED", what=lambda: f"its end: {chosen}")
        gone = chosen[-1]["object"]
        version = gone["metadata"]["resourceVersion"]
        wait_until(lambda: version in [event["object"]["metadata"]["resourceVersion"] for event in everything])
    versions = [event["object"]["metadata"]["resourceVersion"] for event in everything]
    at = versions.index(version)
    assert chosen[0]["type"] == "ADDED"
    assert everything[at]["type"] == "MODIFIED"
    before = everything[at - 1]["object"]
    before["metadata"]["resourceVersion"] = version
    assert gone == before, "the last content that matched, under the version that matches no more"


def test_an_object_comes_and_goes_with_a_label_whose_absence_is_selected(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    kube.wait_job(name, "Suspended")
    with kube.watching("jobs", labelSelector=f"contracts={kube.run},!colour") as events:
        kube.patch("jobs", name, {"metadata": {"labels": {"colour": "blue"}}})
        kube.patch("jobs", name, {"metadata": {"labels": {"colour": "red"}}})
        back = kube.patch("jobs", name, {"metadata": {"labels": {"colour": None}}}).body
        wait_until(lambda: len(events) == 2, what=lambda: f"two events: {events}")
    assert [event["type"] for event in events] == ["DELETED", "ADDED"]
    assert "colour" not in events[0]["object"]["metadata"]["labels"]
    assert events[1]["object"] == back
