"""What `make cluster-test` applies to a cluster: valid, its own in every name, and found again by its label."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.cluster import overlay
from tests.cluster.overlay import LABEL, Where
from tests.world.manifests.kustomized import Object, needs_kubectl

pytestmark = needs_kubectl

PORTAL, STORAGE = overlay.in_cluster("try")
LOGIN = {
    "metadata": {"name": "registry"},
    "type": "kubernetes.io/dockerconfigjson",
    "data": {".dockerconfigjson": "e30="},
}
WHERE = Where("try", "registry.io/a/dispatcher:1", "registry.io:5000/a/trainer@sha256:0", PORTAL, STORAGE, "key", LOGIN)
# Those that stand in the overlay as they are here are validated with it.
MADE_HERE = ("portal", "azurite", "registry", "storage", "cluster-test", "training-dispatcher")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "kueue"])
def everything(request: pytest.FixtureRequest) -> list[Object]:
    template = overlay.job_template(0)
    kueue = overlay.kueue_objects(WHERE, "v1beta2", template) if request.param else []
    return [
        *overlay.namespaces(WHERE),
        *overlay.pull_secrets(WHERE),
        *overlay.surroundings(WHERE),
        *overlay.objects(WHERE, {"QUEUE_NAME": "q"}, template, kueue=request.param),
        *kueue,
    ]


def test_what_is_made_or_changed_is_valid_for_kubernetes(everything: list[Object]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    made = {(thing["kind"], thing["metadata"]["name"]): thing for thing in everything}
    chosen = [thing for (_, name), thing in made.items() if name in MADE_HERE]
    assert {thing["kind"] for thing in chosen} >= {"Deployment", "Service", "Secret", "NetworkPolicy", "ConfigMap"}
    for thing in chosen:
        kubernetes_validate.validate(thing, "1.31", strict=True)


def test_every_object_is_found_by_its_label_and_touches_nobody_elses_namespace(everything: list[Object]) -> None:
    of_the_cluster = []
    for thing in everything:
        metadata = thing["metadata"]
        assert metadata["labels"][LABEL] == "try", metadata
        if metadata.get("namespace") is None:
            of_the_cluster.append(metadata["name"])
        else:
            assert metadata["namespace"] in ("try", "try-system", "try-contracts"), metadata
    assert {"try", "try-system", "try-contracts"} <= set(of_the_cluster)
    strangers = {"training-pods", "training-secrets", "training-networks"} & set(of_the_cluster)
    assert not strangers, "an installation beside this one has these"


def test_nothing_of_productions_own_addresses_is_left(everything: list[Object]) -> None:
    for thing in everything:
        text = json.dumps(thing)
        assert not any(
            word in text for word in ("example.com", '"training-system"', '"training"', ".training-system.")
        ), text


def test_the_policies_let_the_trainers_image_pass_by_its_repository(everything: list[Object]) -> None:
    (policy,) = (thing for thing in everything if thing["metadata"]["name"] == "training-policy")
    assert policy["data"] == {
        "images": "registry.io:5000/a/trainer",
        "secrets": overlay.MISSING,
        "pullSecrets": "registry",
    }


def test_a_change_of_settings_or_template_rolls_the_dispatcher_out() -> None:
    def mark(settings: dict[str, str], template: Object) -> str:
        things = overlay.objects(WHERE, settings, template)
        (deployment,) = (t for t in things if t["kind"] == "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"][LABEL])

    small, large = overlay.job_template(0), overlay.job_template(1)
    assert len({mark({}, small), mark({"A": "b"}, small), mark({}, large)}) == 3
    assert mark({}, small) == mark({}, small)


def test_addresses_that_are_given_are_let_through_and_no_port_that_needs_none() -> None:
    given = replace(WHERE, portal="http://10.0.0.9:9999", storage="BlobEndpoint=https://a.blob.core.windows.net/")
    policies = [
        t for t in overlay.objects(given, {}, overlay.job_template(0)) if t["metadata"]["name"] == "cluster-test"
    ]
    ports = [entry["port"] for policy in policies for rule in policy["spec"]["egress"] for entry in rule["ports"]]
    assert ports == [9999, 9999], "443 is open in production"
