"""Rights: the Role is what the calls need, both pods are restricted, trainings have no way into the cluster."""

from __future__ import annotations

import ast
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dispatcher.cli.checks.check import NEEDED, NEEDED_WITH_SCOPED, NEEDED_WITH_TEAMS, WANTED, WANTED_WITH_KUEUE
from dispatcher.cluster import calls, names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import Listing, ObjectConflict
from tests.world.manifests.kustomized import (
    VARIANTS,
    Object,
    containers,
    has_two_namespaces,
    needs_kubectl,
    of_kind,
    pods,
    settings_of,
    template_pod,
)
from tests.world.repository import MANIFESTS, ROOT

every_variant = pytest.mark.parametrize("variant", VARIANTS)
GROUPS = {"jobs": "batch", "pods": "", "events": "", "secrets": "", "workloads": "kueue.x-k8s.io"}
GROUPS |= {"configmaps": "", "localqueues": "kueue.x-k8s.io"}
GROUPS["networkpolicies"] = "networking.k8s.io"
# Resource → the one object that it may be done to.
NAMED = {"configmaps": [names.PAUSE]}
ADDED = {"kueue": WANTED_WITH_KUEUE, "scoped-credentials": NEEDED_WITH_SCOPED, "teams": NEEDED_WITH_TEAMS}


def _granted(*components: str) -> dict[str, set[str]]:
    """Resource → verbs, of manifests/base/role.yaml and what these components add."""
    rules = yaml.safe_load((MANIFESTS / "base" / "role.yaml").read_text(encoding="utf-8"))["rules"]
    for component in components:
        patch = yaml.safe_load((MANIFESTS / "components" / component / "role.yaml").read_text(encoding="utf-8"))
        assert {(step["op"], step["path"]) for step in patch} == {("add", "/rules/-")}
        rules += [step["value"] for step in patch]
    granted: dict[str, set[str]] = {}
    for rule in rules:
        assert set(rule) - {"resourceNames"} == {"apiGroups", "resources", "verbs"}
        for resource in rule["resources"]:
            assert rule["apiGroups"] == [GROUPS[resource]], resource
            assert resource not in granted, resource
            assert rule.get("resourceNames") == NAMED.get(resource), resource
            granted[resource] = set(rule["verbs"])
    return granted


def test_the_role_allows_exactly_what_check_asks_for() -> None:
    assert _granted() == {resource: set(verbs) for resource, verbs in (*NEEDED, *WANTED)}
    for component, added in ADDED.items():
        assert _granted(component) == {resource: set(verbs) for resource, verbs in (*NEEDED, *WANTED, *added)}


@needs_kubectl
@every_variant
def test_what_is_applied_is_that_role(variant: str) -> None:
    (role,) = of_kind(variant, "Role").values()
    granted = {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    settings = settings_of(variant)
    added = {"kueue": "KUEUE_QUEUE" in settings, "scoped-credentials": settings.get("CREDENTIALS") == "scoped"}
    added["teams"] = "MAX_NODES" in settings
    assert granted == _granted(*(component for component, listed in added.items() if listed))


_SECRET = {"metadata": {"name": "model-1", "ownerReferences": [{"uid": "u"}]}, "data": {}}
# One call of each public method; a new method has to be added here, and its verb to the Role.
CALLS: dict[str, tuple[Any, ...]] = {
    "create_job": ({},),
    "get_job": ("model-1",),
    "get_environment": ("model-1",),
    "get_request": ("model-1",),
    "patch_job": ("model-1", {}),
    "delete_job": ("model-1", "uid"),
    "apply_secret": (_SECRET,),
    "create_network_policy": ({},),
    "list_jobs": ("a=b",),
    "list_pods": ("a=b",),
    "list_metadata": ("pods", "a=b"),
    "delete_pod": ("model-1-x", "uid"),
    "list_events": ("uid",),
    "create_event": ({},),
    "list_nodes": (),
    "list_workloads": (),
    "get_local_queue": ("training",),
    "get_config_map": (names.PAUSE,),
    "patch_config_map": (names.PAUSE, {}),
    "may": ("get", "jobs"),
}


def test_the_role_allows_exactly_the_calls_that_the_dispatcher_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[tuple[str, str]] = set()

    def record(self: KubernetesJobs, verb: str, kind: str, name: str = "", **_: Any) -> SimpleNamespace:
        made.add((verb, kind))
        if (verb, kind) == ("create", "secrets"):
            raise ObjectConflict("it is there")  # so that it is patched
        return SimpleNamespace(data=b'{"metadata":{"uid":"uid"},"spec":{"template":{"spec":{"containers":[]}}}}')

    monkeypatch.setattr(calls, "connect", lambda pool_size: (object(), "training"))
    monkeypatch.setattr(KubernetesJobs, "_request", record)
    public = {name for name, _ in inspect.getmembers(KubernetesJobs, inspect.isfunction) if not name.startswith("_")}
    # Of the commands alone: logs are read with a person's own rights.
    assert public == {*CALLS, "watch", "pod_log"}
    cluster = KubernetesJobs()
    for name, arguments in CALLS.items():
        answer = getattr(cluster, name)(*arguments)
        if isinstance(answer, Listing):
            # Its pages are asked for as they are read.
            list(answer)
    made |= {("watch", kind) for kind in _watched_kinds()}
    # Kubernetes lets everybody ask about his own rights (system:basic-user).
    made.remove(("create", "selfsubjectaccessreviews"))
    made.remove(("list", "nodes"))  # of the whole cluster: a ClusterRole of a component of its own
    assert made == {(verb, resource) for resource, verbs in _granted(*ADDED).items() for verb in verbs}


def _watched_kinds() -> set[str]:
    """The kinds that app.py starts a Watcher for: the values of the loop around that call."""
    tree = ast.parse((ROOT / "dispatcher" / "app.py").read_text(encoding="utf-8"))
    return {
        kind
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For) and "Watcher(" in ast.unparse(loop) and isinstance(loop.iter, ast.Tuple)
        for kind in ast.literal_eval(loop.iter)
    }


