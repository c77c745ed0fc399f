"""How a pod's trainer ended, where it did not fail: published, or stopped and looking like it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dispatcher.cluster import objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import pod_failure, teams
from dispatcher.decisions.verdicts import Ended, Verdict
from portal_client.messages import AGAIN, COMPLETED

_SENTENCE = "The training was stopped before it finished, and its program ended as if it had succeeded"
INTERRUPTED = Verdict("Interrupted", f"{_SENTENCE}. {AGAIN}")


def reports_completed(pod: Pod) -> bool:
    word = pod_failure.trainer_word(pod)
    # 202: it is published, and the portal was not told.
    return pod.trainer_end.exit_code in (0, 202) and word is not None and word.code == "Completed"


def has_published(job: Job, pod: Pod) -> bool:
    """Whether its trainer has published. One without a word has if it ended with 0 by itself, though another container
    failed the pod; where it ended with its pod, the Job is complete.

    Of a team only node 0 publishes, and only its word says so: without one, the others' programs may have failed.
    """
    if job.nodes > 1:
        return pod.index == 0 and reports_completed(pod)
    if reports_completed(pod):
        return True
    return pod.phase == "Failed" and pod.trainer_end.exit_code == 0 and not pod.status.reason and not interrupted([pod])


def completed(pods: Iterable[Pod]) -> Verdict:
    """As the portal is told, also where the trainer could not: in the documented words, and with what it adds to them,
    that its model is stored and the earlier one stays published."""
    words = (pod_failure.trainer_word(pod) for pod in pods if reports_completed(pod))
    said = (word.sentence for word in words if word is not None and word.sentence.startswith(f"{COMPLETED}; "))
    return Verdict("Completed", next(said, COMPLETED))


def interrupted(pods: Iterable[Pod]) -> bool:
    """Whether one of them was being taken away: a program that exits 0 on SIGTERM looks like success."""
    return any(
        pod.trainer_end.exit_code == 0
        and not reports_completed(pod)
        and (pod_failure.disruption(pod) is not None or pod_failure.deleted_while_running(pod, pod.trainer_end))
        for pod in pods
    )


def complete(job: Job, pods: Sequence[Pod]) -> Ended:
    """Complete is success, unless its pod was being taken away; of a team node 0's word is enough."""
    if job.nodes > 1 and any(has_published(job, pod) for pod in pods):
        return Ended(True, completed(pods))
    return Ended(False, INTERRUPTED) if interrupted(pods) else Ended(True, completed(pods))


def judged(job: Job, pod: Pod) -> Ended:
    """The outcome by one pod whose trainer has ended."""
    if pod.trainer_end.exit_code == 0 or reports_completed(pod):
        return complete(job, [pod])
    return Ended(False, teams.explain(job, pod))


def unheard_until(pods: Iterable[Pod], lag: float) -> float:
    """Until when (epoch seconds) the portal may not show yet what a trainer without a last word has told it; 0: none.

    lag: by how many seconds the portal's answers may be behind
    """
    finished = (objects.timestamp(pod.trainer_end.finished_at) for pod in pods if pod_failure.trainer_word(pod) is None)
    return max((at + lag for at in finished if at is not None), default=0.0)
