"""The admission policies, by the expressions that are applied: trainings pass, and nothing else does.

CEL's own implementation evaluates them, on a Job of each template of ours and on what somebody with a stolen token of
the dispatcher would rather create.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.world.manifests.admission import MODEL, NAMESPACE, job_of, pod_of, secret_of, why_denied
from tests.world.manifests.kustomized import VARIANTS, Object, config_map, has_two_namespaces, needs_kubectl, of_kind
from tests.world.repository import ROOT

pytestmark = needs_kubectl

TWO_NAMESPACES = [name for name, (overlay, _) in VARIANTS.items() if overlay == "production"]
IMAGE = "registry.example.com/training-dispatcher/trainer"
TYPES: dict[str, dict[str, str]] = json.loads((ROOT / "local_stack/cluster/registry/fields.json").read_text())["types"]

Change = Callable[[Object], object]


def spec_of(obj: Object) -> Object:
    """The pod's spec in a Job or a pod."""
    spec: Object = obj["spec"]["template"]["spec"] if obj["kind"] == "Job" else obj["spec"]
    return spec


def trainer_of(obj: Object) -> Object:
    trainer: Object = next(c for c in spec_of(obj)["containers"] if c["name"] == "trainer")
    return trainer


@pytest.mark.parametrize("variant", TWO_NAMESPACES)
def test_a_training_of_each_template_and_its_pod_are_admitted(variant: str) -> None:
    assert has_two_namespaces(variant)
    job = job_of(variant)
    assert why_denied(job, variant=variant) == ""
    assert why_denied(pod_of(job), variant=variant) == ""


def _sidecar(image: str) -> Object:
    return {"name": "sidecar", "image": image}


def _volume(**kind: Any) -> Change:
    return lambda obj: spec_of(obj)["volumes"].append({"name": "more", **kind})


def _claim(**fields: Any) -> Object:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "ssd"}
    return {"volumeClaimTemplate": {"spec": {**asked, **fields}}}


def _variable(**source: Any) -> Change:
    return lambda obj: trainer_of(obj)["env"].append({"name": "MORE", "valueFrom": source})


def _in_spec(**fields: Any) -> Change:
    return lambda obj: spec_of(obj).update(fields)


def _calls(field: str, **what: Any) -> Change:
    return lambda obj: trainer_of(obj).update({field: what})


def _image(image: str) -> Change:
    return lambda obj: trainer_of(obj).update(image=image)


