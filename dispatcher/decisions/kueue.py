"""What Kueue reports about a Job that it has not started yet, for the model's progress message. Pure.

Kueue (kueue.x-k8s.io/v1beta2, Kueue 0.15 and newer) makes a Workload for each Job with a queue's label; the Job owns
it. Its condition QuotaReserved has the reason why it waits; with Admitted, Kueue lets it start. Within a queue the
higher priority comes first, then who has waited longer (Kueue's concepts, "Workload" and "ClusterQueue").
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Workload
from dispatcher.decisions.pod_failure import quoted
from training_common.times import rfc3339

# An admitted Job is resumed within seconds; Kueue that does not is stuck (F36).
STUCK_AFTER = 600.0
# Evictions after which a Workload queues anew, behind those that came meanwhile; a preempted one keeps its place.
_BACK_OF_QUEUE = frozenset({"PodsReadyTimeout", "AdmissionCheck"})


class Workloads:
    """A list of Workloads, sorted once: each of the many Jobs that wait finds its own and its place without a walk."""

    def __init__(self, found: Iterable[Workload]) -> None:
        self.uids: set[str] = set()
        self._of: dict[str, Workload] = {}  # by the uid of the Job
        self._orders: defaultdict[str, list[tuple[int, float, str]]] = defaultdict(list)  # by the LocalQueue
        for workload in sorted(found, key=lambda workload: workload.metadata.creation_timestamp or ""):
            self.uids.add(workload.uid)
            self._of |= {owner.uid: workload for owner in workload.metadata.owner_references}
            if _waits(workload):
                self._orders[workload.spec.queue_name].append(_order(workload))
        for orders in self._orders.values():
            orders.sort()

    def of(self, job: Job) -> Workload | None:
        """The newest that the Job owns. By uid: a Job of the same name before it may have left one behind."""
        return self._of.get(job.uid)

    def ahead(self, own: Workload) -> int:
        """The number of Workloads of the same LocalQueue that wait for quota and come first."""
        return bisect_left(self._orders.get(own.spec.queue_name, []), _order(own))


def sentence(own: Workload, workloads: Workloads, now: float) -> str:
    """What the user of the Workload's model reads."""
    since = stuck_since(own, now)
    if since is not None:
        return f"Kueue has admitted the training at {rfc3339(since)} and not started it. Tell the operator"
    if own.condition("Admitted"):
        return "Admitted by Kueue, about to start"
    if not is_active(own):
        evicted = own.condition("Evicted")
        why = quoted(evicted.message if evicted else "")
        return f"Kueue has deactivated the training{': ' + why if why else ''}. Tell the operator"
    if own.condition("QuotaReserved"):
        checks = [
            f"{check.name}{': ' + text if (text := quoted(check.message)) else ''}"
            for check in own.status.admission_checks
            if check.state != "Ready"
        ]
        return f"Kueue has a place for the training and waits for {', '.join(checks) or 'its admission'}"
    place = f"Queued by Kueue: {workloads.ahead(own)} ahead"
    # Kueue's own reason why there is no quota yet; empty before it has tried.
    unreserved = own.condition("QuotaReserved", "False")
    why = quoted(unreserved.message if unreserved else "")
    return f"{place} ({why})" if why else place


def is_active(workload: Workload) -> bool:
    return workload.spec.active is not False


def stuck_since(workload: Workload, now: float) -> float | None:
    """When it was admitted (epoch seconds), if that is too long ago for a Job that is still suspended."""
    since = workload.changed_at("Admitted")
    return since if since is not None and now - since > STUCK_AFTER else None


def _waits(workload: Workload) -> bool:
    return is_active(workload) and not any(
        workload.condition(kind) for kind in ("QuotaReserved", "Admitted", "Finished")
    )


def _order(workload: Workload) -> tuple[int, float, str]:
    """Smaller comes first. The uid only makes two of the same second different."""
    evicted = workload.condition("Evicted")
    since = evicted.since if evicted and evicted.reason in _BACK_OF_QUEUE else workload.created_at
    return -(workload.spec.priority or 0), since or 0.0, workload.uid


def waits_in_queue(job: Job) -> bool:
    """Launched, and suspended until Kueue resumes it."""
    return job.is_suspended and job.is_launched and job.labels.kueue_queue not in (None, names.KUEUE_HOLD)
