"""What a team lacks to be whole, and until when that is tolerated: its other pods hold their GPUs in vain. Pure.

Kueue admits all pods of a team or none; without it, or after a loss, some may have a node and others none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import teams, waiting
from dispatcher.decisions.verdicts import Holder, Verdict
from dispatcher.decisions.waiting import Limits, Waiting
from portal_client.messages import AGAIN

# How many of the nodes that are lacking a sentence names.
_NAMED = 3


def look(
    job: Job,
    pods: Sequence[Pod],
    events: Sequence[Event],
    now: float,
    limits: Limits,
    failing_since: float | None = None,
    largest: Mapping[str, int] = waiting.NOT_KNOWN,
) -> Waiting:
    """`waiting.look` for a Job of several nodes: each pod has its own limits, and the team has one in common."""
    newest, explained = teams.newest(job, pods), waiting.needs_events(job, pods, now)
    awaited: dict[int, Waiting] = {}
    done = job.done
    for index in range(job.nodes):
        pod = newest.get(index)
        if index in done:
            continue
        if pod is None or pod.phase == "Failed":
            own = events if explained == job.uid else ()
            awaited[index] = waiting.without_pod(job, pods, own, now, limits)
        elif not pod.is_over and (pod.is_deleting or not (pod.runs or pod.has_ended)):
            own = events if explained == pod.uid else ()
            found = waiting.of_pod(pod, own, now, limits, failing_since, job.gpus, largest)
            awaited[index] = replace(found, verdict=found.verdict and teams.named(job, pod, found.verdict))
        elif pod.runs and pod.silent_since is not None:
            awaited[index] = Waiting(f"Its node {pod.node} does not answer", holder=Holder.NETWORK)
    dues = [(wait.limit_at, wait.verdict) for wait in awaited.values() if wait.limit_at is not None]
    since = _incomplete_since(job, pods, newest)
    if since is not None and limits.team:
        dues.append((since + limits.team, _incomplete(job, newest, awaited, limits)))
    due, verdict = min(dues, key=lambda found: found[0], default=(None, None))
    progress, holder = _progress(job, newest, awaited)
    return Waiting(progress, due, verdict, holder)


def _progress(job: Job, newest: Mapping[int, Pod], awaited: Mapping[int, Waiting]) -> tuple[str | None, Holder | None]:
    """Which pod waits for what, and for whom. Nothing while node 0 is told to end: it may still report itself."""
    leader = newest.get(0)
    if leader is not None and leader.is_deleting and not leader.is_over:
        return None, Holder.KUBELET
    runs = sum(pod.runs and _has_place(pod) for pod in newest.values())
    for index, wait in awaited.items():
        if wait.progress:
            said = f"{runs} of {job.nodes} pods run; {teams.title(job, index)}: {teams.lowered(wait.progress)}"
            return said, wait.holder
    return None, next((wait.holder for wait in awaited.values() if wait.holder), None)


def _incomplete_since(job: Job, pods: Sequence[Pod], newest: Mapping[int, Pod]) -> float | None:
    """Since when (epoch seconds) some of its pods hold a node although others have none; None while it is not so.

    A pod that ends keeps its place until it should be gone, or its node falls silent: the first that was lost counts.
    """
    held = [pod for pod in newest.values() if _has_place(pod)]
    places = (
        {pod.index for pod in held} | {index for index, pod in newest.items() if pod.phase == "Succeeded"} | job.done
    )
    if not held or len(places) == job.nodes:
        return None
    ends: dict[int | None, float] = {}
    lacking = places ^ set(range(job.nodes))
    for pod in pods:
        if pod.index in lacking and pod.node is not None:
            end = teams.ended_at(pod) if pod.is_over else pod.silent_since or pod.gone_at or math.inf
            if math.isfinite(end):
                ends[pod.index] = max(ends.get(pod.index, end), end)
    # An evicted pod is gone at once, and whoever did not watch knows only of the one that waits in its place: it was
    # whole for no less than until that was made.
    for pod in pods:
        ends.setdefault(pod.index, pod.created_at or -math.inf)
    lost = min(ends.get(index, -math.inf) for index in lacking)
    return max(lost, min(pod.changed_at("PodScheduled") or pod.created_at or 0.0 for pod in held))


def _has_place(pod: Pod) -> bool:
    return pod.node is not None and not pod.is_over and not pod.is_deleting and pod.silent_since is None


def _incomplete(job: Job, newest: Mapping[int, Pod], awaited: Mapping[int, Waiting], limits: Limits) -> Verdict:
    have = sum(map(_has_place, newest.values()))
    lacking = [index for index in awaited if index not in newest or not _has_place(newest[index])]
    waits = [f"{teams.title(job, index)}: {_what(newest.get(index), awaited[index])}" for index in lacking[:_NAMED]]
    more = f"; and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    sentence = f"{have} of {job.nodes} pods held a node for {limits.team:.0f} seconds while the team was not whole"
    return Verdict(
        "TeamIncomplete", f"{sentence}; {'; '.join(waits)}{more}. {AGAIN} when there is room, or for fewer nodes"
    )


def _what(pod: Pod | None, wait: Waiting) -> str:
    if wait.progress:
        return teams.lowered(wait.progress)
    if pod is None or pod.is_over:
        return "no pod yet"
    return f"its pod is being stopped{f' on {pod.node}' if pod.node else ''}"