# What a stolen token would be used for → (how a good Job or pod is changed into it, a word of the refusal).
EVIL: dict[str, tuple[Change, str]] = {
    "another image": (_image("docker.io/library/busybox:1"), "images docker.io/library/busybox:1"),
    "another registry with the same path": (_image(f"evil.example.com/{IMAGE}:1"), "images"),
    "a registry whose name goes on": (_image(IMAGE.replace(".com", ".com.evil.net") + ":1"), "images"),
    "an image whose name goes on": (_image(f"{IMAGE}-evil:1"), "images"),
    "an image below the image": (_image(f"{IMAGE}/evil:1"), "images"),
    "no image": (lambda obj: trainer_of(obj).pop("image"), "no such key|not found|images"),
    "another image beside": (lambda obj: spec_of(obj)["containers"].append(_sidecar("evil:1")), "evil:1"),
    "another image before": (_in_spec(initContainers=[_sidecar("evil:1")]), "evil:1"),
    "the default service account": (
        _in_spec(serviceAccountName="default", serviceAccount="default"),
        "service account",
    ),
    "the dispatcher's service account": (_in_spec(serviceAccountName="training-dispatcher"), "service account"),
    "a service account by its old field": (_in_spec(serviceAccount="default"), "service account"),
    "no service account": (lambda obj: spec_of(obj).pop("serviceAccountName"), "service account"),
    "a token": (_in_spec(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "a token by default": (
        lambda obj: spec_of(obj).pop("automountServiceAccountToken"),
        "automountServiceAccountToken",
    ),
    "a token as a volume": (_volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}), "no token"),
    "a token for another audience among others": (
        _volume(
            projected={
                "sources": [
                    {"configMap": {"name": "kube-root-ca.crt"}},
                    {"serviceAccountToken": {"path": "t", "audience": "api://AzureADTokenExchange"}},
                ]
            }
        ),
        "no token",
    ),
    "the portal's key": (_variable(secretKeyRef={"name": "portal", "key": "API_KEY"}), "only Secret"),
    "another training's Secret": (_volume(secret={"secretName": "model-124"}), "only Secret"),
    "a Secret without a name": (_volume(secret={}), "only Secret"),
    "the node's files": (_volume(hostPath={"path": "/"}), "a volume must be"),
    "a claim": (_volume(persistentVolumeClaim={"claimName": "datasets"}), "PersistentVolumeClaim"),
    "a copy of a claim": (
        _volume(ephemeral=_claim(dataSource={"kind": "PersistentVolumeClaim", "name": "datasets"})),
        "begin empty",
    ),
    "a copy of a claim by the newer field": (
        _volume(ephemeral=_claim(dataSourceRef={"kind": "PersistentVolumeClaim", "name": "datasets"})),
        "begin empty",
    ),
    "a volume that there is": (_volume(ephemeral=_claim(volumeName="another")), "begin empty"),
    "a volume that is looked for": (_volume(ephemeral=_claim(selector={"matchLabels": {"a": "b"}})), "begin empty"),
    "a certificate of the pod's": (
        _volume(projected={"sources": [{"podCertificate": {"keyType": "RSA3072"}}]}),
        "sources",
    ),
    "the node's network": (_in_spec(hostNetwork=True), "hostNetwork"),
    "the node's processes": (_in_spec(hostPID=True), "hostPID"),
    "the node's memory": (_in_spec(hostIPC=True), "hostIPC"),
    "a port of the node": (lambda obj: trainer_of(obj).update(ports=[{"containerPort": 1, "hostPort": 1}]), "hostPort"),
    "a call by the node": (_calls("livenessProbe", httpGet={"host": "169.254.169.254", "port": 80}), "name a host"),
    "a connection by the node": (_calls("startupProbe", tcpSocket={"host": "10.0.0.1", "port": 22}), "name a host"),
    "a call by the node at the beginning": (
        _calls("lifecycle", postStart={"httpGet": {"host": "169.254.169.254", "port": 80}}),
        "name a host",
    ),
    "before everybody": (_in_spec(priorityClassName="system-node-critical"), "priority classes"),
    "a Secret to pull with": (_in_spec(imagePullSecrets=[{"name": "registry"}]), "pulled with a Secret"),
}


@pytest.mark.parametrize("kind", ["Job", "Pod"])
@pytest.mark.parametrize("what", EVIL)
def test_a_stolen_token_starts_nothing_but_a_training_by_a_job_or_by_what_makes_pods(what: str, kind: str) -> None:
    change, word = EVIL[what]
    job = job_of("production")
    evil = job if kind == "Job" else pod_of(job)
    change(evil)
    said = why_denied(evil)
    assert "denied request: " in said, "it was admitted"
    assert re.search(word, said), said


# Fields that may name a Secret without being one of a Job's own: each path of the schema to one.
def _paths_to_secrets(of: str = "V1PodSpec", path: tuple[tuple[str, str], ...] = ()) -> Iterator[tuple[Any, ...]]:
    for field, declared in TYPES[of].items():
        inner = declared.lstrip("[{")
        here = (*path, (field, declared))
        if "Secret" in inner or inner == "V1LocalObjectReference" or field.lower().endswith("secretname"):
            yield here
        elif inner in TYPES and inner not in {declared.lstrip("[{") for _, declared in path}:
            yield from _paths_to_secrets(inner, here)


SECRETS = {".".join(field for field, _ in path): path for path in _paths_to_secrets()}


def test_every_way_of_a_pod_to_a_secret_is_known_to_the_next_test() -> None:
    assert {"volumes.secret", "containers.envFrom.secretRef", "volumes.csi.nodePublishSecretRef"} <= set(SECRETS)
    assert len(SECRETS) >= 18


