"""The pods that a Job wants, and its indexes: which are done, which are missing, which pods are too many (pure).

Follows pkg/controller/job (indexed_job_utils.go, job_controller.go) of Kubernetes 1.36; held to tests/recorded.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from local_stack.cluster.controllers.job_policy import TRACKING
from local_stack.cluster.registry.objects import Obj, condition_status, fresh_copy

INDEX = "batch.kubernetes.io/job-completion-index"
_VARIABLE = {
    "name": "JOB_COMPLETION_INDEX",
    "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}},
}
_PREFIX = 58  # characters of a generated name before its five letters


def is_indexed(spec: Mapping[str, Any]) -> bool:
    """Whether each of the Job's pods has an index."""
    return bool(spec.get("completionMode") == "Indexed")


def index_of(pod: Obj, completions: int) -> int | None:
    """The pod's index; None where it has none below `completions`."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) < completions else None


def indexes_of(pods: Iterable[Obj], completions: int) -> set[int]:
    """The indexes that these pods have."""
    return {index for pod in pods if (index := index_of(pod, completions)) is not None}


def parse(text: str, completions: int) -> set[int]:
    """status.completedIndexes, such as "0,2-5": those below `completions`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), min(int(last or first) + 1, completions)))
    return found


def written(indexes: Iterable[int]) -> str:
    """As in status.completedIndexes: a range of three or more is "2-4", of two "2,3"."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(
        str(first) if first == last else f"{first}{',' if last == first + 1 else '-'}{last}" for first, last in runs
    )


def first_missing(taken: Container[int], count: int, completions: int) -> list[int]:
    """The first `count` indexes that nobody has."""
    found: list[int] = []
    for index in range(completions):
        if len(found) >= count:
            break
        if index not in taken:
            found.append(index)
    return found


def superfluous(active: Iterable[Obj], at_least: int, completions: int) -> list[Obj]:
    """Pods without a valid index, all but the furthest of each index, and of the rest as many as are asked for."""
    remove: list[Obj] = []
    kept: dict[int, Obj] = {}
    for pod in sorted(active, key=_progress):
        index = index_of(pod, completions)
        if index is None:
            remove.append(pod)
            continue
        if index in kept:
            remove.append(kept[index])
        kept[index] = pod
    rest = sorted(kept.values(), key=_progress)
    return [*remove, *rest[: max(0, at_least - len(remove))]]


def _progress(pod: Obj) -> tuple[bool, bool, bool]:
    """How far a pod has come: what has come least far is removed first (controller.ActivePods)."""
    ready = condition_status(pod["status"], "Ready") == "True"
    return "nodeName" in pod["spec"], pod["status"].get("phase") == "Running", ready


def new_pod(job: Obj, index: int | None) -> Obj:
    """The pod that the Job wants; index: None where it is not Indexed.

    With an index: as annotation and label, in the host name and in every container's environment.
    """
    name, made = job["metadata"]["name"], fresh_copy(job["spec"]["template"])
    meta, spec = made.get("metadata") or {}, made["spec"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
    meta["finalizers"] = [TRACKING]
    meta["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": True}]
    meta["generateName"] = f"{name}-"
    if index is not None:
        for part in ("annotations", "labels"):
            meta[part] = {**(meta.get(part) or {}), INDEX: str(index)}
        suffix = f"-{index}-"  # the Job's name is cut, so that the index stays
        meta["generateName"] = name[: _PREFIX - len(suffix)] + suffix
        spec["hostname"] = f"{name}-{index}"
        for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
            variables = container.get("env") or []
            if not any(variable["name"] == _VARIABLE["name"] for variable in variables):
                container["env"] = [*variables, fresh_copy(_VARIABLE)]
    return {"metadata": meta, "spec": spec}