@needs_kubectl
@every_variant
def test_the_binding_gives_the_role_to_the_dispatcher_alone(variant: str) -> None:
    (binding,) = of_kind(variant, "RoleBinding").values()
    home = "training-system" if has_two_namespaces(variant) else "training"
    assert of_kind(variant, "Deployment")["training-dispatcher"]["metadata"]["namespace"] == home
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "training-dispatcher", "namespace": home}]
    assert list(of_kind(variant, "Role")) == [binding["roleRef"]["name"]] == ["training-dispatcher"]
    # Nothing of the whole cluster but what the component for it gives, to the dispatcher alone.
    optional = variant.endswith(("+all", "+node-sizes"))
    granted = [rule for role in of_kind(variant, "ClusterRole").values() for rule in role["rules"]]
    assert granted == ([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}] if optional else [])
    subjects = [subject for each in of_kind(variant, "ClusterRoleBinding").values() for subject in each["subjects"]]
    assert subjects == (binding["subjects"] if optional else [])


@needs_kubectl
@every_variant
def test_only_the_dispatcher_mounts_a_token_of_the_cluster(variant: str) -> None:
    for account in of_kind(variant, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    for who, pod in pods(variant).items():
        assert pod["spec"]["automountServiceAccountToken"] is (who == "Deployment training-dispatcher"), who
    assert template_pod(variant)["spec"]["serviceAccountName"] == "model-training"


@needs_kubectl
@every_variant
def test_every_pod_satisfies_pod_security_restricted(variant: str) -> None:
    for who, pod in pods(variant).items():
        assert list(_violations(pod["spec"])) == [], who


def _violations(spec: Object) -> list[str]:
    """What the level "restricted" of Kubernetes' Pod Security Standards forbids; and a read-only root."""
    found = [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in spec.get("volumes", []):
        found += [f"volume of kind {kind}" for kind in set(volume) - {"name"} - allowed]
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        found.append("may run as root")
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("no seccomp profile")
    if "sysctls" in context:
        found.append("sysctls")
    for container in containers({"spec": spec}):
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            found.append(f"{container['name']}: may escalate")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"{container['name']}: keeps capabilities")
        if {"runAsNonRoot", "runAsUser", "seccompProfile", "procMount"} & set(own):
            found.append(f"{container['name']}: overrides the pod's security context")
        if own.get("readOnlyRootFilesystem") is not True:
            found.append(f"{container['name']}: root file system is writable")
        if any("hostPort" in port for port in container.get("ports", [])):
            found.append(f"{container['name']}: hostPort")
    return found


@needs_kubectl
@every_variant
def test_no_pod_can_fill_a_node(variant: str) -> None:
    for who, pod in pods(variant).items():
        for container in containers(pod):
            assert "memory" in container["resources"]["limits"], who
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), who
        for volume in pod["spec"].get("volumes", []):
            assert "emptyDir" not in volume or volume["emptyDir"].get("sizeLimit"), f"{who}: {volume['name']}"


@needs_kubectl
@every_variant
def test_services_in_the_namespace_cannot_pose_as_settings(variant: str) -> None:
    for who, pod in pods(variant).items():
        assert pod["spec"]["enableServiceLinks"] is False, who


def test_no_secret_stands_in_a_file_of_production() -> None:
    for path in MANIFESTS.rglob("*"):
        if path.is_file() and "local" not in path.relative_to(MANIFESTS).parts:
            assert "AccountKey=" not in path.read_text(encoding="utf-8"), path
