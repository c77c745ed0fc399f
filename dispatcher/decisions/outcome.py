"""Job + pods + clock → still going, to be stopped, Completed or Failed. Pure.

Only positive evidence makes a failure: a terminal condition with status True, a deletion, or a limit passed. The rows
are those of docs/troubleshoot.md; tests replay them from recordings of a real cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Condition, Event
from dispatcher.cluster.pods import Pod, oldest_first
from dispatcher.decisions import attempts, disruptions, ends, failures, sidecars, team_waiting, waiting
from dispatcher.decisions.verdicts import Ended, Going, Holder, Outcome, Stop, Verdict, stop_verdict
from dispatcher.decisions.waiting import Limits
from portal_client.messages import AGAIN

# Seconds that the watch of pods may be behind that of Jobs; after that the pods are read from the API server.
_STALE_PATIENCE = 5.0
# Seconds that the kubelet gets beyond a deleted pod's own grace period to report its end, before it is called lost.
_TERMINATION_SLACK = 60.0
JOB_VANISHED = Verdict("JobDeleted", f"The training job was removed before it ended. {AGAIN}")


def decide(
    job: Job,
    pods: Sequence[Pod],
    events: Sequence[Event],
    now: float,
    limits: Limits,
    failing_since: float | None = None,
    largest: Mapping[str, int] = waiting.NOT_KNOWN,
) -> Outcome:
    """What to report about the Job at `now` (epoch seconds). pods: all that are known of this Job (by uid).

    events: of the object that `waiting.needs_events` names, () where it names none. failing_since, largest: see
    `waiting.look`.
    """
    ordered = oldest_first(pods)
    failing = job.condition("Failed") or job.condition("FailureTarget")
    over = job.is_finished or job.is_deleting or failing is not None
    if over and any(ends.has_published(job, pod) for pod in ordered):
        return Ended(
            True, ends.completed(ordered)
        )  # the model is published: nothing that happens to the Job afterwards changes that
    if ended := job.ended:
        # Also of a Job that was deleted afterwards: it ended before that.
        if (look_again := _stale_until(job, ordered, ended)) is not None and now < look_again:
            return Going(check_at=look_again)
        return ends.complete(job, ordered) if ended.type == "Complete" else _failed(job, ordered, ended)
    if job.is_deleting:
        return _deleted(job, ordered, failing, now)
    if failing is not None:
        # FailureTarget announces Failed, which waits for the pods to end: so do we, but not for ever (a lost node's pod
        # never ends). Pods that we do not know of may still be running: no pods are no proof.
        gone_by = _gone_by(ordered)
        return _failed(job, ordered, failing) if gone_by is not None and now >= gone_by else Going(check_at=gone_by)
    if job.is_suspended:
        return _suspended(job)
    if job.annotations.stopped:
        return Going()
    if (last := attempts.last_attempt(job, ordered)) is not None:
        return last
    if (disrupted := disruptions.verdict(job, ordered, limits.disruptions)) is not None:
        return Stop(disrupted)
    if (left := sidecars.without_trainer(job, ordered, now, failing_since)) is not None:
        return left
    if (hopeless := attempts.hopeless(job, ordered)) is not None:
        return Stop(hopeless)
    look = waiting.look if job.nodes == 1 else team_waiting.look
    waits = look(job, ordered, events, now, limits, failing_since, largest)
    if waits.verdict is not None and waits.limit_at is not None and now >= waits.limit_at:
        return Stop(waits.verdict)
    progress = attempts.with_last_attempt(job, ordered, waits.progress)
    return Going(progress, waits.limit_at, verdict=waits.verdict, holder=waits.holder)


def rests_on_stale_cache(job: Job, pods: Sequence[Pod]) -> bool:
    """Whether this Job's end would be decided without knowing how its pods ended: refresh them from the API server.

    The watch of pods may be silent, or far behind that of Jobs.
    """
    if ended := job.ended:
        return _stale_until(job, pods, ended) is not None
    return attempts.last_attempt(job, oldest_first(pods)) is None


def _suspended(job: Job) -> Going:
    """All clocks stop. A half-launched Job is the launcher's and a timer's, a launched one Kueue's or a person's."""
    if not job.is_launched:
        return Going()
    queue = job.labels.kueue_queue
    if queue:
        return Going(f"Queued by Kueue in {queue}", holder=Holder.KUEUE)
    return Going("Suspended by an operator", holder=Holder.PERSON)


def _stopped(verdict: Verdict) -> Ended:
    """By the verdict that a Job was stopped with: also one whose trainer had completed, and whose sidecar went on."""
    return Ended(verdict.code == "Completed", verdict)


def _stale_until(job: Job, pods: Sequence[Pod], ended: Condition) -> float | None:
    """Until when to wait for the pods' events (epoch seconds), where the Job has ended and the cached pods have not.

    Jobs and pods have a watch each, so the Job's end may be known before its last pod's. None: nothing is missing.
    """
    if ended.reason == "DeadlineExceeded" or job.is_deleting:
        return None
    counted = max(1, job.status.failed + job.status.succeeded)
    if job.nodes > 1 and ended.type == "Failed":
        counted = 1  # the pods that the Job controller ended with it are removed at once
    if len(pods) >= counted and all(pod.is_over for pod in pods):
        return None
    return None if ended.since is None else ended.since + _STALE_PATIENCE


def _deleted(job: Job, pods: Sequence[Pod], failing: Condition | None, now: float) -> Outcome:
    """Somebody deleted the Job; our finalizer holds it. Its pods run on until they are deleted, then it is reported."""
    gone_by = _gone_by(pods)
    if not all(pod.is_over for pod in pods) and (gone_by is None or now < gone_by):
        return Going(check_at=gone_by, remove_pods=True)
    if failing is not None:
        return _failed(job, pods, failing)
    if stopped := stop_verdict(job):
        return _stopped(stopped)
    if (own := sidecars.own_end(job, pods, job.gone_at)) is not None:
        return own
    when = job.metadata.deletion_timestamp
    return Ended(False, Verdict("JobDeleted", f"The training job was deleted at {when} before it ended. {AGAIN}"))


def _failed(job: Job, pods: Sequence[Pod], failed: Condition) -> Ended:
    if failed.reason == "DeadlineExceeded":
        # We stop a Job by a deadline in the past; one that failed otherwise in that instant is explained below.
        if stopped := stop_verdict(job):
            return _stopped(stopped)
        announced = job.changed_at("FailureTarget") or failed.since
        if (own := sidecars.own_end(job, pods, announced)) is not None:
            return own
        limit = job.spec.active_deadline_seconds
        sentence = (
            f"The training did not end within its time limit of {limit} seconds, the wait for a GPU included. "
            "Ask for a longer time_limit_seconds, or for less training"
        )
        return Ended(False, Verdict("Timeout", sentence))
    return Ended(False, failures.told(job, pods, failed))


def _gone_by(pods: Sequence[Pod]) -> float | None:
    """When the last pod that is being deleted is called lost; None while one is not even being deleted."""
    times = [pod.gone_at for pod in pods if not pod.is_over]
    known = [time + _TERMINATION_SLACK for time in times if time is not None]
    return max(known, default=None) if len(known) == len(times) else None
