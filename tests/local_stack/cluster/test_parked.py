"""Objects that are kept as bytes: to a client they are like all others, and with --idle nobody touches them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from local_stack.cluster.client import StandInCluster, start_cluster
from tests.world.kube import Kube, Obj

_PARTIAL = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_NUMBER = 7


def _pod(number: int) -> Obj:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": f"model-{number}", "uid": f"job-{number}"}
    return {
        "metadata": {
            "name": f"pod-{number}",
            "namespace": "default",
            "uid": f"pod-{number}",
            "labels": {"odd": "yes"} if number % 2 else {},
            "ownerReferences": [{**owner, "controller": True}],
            "managedFields": [{"manager": "somebody"}],
        },
        "spec": {"containers": [{"name": "trainer", "image": "any:1"}], "nodeName": "local-node"},
        "status": {"phase": "Failed" if number == 3 else "Running"},
    }


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInCluster]:
    with start_cluster(tmp_path_factory.mktemp("idle"), "--idle") as it:
        yield it


@pytest.fixture
def kube(stand_in: StandInCluster) -> Kube:
    """With _NUMBER parked pods, as they were at first."""
    stand_in.control("POST", "objects", {"resource": "pods", "objects": [_pod(number) for number in range(_NUMBER)]})
    return Kube(stand_in.kubeconfig, "default", "any:1")


def _names(pods: list[Obj]) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods]


def test_they_are_got_listed_and_selected_like_all_others(kube: Kube) -> None:
    found = kube.get("pods", "pod-3")
    assert found
    version = found["metadata"].pop("resourceVersion")
    assert found == {"kind": "Pod", "apiVersion": "v1", **_pod(3)}
    whole = kube.list_all("pods")
    assert _names(whole) == [f"pod-{number}" for number in range(_NUMBER)]
    assert whole[3] == {**_pod(3), "metadata": {**_pod(3)["metadata"], "resourceVersion": version}}
    assert _names(kube.list_all("pods", labelSelector="odd")) == ["pod-1", "pod-3", "pod-5"]
    assert _names(kube.list_all("pods", labelSelector="odd", fieldSelector="status.phase!=Failed")) == [
        "pod-1",
        "pod-5",
    ]
    page = kube.call("GET", kube.path("pods"), accept=_PARTIAL, query={"limit": 4}).body
    assert page["metadata"]["remainingItemCount"] == _NUMBER - 4
    assert [item["metadata"] for item in page["items"]] == [pod["metadata"] for pod in whole[:4]]


def test_they_are_watched_patched_and_removed_like_all_others(kube: Kube) -> None:
    with kube.watching("pods", labelSelector="odd") as events:
        patched = kube.patch("pods", "pod-1", {"metadata": {"labels": {"odd": None}}}).body
        kube.delete("pods", "pod-5", gracePeriodSeconds=0)
        kube.wait_gone("pods", "pod-5")
        again: dict[str, Any] = {"metadata": {"labels": {"odd": "yes"}}}
        kube.patch("pods", "pod-1", again)
        kube.patch("pods", "pod-1", again)
    assert "labels" not in patched["metadata"]
    assert patched["metadata"]["managedFields"] == [{"manager": "somebody"}], "a write keeps what it does not name"
    seen = [(event["type"], event["object"]["metadata"]["name"]) for event in events if event["type"] != "MODIFIED"]
    assert seen[0] == ("DELETED", "pod-1")
    assert events[0]["object"]["metadata"]["labels"] == {"odd": "yes"}
    assert ("DELETED", "pod-5") in seen


def test_nobody_starts_schedules_or_ends_what_is_there(kube: Kube) -> None:
    kube.start("model-9", "exit 0")
    assert kube.pods("model-9") == []
    before = [pod["metadata"]["resourceVersion"] for pod in kube.list_all("pods")]
    body = kube.job_body("unused", "exit 0")["spec"]["template"]["spec"]
    kube.create("pods", {"metadata": {"name": "waits"}, "spec": body})
    waits = kube.get("pods", "waits")
    assert waits
    assert "nodeName" not in waits["spec"]
    assert [
        pod["metadata"]["resourceVersion"] for pod in kube.list_all("pods", fieldSelector="spec.nodeName!=")
    ] == before
