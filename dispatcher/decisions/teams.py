"""A training on several nodes: the newest pod of each, whose end came first, and how often they have failed. Pure.

Where one node fails, the others lose their peer: what is told is the first cause, not the last echo of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dispatcher.cluster import objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import pod_failure
from dispatcher.decisions.verdicts import Verdict

# Seconds after a node's end in which the others end for its sake.
_TOGETHER = 60.0
_TOLD_TO_END, _LOST_ITS_PEER = 1, 2


def newest(job: Job, pods: Sequence[Pod]) -> dict[int, Pod]:
    """Of each node the newest pod that is known, in the order of the nodes. pods: oldest first.

    None of a node that has done its part where only pods from before that are left.
    """
    found = {pod.index: pod for pod in pods if pod.index is not None and pod.index < job.nodes}
    done = job.done
    return {index: pod for index, pod in sorted(found.items()) if index not in done or pod.phase == "Succeeded"}


def title(job: Job, index: int) -> str:
    return f"node {index + 1} of {job.nodes}"


def lowered(sentence: str) -> str:
    """As the rest of a longer sentence: its first letter is small, unless it begins with an abbreviation."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence


def named(job: Job, pod: Pod, verdict: Verdict) -> Verdict:
    """The verdict on one pod of a team, with the node that it is about; the trainer's own words stay as they are."""
    if job.nodes == 1 or pod.index is None:
        return verdict
    sentence = verdict.sentence if verdict == pod_failure.trainer_word(pod) else lowered(verdict.sentence)
    where = f" ({pod.node})" if pod.node else ""
    return Verdict(verdict.code, f"{title(job, pod.index)}{where}: {sentence}")


def explain(job: Job, pod: Pod) -> Verdict:
    """`pod_failure.explain`; of a team with the node."""
    return named(job, pod, pod_failure.explain(pod))


def failed(job: Job, pods: Sequence[Pod]) -> list[Pod]:
    """The nodes' newest pods that have failed: the last incident's, and those that still wait to be replaced."""
    return [pod for pod in newest(job, pods).values() if pod.phase == "Failed"]


def cause(pods: Sequence[Pod], blamed: str = "") -> Pod | None:
    """The pod whose failure the others of the last incident only followed; None where none has failed.

    blamed: the pod that the Job's condition names. Its own word is believed; a program without one may have ended first
    in the Job controller's eyes, and for a peer's sake all the same.
    """
    found = (incidents(pods) or [[]])[-1]
    believed = (pod for pod in found if pod.name == blamed and pod_failure.trainer_word(pod) and not _echo(pod))
    return next(believed, first(found) if found else None)


def first(pods: Sequence[Pod]) -> Pod:
    """Of pods that ended together the one that the others followed. At least one."""
    return min(pods, key=lambda pod: (_echo(pod), ended_at(pod), pod.index or 0))


def _echo(pod: Pod) -> int:
    """0: it failed by itself, or was taken away; 1: it was told to end; 2: it says that it lost its peer."""
    code = pod_failure.explain(pod).code
    if code == "PeerLost":
        return _LOST_ITS_PEER
    # The Job controller deletes the others' pods once one has failed the Job.
    told = code == "Terminated" or (pod.is_deleting and pod_failure.disruption(pod) is None)
    return _TOLD_TO_END if told else 0


def ended_at(pod: Pod) -> float:
    """When it ended or was taken away (epoch seconds); infinity where nothing shows it."""
    times = (objects.timestamp(pod.trainer_end.finished_at), pod.changed_at("DisruptionTarget"), pod.gone_at)
    return min((time for time in times if time is not None), default=math.inf)


def incidents(pods: Sequence[Pod]) -> list[list[Pod]]:
    """The team's failed pods by what they ended in, oldest first: those that ended together, before one was made anew.

    A replacement may have been removed meanwhile: that a node comes a second time, or much later, shows it as well. An
    echo may come when the next pod is there already; it begins nothing.
    """
    made = [pod.created_at or 0.0 for pod in pods]
    groups: list[list[Pod]] = []
    for pod in sorted((pod for pod in pods if pod.phase == "Failed"), key=ended_at):
        began, end = ended_at(groups[-1][0]) if groups else -math.inf, ended_at(pod)
        again = groups and pod.index in (other.index for other in groups[-1])
        anew = end > began + _TOGETHER or (not _echo(pod) and (again or any(began < time <= end for time in made)))
        if not groups or (anew and _echo(pod) != _TOLD_TO_END):
            groups.append([pod])
        else:
            groups[-1].append(pod)
    return groups


def attempts(pods: Sequence[Pod]) -> int:
    """How often the team has failed, as far as its pods show it: one incident is one attempt, however many pods fell.

    Disruptions are none, nor is what the Job controller or somebody ended.
    """
    counted = [
        [p for p in group if pod_failure.disruption(p) is None and not p.is_deleting] for group in incidents(pods)
    ]
    return sum(map(bool, counted))


def attempt(job: Job, pods: Sequence[Pod]) -> int:
    """The number of the attempt that its pods are at, by the node that has had the most; 0 before the first pod."""
    if job.nodes == 1:
        return len(pods)
    indexes = [pod.index for pod in pods]
    return max(map(indexes.count, set(indexes)), default=0)
