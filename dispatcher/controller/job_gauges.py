"""The gauges about Jobs, computed anew from the cache: nothing is counted up and down, so no number can drift.

Every replica measures the same cluster; whoever adds them up has to take the largest, not the sum.
"""

from __future__ import annotations

from collections import Counter

from dispatcher.cluster import names, objects
from dispatcher.controller.cache import ClusterCache
from dispatcher.decisions import phases
from dispatcher.decisions.phases import ENDED, Phase
from dispatcher.telemetry.metrics import Metrics


def set_job_gauges(cache: ClusterCache, metrics: Metrics, now: float, *, tracking: bool = True) -> None:
    """Set every gauge about Jobs. now: epoch seconds; tracking: False with STATUS_TRACKING=off."""
    count: Counter[Phase] = Counter()
    longest = {phase: 0.0 for phase in Phase if phase not in ENDED}
    overdue = 0.0
    unacknowledged: list[float] = []
    for job in cache.jobs():
        pods = cache.pods_of(job)
        phase = phases.phase(job, pods)
        count[phase] += 1
        if phase in longest:
            longest[phase] = max(longest[phase], age(phases.since(phase, job, pods), now))
        overdue = max(overdue, age(phases.overdue_since(phase, job), now))
        if tracking and phase in (Phase.QUEUED, Phase.WAITING, Phase.RUNNING) and not objects.is_acknowledged(job):
            unacknowledged.append(age(objects.timestamp(objects.annotation(job, names.LAUNCHED_AT)), now))
    for phase in Phase:
        metrics.jobs.labels(phase).set(count[phase])
    for phase, seconds in longest.items():
        metrics.longest_in_phase.labels(phase).set(seconds)
    metrics.active_jobs.set(cache.unfinished())
    # Jobs that somebody deleted by force are still to be reported, too.
    tombstones = sum(cache.tombstone(name) is not None for name in cache.names())
    metrics.unreported_jobs.set(count[Phase.REPORTING] + tombstones)
    metrics.longest_overdue.set(overdue)
    metrics.unacknowledged_jobs.set(len(unacknowledged))
    metrics.longest_unacknowledged.set(max(unacknowledged, default=0.0))


def age(since: float | None, now: float) -> float:
    return 0.0 if since is None else max(0.0, now - since)
