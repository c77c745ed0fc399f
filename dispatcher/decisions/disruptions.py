"""How often Kubernetes took a Job's pods away: counted on the Job, since the pods themselves do not last. Pure.

Disrupted pods do not count towards backoffLimit (podFailurePolicy: Ignore), so that preemption and drains cost no
attempt; a Job that is disrupted for ever has to end all the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from dispatcher.cluster import objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod, oldest_first
from dispatcher.decisions import pod_failure, teams
from dispatcher.decisions.verdicts import Verdict
from portal_client.messages import with_remark


def recorded(job: Job) -> list[str]:
    """uids of the disrupted pods that are noted on the Job."""
    uids = objects.decoded(job.annotations.disrupted)
    return [uid for uid in uids if isinstance(uid, str)] if isinstance(uids, list) else []


def unrecorded(job: Job, pods: Sequence[Pod]) -> list[str]:
    """uids of disrupted pods that are not yet noted, oldest first."""
    known = set(recorded(job))
    return [pod.uid for pod in _disrupted(pods) if pod.uid not in known]


def annotation(job: Job, pods: Sequence[Pod]) -> str:
    """The note with the new ones added."""
    return json.dumps(recorded(job) + unrecorded(job, pods))


def verdict(job: Job, pods: Sequence[Pod], limit: int) -> Verdict | None:
    """Why the Job has to be stopped, None while it may be disrupted again. limit: of each node; 0 for no limit."""
    count = len(recorded(job)) + len(unrecorded(job, pods))
    if not limit or count <= limit * job.nodes:
        return None
    last = _disrupted(pods)
    why = teams.explain(job, last[-1]) if last else Verdict("Disrupted", "Kubernetes disrupted the training")
    said = f"disrupted {count} times; the limit is {limit}"
    if job.nodes > 1:
        said = f"{count} of its pods were taken away; the limit is {limit} for each node"
    return Verdict(why.code, with_remark(why.sentence, said))


def _disrupted(pods: Sequence[Pod]) -> list[Pod]:
    # The condition is written before the deletion, and the deletion may never come (a taint that is lifted again).
    away = [pod for pod in pods if pod.is_deleting or pod.phase == "Failed"]
    return oldest_first(pod for pod in away if pod_failure.disruption(pod) is not None)
