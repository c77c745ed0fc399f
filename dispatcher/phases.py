"""Where a training Job is between its launch and its report, in one word: for metrics, `dispatcher status` and pages.

Pure, and without a clock: what follows from a phase is decided elsewhere (outcome.py, waiting.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum

from dispatcher import names, objects
from dispatcher.objects import KubeObject


class Phase(StrEnum):
    """In the order in which a Job goes through them. The values are labels of metrics: changing one is a migration."""

    LAUNCHING = "launching"  # created suspended; the portal is being told
    QUEUED = "queued"  # launched and suspended: Kueue or a person resumes it
    WAITING = "waiting"  # no trainer runs: no pod yet, no node yet, its image is being pulled
    RUNNING = "running"
    STOPPING = "stopping"  # deleted, stopped or failed, and its pods may still end
    REPORTING = "reporting"  # ended; the portal has not acknowledged it
    COMPLETED = "completed"
    FAILED = "failed"


ENDED = frozenset({Phase.COMPLETED, Phase.FAILED})
"""Reported: nothing is left to do."""


def phase(job: KubeObject, pods: Sequence[KubeObject]) -> Phase:
    """The phase of one of our Jobs. pods: all that are known of this very Job (by uid)."""
    if objects.is_reported(job):
        return _reported(job)
    if objects.is_finished(job):
        return Phase.REPORTING
    if objects.is_deleting(job) or objects.annotation(job, names.STOPPED) or objects.condition(job, "FailureTarget"):
        return Phase.STOPPING
    if not objects.is_launched(job):
        return Phase.LAUNCHING
    if objects.is_suspended(job):
        return Phase.QUEUED
    return Phase.RUNNING if any("running" in objects.trainer_state(pod) for pod in pods) else Phase.WAITING


def _reported(job: KubeObject) -> Phase:
    """What the portal was told counts: a program that exits 0 when it is evicted leaves a complete Job that failed."""
    try:
        completed = json.loads(objects.annotation(job, names.REPORTED) or "")["status"] == "Completed"
    except (ValueError, KeyError, TypeError, RecursionError):
        completed = objects.condition(job, "Complete") is not None  # somebody else wrote it
    return Phase.COMPLETED if completed else Phase.FAILED
