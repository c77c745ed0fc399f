"""Node objects, which pods fit on them, and how long a pod stays on a node that does not answer (pure)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from local_stack.cluster.registry.quantities import quantity
from local_stack.cluster.registry.store import Obj, now_stamp

UNREACHABLE = "node.kubernetes.io/unreachable"


def disruption_reason(pod: Obj) -> str:
    """The reason of its condition DisruptionTarget."""
    conditions = pod["status"].get("conditions") or ()
    return next((c["reason"] for c in conditions if c["type"] == "DisruptionTarget"), "")


def toleration_seconds(pod: Obj) -> float | None:
    """Seconds that the pod stays on an unreachable node; None for ever."""
    for toleration in pod["spec"].get("tolerations") or ():
        if toleration.get("key") in (UNREACHABLE, None) and toleration.get("effect") in (None, "NoExecute"):
            seconds = toleration.get("tolerationSeconds")
            return None if seconds is None else float(seconds)
    return 0.0


def ready_condition(value: str) -> Obj:
    """The node's condition Ready; `value` is True or Unknown."""
    reason, message = {
        "True": ("KubeletReady", "kubelet is posting ready status"),
        "Unknown": ("NodeStatusUnknown", "Kubelet stopped posting node status."),
    }[value]
    return {
        "type": "Ready",
        "status": value,
        "lastHeartbeatTime": now_stamp(),
        "lastTransitionTime": now_stamp(),
        "reason": reason,
        "message": message,
    }


def new_node(name: str, gpus: int) -> Obj:
    """A node object as its kubelet registers it; cpu and memory never run out, GPUs do."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    capacity = {
        "cpu": "64",
        "memory": f"{max(memory, 256 << 20)}Ki",
        "ephemeral-storage": "1Ti",
        "pods": "100000",
        "nvidia.com/gpu": str(gpus),
    }
    return {
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
        },
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [ready_condition("True")],
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "127.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.2", "operatingSystem": "linux", "architecture": "amd64"},
        },
    }


def fits(requests: Mapping[str, float], used: Mapping[str, float], allocatable: Mapping[str, Any]) -> bool:
    """Whether this much more fits into what the node can give; what it does not count is never short."""
    return all(
        used.get(name, 0) + amount <= quantity(str(allocatable.get(name, "0")))
        for name, amount in requests.items()
        if "/" in name or name in allocatable
    )


def fixed_obstacle(spec: Obj, node: Obj) -> str:
    """What no freed capacity would change."""
    if (node.get("spec") or {}).get("unschedulable"):
        return "node(s) were unschedulable"
    labels = node["metadata"].get("labels") or {}
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(taint, spec.get("tolerations") or ()):
            return "node(s) had untolerated taint(s)"
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def _tolerated(taint: Obj, tolerations: Any) -> bool:
    for toleration in tolerations:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        if toleration.get("operator") == "Exists" and toleration.get("key") in (None, "", taint["key"]):
            return True
        same_value = (toleration.get("value") or "") == (taint.get("value") or "")
        if toleration.get("key") == taint["key"] and same_value:
            return True
    return False
