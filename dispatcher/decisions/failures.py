"""How often a Job's pods have failed, which of them is to blame, and what is said of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Condition, plain_number
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import pod_failure, teams
from dispatcher.decisions.codes import EXIT_CODES
from dispatcher.decisions.verdicts import Verdict
from portal_client.messages import with_remark

# backoffLimit where a Job has none (API, JobSpec).
_BACKOFF_LIMIT = 6
# "Container trainer for pod ns/model-1-abcde failed with exit code 66 matching FailJob rule at index 1"
_EXIT_CODE = re.compile(r"failed with exit code ([0-9]{1,3})\b")
_TRAINERS_EXIT_CODE = re.compile(rf"Container {names.TRAINER_CONTAINER} for pod [^/ ]+/(\S+-\S+) {_EXIT_CODE.pattern}")


def attempts(job: Job) -> int:
    """How many of its pods have failed and are counted."""
    return job.status.failed + len(job.status.uncounted_terminated_pods.failed)


def backoff_limit(job: Job) -> int:
    return _BACKOFF_LIMIT if job.spec.backoff_limit is None else job.spec.backoff_limit


def counted(job: Job, pods: Sequence[Pod]) -> int:
    """`attempts`, or those that are known already where it is behind."""
    return max(surely_counted(pods), attempts(job))


def surely_counted(pods: Sequence[Pod]) -> int:
    """Of a deleted pod only the Job controller knows whether it counts: one that a suspended Job gave up (Kueue's
    preemption) does not.
    """
    return sum(pod.phase == "Failed" and not pod.is_deleting and pod_failure.disruption(pod) is None for pod in pods)


def tried(job: Job, pods: Sequence[Pod]) -> int:
    """`attempts`, for people: of a team one for each incident, though Kubernetes counts pods."""
    return attempts(job) if job.nodes == 1 else teams.attempts(pods)


def last_to_blame(job: Job, pods: Sequence[Pod]) -> Pod | None:
    """The last pod that failed; of a team the one that failed first, while a node waits for its next pod."""
    if job.nodes > 1:
        return teams.cause(pods) if teams.failed(job, pods) else None
    return next((pod for pod in reversed(pods) if pod.phase == "Failed"), None)


def after(count: int, verdict: Verdict) -> Verdict:
    return verdict if count < 2 else Verdict(verdict.code, with_remark(verdict.sentence, f"after {count} attempts"))


def told(job: Job, pods: Sequence[Pod], failed: Condition) -> Verdict:
    """Why the Job controller failed the Job, by the pod that is to blame, or by the condition where that is gone."""
    over = [pod for pod in pods if pod.phase == "Failed"] or [
        pod for pod in pods if pod.is_deleting or pod_failure.disruption(pod) is not None
    ]
    if found := _TRAINERS_EXIT_CODE.search(failed.message):
        # Of the pod that this was, perhaps no more was seen than that it ran: a watch broke, and its node was removed.
        over = _after_blame(job, over, found[1], int(found[2]))
    if not over:
        return _of_condition(job, failed)
    last = over[-1] if job.nodes == 1 else teams.cause(over, found[1] if found else "") or teams.first(over)
    verdict = teams.explain(job, last)
    return after(tried(job, pods), verdict) if failed.reason == "BackoffLimitExceeded" else verdict


def _after_blame(job: Job, over: list[Pod], blamed: str, exit_code: int) -> list[Pod]:
    """Those that may be told, where the Job failed for this pod's exit code; of a team, also what it followed."""
    ended = [pod for pod in over if pod.trainer_end.exit_code == exit_code]
    if job.nodes == 1:
        return ended
    return over if any(pod.name == blamed for pod in ended) else []


def _of_condition(job: Job, failed: Condition) -> Verdict:
    verdict, found = _without_pods(failed), _TRAINERS_EXIT_CODE.search(failed.message)
    index = plain_number(found[1].split("-")[-2]) if found and job.nodes > 1 else None
    if index is None:
        return verdict
    return Verdict(verdict.code, f"{teams.title(job, index)}: {teams.lowered(verdict.sentence)}")


def _without_pods(failed: Condition) -> Verdict:
    """The pods are gone; the Job's condition still has the exit code."""
    text = pod_failure.quoted(failed.message) or "no text"
    found = _EXIT_CODE.search(text)
    code = EXIT_CODES.get(int(found[1]), "TrainerFailed") if found else "JobFailed"
    return Verdict(code, f"Kubernetes failed the training job ({failed.reason}): {text}")
