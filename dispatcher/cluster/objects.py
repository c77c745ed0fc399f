"""Reading Jobs and pods as the API server writes them: plain dicts of JSON. Pure.

A condition counts by its *status*, never by its presence: a resumed Job keeps Suspended with status False.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

from dispatcher.cluster import names

# What no datetime can hold any more (epoch seconds).
_YEAR_10000 = 253402300800.0

KubeObject = Mapping[str, Any]
"""A Job, pod or Event as decoded from the API server's JSON."""


def meta(obj: KubeObject) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], obj.get("metadata") or {})


def name_of(obj: KubeObject) -> str:
    return cast(str, meta(obj).get("name", ""))


def uid_of(obj: KubeObject) -> str:
    return cast(str, meta(obj).get("uid", ""))


def annotation(obj: KubeObject, key: str) -> str | None:
    return (meta(obj).get("annotations") or {}).get(key)


def json_annotation(obj: KubeObject, key: str) -> Any:
    """The value of an annotation that holds JSON; None where it is missing, or somebody made it unreadable."""
    try:
        return json.loads(annotation(obj, key) or "null")
    except (ValueError, RecursionError):
        return None


def report_of(job: KubeObject) -> Mapping[str, Any]:
    """The report as noted on the Job: status, code, sentence, portal. Where somebody edited it, some may be missing."""
    report = json_annotation(job, names.REPORTED)
    return report if isinstance(report, dict) else {}


def label(obj: KubeObject, key: str) -> str | None:
    return (meta(obj).get("labels") or {}).get(key)


def model_id_of(obj: KubeObject) -> str:
    return label(obj, names.MODEL_ID) or name_of(obj).removeprefix("model-")


def is_managed(job: KubeObject) -> bool:
    return label(job, names.MANAGED_BY) == names.MANAGER and annotation(job, names.MESSAGE_ID) is not None


def is_deleting(obj: KubeObject) -> bool:
    return bool(meta(obj).get("deletionTimestamp"))


def condition(obj: KubeObject, kind: str, status: str = "True") -> Mapping[str, Any] | None:
    """The condition of type `kind` if it has this status (True, False or Unknown), else None."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind and entry.get("status") == status:
            return cast(Mapping[str, Any], entry)
    return None


def changed_at(obj: KubeObject, kind: str, status: str = "True") -> float | None:
    """When the condition came to this status (epoch seconds); None where it has another, or none."""
    return timestamp((condition(obj, kind, status) or {}).get("lastTransitionTime"))


def created_at(obj: KubeObject) -> float | None:
    """creationTimestamp (epoch seconds)."""
    return timestamp(meta(obj).get("creationTimestamp"))


def gone_at(obj: KubeObject) -> float | None:
    """deletionTimestamp (epoch seconds): when deletion was requested, plus the grace period (API, ObjectMeta)."""
    return timestamp(meta(obj).get("deletionTimestamp"))


def oldest_first(pods: Iterable[KubeObject]) -> list[KubeObject]:
    return sorted(pods, key=lambda pod: (meta(pod).get("creationTimestamp") or "", name_of(pod)))


def is_finished(job: KubeObject) -> bool:
    return condition(job, "Complete") is not None or condition(job, "Failed") is not None


def is_suspended(job: KubeObject) -> bool:
    return bool((job.get("spec") or {}).get("suspend"))


def is_launched(job: KubeObject) -> bool:
    """Whether launch step 5 happened; a suspended Job without it is half-launched, one with it waits for Kueue."""
    return annotation(job, names.LAUNCHED_AT) is not None


def is_acknowledged(job: KubeObject) -> bool:
    return annotation(job, names.ACKNOWLEDGED) == "true"


def is_reported(job: KubeObject) -> bool:
    """Whether the portal acknowledged its outcome, which we note. A finalizer that somebody removed proves nothing."""
    return annotation(job, names.REPORTED) is not None


def owner_uid(pod: KubeObject) -> str | None:
    """uid of the Job that controls the pod, or that did until `kubectl delete job --cascade=orphan` took it away."""
    for owner in meta(pod).get("ownerReferences") or ():
        if owner.get("controller") and owner.get("kind") == "Job":
            return cast(str, owner.get("uid"))
    return label(pod, names.POD_OF)


def pod_phase(pod: KubeObject) -> str:
    return cast(str, (pod.get("status") or {}).get("phase") or "Pending")


def pod_is_over(pod: KubeObject) -> bool:
    return pod_phase(pod) in ("Succeeded", "Failed")


def pod_template(job: KubeObject) -> KubeObject:
    return cast(KubeObject, (job.get("spec") or {}).get("template") or {})


def trainer_container(pod: KubeObject) -> Mapping[str, Any]:
    """The trainer container as a pod or a pod template specifies it; empty where there is none."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    return next((c for c in containers if c.get("name") == names.TRAINER_CONTAINER), {})


def trainer_state(pod: KubeObject) -> Mapping[str, Any]:
    """The trainer container's `state`: one of waiting, running, terminated; empty before the kubelet wrote one."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == names.TRAINER_CONTAINER:
            return cast(Mapping[str, Any], status.get("state") or {})
    return {}


def trainer_end(pod: KubeObject) -> Mapping[str, Any]:
    """How the trainer container ended (`state.terminated`); empty while it has not."""
    return trainer_state(pod).get("terminated") or {}


def timestamp(text: str | None) -> float | None:
    """RFC 3339 as Kubernetes writes it → seconds since the epoch; None for anything else.

    Anybody may have written an annotation, and every dispatcher reads it: no text in it may end one of them.
    """
    try:
        when = datetime.fromisoformat(text) if text else None
        seconds = when.timestamp() if when and when.tzinfo else None
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and 0 <= seconds < _YEAR_10000 else None
