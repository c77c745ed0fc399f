"""What Kueue reports about a Job that it has not started yet, for the model's progress message. Pure.

Kueue (kueue.x-k8s.io/v1beta2, Kueue 0.15 and newer) makes a Workload for each Job with a queue's label; the Job owns
it. Its condition QuotaReserved has the reason why it waits; with Admitted, Kueue lets it start. Within a queue the
higher priority comes first, then who has waited longer (Kueue's concepts, "Workload" and "ClusterQueue").
"""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.cluster import names, objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions.pod_failure import quoted
from training_common.times import rfc3339

# An admitted Job is resumed within seconds; Kueue that does not is stuck (F36).
STUCK_AFTER = 600.0
# Evictions after which a Workload queues anew, behind those that came meanwhile; a preempted one keeps its place.
_BACK_OF_QUEUE = frozenset({"PodsReadyTimeout", "AdmissionCheck"})


def workload_of(job: KubeObject, workloads: Sequence[KubeObject]) -> KubeObject | None:
    """The newest that the Job owns. By uid: a Job of the same name before it may have left one behind."""
    uid = objects.uid_of(job)
    own = [
        workload
        for workload in workloads
        if any(owner.get("uid") == uid for owner in objects.meta(workload).get("ownerReferences") or ())
    ]
    return max(own, key=lambda workload: objects.meta(workload).get("creationTimestamp") or "", default=None)


def sentence(own: KubeObject, workloads: Sequence[KubeObject], now: float) -> str:
    """What the user of the Workload's model reads."""
    since = stuck_since(own, now)
    if since is not None:
        return f"Kueue has admitted the training at {rfc3339(since)} and not started it. Tell the operator"
    if objects.condition(own, "Admitted"):
        return "Admitted by Kueue, about to start"
    if not is_active(own):
        why = quoted((objects.condition(own, "Evicted") or {}).get("message"))
        return f"Kueue has deactivated the training{': ' + why if why else ''}. Tell the operator"
    if objects.condition(own, "QuotaReserved"):
        checks = [
            f"{check.get('name')}{': ' + text if (text := quoted(check.get('message'))) else ''}"
            for check in (own.get("status") or {}).get("admissionChecks") or ()
            if check.get("state") != "Ready"
        ]
        return f"Kueue has a place for the training and waits for {', '.join(checks) or 'its admission'}"
    place = f"Queued by Kueue: {ahead(own, workloads)} ahead"
    # Kueue's own reason why there is no quota yet; empty before it has tried.
    why = quoted((objects.condition(own, "QuotaReserved", "False") or {}).get("message"))
    return f"{place} ({why})" if why else place


def ahead(own: KubeObject, workloads: Sequence[KubeObject]) -> int:
    """The number of Workloads of the same LocalQueue that wait for quota and come first."""
    queue, place = _queue(own), _order(own)
    return sum(_queue(other) == queue and _waits(other) and _order(other) < place for other in workloads)


def is_active(workload: KubeObject) -> bool:
    return (workload.get("spec") or {}).get("active") is not False


def stuck_since(workload: KubeObject, now: float) -> float | None:
    """When it was admitted (epoch seconds), if that is too long ago for a Job that is still suspended."""
    since = objects.changed_at(workload, "Admitted")
    return since if since is not None and now - since > STUCK_AFTER else None


def _waits(workload: KubeObject) -> bool:
    return is_active(workload) and not any(
        objects.condition(workload, kind) for kind in ("QuotaReserved", "Admitted", "Finished")
    )


def _queue(workload: KubeObject) -> str:
    return str((workload.get("spec") or {}).get("queueName") or "")


def _order(workload: KubeObject) -> tuple[int, float, str]:
    """Smaller comes first. The uid only makes two of the same second different."""
    priority = (workload.get("spec") or {}).get("priority") or 0
    evicted = objects.condition(workload, "Evicted") or {}
    since = objects.meta(workload).get("creationTimestamp")
    if evicted.get("reason") in _BACK_OF_QUEUE:
        since = evicted.get("lastTransitionTime")
    return -int(priority), objects.timestamp(since) or 0.0, objects.uid_of(workload)


def waits_in_queue(job: KubeObject) -> bool:
    """Launched, and suspended until Kueue resumes it."""
    return (
        objects.is_suspended(job)
        and objects.is_launched(job)
        and objects.label(job, names.KUEUE_QUEUE_LABEL) is not None
    )