@pytest.mark.parametrize("way", SECRETS)
def test_no_field_of_a_pod_leads_to_another_secret(way: str) -> None:
    value: Any = "portal"
    for field, declared in reversed(SECRETS[way]):
        if declared != "str":
            key = {"V1SecretVolumeSource": "secretName"}.get(declared.lstrip("[{"), "name")
            value = {key: value} if isinstance(value, str) else {**value}
        if declared.startswith("["):
            value = [{"name": "more", "image": f"{IMAGE}:1", **value} if field.endswith("ontainers") else value]
        value = {field: value}
    job = job_of("production")
    for field, added in value.items():
        if field == "volumes":
            added[0]["name"] = "more"
        spec_of(job)[field] = [*spec_of(job).get(field, ()), *added]
    said = why_denied(job)
    assert re.search("only Secret|a volume must be|pulled with a Secret", said), (said, value)


@pytest.mark.parametrize(
    ("of", "allowed", "put"),
    [
        (
            "V1Volume",
            {
                "name",
                "configMap",
                "downwardAPI",
                "emptyDir",
                "ephemeral",
                "persistentVolumeClaim",
                "projected",
                "secret",
            },
            _volume,
        ),
        (
            "V1VolumeProjection",
            {"configMap", "downwardAPI", "secret"},
            lambda **source: _volume(projected={"sources": [source]}),
        ),
        ("V1EnvVarSource", {"configMapKeyRef", "fieldRef", "resourceFieldRef", "secretKeyRef"}, _variable),
    ],
)
def test_a_kind_of_volume_or_source_that_nobody_thought_of_is_refused(
    of: str, allowed: set[str], put: Callable[..., Change]
) -> None:
    for kind in sorted({*TYPES[of], "ofNextYear"} - allowed):
        job = job_of("production")
        put(**{kind: {}})(job)
        assert re.search("must be|must have", why_denied(job)), kind


def test_an_ephemeral_volume_that_begins_empty_is_admitted() -> None:
    job = job_of("production")
    _volume(ephemeral=_claim(volumeMode="Filesystem"))(job)
    assert why_denied(job) == why_denied(pod_of(job)) == ""


def test_a_probe_and_a_hook_of_the_pods_own_are_admitted() -> None:
    job = job_of("production")
    _calls("livenessProbe", httpGet={"port": 80})(job)
    _calls("readinessProbe", exec={"command": ["true"]})(job)
    _calls("lifecycle", preStop={"tcpSocket": {"host": "", "port": 80}})(job)
    assert why_denied(job) == why_denied(pod_of(job)) == ""


def test_a_node_is_chosen_by_the_scheduler_alone() -> None:
    for evil in (job_of("production"), pod_of(job_of("production"))):
        spec_of(evil)["nodeName"] = "control-plane"
        assert "nodeName" in why_denied(evil)


def _without(*path: str) -> Change:
    def change(obj: Object) -> None:
        for key in path[:-1]:
            obj = obj[key]
        del obj[path[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        _without("metadata", "finalizers"),
        _without("metadata", "labels", "app.kubernetes.io/managed-by"),
        _without("metadata", "labels", "training-dispatcher/model-id"),
        _without("metadata", "labels"),
        _without("spec", "template", "metadata", "labels", "app.kubernetes.io/managed-by"),
        _without("spec", "template", "metadata"),
        lambda job: job["metadata"].update(name="registry"),
        lambda job: job["metadata"].update(name="model-124"),
        lambda job: job["metadata"]["labels"].update({"training-dispatcher/model-id": "124"}),
    ],
)
def test_a_job_that_the_dispatcher_or_the_network_policy_would_not_find_is_refused(change: Change) -> None:
    job = job_of("production")
    change(job)
    assert re.search("labels and finalizer|needs the label", why_denied(job))


def test_a_job_cannot_take_the_name_of_a_secret_that_images_are_pulled_with() -> None:
    job = job_of("production")
    assert "pulled with" in why_denied(job, parameters={"pullSecrets": f"registry, {MODEL}"})


def _owned(**fields: Any) -> Change:
    return lambda pod: pod["metadata"]["ownerReferences"][0].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        _without("metadata", "ownerReferences"),
        _owned(kind="ReplicaSet", apiVersion="apps/v1"),
        _owned(apiVersion="evil.example.com/v1"),
        _owned(controller=False),
        lambda pod: pod["metadata"]["ownerReferences"][0].pop("controller"),
    ],
)
def test_a_pod_that_no_job_made_is_refused(change: Change) -> None:
    pod = pod_of(job_of("production"))
    change(pod)
    assert re.search("made by the Job controller|only Secret", why_denied(pod))


