"""The trainer has ended, and another container of its pod goes on: whose end is the training's, and when. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.cluster import objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import containers, ends, failures, pod_failure, teams
from dispatcher.decisions.codes import LAST_PERMANENT
from dispatcher.decisions.verdicts import Ended, Going, Stop

# Seconds for which other containers may go on after the trainer's end, to send their last logs for instance.
_GRACE = 60.0


def without_trainer(job: Job, pods: Sequence[Pod], now: float, seen_since: float | None) -> Going | Stop | None:
    """The trainer has ended, and another container keeps its pod and Job from ending (F45); None where it is not so.

    Its end is the training's. Where its exit code asks for another attempt and one is left, only the pod is deleted:
    Kubernetes then judges it by its exit code, as it does without a sidecar. Any other end stops the Job, since a
    sidecar that does not end with 0 would turn a success into a failed pod.
    """
    if job.nodes > 1:
        return _team_without_trainer(job, pods, now, seen_since)
    current = [pod for pod in pods if not pod.is_over]
    if not current or current[-1].is_deleting or not containers.goes_on_without_trainer(current[-1]):
        return None
    return _goes_on(job, current[-1], now, seen_since)


def _goes_on(job: Job, pod: Pod, now: float, seen_since: float | None) -> Going | Stop:
    # The node's clock may be behind: by our own the grace began when the end was first seen.
    ended_at = max(objects.timestamp(pod.trainer_end.finished_at) or 0.0, seen_since or 0.0) or now
    if now < ended_at + _GRACE:
        return Going(check_at=ended_at + _GRACE)
    own, exit_code = ends.judged(job, pod), pod.trainer_end.exit_code
    may_retry = not own.completed and exit_code is not None and exit_code > LAST_PERMANENT
    if may_retry and failures.attempts(job) < failures.backoff_limit(job):
        return Going(remove_pods=True, only=pod.uid if job.nodes > 1 else "")
    return Stop(own.verdict)


def _team_without_trainer(job: Job, pods: Sequence[Pod], now: float, seen_since: float | None) -> Going | Stop | None:
    """The same of a team, pod by pod. That a node's trainer has ended with 0 ends nothing before all have.

    Once node 0 has published, the others end by themselves: one that does not, or would be started once more, is of no
    use any more.
    """
    published = [objects.timestamp(pod.trainer_end.finished_at) for pod in pods if ends.has_published(job, pod)]
    if published:
        due = max((time for time in published if time is not None), default=now) + _GRACE
        return Going(check_at=due) if now < due else Stop(ends.completed(pods))
    newest = teams.newest(job, pods)
    all_well = len(newest) == job.nodes and all(pod.trainer_end.exit_code == 0 for pod in newest.values())
    kept = [
        pod
        for pod in newest.values()
        if not pod.is_deleting
        and containers.goes_on_without_trainer(pod)
        and (all_well or pod.trainer_end.exit_code != 0)
    ]
    found = [_goes_on(job, pod, now, seen_since) for pod in kept]
    # Whose grace is over comes first.
    return min(found, key=lambda left: isinstance(left, Going) and (left.check_at or 0.0), default=None)


def own_end(job: Job, pods: Sequence[Pod], stopped_at: float | None) -> Ended | None:
    """How the last trainer ended by itself before its Job was stopped from outside at `stopped_at`; None: it did not.

    Only where another container kept its pod: one that ended with its trainer has been judged by the Job controller. Of
    a team the first that failed so; its success is node 0's word, which was asked before.
    """
    if job.nodes > 1:
        found = [_own_end_of(job, pod, stopped_at) for pod in sorted(pods, key=teams.ended_at)]
        return next((own for own in found if own is not None and not own.completed), None)
    return _own_end_of(job, pods[-1], stopped_at) if pods else None


def _own_end_of(job: Job, pod: Pod, stopped_at: float | None) -> Ended | None:
    if pod.is_over and not pod.is_deleting:
        return None
    word = pod_failure.trainer_word(pod)
    if word is not None and word.code == "PeerLost":
        return None  # an echo
    if word is not None and word.code not in ("Terminated", "Completed"):
        return ends.judged(job, pod)
    finished = objects.timestamp(pod.trainer_end.finished_at)
    before = stopped_at is not None and finished is not None and finished < stopped_at
    # A program that ends with 0 on SIGTERM does so after it was told to.
    return ends.judged(job, pod) if before and not pod_failure.deleted_while_running(pod, pod.trainer_end) else None
