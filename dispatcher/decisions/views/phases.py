"""Where a training Job is between its launch and its report, in one word: for metrics, `dispatcher status` and pages.

Pure, and without a clock: what follows from a phase is decided elsewhere (outcome.py, waiting.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from dispatcher.cluster import objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import containers, waiting


class Phase(StrEnum):
    """In the order in which a Job goes through them. The values are labels of metrics: changing one is a migration."""

    LAUNCHING = "launching"  # created suspended; Processing is being sent to the portal
    QUEUED = "queued"  # launched and suspended: Kueue or a person resumes it
    WAITING = "waiting"  # no trainer runs, or not on each of its nodes: no pod yet, no node yet, its image is pulled
    RUNNING = "running"
    STOPPING = "stopping"  # deleted, stopped or failed, or its trainer has ended, and its pods may still go on
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
"""For people; see `description`."""

ENDED = frozenset({Phase.COMPLETED, Phase.FAILED})
"""Reported: nothing is left to do."""


def phase(job: Job, pods: Sequence[Pod]) -> Phase:
    """The phase of one of our Jobs. pods: all that are known of this very Job (by uid)."""
    if job.is_reported:
        return reported_phase(job)
    if job.is_finished:
        return Phase.REPORTING
    if job.is_deleting:
        # Our finalizer holds it: without a pod that runs on, only its report is missing.
        return Phase.REPORTING if all(pod.is_over for pod in pods) else Phase.STOPPING
    if job.annotations.stopped or job.condition("FailureTarget"):
        return Phase.STOPPING
    if not job.is_launched:
        return Phase.LAUNCHING
    if job.is_suspended:
        return Phase.QUEUED
    if is_whole(job, pods):
        return Phase.RUNNING
    # Its trainer has ended and another container goes on: the Job is about to be stopped.
    return Phase.STOPPING if any(containers.goes_on_without_trainer(pod) for pod in pods) else Phase.WAITING


def nodes_that_run(pods: Iterable[Pod]) -> int:
    """On how many of its nodes a trainer runs. pods: of one Job."""
    return len({pod.index for pod in pods if pod.runs})


def is_whole(job: Job, pods: Sequence[Pod]) -> bool:
    """Whether it trains: a trainer runs on each node that has not done its part, and on one at least."""
    ended = {pod.index for pod in pods if pod.phase == "Succeeded" or pod.trainer_end.exit_code == 0}
    running = {pod.index for pod in pods if pod.runs}
    return bool(running) and len(running | ended | job.done) >= job.nodes


def description(phase: Phase, job: Job, pods: Sequence[Pod]) -> str:
    """For people, where nothing more is known of the Job than its phase and its pods."""
    if job.nodes > 1 and phase is Phase.RUNNING:
        return f"{DESCRIPTIONS[phase]} on {job.nodes} nodes"
    if job.nodes > 1 and phase in (Phase.WAITING, Phase.STOPPING) and (running := nodes_that_run(pods)):
        return f"{running} of {job.nodes} pods run"
    return DESCRIPTIONS[phase]


def since(phase: Phase, job: Job, pods: Sequence[Pod]) -> float | None:
    """When the Job came into its `phase` (epoch seconds, by the cluster's clock), None where nothing shows it.

    For people: clocks of two machines are compared, so nothing is decided by it.
    """
    launched = objects.timestamp(job.annotations.launched_at)
    times: list[float | None] = []
    match phase:
        case Phase.LAUNCHING:
            times = [job.created_at]
        case Phase.QUEUED:
            times = [launched, job.changed_at("Suspended")]
        case Phase.WAITING:
            times = [launched, waiting.restarted(job, pods)]
        case Phase.RUNNING:
            running = [pod.trainer_state.running for pod in pods]
            times = [objects.timestamp(state.started_at) for state in running if state is not None]
        case Phase.STOPPING:
            times = [job.gone_at, job.changed_at("FailureTarget")]
        case Phase.REPORTING:
            times = [job.ended.since if job.ended else job.gone_at]
        case Phase.COMPLETED | Phase.FAILED:
            times = [objects.timestamp(job.annotations.reported_at)]
    return max((time for time in times if time is not None), default=None)


def overdue_since(phase: Phase, job: Job) -> float | None:
    """When Kubernetes should have ended the Job (epoch seconds), None where no time limit runs.

    A stop of ours is a deadline in the past, which does not show when it was written.
    """
    if phase not in (Phase.WAITING, Phase.RUNNING):
        return None
    started, limit = job.started_at, job.spec.active_deadline_seconds
    return None if started is None or limit is None else started + limit


def reported_phase(job: Job) -> Phase:
    """By what was reported: a program that exits 0 when it is evicted leaves a complete Job, and is reported Failed."""
    status = job.report.get("status", "Completed" if job.condition("Complete") else "Failed")
    return Phase.COMPLETED if status == "Completed" else Phase.FAILED
