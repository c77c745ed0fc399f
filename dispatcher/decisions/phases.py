"""Where a training Job is between its launch and its report, in one word: for metrics, `dispatcher status` and pages.

Pure, and without a clock: what follows from a phase is decided elsewhere (outcome.py, waiting.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from dispatcher.cluster import names, objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions import waiting


class Phase(StrEnum):
    """In the order in which a Job goes through them. The values are labels of metrics: changing one is a migration."""

    LAUNCHING = "launching"  # created suspended; Processing is being sent to the portal
    QUEUED = "queued"  # launched and suspended: Kueue or a person resumes it
    WAITING = "waiting"  # no trainer runs: no pod yet, no node yet, its image is being pulled
    RUNNING = "running"
    STOPPING = "stopping"  # deleted, stopped or failed, and its pods may still end
    REPORTING = "reporting"  # ended; the portal has not acknowledged it
    COMPLETED = "completed"
    FAILED = "failed"


DESCRIPTIONS: Mapping[Phase, str] = {
    Phase.LAUNCHING: "Created; it starts when the portal has been told",
    Phase.QUEUED: "Suspended",
    Phase.WAITING: "No pod yet",
    Phase.RUNNING: "The trainer runs",
    Phase.STOPPING: "Its pods are being stopped",
    Phase.REPORTING: "Ended; the last state of its pods is awaited",
    Phase.COMPLETED: "Ended",
    Phase.FAILED: "Ended",
}
"""For people, where nothing more is known of a Job than its phase."""

ENDED = frozenset({Phase.COMPLETED, Phase.FAILED})
"""Reported: nothing is left to do."""


def phase(job: KubeObject, pods: Sequence[KubeObject]) -> Phase:
    """The phase of one of our Jobs. pods: all that are known of this very Job (by uid)."""
    if objects.is_reported(job):
        return _reported(job)
    if objects.is_finished(job):
        return Phase.REPORTING
    if objects.is_deleting(job):
        # Our finalizer holds it: without a pod that runs on, only its report is missing.
        return Phase.REPORTING if all(map(objects.pod_is_over, pods)) else Phase.STOPPING
    if objects.annotation(job, names.STOPPED) or objects.condition(job, "FailureTarget"):
        return Phase.STOPPING
    if not objects.is_launched(job):
        return Phase.LAUNCHING
    if objects.is_suspended(job):
        return Phase.QUEUED
    return Phase.RUNNING if any("running" in objects.trainer_state(pod) for pod in pods) else Phase.WAITING


def since(phase: Phase, job: KubeObject, pods: Sequence[KubeObject]) -> float | None:
    """When the Job came into its `phase` (epoch seconds, by the cluster's clock), None where nothing shows it.

    For people: clocks of two machines are compared, so nothing is decided by it.
    """
    launched = objects.timestamp(objects.annotation(job, names.LAUNCHED_AT))
    times: list[float | None] = []
    match phase:
        case Phase.LAUNCHING:
            times = [objects.created_at(job)]
        case Phase.QUEUED:
            times = [launched, objects.changed_at(job, "Suspended")]
        case Phase.WAITING:
            times = [launched, waiting.restarted(job, pods)]
        case Phase.RUNNING:
            running = [objects.trainer_state(pod).get("running") or {} for pod in pods]
            times = [objects.timestamp(state.get("startedAt")) for state in running]
        case Phase.STOPPING:
            times = [objects.gone_at(job), objects.changed_at(job, "FailureTarget")]
        case Phase.REPORTING:
            ends = [objects.changed_at(job, "Complete"), objects.changed_at(job, "Failed")]
            times = ends if any(ends) else [objects.gone_at(job)]
        case Phase.COMPLETED | Phase.FAILED:
            times = [objects.timestamp(objects.annotation(job, names.REPORTED_AT))]
    return max((time for time in times if time is not None), default=None)


def overdue_since(phase: Phase, job: KubeObject) -> float | None:
    """When Kubernetes should have ended the Job (epoch seconds), None where no time limit runs.

    A stop of ours is a deadline in the past, which does not show when it was written.
    """
    if phase not in (Phase.WAITING, Phase.RUNNING):
        return None
    started = objects.timestamp((job.get("status") or {}).get("startTime"))
    limit = (job.get("spec") or {}).get("activeDeadlineSeconds")
    return None if started is None or limit is None else started + float(limit)


def _reported(job: KubeObject) -> Phase:
    """By what was reported: a program that exits 0 when it is evicted leaves a complete Job, and is reported Failed."""
    status = objects.report_of(job).get("status", "Completed" if objects.condition(job, "Complete") else "Failed")
    return Phase.COMPLETED if status == "Completed" else Phase.FAILED
