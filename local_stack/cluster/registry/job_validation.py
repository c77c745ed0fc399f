"""What the API server refuses with 422 on a Job's spec, new or changed, in its own words (pure)."""

from __future__ import annotations

from typing import Any

from local_stack.cluster.registry.errors import Cause, duplicate, invalid_value, required, unsupported
from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.validation import label_causes, pod_spec_causes

_IMMUTABLE = (
    "completions",
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
)
_UNTIL_STARTED = ("nodeSelector", "affinity", "tolerations", "schedulingGates")
_COUNTS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")


def new_job_causes(job: Obj) -> list[Cause]:
    """A Job to be created, with the server's defaults already filled in."""
    spec = job["spec"]
    causes = _spec_causes(spec)
    causes += label_causes("spec.template.labels", spec["template"]["metadata"].get("labels") or {})
    pod = spec["template"]["spec"]
    causes += pod_spec_causes("spec.template.spec", pod)
    policy = pod.get("restartPolicy")
    if policy == "Always":
        causes.append(required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    if spec.get("podFailurePolicy") is not None and policy == "OnFailure":
        causes.append(
            invalid_value(
                "spec.template.spec.restartPolicy",
                policy,
                'only "Never" is supported when podFailurePolicy is specified',
            )
        )
    return causes


def changed_job_causes(old: Obj, new: Obj) -> list[Cause]:
    """A Job's update: the immutable parts, and the new values."""
    before, after = old["spec"], new["spec"]
    causes = _spec_causes(after)
    causes += [
        invalid_value(f"spec.{name}", after.get(name), "field is immutable")
        for name in _IMMUTABLE
        if before.get(name) != after.get(name)
    ]
    startable = before.get("suspend") and not old.get("status", {}).get("startTime")
    first, second = before["template"], after["template"]
    if startable:
        first, second = _without_scheduling(first), _without_scheduling(second)
    if first != second:
        causes.append(invalid_value("spec.template", after["template"], "field is immutable"))
    return causes


def _without_scheduling(template: Obj) -> Obj:
    spec = {key: value for key, value in template["spec"].items() if key not in _UNTIL_STARTED}
    meta = {
        key: value for key, value in (template.get("metadata") or {}).items() if key not in ("labels", "annotations")
    }
    return {"metadata": meta, "spec": spec}


def _spec_causes(spec: Obj) -> list[Cause]:
    causes = [
        invalid_value(f"spec.{name}", spec[name], "must be greater than or equal to 0")
        for name in _COUNTS
        if spec.get(name) is not None and spec[name] < 0
    ]
    if spec["completionMode"] not in ("NonIndexed", "Indexed"):
        causes.append(unsupported("spec.completionMode", spec["completionMode"], ("Indexed", "NonIndexed")))
    replacement = spec.get("podReplacementPolicy")
    policy = spec.get("podFailurePolicy")
    if policy is not None:
        causes += _failure_policy_causes(policy, spec["template"]["spec"])
        if replacement != "Failed":
            causes.append(unsupported("spec.podReplacementPolicy", replacement, ("Failed",)))
    elif replacement not in ("Failed", "TerminatingOrFailed"):
        causes.append(unsupported("spec.podReplacementPolicy", replacement, ("Failed", "TerminatingOrFailed")))
    return causes


def _failure_policy_causes(policy: Obj, pod: Obj) -> list[Cause]:
    rules = policy.get("rules") or []
    path = "spec.podFailurePolicy.rules"
    causes = []
    if len(rules) > 20:
        causes.append(Cause(path, "FieldValueTooMany", f"Too many: {len(rules)}: must have at most 20 items"))
    names = {container.get("name") for container in pod.get("containers") or ()}
    names |= {container.get("name") for container in pod.get("initContainers") or ()}
    for at, rule in enumerate(rules):
        here = f"{path}[{at}]"
        action = rule.get("action")
        if not action:
            causes.append(required(f"{here}.action", 'valid values: ["Count" "FailIndex" "FailJob" "Ignore"]'))
        elif action not in ("Count", "FailIndex", "FailJob", "Ignore"):
            causes.append(unsupported(f"{here}.action", action, ("Count", "FailIndex", "FailJob", "Ignore")))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is not None and conditions:
            causes.append(invalid_value(here, rule, "specifying both OnExitCodes and OnPodConditions is not supported"))
        if codes is None and not conditions:
            causes.append(invalid_value(here, rule, "specifying one of OnExitCodes and OnPodConditions is required"))
        if codes is not None:
            causes += _exit_code_causes(f"{here}.onExitCodes", codes, names)
        for number, condition in enumerate(conditions or ()):
            where = f"{here}.onPodConditions[{number}]"
            if not condition.get("type"):
                causes.append(required(f"{where}.type"))
            if condition.get("status") not in ("True", "False", "Unknown"):
                causes.append(unsupported(f"{where}.status", condition.get("status"), ("False", "True", "Unknown")))
    return causes


def _exit_code_causes(path: str, codes: Obj, names: set[Any]) -> list[Cause]:
    causes = []
    operator = codes.get("operator")
    if operator not in ("In", "NotIn"):
        causes.append(
            unsupported(f"{path}.operator", operator, ("In", "NotIn"))
            if operator
            else required(f"{path}.operator", 'valid values: ["In" "NotIn"]')
        )
    name = codes.get("containerName")
    if name is not None and name not in names:
        causes.append(
            invalid_value(
                f"{path}.containerName",
                name,
                "must be one of the container or initContainer names in the pod template",
            )
        )
    values = codes.get("values") or []
    if not values:
        causes.append(invalid_value(f"{path}.values", values, "at least one value is required"))
    elif len(values) > 255:
        causes.append(
            Cause(
                f"{path}.values",
                "FieldValueTooMany",
                f"Too many: {len(values)}: must have at most 255 items",
            )
        )
    seen: set[int] = set()
    for at, value in enumerate(values):
        if operator == "In" and value == 0:
            causes.append(invalid_value(f"{path}.values[{at}]", 0, "must not be 0 for the In operator"))
        if value in seen:
            causes.append(duplicate(f"{path}.values[{at}]", value))
        seen.add(value)
    if values != sorted(values):
        causes.append(invalid_value(f"{path}.values", values, "must be ordered"))
    return causes
