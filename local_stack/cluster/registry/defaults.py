"""The values that the API server fills in on Jobs and pods (changes fresh objects in place).

Held to the recordings in tests/recorded: what the real server wrote for the same requests.
"""

from __future__ import annotations

import random

from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.quantities import qos_class

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # without vowels and look-alikes, as the API server draws them
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_NOT_READY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def random_suffix() -> str:
    """Five letters, as generated names end."""
    return "".join(random.choices(_LETTERS, k=5))


def default_job(job: Obj) -> None:
    """A new Job's spec, labels and selector. Its uid must be set."""
    spec = job["spec"]
    meta = job["metadata"]
    if spec.get("template") is None:
        spec["template"] = {}
    template = spec["template"]
    if template.get("metadata") is None:
        template["metadata"] = {}
    if template.get("spec") is None:
        template["spec"] = {}
    template_meta = template["metadata"]
    if not spec.get("manualSelector"):
        spec["manualSelector"] = False
        uid = meta["uid"]
        template_meta["labels"] = {
            **(template_meta.get("labels") or {}),
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": meta["name"],
            "controller-uid": uid,
            "job-name": meta["name"],
        }
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    if not meta.get("labels"):
        meta["labels"] = dict(template_meta.get("labels") or {})
    default_job_spec(spec)
    job["status"] = {}


def default_job_spec(spec: Obj) -> None:
    """What a Job's spec holds when it was left out, on creation and on updates. Sets only what is missing."""
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    policy = spec.get("podFailurePolicy")
    for name, value in (
        ("parallelism", 1),
        ("backoffLimit", 6),
        ("completionMode", "NonIndexed"),
        ("suspend", False),
        ("podReplacementPolicy", "Failed" if policy else "TerminatingOrFailed"),
    ):
        if spec.get(name) is None:
            spec[name] = value
    for rule in (policy or {}).get("rules") or ():
        for condition in rule.get("onPodConditions") or ():
            condition.setdefault("status", "True")
    default_pod_spec(spec["template"]["spec"])


def default_pod_spec(spec: Obj) -> None:
    """Defaults that pod templates and pods share."""
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        image = container.get("image") or ""
        tag = image.rsplit("/", 1)[-1].partition(":")[2]
        latest = "@" not in image and tag in ("", "latest")
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        for env in container.get("env") or ():
            reference = (env.get("valueFrom") or {}).get("fieldRef")
            if reference:
                reference.setdefault("apiVersion", "v1")
    for volume in spec.get("volumes") or ():
        for kind in ("secret", "configMap", "projected", "downwardAPI"):
            if volume.get(kind) is not None:
                volume[kind].setdefault("defaultMode", 420)
        if set(volume) == {"name"}:
            volume["emptyDir"] = {}
    spec.setdefault("restartPolicy", "Always")
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")


def default_pod(pod: Obj, priority: int) -> None:
    """A new pod: the template's defaults, admission's (service account, tolerations, priority), its first status."""
    spec = pod["spec"]
    default_pod_spec(spec)
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        limits = container["resources"].get("limits")
        if limits:
            requests = container["resources"].get("requests") or {}
            container["resources"]["requests"] = {**limits, **requests}
    spec.setdefault("serviceAccountName", spec.get("serviceAccount") or "default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    if spec.get("automountServiceAccountToken") is not False:
        _mount_token(spec)
    tolerations = spec.get("tolerations") or []
    present = {toleration.get("key") for toleration in tolerations}
    tolerations += [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for key in _NOT_READY
        if key not in present and None not in present
    ]
    spec["tolerations"] = tolerations
    spec["priority"] = priority
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}


def _mount_token(spec: Obj) -> None:
    mounted = [
        container
        for container in [*(spec.get("initContainers") or ()), *spec["containers"]]
        if not any(mount.get("mountPath") == _TOKEN_PATH for mount in container.get("volumeMounts") or ())
    ]
    if not mounted:
        return
    name = f"kube-api-access-{random_suffix()}"
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [
                    {
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }
                ]
            }
        },
    ]
    volume = {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
    spec["volumes"] = [*(spec.get("volumes") or ()), volume]
    for container in mounted:
        container["volumeMounts"] = [
            *(container.get("volumeMounts") or ()),
            {"name": name, "readOnly": True, "mountPath": _TOKEN_PATH},
        ]
