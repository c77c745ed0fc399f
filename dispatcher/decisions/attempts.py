"""Whether another attempt can come after the last one, whether it can do better, and what is said until then. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import codes, ends, failures, pod_failure, teams
from dispatcher.decisions.codes import LAST_PERMANENT
from dispatcher.decisions.verdicts import Ended, Stop, Verdict

# Characters of a reason in brief.
_SHORT = 200


def last_attempt(job: Job, pods: Sequence[Pod]) -> Ended | Stop | None:
    """The outcome by the last pod's end alone: where no retry can come, the Job controller only says so a second later.

    A pod may have failed although its trainer has published: a sidecar was killed with it, or the portal not told. Such
    a Job is stopped, else Kubernetes tries again, and beside a sidecar that attempt does not end either.

    pods: oldest first. None where it may retry, or something else than the pod's own end decides.
    """
    if not pods or not all(pod.is_over for pod in pods):
        return None
    if job.nodes > 1:
        return _last_of_team(job, pods)
    pod = pods[-1]
    if ends.has_published(job, pod):
        return Ended(True, ends.completed(pods)) if pod.phase == "Succeeded" else Stop(ends.completed(pods))
    if pod.phase == "Succeeded" or pod.is_deleting or pod_failure.disruption(pod) is not None:
        return None
    return _without_retry(job, pods, pod, [pod])


def _last_of_team(job: Job, pods: Sequence[Pod]) -> Ended | Stop | None:
    """The same of a team, of which no pod is left: the ends of all its nodes have to be known."""
    newest = teams.newest(job, pods)
    if any(ends.has_published(job, pod) for pod in pods):
        complete = len(newest) == job.nodes and all(pod.phase == "Succeeded" for pod in newest.values())
        return Ended(True, ends.completed(pods)) if complete else Stop(ends.completed(pods))
    own = [pod for pod in teams.failed(job, pods) if not pod.is_deleting and pod_failure.disruption(pod) is None]
    first = teams.cause(pods)
    return _without_retry(job, pods, first, own) if first and own and len(newest) == job.nodes else None


def _without_retry(job: Job, pods: Sequence[Pod], told: Pod, failed: Sequence[Pod]) -> Ended | None:
    """The end as `told` tells it, where the exit code of one of `failed`, or their number, allows no other attempt."""
    if any(0 < (pod.trainer_end.exit_code or 0) <= LAST_PERMANENT for pod in failed):  # podFailurePolicy: FailJob
        return Ended(False, teams.explain(job, told))
    count = failures.counted(job, pods)
    if count <= failures.backoff_limit(job):
        return None
    tried = count if job.nodes == 1 else failures.tried(job, pods)
    return Ended(False, failures.after(tried, teams.explain(job, told)))


def hopeless(job: Job, pods: Sequence[Pod]) -> Verdict | None:
    """Why no further attempt can do better than the last; podFailurePolicy knows exit codes only, and cannot tell."""
    failed = [pod for pod in pods if pod.phase == "Failed"][-1:]
    if job.nodes > 1:  # the others run, and wait for it
        failed = teams.failed(job, pods)
    elif any(pod.runs for pod in pods):
        return None
    if failures.counted(job, pods) > failures.backoff_limit(job):
        return None
    return next((v for v in (teams.explain(job, pod) for pod in failed) if v.code in codes.PERMANENT), None)


def with_last_attempt(job: Job, pods: Sequence[Pod], progress: str | None) -> str | None:
    """What is waited for, after why: else the portal shows the dead attempt's last progress for minutes (F70).

    Nothing while a pod may still run its trainer, which reports itself.
    """
    current = [pod for pod in pods if not pod.is_over and not pod.index]  # of a team node 0 reports
    if any(pod.is_deleting or pod.runs or pod.has_ended for pod in current):
        return progress
    dead = failures.last_to_blame(job, pods)
    if dead is None:
        return progress
    why = teams.explain(job, dead).sentence.split(". ")[0].rstrip(".")[:_SHORT]
    uncounted = dead.is_deleting and failures.attempts(job) <= failures.surely_counted(pods)
    if pod_failure.disruption(dead) is None and not uncounted:
        number = max(failures.tried(job, pods), 1)
        said = f"Attempt {number} of {max(failures.backoff_limit(job) + 1, number)} failed: {why}; the next one starts"
    else:
        said = f"Interrupted, which costs no attempt: {why}; the next pod starts"
    # What only passes by is not worth a word more.
    return f"{said}. {progress}" if progress and ":" in progress else said