def test_a_pod_may_use_the_secret_of_its_own_job_alone() -> None:
    pod = pod_of(job_of("production"))
    _owned(name="model-124")(pod)
    assert "only Secret" in why_denied(pod)


def test_the_pod_of_a_job_without_our_label_is_refused() -> None:
    pod = pod_of(job_of("production"))
    del pod["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    assert "needs the label" in why_denied(pod)


@pytest.mark.parametrize(
    ("parameter", "value", "change"),
    [
        ("images", f"{IMAGE}, registry.example.com/tools/", _image("registry.example.com/tools/a/b@sha256:0")),
        ("images", f"{IMAGE}:2", _image(f"{IMAGE}:2")),
        ("pullSecrets", "registry", _in_spec(imagePullSecrets=[{"name": "registry"}])),
        ("secrets", "licence", _volume(secret={"secretName": "licence"})),
        ("claims", "a,datasets", _volume(persistentVolumeClaim={"claimName": "datasets"})),
    ],
)
def test_what_an_operator_allows_passes_and_is_refused_without_it(parameter: str, value: str, change: Change) -> None:
    job = job_of("production")
    change(job)
    assert why_denied(job, parameters={"images": IMAGE} if parameter != "images" else {"images": f"{IMAGE}:1"})
    assert why_denied(job, parameters={parameter: value}) == ""


@pytest.mark.parametrize("images", ["", " , ", "registry.example.com", "*", "/", "://"])
def test_a_parameter_that_names_no_image_admits_none(images: str) -> None:
    assert "images" in why_denied(job_of("production"), parameters={"images": images})


def _patched(obj: Object, change: Change) -> Object:
    new = copy.deepcopy(obj)
    change(new)
    return new


def _resumed(job: Object) -> None:
    job["spec"]["suspend"] = False
    job["metadata"]["annotations"]["training-dispatcher/launched-at"] = "2027-01-15T08:00:00Z"


def _admitted_by_kueue(job: Object) -> None:
    job["spec"]["suspend"] = False
    template = job["spec"]["template"]
    template["spec"]["nodeSelector"] = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    template["spec"].setdefault("tolerations", []).append({"key": "spot", "operator": "Exists"})
    template["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/topology"}]
    template["metadata"]["labels"]["kueue.x-k8s.io/podset"] = "main"
    template["metadata"].setdefault("annotations", {})["kueue.x-k8s.io/workload"] = "w"


@pytest.mark.parametrize(
    "change",
    [
        _resumed,
        _admitted_by_kueue,
        _without("metadata", "finalizers"),
        lambda job: job["metadata"]["labels"].update({"training-dispatcher/reported": "true"}),
        lambda job: job["spec"].update(activeDeadlineSeconds=1, ttlSecondsAfterFinished=60),
        lambda job: job["metadata"].update(deletionTimestamp="2027-01-15T08:00:00Z", finalizers=["orphan"]),
    ],
)
def test_what_the_dispatcher_and_kubernetes_do_to_a_job_passes(change: Change) -> None:
    job = job_of("production")
    assert why_denied(_patched(job, change), job) == ""


def test_a_job_from_before_a_rule_can_still_be_reported_and_released() -> None:
    # With credentials that all trainings share, of an image that is not allowed any more.
    job = _patched(job_of("production"), _variable(secretKeyRef={"name": "portal", "key": "API_KEY"}))
    trainer_of(job)["image"] = "old.example.com/trainer:0"
    del job["metadata"]["labels"]["training-dispatcher/model-id"]
    for change in (_resumed, _without("metadata", "finalizers")):
        assert why_denied(_patched(job, change), job) == ""


@pytest.mark.parametrize(
    "change",
    [
        _without("metadata", "finalizers"),
        lambda pod: pod["metadata"].update(annotations={"example.com/seen": "true"}),
        _without("metadata", "ownerReferences"),  # an orphan of a Job that was deleted
        lambda pod: pod["spec"]["tolerations"].append({"operator": "Exists"}),
        lambda pod: pod["spec"].update(activeDeadlineSeconds=1),
    ],
)
def test_what_kubernetes_does_to_a_pod_passes(change: Change) -> None:
    pod = pod_of(job_of("production"))
    pod["spec"]["nodeName"] = "node-1"
    assert why_denied(_patched(pod, change), pod) == ""


