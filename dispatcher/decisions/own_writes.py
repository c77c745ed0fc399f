"""What a Job says that we have written to the portal for its model, and when. Pure."""

from __future__ import annotations

from contextlib import suppress

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import timestamp
from portal_client.reporting import PLAUSIBLE_LAG, OwnWrites, is_proof
from portal_client.statuses import ProcessingStatus


def own_writes(job: Job, now: float, lag: float = PLAUSIBLE_LAG) -> OwnWrites:
    """now: epoch seconds. A Job of an older version does not say what stood at the portal before."""
    before = None
    with suppress(ValueError):
        before = ProcessingStatus.parse(job.annotations.status_before)
    acknowledged = job.is_acknowledged or job.report.get("portal") == "reported"
    notes = job.annotations
    noted = map(timestamp, (notes.launched_at, notes.acknowledged_at, notes.reported_at))
    last = max((moment for moment in noted if moment is not None), default=float("-inf"))
    return OwnWrites(acknowledged, before, max(0.0, now - last), lag)


def may_be_older(shown: ProcessingStatus, job: Job, now: float, lag: float = PLAUSIBLE_LAG) -> bool:
    """Whether `shown` may be what stood there before we wrote for this Job, by a portal that lags behind."""
    own = own_writes(job, now, lag)
    return own.acknowledged and not is_proof(shown, own, own.since)
