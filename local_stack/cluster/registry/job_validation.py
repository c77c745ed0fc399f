"""What the API server refuses with 422 on a Job's spec, new or changed, in its own words (pure)."""

from __future__ import annotations

import re
from typing import Any

from local_stack.cluster.registry.causes import Causes
from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.validation import label_causes, pod_spec_causes

_IMMUTABLE = (
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
)
_UNTIL_STARTED = ("nodeSelector", "affinity", "tolerations", "schedulingGates")
_HOST_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MOST_INDEXED = 100_000
_COUNTS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")


def new_job_causes(job: Obj) -> Causes:
    """A Job to be created, with the server's defaults already filled in."""
    spec = job["spec"]
    causes = _spec_causes(spec)
    causes += label_causes("spec.template.labels", spec["template"]["metadata"].get("labels") or {})
    pod = spec["template"]["spec"]
    causes += pod_spec_causes("spec.template.spec", pod)
    policy, field = pod.get("restartPolicy"), "spec.template.spec.restartPolicy"
    if policy == "Always":
        causes.required(field, 'valid values: "OnFailure", "Never"')
    if spec.get("podFailurePolicy") is not None and policy == "OnFailure":
        causes.invalid(field, policy, 'only "Never" is supported when podFailurePolicy is specified')
    if spec["completionMode"] == "Indexed" and (spec.get("completions") or 0) > 0:
        name = job["metadata"].get("name") or ""
        last = f"{name}-{spec['completions'] - 1}"
        if not _HOST_NAME.fullmatch(last):
            causes.invalid("metadata.name", name, f"will not able to create pod with invalid DNS label: {last}")
    return causes


def changed_job_causes(old: Obj, new: Obj) -> Causes:
    """A Job's update: the immutable parts, and the new values."""
    before, after = old["spec"], new["spec"]
    causes = _spec_causes(after)
    for name in _IMMUTABLE:
        if before.get(name) != after.get(name):
            causes.invalid(f"spec.{name}", after.get(name), "field is immutable")
    if before.get("completions") != after.get("completions"):
        if after["completionMode"] != "Indexed":
            causes.invalid("spec.completions", after.get("completions"), "field is immutable")
        elif after.get("completions") not in (None, after["parallelism"]):
            text = "can only be modified in tandem with spec.parallelism"
            causes.invalid("spec.completions", after["completions"], text)
    startable = before.get("suspend") and not old.get("status", {}).get("startTime")
    first, second = before["template"], after["template"]
    if startable:
        first, second = _without_scheduling(first), _without_scheduling(second)
    if first != second:
        causes.invalid("spec.template", after["template"], "field is immutable")
    return causes


def _without_scheduling(template: Obj) -> Obj:
    spec = {key: value for key, value in template["spec"].items() if key not in _UNTIL_STARTED}
    meta = {
        key: value for key, value in (template.get("metadata") or {}).items() if key not in ("labels", "annotations")
    }
    return {"metadata": meta, "spec": spec}


def _spec_causes(spec: Obj) -> Causes:
    causes = Causes()
    causes.not_negative("spec", spec, _COUNTS)
    causes.one_of("spec.completionMode", spec["completionMode"], ("Indexed", "NonIndexed"))
    if spec["completionMode"] == "Indexed":
        if spec.get("completions") is None:
            causes.required("spec.completions", "when completion mode is Indexed")
        if spec["parallelism"] > _MOST_INDEXED:
            text = f"must be less than or equal to {_MOST_INDEXED} when completion mode is Indexed"
            causes.invalid("spec.parallelism", spec["parallelism"], text)
    policy = spec.get("podFailurePolicy")
    if policy is not None:
        _check_failure_policy(causes, policy, spec["template"]["spec"])
    replacements = ("Failed", "TerminatingOrFailed") if policy is None else ("Failed",)
    causes.one_of("spec.podReplacementPolicy", spec.get("podReplacementPolicy"), replacements)
    return causes


def _check_failure_policy(causes: Causes, policy: Obj, pod: Obj) -> None:
    rules = policy.get("rules") or []
    path = "spec.podFailurePolicy.rules"
    causes.too_many(path, rules, 20)
    containers = [*(pod.get("containers") or ()), *(pod.get("initContainers") or ())]
    names = {container.get("name") for container in containers}
    for at, rule in enumerate(rules):
        here = f"{path}[{at}]"
        if rule.get("action"):
            causes.one_of(f"{here}.action", rule["action"], ("Count", "FailIndex", "FailJob", "Ignore"))
        else:
            causes.required(f"{here}.action", 'valid values: ["Count" "FailIndex" "FailJob" "Ignore"]')
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is not None and conditions:
            causes.invalid(here, rule, "specifying both OnExitCodes and OnPodConditions is not supported")
        if codes is None and not conditions:
            causes.invalid(here, rule, "specifying one of OnExitCodes and OnPodConditions is required")
        if codes is not None:
            _check_exit_codes(causes, f"{here}.onExitCodes", codes, names)
        for number, condition in enumerate(conditions or ()):
            where = f"{here}.onPodConditions[{number}]"
            if not condition.get("type"):
                causes.required(f"{where}.type")
            causes.one_of(f"{where}.status", condition.get("status"), ("False", "True", "Unknown"))


def _check_exit_codes(causes: Causes, path: str, codes: Obj, names: set[Any]) -> None:
    operator = codes.get("operator")
    if operator:
        causes.one_of(f"{path}.operator", operator, ("In", "NotIn"))
    else:
        causes.required(f"{path}.operator", 'valid values: ["In" "NotIn"]')
    name = codes.get("containerName")
    if name is not None and name not in names:
        text = "must be one of the container or initContainer names in the pod template"
        causes.invalid(f"{path}.containerName", name, text)
    values = codes.get("values") or []
    if not values:
        causes.invalid(f"{path}.values", values, "at least one value is required")
    causes.too_many(f"{path}.values", values, 255)
    seen: set[int] = set()
    for at, value in enumerate(values):
        if operator == "In" and value == 0:
            causes.invalid(f"{path}.values[{at}]", 0, "must not be 0 for the In operator")
        if value in seen:
            causes.duplicate(f"{path}.values[{at}]", value)
        seen.add(value)
    if values != sorted(values):
        causes.invalid(f"{path}.values", values, "must be ordered")
