"""The Job controller's decisions: what counts as failed, which rule matches, what a condition looks like (pure).

Follows pkg/controller/job (job_controller.go, pod_failure_policy.go) of Kubernetes 1.36; held to tests/recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from local_stack.cluster.registry.objects import Obj, condition_status, find_condition, has_ended

TRACKING = "batch.kubernetes.io/job-tracking"


def is_active(pod: Obj) -> bool:
    """Neither ended nor being deleted."""
    return not has_ended(pod) and not is_deleted(pod)


def is_deleted(pod: Obj) -> bool:
    """Whether its deletion was asked for."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_terminating(pod: Obj) -> bool:
    """Being deleted and not ended yet."""
    return is_deleted(pod) and not has_ended(pod)


def is_ready(pod: Obj) -> bool:
    """Its condition Ready is True."""
    return condition_status(pod["status"], "Ready") == "True"


def is_failed(pod: Obj, spec: Obj) -> bool:
    """As this Job counts: a deleted pod counts at once, unless podReplacementPolicy is Failed."""
    if pod["status"].get("phase") == "Failed":
        return True
    if spec.get("podReplacementPolicy") == "Failed":
        return False
    return is_deleted(pod) and pod["status"].get("phase") != "Succeeded"


def is_tracked(pod: Obj) -> bool:
    """Not yet counted: it still carries the Job controller's finalizer."""
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def condition(kind: str, status: str, reason: str, message: str, stamp: str) -> Obj:
    """A Job's condition."""
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": stamp,
        "lastTransitionTime": stamp,
        "reason": reason,
        "message": message,
    }


def finished(status: Mapping[str, Any]) -> Obj | None:
    """The condition Complete or Failed, when it is True."""
    for kind in ("Complete", "Failed"):
        found = find_condition(status, kind)
        if found and found["status"] == "True":
            return found
    return None


def match_failure_policy(policy: Obj | None, pod: Obj) -> tuple[str | None, bool]:
    """(why the whole Job fails or None, whether this failure counts against backoffLimit)."""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        matched = _match_rule(rule, pod, index)
        if matched is None:
            continue
        if rule["action"] == "Ignore":
            return None, False
        if rule["action"] == "FailJob":
            return matched, True
        return None, True
    return None, True


def _match_rule(rule: Obj, pod: Obj, index: int) -> str | None:
    meta = pod["metadata"]
    where = f"{meta['namespace']}/{meta['name']}"
    for pattern in rule.get("onPodConditions") or ():
        if condition_status(pod["status"], pattern["type"]) == pattern.get("status", "True"):
            return f"Pod {where} has condition {pattern['type']} matching {rule['action']} rule at index {index}"
    codes = rule.get("onExitCodes")
    if codes:
        for name, code in failed_containers(pod["status"]):
            if codes.get("containerName") not in (None, name):
                continue
            if (code in codes["values"]) is (codes["operator"] == "In"):
                return (
                    f"Container {name} for pod {where} failed with exit code {code} "
                    f"matching {rule['action']} rule at index {index}"
                )
    return None


def failed_containers(status: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """(name, exit code) of each container that ended with another code than 0."""
    for group in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(group) or ():
            terminated = (container.get("state") or {}).get("terminated")
            if terminated and terminated.get("exitCode"):
                yield container["name"], terminated["exitCode"]


def restarts(pods: Iterable[Obj]) -> int:
    """Restarts of containers, in pods that still run: what backoffLimit counts under OnFailure."""
    return sum(
        container.get("restartCount", 0)
        for pod in pods
        if pod["status"].get("phase") in ("Pending", "Running")
        for container in pod["status"].get("containerStatuses") or ()
    )
