"""Node objects, and how long a pod stays on a node that does not answer (pure)."""

from __future__ import annotations

import os

from local_stack.cluster.registry.objects import Obj, now_stamp

UNREACHABLE = "node.kubernetes.io/unreachable"


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
