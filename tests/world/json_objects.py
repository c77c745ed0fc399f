"""Reading Jobs and pods as the API server writes them, for a simulated cluster that keeps plain dicts of JSON.

Independent of what the dispatcher reads them with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod

JsonObject = Mapping[str, Any]


def job(item: JsonObject) -> Job:
    """As the dispatcher's client decodes it."""
    return msgspec.convert(item, Job)


def pod(item: JsonObject) -> Pod:
    return msgspec.convert(item, Pod)


def meta(obj: JsonObject) -> Mapping[str, Any]:
    return obj.get("metadata") or {}


def name_of(obj: JsonObject) -> str:
    return (obj.get("metadata") or {}).get("name", "")


def uid_of(obj: JsonObject) -> str:
    return (obj.get("metadata") or {}).get("uid", "")


def annotation(obj: JsonObject, key: str) -> str | None:
    return ((obj.get("metadata") or {}).get("annotations") or {}).get(key)


def label(obj: JsonObject, key: str) -> str | None:
    return ((obj.get("metadata") or {}).get("labels") or {}).get(key)


def model_id_of(obj: JsonObject) -> str:
    return label(obj, names.MODEL_ID) or name_of(obj).removeprefix("model-")


def is_managed(job: JsonObject) -> bool:
    return label(job, names.MANAGED_BY) == names.MANAGER and annotation(job, names.MESSAGE_ID) is not None


def is_deleting(obj: JsonObject) -> bool:
    return bool((obj.get("metadata") or {}).get("deletionTimestamp"))


def condition(obj: JsonObject, kind: str, status: str = "True") -> Mapping[str, Any] | None:
    """The condition of type `kind` if it has this status (True, False or Unknown), else None."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind and entry.get("status") == status:
            return entry
    return None


def is_finished(job: JsonObject) -> bool:
    return condition(job, "Complete") is not None or condition(job, "Failed") is not None


def is_suspended(job: JsonObject) -> bool:
    return bool((job.get("spec") or {}).get("suspend"))


def is_launched(job: JsonObject) -> bool:
    """Whether launch step 5 happened; a suspended Job without it is half-launched, one with it waits for Kueue."""
    return annotation(job, names.LAUNCHED_AT) is not None


def is_acknowledged(job: JsonObject) -> bool:
    return annotation(job, names.ACKNOWLEDGED) == "true"


def is_reported(job: JsonObject) -> bool:
    """Whether the portal acknowledged its outcome, which we note. A finalizer that somebody removed proves nothing."""
    return annotation(job, names.REPORTED) is not None


def owner_uid(pod: JsonObject) -> str | None:
    """uid of the Job that controls the pod, or that did until `kubectl delete job --cascade=orphan` took it away."""
    for owner in meta(pod).get("ownerReferences") or ():
        if owner.get("controller") and owner.get("kind") == "Job":
            return cast(str, owner.get("uid"))
    return label(pod, names.POD_OF)


def pod_phase(pod: JsonObject) -> str:
    return (pod.get("status") or {}).get("phase") or "Pending"


def pod_is_over(pod: JsonObject) -> bool:
    return pod_phase(pod) in ("Succeeded", "Failed")


def trainer_state(pod: JsonObject) -> Mapping[str, Any]:
    """The trainer container's `state`: one of waiting, running, terminated; empty before the kubelet wrote one."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == names.TRAINER_CONTAINER:
            return cast(Mapping[str, Any], status.get("state") or {})
    return {}
