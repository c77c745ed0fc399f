"""Job + pods + clock → still going, to be stopped, Completed or Failed. Pure.

Only positive evidence makes a failure: a terminal condition with status True, a deletion, or a limit passed. The rows
are those of docs/troubleshoot.md; tests replay them from recordings of a real cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.cluster import names, objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions import disruptions, pod_failure, waiting
from dispatcher.decisions.codes import EXIT_CODES
from dispatcher.decisions.pod_failure import AGAIN, Verdict
from dispatcher.decisions.waiting import Limits
from portal_client import messages

_LAST_DELETION = 2.0
# Seconds that the watch of pods may be behind that of Jobs; after that the pods are read from the API server.
_STALE_PATIENCE = 5.0
# Seconds that the kubelet gets beyond a deleted pod's own grace period to report its end, before it is called lost.
_TERMINATION_SLACK = 60.0


@dataclass(frozen=True)
class Going:
    """Nothing to report yet.

    progress: what a user waits for, None where only the trainer may report; check_at: epoch seconds of the next limit.
    remove_pods: the Job is being deleted, and its pods run on until somebody deletes them.
    """

    progress: str | None = None
    check_at: float | None = None
    remove_pods: bool = False


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
# "Container trainer for pod ns/model-1-abcde failed with exit code 66 matching FailJob rule at index 1"
_EXIT_CODE = re.compile(r"failed with exit code ([0-9]{1,3})\b")
_COMPLETED = Ended(True, Verdict("Completed", messages.COMPLETED))


def decide(
    job: KubeObject,
    pods: Sequence[KubeObject],
    events: Sequence[KubeObject],
    now: float,
    limits: Limits,
    failing_since: float | None = None,
) -> Outcome:
    """What to report about the Job at `now` (epoch seconds). pods: all that are known of this Job (by uid).

    events: of the object that `waiting.needs_events` names, () where it names none. failing_since: see `waiting.look`.
    """
    ordered = objects.oldest_first(pods)
    failing = objects.condition(job, "Failed") or objects.condition(job, "FailureTarget")
    over = objects.is_finished(job) or objects.is_deleting(job) or failing is not None
    if over and any(_reports_completed(pod) for pod in ordered):
        return _COMPLETED  # the model is published: nothing that happens to the Job afterwards changes that
    if ended := objects.condition(job, "Complete") or objects.condition(job, "Failed"):
        # Also of a Job that was deleted afterwards: it ended before that.
        if (look_again := _stale_until(job, ordered, ended)) is not None and now < look_again:
            return Going(check_at=look_again)
        return _complete(ordered) if ended["type"] == "Complete" else _failed(job, ordered, ended)
    if objects.is_deleting(job):
        return _deleted(job, ordered, failing, now)
    if failing is not None:
        # FailureTarget announces Failed, which waits for the pods to end: so do we, but not for ever (a lost node's pod
        # never ends). Pods that we do not know of may still be running: no pods are no proof.
        gone_by = _gone_by(ordered)
        return _failed(job, ordered, failing) if gone_by is not None and now >= gone_by else Going(check_at=gone_by)
    if objects.is_suspended(job):
        return _suspended(job)
    if objects.annotation(job, names.STOPPED):
        return Going()
    if (disrupted := disruptions.verdict(job, ordered, limits.disruptions)) is not None:
        return Stop(disrupted)
    waits = waiting.look(job, ordered, events, now, limits, failing_since)
    if waits.verdict is not None and waits.limit_at is not None and now >= waits.limit_at:
        return Stop(waits.verdict)
    return Going(waits.progress, waits.limit_at)


def rests_on_stale_cache(job: KubeObject, pods: Sequence[KubeObject]) -> bool:
    """Whether this Job's end would be decided without knowing how its pods ended: refresh them from the API server.

    The watch of pods may be silent, or far behind that of Jobs.
    """
    if ended := objects.condition(job, "Complete") or objects.condition(job, "Failed"):
        return _stale_until(job, pods, ended) is not None
    return True


def stop_annotations(verdict: Verdict) -> dict[str, str]:
    """What is written on a Job with its stop; `stop_verdict` reads it back."""
    return {names.STOPPED: json.dumps({"code": verdict.code, "sentence": verdict.sentence})}


def stop_verdict(job: KubeObject) -> Verdict | None:
    """The verdict that was written on the Job when it was stopped."""
    stopped = objects.json_annotation(job, names.STOPPED)
    if not isinstance(stopped, dict) or not {"code", "sentence"} <= stopped.keys():
        return None  # none, or somebody edited it: the Job's condition decides
    return Verdict(str(stopped["code"]), str(stopped["sentence"]))


def _suspended(job: KubeObject) -> Going:
    """All clocks stop. A half-launched Job is the launcher's and the sweep's, a launched one Kueue's or a person's."""
    if not objects.is_launched(job):
        return Going()
    queue = objects.label(job, names.KUEUE_QUEUE_LABEL)
    return Going(f"Queued by Kueue in {queue}" if queue else "Suspended by an operator")


def _stale_until(job: KubeObject, pods: Sequence[KubeObject], ended: KubeObject) -> float | None:
    """Until when to wait for the pods' events (epoch seconds), where the Job has ended and the cached pods have not.

    Jobs and pods have a watch each, so the Job's end may be known before its last pod's. None: nothing is missing.
    """
    if ended.get("reason") == "DeadlineExceeded" or objects.is_deleting(job):
        return None
    status = job.get("status") or {}
    counted = max(1, (status.get("failed") or 0) + (status.get("succeeded") or 0))
    if len(pods) >= counted and all(map(objects.pod_is_over, pods)):
        return None
    since = objects.timestamp(ended.get("lastTransitionTime"))
    return None if since is None else since + _STALE_PATIENCE


def _reports_completed(pod: KubeObject) -> bool:
    word = pod_failure.trainer_word(pod)
    return objects.trainer_end(pod).get("exitCode") == 0 and word is not None and word.code == "Completed"


def _complete(pods: Sequence[KubeObject]) -> Ended:
    """Complete is success, unless its pod was being taken away: a program that exits 0 on SIGTERM looks like it."""
    for pod in pods:
        ended = objects.trainer_end(pod)
        if ended.get("exitCode") != 0 or _reports_completed(pod):
            continue
        if pod_failure.disruption(pod) is not None or _deleted_while_running(pod, ended):
            sentence = "The training was stopped before it finished, and its program ended as if it had succeeded"
            return Ended(False, Verdict("Interrupted", f"{sentence}. {AGAIN}"))
    return _COMPLETED


def _deleted_while_running(pod: KubeObject, ended: KubeObject) -> bool:
    gone, finished = objects.gone_at(pod), objects.timestamp(ended.get("finishedAt"))
    if gone is None:
        return False
    # The kubelet's last deletion, with a grace period of 0, comes a second after the container's end (recorded).
    grace = max(float(objects.meta(pod).get("deletionGracePeriodSeconds") or 0), _LAST_DELETION)
    return finished is None or finished >= gone - grace


def _deleted(job: KubeObject, pods: Sequence[KubeObject], failing: KubeObject | None, now: float) -> Outcome:
    """Somebody deleted the Job; our finalizer holds it. Its pods run on until they are deleted, then it is reported."""
    gone_by = _gone_by(pods)
    if not all(map(objects.pod_is_over, pods)) and (gone_by is None or now < gone_by):
        return Going(check_at=gone_by, remove_pods=True)
    if failing is not None:
        return _failed(job, pods, failing)
    if stopped := stop_verdict(job):
        return Ended(False, stopped)
    when = objects.meta(job).get("deletionTimestamp")
    return Ended(False, Verdict("JobDeleted", f"The training job was deleted at {when} before it ended. {AGAIN}"))


def _failed(job: KubeObject, pods: Sequence[KubeObject], failed: KubeObject) -> Ended:
    reason = failed.get("reason")
    if reason == "DeadlineExceeded":
        # We stop a Job by a deadline in the past; one that failed otherwise in that instant is explained below.
        if stopped := stop_verdict(job):
            return Ended(False, stopped)
        limit = (job.get("spec") or {}).get("activeDeadlineSeconds")
        sentence = (
            f"The training did not end within its time limit of {limit} seconds, the wait for a GPU included. "
            "Ask for a longer time_limit_seconds, or for less training"
        )
        return Ended(False, Verdict("Timeout", sentence))
    over = [pod for pod in pods if objects.pod_phase(pod) == "Failed"] or [
        pod for pod in pods if objects.is_deleting(pod) or pod_failure.disruption(pod) is not None
    ]
    if not over:
        return Ended(False, _without_pods(reason, failed.get("message")))
    verdict = pod_failure.explain(over[-1])
    status = job.get("status") or {}
    attempts = (status.get("failed") or 0) + len((status.get("uncountedTerminatedPods") or {}).get("failed") or ())
    if reason == "BackoffLimitExceeded" and attempts > 1:
        verdict = Verdict(verdict.code, f"{verdict.sentence.rstrip('.')} (after {attempts} attempts)")
    return Ended(False, verdict)


def _without_pods(reason: object, message: str | None) -> Verdict:
    """The pods are gone; the Job's condition still has the exit code."""
    text = pod_failure.quoted(message) or "no text"
    found = _EXIT_CODE.search(text)
    code = EXIT_CODES.get(int(found[1]), "TrainerFailed") if found else "JobFailed"
    return Verdict(code, f"Kubernetes failed the training job ({reason}): {text}")


def _gone_by(pods: Sequence[KubeObject]) -> float | None:
    """When the last pod that is being deleted is called lost; None while one is not even being deleted."""
    times = [objects.gone_at(pod) for pod in pods if not objects.pod_is_over(pod)]
    known = [time + _TERMINATION_SLACK for time in times if time is not None]
    return max(known, default=None) if len(known) == len(times) else None
