"""What the network policies of production let through, connection by connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from tests.world.manifests.admission import job_of, network_policy_of
from tests.world.manifests.kustomized import Object, needs_kubectl, of_kind, settings_of, template_pod
from tests.world.repository import MANIFESTS

pytestmark = needs_kubectl

TWO_NAMESPACES = ["production", "production+all"]
TRAINING = {"app.kubernetes.io/managed-by": "training-dispatcher"}
DISPATCHER = {"app.kubernetes.io/name": "training-dispatcher"}
NAME_SERVER = {"k8s-app": "kube-dns"}
PORTS = {"health": 8080, "status": 8081}
# A peer that names no namespace is in the policy's own.
_HERE = {
    name: {"matchLabels": {"kubernetes.io/metadata.name": name}} for name in ("training", "training-system", "default")
}


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    among = selector.get("matchExpressions", [])
    assert all(entry["operator"] == "In" for entry in among)
    return wanted.items() <= labels.items() and all(labels.get(e["key"]) in e["values"] for e in among)


def _is_peer(peer: Object, address: str, namespace: str, labels: Mapping[str, str]) -> bool:
    """address: of an outside host, "" for a pod with these labels in this namespace."""
    if block := peer.get("ipBlock"):
        networks = [ipaddress.ip_network(cidr) for cidr in (block["cidr"], *block.get("except", ()))]
        inside = [bool(address) and ipaddress.ip_address(address) in network for network in networks]
        return inside[0] and not any(inside[1:])
    in_namespace = _selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
    return not address and in_namespace and _selects(peer["podSelector"], labels)


def _is_open(
    variant: str,
    direction: str,
    of: tuple[str, Mapping[str, str]],
    port: int,
    *,
    address: str = "",
    pod: tuple[str, Mapping[str, str]] = ("", {}),
    protocol: str = "TCP",
    made: Sequence[Object] = (),
) -> bool:
    """Whether a pod `of` (namespace, labels) may be reached from, or reach, an address or a pod (namespace, labels).

    made: the policies that the dispatcher has made.
    """
    policies = [
        policy["spec"]
        for policy in (*of_kind(variant, "NetworkPolicy").values(), *made)
        if policy["metadata"]["namespace"] == of[0] and _selects(policy["spec"]["podSelector"], of[1])
    ]
    assert policies, "nothing would be closed"
    which, peers = ("ingress", "from") if direction == "in" else ("egress", "to")
    for rule in (rule for policy in policies for rule in policy.get(which, ())):
        numbers = {(PORTS.get(p["port"], p["port"]), p["protocol"]) for p in rule.get("ports", ())}
        hosts = [{"namespaceSelector": _HERE[of[0]], **h} if "ipBlock" not in h else h for h in rule.get(peers) or ()]
        passes = "ports" not in rule or (port, protocol) in numbers
        if passes and (peers not in rule or any(_is_peer(h, address, *pod) for h in hosts)):
            return True
    return False


@pytest.mark.parametrize("variant", TWO_NAMESPACES)
@pytest.mark.parametrize(
    ("where", "port", "is_open"),
    [
        ({"address": "20.60.1.2"}, 443, True),  # storage
        ({"address": "2603:1030::1"}, 443, True),
        ({"pod": ("training-system", DISPATCHER)}, 8082, True),  # the relay
        ({"pod": ("kube-system", NAME_SERVER)}, 53, True),
        ({"address": "169.254.20.10"}, 53, True),
        ({"address": "20.60.1.2"}, 80, False),
        ({"address": "8.8.8.8"}, 53, False),  # another name server
        ({"pod": ("training-system", DISPATCHER)}, 8080, False),
        ({"pod": ("training-system", DISPATCHER)}, 8081, False),
        ({"pod": ("training-system", {})}, 8082, False),
        ({"pod": ("training", TRAINING)}, 443, False),  # another training
        ({"pod": ("kube-system", {})}, 443, False),
        ({"pod": ("default", NAME_SERVER)}, 53, False),
        *(
            ({"address": address}, 443, False)
            for address in (
                "169.254.169.254",  # the metadata service of AWS, Azure and GCP
                "fd00:ec2::254",
                "fe80::a9fe:a9fe",
                "168.63.129.16",  # Azure's host
                "10.0.0.1",  # the API server by its Service, and whatever else is private
                "172.20.0.1",
                "192.168.1.1",
                "100.64.0.1",
                "127.0.0.1",
                "0.0.0.0",
                "224.0.0.1",
                "255.255.255.255",
                "fc00::1",
                "::1",
                "::ffff:10.0.0.1",
                "64:ff9b::a00:1",  # 10.0.0.1 through NAT64
            )
        ),
        ({"address": "169.254.169.254"}, 80, False),
        ({"address": "10.0.0.1"}, 6443, False),
    ],
)
def test_a_training_reaches_name_server_storage_and_relay_and_nothing_else(
    variant: str, where: dict[str, Any], port: int, is_open: bool
) -> None:
    training = ("training", job_of(variant)["spec"]["template"]["metadata"]["labels"])
    assert _is_open(variant, "out", training, port, **where) is is_open
    assert port != 53 or _is_open(variant, "out", training, port, protocol="UDP", **where) is is_open


@pytest.mark.parametrize("variant", TWO_NAMESPACES)
@pytest.mark.parametrize("port", [22, 443, 8080, 8082])
def test_nobody_reaches_a_training(variant: str, port: int) -> None:
    training = ("training", job_of(variant)["spec"]["template"]["metadata"]["labels"])
    for pod in (training, ("training-system", DISPATCHER), ("monitoring", {})):
        assert not _is_open(variant, "in", training, port, pod=pod)
    assert not _is_open(variant, "in", training, port, address="10.0.0.7")


def _pod_of(name: str, nodes: int) -> tuple[str, dict[str, str]]:
    """Namespace and labels of a pod of a training, with what the Job controller adds."""
    labels = job_of("production", nodes)["spec"]["template"]["metadata"]["labels"]
    return "training", {**labels, "batch.kubernetes.io/job-name": name}


@pytest.mark.parametrize("variant", TWO_NAMESPACES)
@pytest.mark.parametrize("port", [443, 29400, 29500, 65535])
def test_the_nodes_of_one_training_reach_each_other_and_no_other_does(variant: str, port: int) -> None:
    mine, theirs, single = _pod_of("model-1", 2), _pod_of("model-2", 2), _pod_of("model-3", 1)
    made = [network_policy_of(name) for name in ("model-1", "model-2")]

    def is_open(here: tuple[str, Mapping[str, str]], there: tuple[str, Mapping[str, str]]) -> bool:
        leaves = _is_open(variant, "out", here, port, pod=there, made=made)
        return leaves and _is_open(variant, "in", there, port, pod=here, made=made)

    assert is_open(mine, mine)
    for stranger in (theirs, single, ("training", {}), ("default", mine[1])):
        assert not _is_open(variant, "in", mine, port, pod=stranger, made=made)
    for stranger in (theirs, single):
        assert not is_open(mine, stranger)
    assert not _is_open(variant, "in", mine, port, address="10.0.0.7", made=made)
    assert not _is_open(variant, "out", mine, 29400, address="20.60.1.2", made=made)


@pytest.mark.parametrize("variant", TWO_NAMESPACES)
def test_several_nodes_reach_what_one_does(variant: str) -> None:
    team, made = _pod_of("model-1", 2), [network_policy_of("model-1")]
    assert _is_open(variant, "out", team, 443, address="20.60.1.2", made=made)
    assert _is_open(variant, "out", team, 8082, pod=("training-system", DISPATCHER), made=made)
    assert not _is_open(variant, "out", team, 80, address="169.254.169.254", made=made)


def test_where_no_policy_selects_trainings_that_of_a_team_cuts_it_off_from_nothing() -> None:
    """A policy that selects a pod closes, in its directions, all that no policy opens."""
    assert network_policy_of()["spec"]["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize("variant", TWO_NAMESPACES)
def test_the_relay_is_for_trainings_alone_and_the_status_page_for_nobody(variant: str) -> None:
    here = ("training-system", DISPATCHER)
    assert _is_open(variant, "in", here, 8082, pod=("training", TRAINING))
    assert not _is_open(variant, "in", here, 8082, pod=("training", {}))
    assert not _is_open(variant, "in", here, 8082, pod=("default", TRAINING))
    assert not _is_open(variant, "in", here, 8082, address="203.0.113.9")
    for pod in (("training", TRAINING), ("monitoring", {})):
        assert not _is_open(variant, "in", here, 8081, pod=pod)
        assert _is_open(variant, "in", here, 8080, pod=pod), "probes and metrics"


def test_a_pod_without_our_label_reaches_nothing_in_the_namespace_of_the_trainings() -> None:
    stray = ("training", template_pod("production")["metadata"]["labels"])
    for port in (53, 443, 8082):
        assert not _is_open("production", "out", stray, port, address="20.60.1.2")
        assert not _is_open("production", "out", stray, port, pod=("training-system", DISPATCHER))


def test_the_relays_port_is_the_same_in_service_deployment_policies_and_settings() -> None:
    deployment = of_kind("production", "Deployment")["training-dispatcher"]["spec"]["template"]["spec"]
    (port,) = [p for c in deployment["containers"] for p in c["ports"] if p["name"] == "relay"]
    service = of_kind("production", "Service")["training-relay"]
    (served,) = service["spec"]["ports"]
    home = service["metadata"]["namespace"]
    assert (port["containerPort"], served["targetPort"], served["port"]) == (8082, "relay", 8082)
    assert settings_of("production")["RELAY_URL"] == f"http://training-relay.{home}.svc:8082"
    assert "RELAY_PORT" not in settings_of("production"), "8082 is the default"


def test_the_quota_that_operators_fill_in_is_valid_and_counts_what_trainings_ask_for() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    quota = yaml.safe_load((MANIFESTS / "overlays" / "production" / "quota.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(quota, "1.31", strict=True)
    assert quota["metadata"]["namespace"] == "training"
    (trainer,) = template_pod("production")["spec"]["containers"]
    asked = {f"requests.{name}" for name in (*trainer["resources"]["requests"], "nvidia.com/gpu")}
    assert {name for name in quota["spec"]["hard"] if name.startswith("requests.")} <= asked
