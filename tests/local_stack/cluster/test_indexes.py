"""Indexed Jobs on the stand-in: indexes as they are written, what is missing or too many, names and addresses."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from local_stack.cluster.controllers import indexes
from local_stack.cluster.node.network import address_of, resolved

UID = "eeb7e3f6-3c44-4c5b-a684-b1b1e0ee40c2"


def a_job(name: str = "model-1", uid: str = UID) -> dict[str, Any]:
    spec = {"subdomain": "model-training", "containers": [{"name": "trainer"}]}
    return {"metadata": {"name": name, "uid": uid}, "spec": {"template": {"spec": spec}}}


def a_pod(index: int, phase: str = "Pending", *, bound: bool = False, uid: str = UID) -> dict[str, Any]:
    pod = indexes.new_pod(a_job(uid=uid), index)
    pod["metadata"]["name"] = f"{index}-{phase}-{bound}"
    return {**pod, "spec": {**pod["spec"], **({"nodeName": "n"} if bound else {})}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("text", "found"),
    [("", set()), ("0", {0}), ("0,1", {0, 1}), ("0-2", {0, 1, 2}), ("0,2-4,7,8,10", {0, 2, 3, 4, 7, 8, 10})],
)
def test_completed_indexes_are_written_as_kubernetes_writes_them(text: str, found: set[int]) -> None:
    assert indexes.written(found) == text
    assert indexes.parse(text, 100) == found
    assert indexes.parse(text, 4) == {index for index in found if index < 4}  # of a Job that was made smaller


def test_the_first_missing_indexes_are_made_first() -> None:
    assert indexes.first_missing({1, 2}, 2, 5) == [0, 3]
    assert indexes.first_missing({0, 1, 2}, 9, 5) == [3, 4]


def test_of_too_many_pods_those_without_a_place_and_those_that_have_come_least_far_are_removed() -> None:
    first, twice, beyond = a_pod(0, "Running", bound=True), a_pod(0), a_pod(7)
    removed = indexes.superfluous([first, twice, beyond], 0, 3)
    assert sorted(pod["metadata"]["name"] for pod in removed) == ["0-Pending-False", "7-Pending-False"]
    waits, runs = a_pod(0), a_pod(1, "Running", bound=True)
    assert indexes.superfluous([runs, waits], 1, 3) == [waits]
    assert indexes.superfluous([runs, waits], 0, 3) == []


def test_the_name_of_a_pod_keeps_its_index_however_long_the_jobs_is() -> None:
    assert indexes.new_pod(a_job(), None)["metadata"]["generateName"] == "model-1-"
    assert indexes.new_pod(a_job("m" * 61), 12)["metadata"]["generateName"] == f"{'m' * 54}-12-"


def test_a_replacement_has_its_predecessors_address_and_no_other_pod_has_it() -> None:
    pods = [a_pod(0), a_pod(1), a_pod(0, uid="5bb2b466-5e82-4392-9685-603d9e82c3f3")]
    addresses = [address_of(pod) for pod in pods]
    assert len(set(addresses)) == 3
    assert address_of(a_pod(0, "Running", bound=True)) == addresses[0]
    for address in filter(None, addresses):
        with socket.create_server((address, 0)) as server:
            assert server.getsockname()[0] == address
    assert address_of({**pods[0], "spec": {"hostname": "model-1-0", "containers": []}}) is None


def test_only_what_is_exactly_a_host_name_of_the_same_job_becomes_its_address() -> None:
    pod = a_pod(1)
    assert resolved(pod, "model-1-0.model-training") == address_of(a_pod(0))
    for other in ("model-1-0", "model-2-0.model-training", "model-1-0.model-training:80", "model-1-x.model-training"):
        assert resolved(pod, other) == other
