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


def test_bookmarks_bring_the_version_forward_while_nothing_happens(kube: Kube, stand_in: StandInCluster) -> None:
    del stand_in  # a real cluster sends one a minute
    version = _version(kube)
    events = list(kube.watch("jobs", 2, resourceVersion=version, allowWatchBookmarks="true"))
    assert "BOOKMARK" in {event["type"] for event in events}
    marks = [event["object"] for event in events if event["type"] == "BOOKMARK"]
    assert int(marks[-1]["metadata"]["resourceVersion"]) >= int(version)
