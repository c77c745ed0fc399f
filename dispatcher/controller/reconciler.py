"""One Job at a time: observe, decide, act. The watch, limits that pass and the sweep fill its work queue."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field

from dispatcher.cluster import names, objects
from dispatcher.cluster.errors import ClusterError, ObjectConflict, ObjectNotFound
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.kueue_workloads import KueueWorkloads
from dispatcher.controller.metadata_repair import MetadataRepair, is_damaged
from dispatcher.controller.progress import Progress
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.second_looks import SecondLooks
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.decisions import disruptions, outcome, waiting
from dispatcher.decisions.outcome import Ended, Going, Outcome, Stop
from dispatcher.decisions.waiting import Limits
from dispatcher.launch.launcher import Launcher
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.ports import Cluster
from dispatcher.telemetry import logs
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client.errors import PortalError
from training_common import backoff

log = logging.getLogger(__name__)

# Seconds for which the end of a Job is left to the replica that launched it: otherwise every replica would report it.
_DEFERENCE = 2.0
# A portal that asks for more patience than this (seconds) is asked once in between.
_RETRY_AFTER_MAX = 300.0


@dataclass(eq=False)
class Reconciler:
    """Level-triggered: what it does depends on what is, not on which event came.

    progress_every: seconds between two progress messages of a model. take_on_after: seconds after which a half-launched
    Job is believed to have lost its message. on_defect: called for an error of our own. kueue: None without Kueue.
    """

    work: WorkQueue
    cache: ClusterCache
    cluster: Cluster
    launcher: Launcher
    reporter: Reporter
    locks: ModelLocks
    repair: MetadataRepair
    _: KW_ONLY
    limits: Limits
    progress_every: float
    take_on_after: float
    events: EventRecorder = NULL_RECORDER
    on_defect: Callable[[], None] = lambda: None
    kueue: KueueWorkloads | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _failing: dict[str, float] = field(default_factory=dict, init=False)  # by the Job's uid
    _deferred: dict[str, float] = field(default_factory=dict, init=False)  # by the Job's uid

    def __post_init__(self) -> None:
        self.progress = Progress(self.work, self.reporter, self.progress_every, self.monotonic, self.events)
        self._second_looks = SecondLooks(self.work, self.reporter, self.locks, self.monotonic)

    def run(self, alive: Callable[[], None]) -> None:
        """Work until the queue is closed."""
        while True:
            key = self.work.get(timeout=5.0)
            alive()
            if key is None:
                if self.work.closed:
                    return
                continue
            with logs.bind(**self._log_fields(key)):
                self._work_on(key)

    def _work_on(self, key: str) -> None:
        try:
            self.reconcile(key)
            self.work.succeeded(key)
        except (ObjectConflict, ObjectNotFound) as error:
            # The cache was stale: the watch brings the Job as it is now.
            log.debug("Job %s: %s", key, error)
            self.work.failed(key)
        except (PortalError, ClusterError) as error:
            wait = self.work.failed(key, at_least=min(getattr(error, "retry_after", None) or 0.0, _RETRY_AFTER_MAX))
            log.warning("Job %s: %s. Tried again in %.0f s", key, error, wait)
        except Exception:
            # One bad object is logged and retried with a growing back-off; the others go on (F14).
            log.exception("Job %s: the dispatcher failed on it", key)
            self.on_defect()
            self.work.failed(key)
        finally:
            self.work.done(key)

    def _log_fields(self, name: str) -> dict[str, str | int]:
        """The fields of every log line about the Job; see logs.bind."""
        job = self.cache.job(name) or self.cache.tombstone(name)
        if job is None:
            return {"job": name}
        pods = len(self.cache.pods_of(job))
        message_id = objects.annotation(job, names.MESSAGE_ID)
        return {
            "model": objects.model_id_of(job),
            "job": name,
            **({"message_id": message_id} if message_id else {}),
            **({"attempt": pods} if pods else {}),
        }

    def reconcile(self, name: str) -> None:
        """Bring one Job a step further. Idempotent. Raises PortalError and ClusterError: try again."""
        if (gone := self.cache.tombstone(name)) is not None:
            self._deleted_unobserved(name, gone)
            self._forget(gone)
        job = self.cache.job(name)
        if job is None:
            self._second_looks.forget(name)
        elif is_damaged(job):
            if (wait := self.repair.repair(job)) > 0:
                self.work.add_after(name, wait)
            # Otherwise the watch brings it as it is after the patch.
        elif not objects.is_managed(job):
            self._forget(job)
        elif objects.is_reported(job):
            self._forget(job)
            self._second_looks.look(name, job)
        else:
            with self.locks.hold(objects.model_id_of(job)):
                self._step(name, job)

    def _step(self, name: str, job: KubeObject) -> None:
        pods = self.cache.pods_of(job)
        now = self.clock()
        job = self._record_disruptions(job, pods)
        decided = self._decide(job, pods, now)
        if isinstance(decided, Ended):
            if (wait := self._deference(job)) > 0:
                self.work.add_after(name, wait)
                return
            if outcome.rests_on_stale_cache(job, pods):
                pods = self._refresh_pods(job, pods)
                decided = outcome.decide(job, pods, (), now, self.limits)
        match decided:
            case Ended() as ended:
                self.reporter.report(job, ended)
                self.cache.released(job)
                # A Job that is being deleted disappears with this report: no event shows it as reported.
                self._forget(job)
            case Stop():
                self._stop(name, job, now)
            case Going() as going:
                self._go_on(name, job, pods, going, now)

    def _record_disruptions(self, job: KubeObject, pods: Sequence[KubeObject]) -> KubeObject:
        """Note on the Job which pods Kubernetes took away, since the pods themselves do not last.

        A crash before the patch: the pods are still there, or their Job has ended without them.
        """
        taken = disruptions.unrecorded(job, pods)
        if not taken:
            return job
        note = {names.DISRUPTED: disruptions.annotation(job, pods)}
        patch = {"metadata": {"uid": objects.uid_of(job), "annotations": note}}
        job = self.cluster.patch_job(objects.name_of(job), patch)
        gone = " ".join(objects.name_of(pod) for pod in pods if objects.uid_of(pod) in taken)
        count = len(disruptions.recorded(job))
        self.events.record(job, "Disrupted", f"Kubernetes took away {gone}; {count} of this Job so far", "Warning")
        return job

    def _go_on(self, name: str, job: KubeObject, pods: list[KubeObject], going: Going, now: float) -> None:
        """The Job has not ended: do what its launch or deletion lacks, and report what it waits for."""
        if going.remove_pods:
            self.events.record(job, "Deleted", "The Job was deleted: its pods are ended, then it is reported")
            self._remove_pods(pods)
        if going.check_at is not None:
            self.work.add_after(name, max(1.0, going.check_at - now))
        if not objects.is_launched(job):
            self._half_launched(name, job)
        elif not objects.is_acknowledged(job):
            self.reporter.acknowledge(job)
        elif going.progress:
            place = self.kueue.progress(job) if self.kueue is not None else None
            self.progress.waits(name, job, place or going.progress)
        elif any("running" in objects.trainer_state(pod) for pod in pods if not objects.pod_is_over(pod)):
            self.progress.runs(name, job)

    def _stop(self, name: str, job: KubeObject, now: float) -> None:
        """Stop the Job if the API server confirms what the cache says, which may be minutes old (a half-open watch)."""
        live = self.cluster.get_job(name)
        if live is None or objects.uid_of(live) != objects.uid_of(job):
            return  # the watch will update the cache
        # Of pods that are gone only their end counts; their last state while they ran may be outdated.
        pods = self._refresh_pods(live, [pod for pod in self.cache.pods_of(live) if objects.pod_is_over(pod)])
        decided = self._decide(live, pods, now)
        if isinstance(decided, Stop):
            self.reporter.stop(live, decided.verdict)

    def _decide(self, job: KubeObject, pods: list[KubeObject], now: float) -> Outcome:
        return decide(self.cluster, job, pods, now, self.limits, self._failing_since(job, pods, now))

    def _deference(self, job: KubeObject) -> float:
        """Seconds still to wait for the launching replica to report the Job; few, since it may be gone."""
        if objects.annotation(job, names.LAUNCHED_BY) in (None, self.launcher.identity):
            return 0.0
        now = self.monotonic()
        with self._guard:
            due = self._deferred.setdefault(objects.uid_of(job), now + backoff.jittered(_DEFERENCE, 1.0, 1.5))
        return due - now

    def _refresh_pods(self, job: KubeObject, known: list[KubeObject]) -> list[KubeObject]:
        """The Job's pods as the API server has them now, after the last known states of those that are gone."""
        selector = f"{names.SELECTOR},{names.MODEL_ID}={objects.model_id_of(job)}"
        uid = objects.uid_of(job)
        live = {objects.uid_of(p): p for p in self.cluster.list_pods(selector).items if objects.owner_uid(p) == uid}
        return [*(pod for pod in known if objects.uid_of(pod) not in live), *live.values()]

    def _failing_since(self, job: KubeObject, pods: list[KubeObject], now: float) -> float | None:
        """When its container began to fail to start, as far as this process knows; a restart begins the grace anew."""
        with self._guard:
            if not any(waiting.is_failing(pod) for pod in pods):
                self._failing.pop(objects.uid_of(job), None)
                return None
            return self._failing.setdefault(objects.uid_of(job), now)

    def _half_launched(self, name: str, job: KubeObject) -> None:
        """The next delivery of its message continues the launch, unless the message is gone (expired, purged)."""
        if objects.is_deleting(job):
            return
        left = self.take_on_after - self.cache.seconds_known(job)
        if left > 0:
            self.work.add_after(name, left)
            return
        log.warning("Job %s was created but never launched, and no message came for it: taking it on", name)
        log.info("Job %s: %s", name, self.launcher.take_on(job).sentence)

    def _remove_pods(self, pods: list[KubeObject]) -> None:
        for pod in pods:
            if objects.pod_is_over(pod) or objects.is_deleting(pod):
                continue
            with contextlib.suppress(ObjectNotFound, ObjectConflict):
                self.cluster.delete_pod(objects.name_of(pod), objects.uid_of(pod))

    def _deleted_unobserved(self, name: str, job: KubeObject) -> None:
        """Report a Job whose finalizer somebody removed, if the API server confirms that it is gone (F30)."""
        live = self.cluster.get_job(name)
        if live is not None and objects.uid_of(live) == objects.uid_of(job):
            # It exists: its label is gone, or the watch was wrong.
            if is_damaged(live):
                if (wait := self.repair.repair(live)) > 0:
                    self.work.add_after(name, wait)
                    return
            elif not objects.is_managed(live):
                log.warning("Job %s lost the dispatcher's label and finalizer: its end is not reported", name)
        elif objects.is_launched(job):  # else nothing had begun; its message, if any, begins anew
            ended = outcome.decide(job, self.cache.pods_of(job), (), self.clock(), self.limits)
            if not isinstance(ended, Ended):
                ended = Ended(False, outcome.JOB_VANISHED)
            with self.locks.hold(objects.model_id_of(job)):
                self.reporter.report_deleted(job, ended)
        self.cache.drop_tombstone(name)

    def _forget(self, job: KubeObject) -> None:
        self.progress.forget(job)
        with self._guard:
            self._failing.pop(objects.uid_of(job), None)
            self._deferred.pop(objects.uid_of(job), None)


def decide(
    cluster: Cluster,
    job: KubeObject,
    pods: Sequence[KubeObject],
    now: float,
    limits: Limits,
    failing_since: float | None = None,
) -> Outcome:
    """`outcome.decide`, with the Events that explain the Job where they are needed. Raises ClusterError."""
    unexplained = waiting.needs_events(job, pods, now)
    events = cluster.list_events(unexplained) if unexplained else []
    return outcome.decide(job, pods, events, now, limits, failing_since)
