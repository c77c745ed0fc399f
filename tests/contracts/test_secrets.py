"""The Secret of a Job: made and renewed without being read, its own Job's alone, and gone with it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ObjectConflict
from local_stack.processes import wait_until
from tests.world.kube import Kube, Obj

Names = Callable[[], str]


@pytest.fixture
def client(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> KubernetesJobs:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return KubernetesJobs(kube.namespace)


def secret_of(job: Obj, text: str) -> dict[str, Any]:
    meta = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": False}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": meta["name"], "ownerReferences": [owner]},
        "type": "Opaque",
        "data": {"KEY": base64.b64encode(text.encode()).decode()},
    }


def held(kube: Kube, name: str) -> str | None:
    secret = kube.get("secrets", name)
    return None if secret is None else base64.b64decode(secret["data"]["KEY"]).decode()


def test_it_is_made_and_given_other_data_for_the_same_job(kube: Kube, client: KubernetesJobs, job: Names) -> None:
    made = kube.start(name := job(), "exit 0", suspend=True)
    client.apply_secret(secret_of(made, "first"))
    assert held(kube, name) == "first"
    client.apply_secret(secret_of(made, "second"))
    assert held(kube, name) == "second"


def test_a_process_that_is_late_does_not_touch_the_secret_of_the_next_job(
    kube: Kube, client: KubernetesJobs, job: Names
) -> None:
    made = kube.start(name := job(), "exit 0", suspend=True)
    client.apply_secret(secret_of(made, "of this one"))
    former = {"metadata": {**made["metadata"], "uid": "5b7b8a1e-0000-4000-8000-000000000000"}}
    with pytest.raises(ObjectConflict, match=f"The Secret {name} is not this Job's"):
        client.apply_secret(secret_of(former, "of a former one"))
    assert held(kube, name) == "of this one"


def test_one_that_somebody_has_made_is_left_as_it_is(kube: Kube, client: KubernetesJobs, job: Names) -> None:
    made = kube.start(name := job(), "exit 0", suspend=True)
    kube.create("secrets", {"metadata": {"name": name}, "stringData": {"KEY": "theirs"}})
    try:
        with pytest.raises(ObjectConflict, match="has to be removed by hand"):
            client.apply_secret(secret_of(made, "ours"))
        assert held(kube, name) == "theirs"
    finally:
        kube.delete("secrets", name)


def test_it_goes_with_its_job_and_makes_room_for_the_next_ones(kube: Kube, client: KubernetesJobs, job: Names) -> None:
    name = job()
    client.apply_secret(secret_of(kube.start(name, "exit 0", suspend=True), "first"))
    kube.delete("jobs", name, propagationPolicy="Background")
    kube.wait_gone("jobs", name)
    second = secret_of(kube.start(name, "exit 0", suspend=True), "second")

    def applied() -> bool:
        try:
            client.apply_secret(second)
        except ObjectConflict:
            return False  # the former one waits for the garbage collector
        return True

    wait_until(applied, 60.0)
    assert held(kube, name) == "second"


def test_one_that_comes_after_its_job_has_gone_is_collected(kube: Kube, client: KubernetesJobs, job: Names) -> None:
    made = kube.start(name := job(), "exit 0", suspend=True)
    kube.delete("jobs", name, propagationPolicy="Background")
    kube.wait_gone("jobs", name)
    client.apply_secret(secret_of(made, "too late"))
    kube.wait_gone("secrets", name)
