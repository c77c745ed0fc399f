"""One pass of the Job controller over one Job, step by step as syncJob, manageJob and
trackJobStatusAndRemoveFinalizers of Kubernetes 1.36 do it.

Statuses change in the recorded order: first the interim condition with the uncounted pods, then the counters and the
final condition. A pass runs without interruption; watchers of the API see every write.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from local_stack.cluster.controllers import indexes
from local_stack.cluster.controllers import job_policy as policy
from local_stack.cluster.controllers.job_context import BATCH, Controller, Failures
from local_stack.cluster.registry.errors import ApiError
from local_stack.cluster.registry.objects import Obj, find_condition, now_stamp, seconds_of
from local_stack.cluster.registry.resources import JOBS, PODS
from local_stack.cluster.registry.rules import DeleteOptions

_MAX_BACKOFF = 600.0  # seconds, MaxJobPodFailureBackOff
_MAX_API_BACKOFF = 60.0  # seconds, MaxJobApiBackOff
_DONE = ("CompletionsReached", "Reached expected number of succeeded pods")


class JobSync:
    """One pass over `job`: what syncJob calls its context."""

    def __init__(self, controller: Controller, job: Obj) -> None:
        self.c = controller
        self.registry = controller.registry
        self.job = job
        self.spec: Obj = job["spec"]
        self.uid: str = job["metadata"]["uid"]
        self.status: Obj = {**job["status"], "uncountedTerminatedPods": {}}
        self.pods = [
            pod
            for pod in controller.registry.store.owned("pods", self.uid)
            if any(o["uid"] == self.uid and o.get("controller") for o in pod["metadata"]["ownerReferences"])
        ]
        self.active = [pod for pod in self.pods if policy.is_active(pod)]
        self.ready = sum(policy.is_ready(pod) for pod in self.active)
        self.terminating = sum(policy.is_terminating(pod) for pod in self.pods)
        # Of an Indexed Job only: how many indexes it has, and those that are done.
        self.indexes: int | None = self.spec["completions"] if indexes.is_indexed(self.spec) else None
        self.done: set[int] = set()

    @property
    def suspended(self) -> bool:
        """Whether the Job is to have no pods now."""
        return bool(self.spec.get("suspend"))

    def run(self) -> None:
        """Carry out the pass."""
        status, spec = self.status, self.spec
        if not status.get("startTime") and not self.suspended:
            status["startTime"] = now_stamp()
        tracked = [pod for pod in self.pods if policy.is_tracked(pod)]
        valid = [pod for pod in tracked if self._is_valid(pod)]
        succeeded = [pod for pod in valid if pod["status"].get("phase") == "Succeeded"]
        failed = [pod for pod in valid if policy.is_failed(pod, spec)]
        rules = spec.get("podFailurePolicy")
        counted = [pod for pod in failed if policy.match_failure_policy(rules, pod)[1]]
        all_failed = status.get("failed", 0) + len(counted)
        self.succeeded = status.get("succeeded", 0) + len(succeeded)
        if self.indexes is not None:  # an index counts once, however many of its pods succeed
            self.done = indexes.parse(status.get("completedIndexes", ""), self.indexes)
            self.done |= indexes.indexes_of(succeeded, self.indexes)
            self.succeeded = len(self.done)
        self._note_failures(len(succeeded), len(failed))
        condition = self._ending(failed, all_failed)
        active = len(self.active)
        if condition:
            active -= self._delete(self.active, untrack=False)
        else:
            called = not self.job["metadata"].get("deletionTimestamp")
            if called:
                active = self._manage()
            wanted = spec.get("completions")
            if wanted is None:
                complete = self.succeeded > 0 and active == 0
            else:
                complete = self.succeeded >= wanted and active == 0
            if complete:
                condition = policy.condition("SuccessCriteriaMet", "True", *_DONE, now_stamp())
            elif called:
                self._note_suspension()
        _set_count(status, "active", active)
        status["terminating"] = self.terminating
        status["ready"] = self.ready
        self._settle(tracked, condition)

    def _is_valid(self, pod: Obj) -> bool:
        """Whether the pod counts: in an Indexed Job one without a valid index does not."""
        return self.indexes is None or indexes.index_of(pod, self.indexes) is not None

    def _note_failures(self, succeeded: int, failed: int) -> None:
        if succeeded:
            self.c.failures.pop(self.uid, None)
        if failed:
            record = self.c.failures.setdefault(self.uid, Failures())
            record.count += failed
            record.last = time.monotonic()

    def _ending(self, failed: list[Obj], all_failed: int) -> Obj | None:
        stamp = now_stamp()
        met = find_condition(self.status, "SuccessCriteriaMet")
        if met:
            return met
        target = find_condition(self.status, "FailureTarget")
        if target:
            return policy.condition("Failed", "True", target["reason"], target["message"], stamp)
        for pod in failed:
            why, _ = policy.match_failure_policy(self.spec.get("podFailurePolicy"), pod)
            if why:
                return policy.condition("FailureTarget", "True", "PodFailurePolicy", why, stamp)
        limit = self.spec["backoffLimit"]
        on_failure = self.spec["template"]["spec"].get("restartPolicy") == "OnFailure"
        restarts = policy.restarts(self.pods) if on_failure else 0
        if all_failed > limit or (restarts and restarts >= limit):
            why = "Job has reached the specified backoff limit"
            return policy.condition("FailureTarget", "True", "BackoffLimitExceeded", why, stamp)
        deadline = self.spec.get("activeDeadlineSeconds")
        started = self.status.get("startTime")
        if deadline is not None and started and not self.suspended:
            left = seconds_of(started) + deadline - time.time()
            if left <= 0:
                why = "Job was active longer than specified deadline"
                return policy.condition("FailureTarget", "True", "DeadlineExceeded", why, stamp)
            self._again(left)
        return None

    def _again(self, delay: float) -> None:
        meta = self.job["metadata"]
        self.c.queue.add((meta["namespace"], meta["name"]), delay)

    def _delete(self, pods: list[Obj], *, untrack: bool) -> int:
        deleted = 0
        for pod in pods:
            meta = pod["metadata"]
            if untrack:
                self._untrack(pod)
            try:
                self.registry.delete(PODS, meta["namespace"], meta["name"], DeleteOptions(uid=meta["uid"]))
            except ApiError:
                continue
            self.c.recorder.record(self.job, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")
            deleted += 1
            self.terminating += 1
            self.ready -= policy.is_ready(pod)
        if deleted:
            self._again(BATCH)
        return deleted

    def _manage(self) -> int:
        active = len(self.active)
        if self.suspended:
            return active - self._delete(self.active, untrack=True)
        parallelism, completions = self.spec["parallelism"], self.spec.get("completions")
        if completions is None:
            wanted = active if self.succeeded else parallelism
        else:
            wanted = max(0, min(parallelism, completions - self.succeeded))
        extra = self.active[wanted:]
        if self.indexes is not None:
            extra = indexes.superfluous(self.active, active - wanted, self.indexes)
        if extra:
            return active - self._delete(extra, untrack=True)
        waiting_for = self.terminating if self.spec.get("podReplacementPolicy") == "Failed" else 0
        missing = wanted - waiting_for - active
        if missing <= 0:
            return active
        wait = self._backoff_left()
        if wait > 0:
            self._again(wait)
            return 0
        if self.indexes is None:
            return active + self._create([None] * missing)
        live = [*self.active, *(pod for pod in self.pods if waiting_for and policy.is_terminating(pod))]
        taken = self.done | indexes.indexes_of(live, self.indexes)
        return active + self._create(indexes.first_missing(taken, missing, self.indexes))

    def _backoff_left(self) -> float:
        record = self.c.failures.get(self.uid)
        if record is None or not record.count:
            return 0.0
        wait = min(self.c.backoff * 2.0 ** min(record.count - 1, 30), _MAX_BACKOFF)
        return wait - (time.monotonic() - record.last)

    def _create(self, wanted: Sequence[int | None]) -> int:
        """Make a pod for each of these indexes, None in a Job without; how many were made."""
        for made, index in enumerate(wanted):
            try:
                pod = self.registry.create(PODS, self.job["metadata"]["namespace"], indexes.new_pod(self.job, index))
            except ApiError as why:
                refused = self.c.refusals.get(self.uid, 0)
                self.c.refusals[self.uid] = refused + 1
                self.c.recorder.record(self.job, "Warning", "FailedCreate", f"Error creating: {why.message}")
                self._again(min(2.0 ** min(refused, 30), _MAX_API_BACKOFF))
                return made
            self.c.refusals.pop(self.uid, None)
            self.c.recorder.record(self.job, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        return len(wanted)

    def _note_suspension(self) -> None:
        stamp = now_stamp()
        known = find_condition(self.status, "Suspended")
        if self.suspended:
            wanted = policy.condition("Suspended", "True", "JobSuspended", "Job suspended", stamp)
        elif known:
            wanted = policy.condition("Suspended", "False", "JobResumed", "Job resumed", stamp)
        else:
            return
        if known and known["status"] == wanted["status"]:
            return
        others = self.status.get("conditions") or []
        if known:
            self.status["conditions"] = [wanted if c is known else c for c in others]
        else:
            self.status["conditions"] = [*others, wanted]
        word = "Suspended" if self.suspended else "Resumed"
        if not self.suspended:
            self.status["startTime"] = stamp
        self.c.recorder.record(self.job, "Normal", word, wanted["message"])

    def _untrack(self, pod: Obj) -> None:
        meta = pod["metadata"]
        newest = self.registry.store.get("pods", meta["namespace"], meta["name"])
        if newest is None or newest["metadata"]["uid"] != meta["uid"] or not policy.is_tracked(newest):
            return
        left = [f for f in newest["metadata"]["finalizers"] if f != policy.TRACKING]
        self.registry.set_metadata(PODS, newest, finalizers=left or None)

    def _settle(self, tracked: list[Obj], condition: Obj | None) -> None:
        """The interim status, the finalizers, then the counters and the final condition, as two writes at most."""
        status = self.status
        won, lost, release = self._count(tracked, condition)
        if condition and condition["type"] in ("FailureTarget", "SuccessCriteriaMet"):
            if not find_condition(status, condition["type"]):
                status["conditions"] = [*(status.get("conditions") or ()), condition]
            final = "Failed" if condition["type"] == "FailureTarget" else "Complete"
            condition = {**condition, "type": final}
        if self.indexes is not None:  # an index is no uid: it can be counted in one write
            _set_count(status, "succeeded", self.succeeded)
            _set_count(status, "completedIndexes", indexes.written(self.done))
            won = []
        uncounted = {name: uids for name, uids in (("succeeded", won), ("failed", lost)) if uids}
        self._write({**status, "uncountedTerminatedPods": uncounted})
        for pod in release:
            self._untrack(pod)
        _set_count(status, "succeeded", status.get("succeeded", 0) + len(won))
        _set_count(status, "failed", status.get("failed", 0) + len(lost))
        over = condition is not None and not self.terminating
        if over and condition:
            status["conditions"] = [*status["conditions"], condition]
            if condition["type"] == "Complete":
                status["completionTime"] = now_stamp()
        self._write(status)
        if over and condition:
            self._report_end(condition)

    def _count(self, tracked: list[Obj], condition: Obj | None) -> tuple[list[str], list[str], list[Obj]]:
        """(uids of pods that succeeded, uids of those that failed, all pods to be released)."""
        won: list[str] = []
        lost: list[str] = []
        release: list[Obj] = []
        over = condition or self.job["metadata"].get("deletionTimestamp")
        others_fail = condition is not None and condition["type"] != "SuccessCriteriaMet"
        for pod in tracked:
            succeeded, failed = pod["status"].get("phase") == "Succeeded", policy.is_failed(pod, self.spec)
            if over or failed or succeeded:
                release.append(pod)
            if succeeded:
                won.append(pod["metadata"]["uid"])
            elif not self._is_valid(pod):
                continue
            elif (failed or others_fail) and policy.match_failure_policy(self.spec.get("podFailurePolicy"), pod)[1]:
                lost.append(pod["metadata"]["uid"])
        return won, lost, release

    def _write(self, status: Obj) -> None:
        current = self.registry.store.get("jobs", self.job["metadata"]["namespace"], self.job["metadata"]["name"])
        if current is not None and current["metadata"]["uid"] == self.uid and current["status"] != status:
            self.job = self.registry.set_status(JOBS, current, dict(status))

    def _report_end(self, condition: Obj) -> None:
        if condition["type"] == "Complete":
            self.c.recorder.record(self.job, "Normal", "Completed", "Job completed")
        else:
            self.c.recorder.record(self.job, "Warning", condition["reason"], condition["message"])
        self._again(0.0)


def _set_count(status: Obj, name: str, value: int | str) -> None:
    if value:
        status[name] = value
    else:
        status.pop(name, None)
