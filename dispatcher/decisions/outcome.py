"""Job + pods + clock → still going, to be stopped, Completed or Failed. Pure.

Only positive evidence makes a failure: a terminal condition with status True, a deletion, or a limit passed. The rows
are those of docs/troubleshoot.md; tests replay them from recordings of a real cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.cluster import names, objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Condition, Event
from dispatcher.cluster.pods import Pod, oldest_first
from dispatcher.decisions import (
    codes,
    containers,
    disruptions,
    ends,
    failures,
    pod_failure,
    team_waiting,
    teams,
    waiting,
)
from dispatcher.decisions.codes import LAST_PERMANENT
from dispatcher.decisions.pod_failure import Verdict
from dispatcher.decisions.waiting import Holder, Limits
from portal_client.messages import AGAIN

# Seconds that the watch of pods may be behind that of Jobs; after that the pods are read from the API server.
_STALE_PATIENCE = 5.0
# Seconds that the kubelet gets beyond a deleted pod's own grace period to report its end, before it is called lost.
_TERMINATION_SLACK = 60.0
# Seconds for which other containers may go on after the trainer's end, to send their last logs for instance (F45).
_SIDECAR_GRACE = 60.0
# Characters of a reason in brief.
_SHORT = 200


@dataclass(frozen=True)
class Going:
    """Nothing to report yet. What is done about it is what counts where two are compared.

    progress: what a user waits for, None where only the trainer may report; check_at: epoch seconds of the next limit;
    verdict: what it is stopped with then, None where it is only looked at again; holder: who keeps it waiting.
    remove_pods: pods that run on until somebody deletes them: of a deleted Job, or one whose trainer has ended. only:
    the uid of the one that is meant, of a team.
    """

    progress: str | None = None
    check_at: float | None = None
    remove_pods: bool = False
    only: str = ""
    verdict: Verdict | None = field(default=None, compare=False)
    holder: Holder | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Stop:
    """A Job that would run for ever: stop it with this verdict first, then report."""

    verdict: Verdict


@dataclass(frozen=True)
class Ended:
    """The outcome of the Job. completed: Completed, else Failed with the verdict's sentence."""

    completed: bool
    verdict: Verdict


Outcome = Going | Stop | Ended
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
        return _completed(ordered)  # the model is published: nothing that happens to the Job afterwards changes that
    if ended := job.ended:
        # Also of a Job that was deleted afterwards: it ended before that.
        if (look_again := _stale_until(job, ordered, ended)) is not None and now < look_again:
            return Going(check_at=look_again)
        return _complete(job, ordered) if ended.type == "Complete" else _failed(job, ordered, ended)
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
    if (last := _last_attempt(job, ordered)) is not None:
        return last
    if (disrupted := disruptions.verdict(job, ordered, limits.disruptions)) is not None:
        return Stop(disrupted)
    if (left := _without_trainer(job, ordered, now, failing_since)) is not None:
        return left
    if (hopeless := _hopeless(job, ordered)) is not None:
        return Stop(hopeless)
    look = waiting.look if job.nodes == 1 else team_waiting.look
    waits = look(job, ordered, events, now, limits, failing_since, largest)
    if waits.verdict is not None and waits.limit_at is not None and now >= waits.limit_at:
        return Stop(waits.verdict)
    progress = _with_last_attempt(job, ordered, waits.progress)
    return Going(progress, waits.limit_at, verdict=waits.verdict, holder=waits.holder)


def rests_on_stale_cache(job: Job, pods: Sequence[Pod]) -> bool:
    """Whether this Job's end would be decided without knowing how its pods ended: refresh them from the API server.

    The watch of pods may be silent, or far behind that of Jobs.
    """
    if ended := job.ended:
        return _stale_until(job, pods, ended) is not None
    return _last_attempt(job, oldest_first(pods)) is None


def stop_annotations(verdict: Verdict) -> dict[str, str]:
    """What is written on a Job with its stop; `stop_verdict` reads it back."""
    return {names.STOPPED: json.dumps({"code": verdict.code, "sentence": verdict.sentence})}


def stop_verdict(job: Job) -> Verdict | None:
    """The verdict that was written on the Job when it was stopped."""
    stopped = objects.decoded(job.annotations.stopped)
    if not isinstance(stopped, dict) or not {"code", "sentence"} <= stopped.keys():
        return None  # none, or somebody edited it: the Job's condition decides
    return Verdict(str(stopped["code"]), str(stopped["sentence"]))


def _without_trainer(job: Job, pods: Sequence[Pod], now: float, seen_since: float | None) -> Going | Stop | None:
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
    if now < ended_at + _SIDECAR_GRACE:
        return Going(check_at=ended_at + _SIDECAR_GRACE)
    judged, exit_code = _judged(job, pod), pod.trainer_end.exit_code
    may_retry = not judged.completed and exit_code is not None and exit_code > LAST_PERMANENT
    if may_retry and failures.attempts(job) < failures.backoff_limit(job):
        return Going(remove_pods=True, only=pod.uid if job.nodes > 1 else "")
    return Stop(judged.verdict)


