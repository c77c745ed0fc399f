"""What admission decides when an object is created: quotas, service accounts, priority classes."""

from __future__ import annotations

from typing import Any

from local_stack.cluster.registry.errors import forbidden
from local_stack.cluster.registry.objects import Obj, has_ended
from local_stack.cluster.registry.quantities import pod_limits, pod_requests, quantity, shown
from local_stack.cluster.registry.resources import JOBS, PODS, Resource
from local_stack.cluster.registry.store import Store

_BUILT_IN_PRIORITIES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}


def pod_priority(store: Store, pod: Obj) -> int:
    """The priority that the pod's class stands for; 403 when there is no such class."""
    name = pod["spec"].get("priorityClassName")
    if not name:
        return int(pod["spec"].get("priority") or 0)
    if name in _BUILT_IN_PRIORITIES:
        return _BUILT_IN_PRIORITIES[name]
    found = store.get("priorityclasses", "", name)
    if found is None:
        raise forbidden(PODS, pod["metadata"]["name"], f"no PriorityClass with name {name} was found")
    return int(found.get("value") or 0)


def admit_pod(store: Store, pod: Obj) -> None:
    """The pod's service account exists, and no quota of its namespace is exceeded."""
    meta = pod["metadata"]
    account = pod["spec"].get("serviceAccountName") or "default"
    if store.get("serviceaccounts", meta["namespace"], account) is None:
        why = f'error looking up service account {meta["namespace"]}/{account}: serviceaccount "{account}" not found'
        raise forbidden(PODS, meta["name"], why)
    _check_quotas(store, PODS, pod, _pod_usage(pod))


def admit_job(store: Store, job: Obj) -> None:
    """No quota on the number of Jobs is exceeded."""
    _check_quotas(store, JOBS, job, {"count/jobs.batch": 1.0})


def _pod_usage(pod: Obj) -> dict[str, float]:
    requests = pod_requests(pod["spec"])
    usage = {f"requests.{name}": amount for name, amount in requests.items()}
    usage |= {name: amount for name, amount in requests.items() if name in ("cpu", "memory")}
    usage |= {f"limits.{name}": amount for name, amount in pod_limits(pod["spec"]).items()}
    return usage | {"pods": 1.0, "count/pods": 1.0}


def _check_quotas(store: Store, resource: Resource, obj: Obj, wanted: dict[str, float]) -> None:
    meta = obj["metadata"]
    for stored in store.all("resourcequotas", meta["namespace"]):
        hard = stored.obj.get("spec", {}).get("hard") or {}
        limited = {name: quantity(str(value)) for name, value in hard.items() if name in wanted}
        if not limited:
            continue
        used = quota_usage(store, meta["namespace"], limited)
        over = sorted(name for name, limit in limited.items() if used[name] + wanted[name] > limit)
        if over:
            raise forbidden(
                resource,
                meta["name"],
                f"exceeded quota: {stored.obj['metadata']['name']}, "
                f"requested: {_pairs(over, wanted)}, used: {_pairs(over, used)}, limited: {_pairs(over, limited)}",
            )


def quota_usage(store: Store, namespace: str, names: dict[str, Any]) -> dict[str, float]:
    """What the namespace uses of each named quantity; pods that have ended count for nothing."""
    used = dict.fromkeys(names, 0.0)
    for stored in store.all("pods", namespace):
        if has_ended(stored.obj):
            continue
        for name, amount in _pod_usage(stored.obj).items():
            if name in used:
                used[name] += amount
    if "count/jobs.batch" in used:
        used["count/jobs.batch"] = float(len(store.all("jobs", namespace)))
    return used


def _pairs(names: list[str], amounts: dict[str, float]) -> str:
    return ",".join(f"{name}={shown(amounts[name])}" for name in names)
