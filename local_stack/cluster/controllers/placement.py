"""Whether a pod can go to a node: capacity, taints, node selector (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.quantities import quantity


def short_of(requests: Mapping[str, float], used: Mapping[str, float], node: Obj) -> list[str]:
    """What the node cannot give in this amount beside what is used; what it does not count is never short."""
    allocatable = node["status"].get("allocatable") or {}
    return [
        name
        for name, amount in requests.items()
        if amount and used.get(name, 0) + amount > quantity(str(allocatable.get(name, "0")))
        if "/" in name or name in allocatable
    ]


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