def _team_without_trainer(job: Job, pods: Sequence[Pod], now: float, seen_since: float | None) -> Going | Stop | None:
    """The same of a team, pod by pod. That a node's trainer has ended with 0 ends nothing before all have.

    Once node 0 has published, the others end by themselves: one that does not, or would be started once more, is of no
    use any more.
    """
    published = [objects.timestamp(pod.trainer_end.finished_at) for pod in pods if ends.has_published(job, pod)]
    if published:
        due = max((time for time in published if time is not None), default=now) + _SIDECAR_GRACE
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


def _hopeless(job: Job, pods: Sequence[Pod]) -> Verdict | None:
    """Why no further attempt can do better than the last; podFailurePolicy knows exit codes only, and cannot tell."""
    failed = [pod for pod in pods if pod.phase == "Failed"][-1:]
    if job.nodes > 1:  # the others run, and wait for it
        failed = teams.failed(job, pods)
    elif any(pod.runs for pod in pods):
        return None
    if failures.counted(job, pods) > failures.backoff_limit(job):
        return None
    return next((v for v in (teams.explain(job, pod) for pod in failed) if v.code in codes.PERMANENT), None)


def _with_last_attempt(job: Job, pods: Sequence[Pod], progress: str | None) -> str | None:
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


def _judged(job: Job, pod: Pod) -> Ended:
    """The outcome by one pod whose trainer has ended."""
    if pod.trainer_end.exit_code == 0 or ends.reports_completed(pod):
        return _complete(job, [pod])
    return Ended(False, teams.explain(job, pod))


def _own_end(job: Job, pods: Sequence[Pod], stopped_at: float | None) -> Ended | None:
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
        return _judged(job, pod)
    finished = objects.timestamp(pod.trainer_end.finished_at)
    before = stopped_at is not None and finished is not None and finished < stopped_at
    # A program that ends with 0 on SIGTERM does so after it was told to.
    return _judged(job, pod) if before and not pod_failure.deleted_while_running(pod, pod.trainer_end) else None


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


def _last_attempt(job: Job, pods: Sequence[Pod]) -> Ended | Stop | None:
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
        return _completed(pods) if pod.phase == "Succeeded" else Stop(ends.completed(pods))
    if pod.phase == "Succeeded" or pod.is_deleting or pod_failure.disruption(pod) is not None:
        return None
    return _without_retry(job, pods, pod, [pod])


def _last_of_team(job: Job, pods: Sequence[Pod]) -> Ended | Stop | None:
    """The same of a team, of which no pod is left: the ends of all its nodes have to be known."""
    newest = teams.newest(job, pods)
    if any(ends.has_published(job, pod) for pod in pods):
        complete = len(newest) == job.nodes and all(pod.phase == "Succeeded" for pod in newest.values())
        return _completed(pods) if complete else Stop(ends.completed(pods))
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


def _complete(job: Job, pods: Sequence[Pod]) -> Ended:
    """Complete is success, unless its pod was being taken away; of a team node 0's word is enough."""
    if job.nodes > 1 and any(ends.has_published(job, pod) for pod in pods):
        return _completed(pods)
    return Ended(False, ends.INTERRUPTED) if ends.interrupted(pods) else _completed(pods)


def _completed(pods: Sequence[Pod]) -> Ended:
    return Ended(True, ends.completed(pods))


def _deleted(job: Job, pods: Sequence[Pod], failing: Condition | None, now: float) -> Outcome:
    """Somebody deleted the Job; our finalizer holds it. Its pods run on until they are deleted, then it is reported."""
    gone_by = _gone_by(pods)
    if not all(pod.is_over for pod in pods) and (gone_by is None or now < gone_by):
        return Going(check_at=gone_by, remove_pods=True)
    if failing is not None:
        return _failed(job, pods, failing)
    if stopped := stop_verdict(job):
        return _stopped(stopped)
    if (own := _own_end(job, pods, job.gone_at)) is not None:
        return own
    when = job.metadata.deletion_timestamp
    return Ended(False, Verdict("JobDeleted", f"The training job was deleted at {when} before it ended. {AGAIN}"))


def _failed(job: Job, pods: Sequence[Pod], failed: Condition) -> Ended:
    if failed.reason == "DeadlineExceeded":
        # We stop a Job by a deadline in the past; one that failed otherwise in that instant is explained below.
        if stopped := stop_verdict(job):
            return _stopped(stopped)
        announced = job.changed_at("FailureTarget") or failed.since
        if (own := _own_end(job, pods, announced)) is not None:
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
