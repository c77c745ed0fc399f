"""The NetworkPolicy of a Job: taken as the dispatcher makes it, its own Job's alone, and gone with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ObjectConflict
from dispatcher.launch.teams import network_policy_of
from tests.world import json_objects as objects
from tests.world.kube import Kube

Names = Callable[[], str]


@pytest.fixture
def client(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> KubernetesJobs:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return KubernetesJobs(kube.namespace)


def test_it_is_made_once_for_each_job_and_goes_with_it(kube: Kube, client: KubernetesJobs, job: Names) -> None:
    made = []
    name = job()
    for _ in range(2):
        policy = network_policy_of(objects.job(kube.start(name, "exit 0", suspend=True)))
        client.create_network_policy(policy, dry_run=True)
        client.create_network_policy(policy)
        with pytest.raises(ObjectConflict):
            client.create_network_policy(policy)
        made.append(policy["metadata"]["name"])
        kept = kube.get("networkpolicies", made[-1])
        assert kept is not None
        assert kept["spec"] == policy["spec"], "the API server adds nothing to it"
        kube.delete("jobs", name, propagationPolicy="Background")
        kube.wait_gone("jobs", name)
    # The second was made whether the garbage collector had come or not: no Job waits for it.
    assert len(set(made)) == 2
    for former in made:
        kube.wait_gone("networkpolicies", former)


def test_a_pod_carries_the_label_that_it_selects_by_and_takes_no_other(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0")
    kube.wait_job(name, "Complete")
    for pod in kube.pods(name):
        assert pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == name
