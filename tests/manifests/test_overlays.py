"""Every overlay, alone and with every component: renders, is valid for Kubernetes, and fits the code and itself."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from dispatcher.cluster import names
from dispatcher.config import settings as settings_module
from dispatcher.config.settings import Settings
from dispatcher.telemetry.metrics import Metrics
from tests.world.manifests.admission import job_of, network_policy_of
from tests.world.manifests.kustomized import (
    COMPONENTS,
    VARIANTS,
    config_map,
    containers,
    has_two_namespaces,
    kustomize,
    needs_kubectl,
    of_kind,
    pods,
    rendered,
    settings_of,
    template_of,
)
from tests.world.repository import MANIFESTS
from training_common import settings as common_settings

pytestmark = needs_kubectl

every_variant = pytest.mark.parametrize("variant", VARIANTS)

# Kinds of other projects: no schema of Kubernetes' own knows them.
FOREIGN = {
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
}
# The oldest Kubernetes that we support (Job's podFailurePolicy is stable from it on), and the newest we have seen.
KUBERNETES = ("1.31", "1.36")
# Made by the operator (or by components and overlays): Secret → keys.
SECRETS = {"portal": {"API_KEY"}, "storage": {"AZURE_STORAGE_CONNECTION_STRING"}}


@every_variant
@pytest.mark.parametrize("version", KUBERNETES)
def test_an_unknown_field_or_api_version_does_not_reach_a_cluster(variant: str, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for thing in (*rendered(variant), yaml.safe_load(template_of(variant))):
        if (thing["apiVersion"], thing["kind"]) not in FOREIGN:
            kubernetes_validate.validate(thing, version, strict=True)


@every_variant
def test_the_dispatcher_and_the_trainings_each_have_their_namespace(variant: str) -> None:
    of_the_cluster = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    of_the_cluster |= {"ClusterRole", "ClusterRoleBinding"} if variant.endswith(("+all", "+node-sizes")) else set()
    here: dict[str | None, set[tuple[str, str]]] = {}
    for thing in rendered(variant):
        metadata = thing["metadata"]
        here.setdefault(metadata.get("namespace"), set()).add((thing["kind"], metadata["name"]))
    assert {kind for kind, _ in here.pop(None)} <= of_the_cluster
    if not has_two_namespaces(variant):
        assert set(here) == {"training"}
        return
    assert set(here) == {"training", "training-system"}
    assert here["training"] <= {
        ("ConfigMap", "training-dispatcher-pause"),
        ("Role", "training-dispatcher"),
        ("RoleBinding", "training-dispatcher"),
        ("ServiceAccount", "model-training"),
        ("NetworkPolicy", "model-training"),
        ("NetworkPolicy", "model-training-teams"),
        ("NetworkPolicy", "default-deny"),
        ("LocalQueue", "training"),
        ("Service", "model-training"),
    }
    assert settings_of(variant)["NAMESPACE"] == "training"


@every_variant
def test_applying_the_manifests_ends_no_pause(variant: str) -> None:
    switch = of_kind(variant, "ConfigMap")[names.PAUSE]
    assert not {"data", "binaryData", "immutable"} & set(switch), "what apply has not set it does not reset"


@every_variant
def test_no_probe_comes_before_the_process_listens_and_none_ends_it_while_it_begins(variant: str) -> None:
    (dispatcher,) = of_kind(variant, "Deployment")["training-dispatcher"]["spec"]["template"]["spec"]["containers"]
    startup, ready = dispatcher["startupProbe"], dispatcher["readinessProbe"]
    assert startup["httpGet"] == dispatcher["livenessProbe"]["httpGet"], "what is not ready is not ended for it"
    assert 3 <= startup["initialDelaySeconds"] < ready["initialDelaySeconds"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120


@every_variant
def test_a_second_apply_says_that_nothing_is_changed(variant: str) -> None:
    """kubectl compares lists as wholes: what the API server drops or fills in within one is "configured" each time."""
    for thing in rendered(variant):
        assert not list(_empty_lists(thing)), f"{thing['kind']} {thing['metadata']['name']}: the server drops it"
    for name, policy in of_kind(variant, "ValidatingAdmissionPolicy").items():
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]:
            assert rule["scope"] == "*", f"{name}: the server fills it in"


def _empty_lists(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if value in ([], None):
            yield str(key)
        elif isinstance(value, dict | list):
            yield from _empty_lists(value)


def test_a_registrys_login_reaches_every_pod_when_its_lines_are_uncommented(tmp_path: Path) -> None:
    copied = shutil.copytree(MANIFESTS, tmp_path / "manifests")
    file = copied / "overlays" / "production" / "kustomization.yaml"
    text, before = file.read_text(), "# The login of a registry: a Secret `registry`"
    first, last = text.split(before)
    file.write_text(first.replace("# - pullSecrets", "- pullSecrets") + before + last.replace("\n  # ", "\n  "))
    things = kustomize(file.parent)
    accounts = {t["metadata"]["name"]: t["imagePullSecrets"] for t in things if t["kind"] == "ServiceAccount"}
    login = [{"name": "registry"}]
    assert accounts == {"training-dispatcher": login, "model-training": login}
    (policy,) = (t for t in things if t["metadata"]["name"] == "training-policy")
    assert policy["data"]["pullSecrets"] == "registry"


@every_variant
def test_no_image_is_latest_or_without_a_tag(variant: str) -> None:
    images = [c["image"] for pod in pods(variant).values() for c in containers(pod) if "image" in c]
    for image in [*images, settings_of(variant)["TRAINER_IMAGE"]]:
        assert re.search(r":[^/:]+\Z|@sha256:[0-9a-f]{64}\Z", image), image
        assert not image.endswith(":latest")


@every_variant
def test_every_reference_leads_somewhere(variant: str) -> None:
    maps = {name: set(thing.get("data", ())) for name, thing in of_kind(variant, "ConfigMap").items()}
    made = {name: set(thing["data"]) for name, thing in of_kind(variant, "Secret").items()}
    secrets = {**(SECRETS if VARIANTS[variant][0] != "local" else {}), **made}
    for who, pod in pods(variant).items():
        account = pod["spec"].get("serviceAccountName")
        assert account is None or account in of_kind(variant, "ServiceAccount"), who
        for kind, name, key in _references(pod["spec"]):
            known = maps if kind == "ConfigMap" else secrets
            assert name in known, f"{who}: no {kind} {name}"
            assert key is None or key in known[name], f"{who}: no {key} in {kind} {name}"
        mounted = {mount["name"] for c in containers(pod) for mount in c.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod["spec"].get("volumes", [])}, who


def _references(node: Any) -> list[tuple[str, str, str | None]]:
    """(kind, name, key) of every ConfigMap and Secret that a pod spec names; key None: all of it."""
    if isinstance(node, list):
        return [found for entry in node for found in _references(entry)]
    if not isinstance(node, dict):
        return []
    found: list[tuple[str, str, str | None]] = []
    for field, value in node.items():
        if field in ("configMapKeyRef", "secretKeyRef") and value.get("optional"):
            continue
        if field in ("configMapKeyRef", "secretKeyRef"):
            found.append(("Secret" if field.startswith("secret") else "ConfigMap", value["name"], value["key"]))
        elif field in ("configMapRef", "configMap"):
            found.append(("ConfigMap", value["name"], None))
        elif field in ("secretRef", "secret"):
            found.append(("Secret", value.get("name") or value["secretName"], None))
        else:
            found += _references(value)
    return found


@every_variant
def test_the_dispatcher_starts_with_the_settings_of_the_manifests(variant: str, tmp_path: Path) -> None:
    configured = settings_of(variant)
    known = {setting.env for setting in common_settings.settings_of(Settings).values()}
    assert set(configured) <= known, "config.env names something that is no setting"
    assert configured["JOB_TEMPLATE"] == "/etc/training-dispatcher/job-template.yaml"
    (tmp_path / "job-template.yaml").write_text(template_of(variant), encoding="utf-8")
    (dispatcher,) = of_kind(variant, "Deployment")["training-dispatcher"]["spec"]["template"]["spec"]["containers"]
    from_secrets = {entry["name"]: "AccountKey=".ljust(32, "-") for entry in dispatcher["env"]}
    assert set(from_secrets) <= known
    Settings.read({**configured, **from_secrets, "JOB_TEMPLATE": str(tmp_path / "job-template.yaml")})


@every_variant
def test_probes_metrics_and_shutdown_fit_the_settings(variant: str) -> None:
    configured = settings_of(variant)
    pod = of_kind(variant, "Deployment")["training-dispatcher"]["spec"]["template"]["spec"]
    (dispatcher,) = pod["containers"]
    port, status, relay = dispatcher["ports"]
    assert str(port["containerPort"]) == configured["HEALTH_PORT"]
    assert (status["name"], str(status["containerPort"])) == ("status", configured["STATUS_PORT"])
    assert (relay["name"], relay["containerPort"]) == ("relay", settings_module._RELAY_PORT)
    assert dispatcher["livenessProbe"]["httpGet"] == {"path": "/livez", "port": port["name"]}
    assert dispatcher["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    assert pod["terminationGracePeriodSeconds"] >= float(configured["SHUTDOWN_GRACE_SECONDS"]) + 10
    for monitor in of_kind(variant, "PodMonitor").values():
        assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == [port["name"]]


@every_variant
def test_the_relay_is_served_by_every_dispatcher_ready_or_not(variant: str) -> None:
    """Readiness follows the intake, which an outage of the portal pauses: that must not close the relay as well."""
    service = of_kind(variant, "Service")["training-relay"]["spec"]
    pod = of_kind(variant, "Deployment")["training-dispatcher"]["spec"]["template"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["publishNotReadyAddresses"] is True
    [port] = service["ports"]
    assert port["port"] == settings_module._RELAY_PORT
    assert port["targetPort"] in [named["name"] for named in pod["spec"]["containers"][0]["ports"]]


@pytest.mark.parametrize("version", KUBERNETES)
def test_what_the_dispatcher_makes_for_several_nodes_is_valid(version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for thing in (job_of("production", nodes=4), network_policy_of()):
        kubernetes_validate.validate(thing, version, strict=True)


@every_variant
def test_the_pods_of_a_training_on_several_nodes_have_names_before_they_are_ready(variant: str) -> None:
    service = of_kind(variant, "Service")[names.TEAM_SERVICE]
    assert service["metadata"]["namespace"] == "training"
    assert service["spec"]["clusterIP"] == "None", "a name of its own for each pod"
    assert service["spec"]["publishNotReadyAddresses"] is True
    job = job_of(variant, nodes=2)
    pod = job["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert not service["spec"]["selector"].items() <= job_of(variant)["spec"]["template"]["metadata"]["labels"].items()
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert names.TEAM_MASTER_PORT in [port["port"] for port in service["spec"]["ports"]]


@every_variant
def test_nothing_but_trainings_carries_the_label_that_the_dispatcher_selects_by(variant: str) -> None:
    for thing in rendered(variant):
        pod = thing.get("spec", {}).get("template", {}).get("metadata", {})
        for metadata in (thing["metadata"], pod):
            assert "app.kubernetes.io/managed-by" not in metadata.get("labels", {}), thing["metadata"]["name"]


@every_variant
def test_selectors_meet_the_pods_they_are_meant_for(variant: str) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(variant).values()]
    labels.append(job_of(variant, nodes=2)["spec"]["template"]["metadata"]["labels"])
    for kind, field in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("PodMonitor", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        for name, thing in of_kind(variant, kind).items():
            wanted = thing["spec"][field].get("matchLabels", {}).items()
            assert wanted or name == "default-deny"
            assert any(wanted <= of_pod.items() for of_pod in labels), f"{kind} {name}"


def test_a_changed_setting_or_template_rolls_the_dispatcher() -> None:
    deployment = of_kind("production", "Deployment")["training-dispatcher"]
    for name in ("training-dispatcher", "training-job-template"):
        generated = config_map("production", name)["metadata"]["name"]
        assert re.fullmatch(rf"{name}-[a-z0-9]{{10}}", generated)
        assert ("ConfigMap", generated, None) in _references(deployment["spec"]["template"]["spec"])


def test_production_has_exactly_two_places_to_fill_in() -> None:
    folder = MANIFESTS / "overlays" / "production"
    marks = {mark for path in folder.iterdir() for mark in re.findall(r"FILL IN (\d) of 2", path.read_text())}
    assert marks == {"1", "2"}
    filled = "\n".join(path.read_text() for path in folder.iterdir())
    assert set(re.findall(r"[\w.-]*example\.com", filled)) == {"registry.example.com", "portal.example.com"}


def test_a_component_is_left_out_unless_it_is_listed() -> None:
    listed = yaml.safe_load((MANIFESTS / "overlays" / "production" / "kustomization.yaml").read_text())
    assert listed["components"] == [
        f"../../components/{name}" for name in ("admission-policy", "network-policy", "scoped-credentials")
    ]
    mentioned = (MANIFESTS / "overlays" / "production" / "kustomization.yaml").read_text()
    for name in {*COMPONENTS} - {"workload-identity-trainings"}:  # which is for one namespace
        assert f"../../components/{name}\n" in mentioned


def test_alerts_and_code_name_the_same_metrics() -> None:
    registry: CollectorRegistry = Metrics().registry
    known = {sample for family in registry.collect() for sample in _sample_names(family.name, family.type)}
    groups = of_kind("production+monitoring", "PrometheusRule")["training-dispatcher"]["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    # Of kube-state-metrics: a process that ends at its start may never be scraped.
    known |= {"kube_pod_container_status_restarts_total"}
    for rule in rules:
        used = set(re.findall(r"\b(?:training_dispatcher|kube)_\w+", rule["expr"]))
        assert used, rule["alert"]
        assert used <= known, rule["alert"]
        assert {"summary", "description"} == set(rule["annotations"]), rule["alert"]
    assert len({rule["alert"] for rule in rules}) == len(rules)


def _sample_names(family: str, kind: str) -> set[str]:
    return {
        "counter": {f"{family}_total"},
        "histogram": {f"{family}_bucket", f"{family}_sum", f"{family}_count"},
    }.get(kind, {family})


def test_kueue_resumes_the_jobs_of_the_queue_that_the_component_makes() -> None:
    for variant in ("production+kueue", "one_namespace+all"):
        queue = of_kind(variant, "LocalQueue")[settings_of(variant)["KUEUE_QUEUE"]]
        assert queue["metadata"]["namespace"] == "training"
    assert "KUEUE_QUEUE" not in settings_of("production")