def test_what_runs_cannot_be_exchanged_later() -> None:
    job = job_of("production")
    pod = pod_of(job)
    for old in (job, pod):
        assert "images" in why_denied(_patched(old, _image("evil:1")), old)
    relabelled = _without("spec", "template", "metadata", "labels", "app.kubernetes.io/managed-by")
    assert "needs the label" in why_denied(_patched(job, relabelled), job)


def test_a_container_to_debug_with_obeys_the_same_rules() -> None:
    pod = pod_of(job_of("production"))
    pod["spec"]["nodeName"] = "node-1"
    debugged = _patched(pod, _in_spec(ephemeralContainers=[{"name": "debugger", "image": "busybox:1"}]))
    assert "busybox:1" in why_denied(debugged, pod, subresource="ephemeralcontainers")
    debugged = _patched(pod, _in_spec(ephemeralContainers=[{"name": "debugger", "image": f"{IMAGE}:1"}]))
    assert why_denied(debugged, pod, subresource="ephemeralcontainers") == ""


def _secret(**fields: Any) -> Object:
    return {**secret_of(), **fields}


def _secret_with(**metadata: Any) -> Object:
    secret = secret_of()
    secret["metadata"].update(metadata)
    return secret


OWNER = secret_of()["metadata"]["ownerReferences"][0]
EVIL_SECRETS = {
    "a token of a service account": _secret(type="kubernetes.io/service-account-token"),
    "a password for a registry": _secret(type="kubernetes.io/dockerconfigjson"),
    "no label": _secret_with(labels={}),
    "no owner": _secret_with(ownerReferences=[]),
    "another Job's": _secret_with(ownerReferences=[{**OWNER, "name": "model-124"}]),
    "another kind's": _secret_with(ownerReferences=[{**OWNER, "kind": "Pod", "apiVersion": "v1"}]),
    "two owners": _secret_with(ownerReferences=[OWNER, {**OWNER, "name": "model-124"}]),
    "another name": _secret_with(name="registry", ownerReferences=[{**OWNER, "name": "registry"}]),
}


@pytest.mark.parametrize("what", EVIL_SECRETS)
def test_a_stolen_token_makes_no_secret_but_a_trainings_and_sees_and_changes_none(what: str) -> None:
    evil = EVIL_SECRETS[what]
    assert "a training's Secret" in why_denied(evil)
    assert "a training's Secret" in why_denied(secret_of(), evil), "a patch of it would show it"
    assert "a training's Secret" in why_denied(evil, evil)


def test_a_trainings_secret_is_made_and_renewed() -> None:
    assert why_denied(secret_of()) == ""
    assert why_denied(_secret(data={"API_KEY": "bmV3"}), secret_of()) == ""


def test_a_training_on_several_nodes_and_its_pods_are_admitted() -> None:
    job = job_of("production", nodes=3)
    pod = pod_of(job)
    pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = "2"
    trainer_of(pod)["env"].append(
        {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}}
    )
    assert why_denied(job) == why_denied(pod) == ""
    for admitted in (job, pod):
        _image("evil:1")(admitted)
        assert "images" in why_denied(admitted)


def test_who_may_read_secrets_anyway_may_put_one_for_image_pulls_there() -> None:
    registry = EVIL_SECRETS["a password for a registry"]
    assert why_denied(registry, may=lambda verb: True) == ""


def test_the_policies_are_for_the_namespace_of_the_trainings_and_refuse_without_their_parameters() -> None:
    for binding in of_kind("production", "ValidatingAdmissionPolicyBinding").values():
        assert binding["spec"]["matchResources"] == {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
        }
        assert binding["spec"]["validationActions"] == ["Deny"]
    for policy in of_kind("production", "ValidatingAdmissionPolicy").values():
        assert policy["spec"]["failurePolicy"] == "Fail"
    reference = of_kind("production", "ValidatingAdmissionPolicyBinding")["training-pods"]["spec"]["paramRef"]
    params = config_map("production", "training-policy")["metadata"]
    assert reference == {
        "name": params["name"],
        "namespace": params["namespace"],
        "parameterNotFoundAction": "Deny",
    }
    assert params["namespace"] == "training-system", "the dispatcher's token must reach it least of all"
