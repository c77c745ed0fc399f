"""The admission policy of a team's NetworkPolicy: one's own passes, and nothing that opens more does."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.world.manifests.admission import MODEL, network_policy_of, why_denied
from tests.world.manifests.kustomized import Object, needs_kubectl, of_kind

pytestmark = needs_kubectl

PODS = {"matchLabels": {"batch.kubernetes.io/job-name": MODEL}}
OTHERS = {"matchLabels": {"batch.kubernetes.io/job-name": "model-124"}}
ALL = {"matchLabels": {"app.kubernetes.io/managed-by": "training-dispatcher"}}


def _policy(**spec: Any) -> Object:
    policy = network_policy_of()
    policy["spec"].update(spec)
    return policy


def _without_pods() -> Object:
    policy = network_policy_of()
    del policy["spec"]["podSelector"]
    return policy


def _policy_with(**metadata: Any) -> Object:
    policy = network_policy_of()
    policy["metadata"].update(metadata)
    return policy


def _team(**fields: Any) -> Object:
    return {**network_policy_of()["metadata"]["ownerReferences"][0], **fields}


EVIL_NETWORKS = {
    "from everybody": _policy(ingress=[{}]),
    "from everybody on a port": _policy(ingress=[{"ports": [{"port": 443}]}]),
    "from nobody named": _policy(ingress=[{"from": []}]),
    "from an address": _policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
    "from a whole namespace": _policy(ingress=[{"from": [{"namespaceSelector": {}}]}]),
    "from their like elsewhere": _policy(ingress=[{"from": [{"podSelector": PODS, "namespaceSelector": {}}]}]),
    "from all trainings": _policy(ingress=[{"from": [{"podSelector": ALL}]}]),
    "from all pods": _policy(ingress=[{"from": [{"podSelector": {}}]}]),
    "from another training": _policy(ingress=[{"from": [{"podSelector": OTHERS}]}]),
    "from another one beside": _policy(ingress=[{"from": [{"podSelector": PODS}, {"podSelector": OTHERS}]}]),
    "from another one by a second rule": _policy(
        ingress=[{"from": [{"podSelector": PODS}]}, {"from": [{"podSelector": OTHERS}]}]
    ),
    "from the pods of several": _policy(
        ingress=[{"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]}]
    ),
    "to everybody": _policy(egress=[{}]),
    "to everybody, and it says so": _policy(egress=[{}], policyTypes=["Ingress", "Egress"]),
    "to an address": _policy(egress=[{"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}]),
    "nothing at all to anybody": _policy(policyTypes=["Ingress", "Egress"]),
    "for another training": _policy(podSelector=OTHERS),
    "for all pods": _policy(podSelector={}),
    "for no pods named": _without_pods(),
    "for all trainings": _policy(podSelector=ALL),
    "for more than its label": _policy(podSelector={**PODS, "matchExpressions": []}),
    "no owner": _policy_with(ownerReferences=[]),
    "another owner": _policy_with(ownerReferences=[_team(name="model-124")]),
    "another kind of owner": _policy_with(ownerReferences=[_team(kind="Pod", apiVersion="v1")]),
    "two owners": _policy_with(ownerReferences=[_team(), _team(name="model-124")]),
    "an owner that is no training": network_policy_of("backup"),
    "another name": _policy_with(name="default-deny"),
    "the name of a Job before": _policy_with(name=f"{MODEL}-another-uid"),
}


@pytest.mark.parametrize("what", EVIL_NETWORKS)
def test_a_stolen_token_opens_no_network_but_a_teams_own(what: str) -> None:
    said = why_denied(EVIL_NETWORKS[what])
    assert "training-networks" in said
    assert "a training's NetworkPolicy must" in said or "resulted in error" in said


def test_a_teams_network_is_opened() -> None:
    assert why_denied(network_policy_of()) == ""
    assert why_denied(network_policy_of("training-check-1a2b3c4d")) == ""


def test_a_network_plug_in_that_may_remove_no_policy_puts_its_finalizer_on_every_one() -> None:
    for policy in (network_policy_of(), *of_kind("production", "NetworkPolicy").values()):
        changed = copy.deepcopy(policy)
        changed["metadata"]["finalizers"] = ["networking.example.com/resources"]
        assert why_denied(changed, policy) == ""


def test_who_may_remove_network_policies_anyway_may_put_others_there() -> None:
    for policy in of_kind("production", "NetworkPolicy").values():
        assert why_denied(policy, may=lambda verb: True) == ""
        assert why_denied(policy)
