"""Jobs, pods and Events as the API server writes them, with only what a test cares about spelled out."""

from __future__ import annotations

from typing import Any

import msgspec

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod
from dispatcher.decisions.waiting import Limits
from training_common.times import rfc3339

# 2026-11-23T08:00:00Z, the instant that the builders' objects were created at.
T0 = 1795420800.0
JOB_UID = "job-uid-1"
LIMITS = Limits(image_pull=600, container_config=300, unschedulable=3600, pod_create=240, quota=7200)
TEMPLATE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "backoffLimit": 1,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "trainer:1"}]}},
    },
}
"""The smallest Job template. Do not change it: it is shared."""


def a_condition(kind: str, status: str = "True", reason: str = "", message: str = "", at: float = T0) -> dict[str, Any]:
    """A condition of a Job or pod; at: epoch seconds of its last transition."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(at),
    }


def job_json(
    *conditions: dict[str, Any],
    model_id: str = "1",
    message_id: str | None = "message-1",
    uid: str = JOB_UID,
    managed: bool = True,
    launched: bool = True,
    acknowledged: bool | None = True,
    reported: bool = False,
    finalizer: bool = True,
    suspended: bool | None = None,
    deleted_at: float | None = None,
    started_at: float | None = T0,
    stopped: str | None = None,
    labels: dict[str, str] | None = None,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    version: str = "1",
) -> dict[str, Any]:
    """A training Job: by default launched, acknowledged, running, not reported."""
    annotations: dict[str, str] = {}
    if message_id is not None:
        annotations[names.MESSAGE_ID] = message_id
    if launched:
        annotations[names.LAUNCHED_AT] = rfc3339(T0)
    if acknowledged is not None and launched:
        annotations[names.ACKNOWLEDGED] = "true" if acknowledged else "false"
    if reported:
        annotations[names.REPORTED] = "{}"
    if stopped is not None:
        annotations[names.STOPPED] = stopped
    metadata: dict[str, Any] = {
        "name": f"model-{model_id}",
        "namespace": "training",
        "uid": uid,
        "resourceVersion": version,
        "creationTimestamp": rfc3339(T0),
        "labels": ({names.MANAGED_BY: names.MANAGER, names.MODEL_ID: model_id} if managed else {}) | (labels or {}),
        "annotations": annotations,
        "finalizers": [names.FINALIZER] if finalizer and not reported else [],
    }
    if deleted_at is not None:
        metadata["deletionTimestamp"] = rfc3339(deleted_at)
    job_status: dict[str, Any] = {"conditions": list(conditions), **(status or {})}
    suspended = not launched if suspended is None else suspended
    if started_at is not None and not suspended:
        job_status.setdefault("startTime", rfc3339(started_at))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"suspend": suspended, "backoffLimit": 2, **(spec or {})},
        "status": job_status,
    }


def complete() -> tuple[dict[str, Any], ...]:
    return (a_condition("SuccessCriteriaMet"), a_condition("Complete", reason="CompletionsReached"))


def failed(reason: str = "BackoffLimitExceeded", message: str = "") -> tuple[dict[str, Any], ...]:
    return (a_condition("FailureTarget", "True", reason, message), a_condition("Failed", "True", reason, message))


def failing(reason: str = "BackoffLimitExceeded", message: str = "") -> dict[str, Any]:
    """FailureTarget: Failed is announced, pods are being ended."""
    return a_condition("FailureTarget", "True", reason, message)


def pod_json(
    *conditions: dict[str, Any],
    name: str = "model-1-aaaaa",
    uid: str = "",
    model_id: str = "1",
    job_uid: str = JOB_UID,
    phase: str = "Pending",
    reason: str | None = None,
    message: str | None = None,
    state: dict[str, Any] | None = None,
    created_at: float = T0,
    scheduled_at: float | None = None,
    deleted_at: float | None = None,
    grace: int = 30,
    node: str | None = "node-7",
    image: str = "registry.example/trainer:1",
    limits: dict[str, str] | None = None,
    status: dict[str, Any] | None = None,
    version: str = "1",
    index: int | None = None,
) -> dict[str, Any]:
    """A pod of the Job with `job_uid`. state: the trainer container's; deleted_at: when its deletion was asked for."""
    metadata: dict[str, Any] = {
        "name": name,
        "uid": uid or f"uid-of-{name}",
        "resourceVersion": version,
        "creationTimestamp": rfc3339(created_at),
        "labels": {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: model_id, names.POD_OF: job_uid},
        "ownerReferences": [{"kind": "Job", "name": f"model-{model_id}", "uid": job_uid, "controller": True}],
    }
    if index is not None:
        metadata["labels"][names.INDEX] = str(index)
    if deleted_at is not None:
        metadata["deletionTimestamp"] = rfc3339(deleted_at + grace)
        metadata["deletionGracePeriodSeconds"] = grace
    found = list(conditions)
    if scheduled_at is not None:
        found.append(a_condition("PodScheduled", at=scheduled_at))
    pod_status: dict[str, Any] = {"phase": phase, "conditions": found, **(status or {})}
    if reason is not None:
        pod_status["reason"] = reason
    if message is not None:
        pod_status["message"] = message
    if state is not None:
        pod_status["containerStatuses"] = [
            {"name": "istio-proxy", "state": {"running": {}}},
            {"name": names.TRAINER_CONTAINER, "state": state},
        ]
    container: dict[str, Any] = {"name": names.TRAINER_CONTAINER, "image": image}
    if limits is not None:
        container["resources"] = {"limits": limits}
    spec: dict[str, Any] = {"containers": [container]}
    if node is not None:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": pod_status}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """A container state."""
    return {"waiting": {"reason": reason, "message": message}}


def running(at: float = T0) -> dict[str, Any]:
    return {"running": {"startedAt": rfc3339(at)}}


def terminated(
    exit_code: int, message: str | None = None, reason: str = "Error", finished_at: float = T0 + 60
) -> dict[str, Any]:
    state: dict[str, Any] = {"exitCode": exit_code, "reason": reason, "finishedAt": rfc3339(finished_at)}
    if message is not None:
        state["message"] = message
    return {"terminated": state}


def event_json(message: str, at: float, reason: str = "FailedCreate") -> dict[str, Any]:
    """An Event about a Job."""
    return {
        "kind": "Event",
        "metadata": {"name": "model-1.1", "creationTimestamp": rfc3339(at)},
        "involvedObject": {"kind": "Job", "name": "model-1", "uid": JOB_UID},
        "reason": reason,
        "message": message,
        "firstTimestamp": rfc3339(at),
        "lastTimestamp": rfc3339(at),
        "count": 1,
    }


def a_job(*conditions: dict[str, Any], **fields: Any) -> Job:
    """`job_json` as the dispatcher reads it."""
    return msgspec.convert(job_json(*conditions, **fields), Job)


def a_pod(*conditions: dict[str, Any], **fields: Any) -> Pod:
    return msgspec.convert(pod_json(*conditions, **fields), Pod)


def a_team(nodes: int, *conditions: dict[str, Any], **fields: Any) -> Job:
    """`a_job` for several nodes."""
    spec = {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes, **fields.pop("spec", {})}
    return a_job(*conditions, spec=spec, **fields)


def a_node(index: int, *conditions: dict[str, Any], **fields: Any) -> Pod:
    """A pod of a team: by default on a node of its own, gpu-1 for the first."""
    named = {"name": f"model-1-{index}-aaaaa", "node": f"gpu-{index + 1}"}
    return a_pod(*conditions, index=index, **{**named, **fields})


def an_event(message: str, at: float, reason: str = "FailedCreate") -> Event:
    return msgspec.convert(event_json(message, at, reason), Event)


class FakeClock:
    """A clock that goes only when told to; call it for the time in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
