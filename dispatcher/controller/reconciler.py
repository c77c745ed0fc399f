"""One Job at a time: observe, decide, act. The watch, and limits that pass, fill its work queue."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, ObjectConflict, ObjectNotFound, ObjectUnreadable
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.kueue_workloads import KueueWorkloads
from dispatcher.controller.metadata_repair import MetadataRepair, is_damaged
from dispatcher.controller.node_sizes import NodeSizes
from dispatcher.controller.pace import Pace
from dispatcher.controller.patience import Patience
from dispatcher.controller.progress import Progress
from dispatcher.controller.renewals import Renewals
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.second_looks import SecondLooks
from dispatcher.controller.summaries import Summaries, summarise
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.decisions import disruptions, ends, outcome, teams, waiting
from dispatcher.decisions.verdicts import Ended, Going, Outcome, Stop
from dispatcher.decisions.waiting import Limits
from dispatcher.launch.credentials import ScopedCredentials, doubted_at
from dispatcher.launch.launcher import Launcher
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.ports import Cluster
from dispatcher.storage.errors import StorageError
from dispatcher.telemetry import logs
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client.errors import PortalError
from training_common import backoff

log = logging.getLogger(__name__)

_DELETED = outcome.JOB_VANISHED.code
# Seconds after which a Job is looked at again although nothing has happened to it and no limit of it has passed.
_LOOK_AGAIN = 600.0
# The same where nothing is awaited of anybody: of fifty thousand Jobs nearly all rest.
_REST = 3600.0
# Seconds until a half-launched Job is looked at again that could not be taken on for now.
_TAKE_ON_AGAIN = 30.0
# A portal that asks for more patience than this (seconds) is asked once in between.
_RETRY_AFTER_MAX = 300.0


@dataclass(eq=False)
class Reconciler:
    """Level-triggered: what it does depends on what is, not on which event came.

    progress_every: seconds between two progress messages of a model; pace: of all of them. take_on_after: seconds after
    which a half-launched Job is believed to have lost its message. on_defect: called for an error of our own. kueue:
    None without Kueue; credentials: None where trainings share them.
    """

    work: WorkQueue
    cache: ClusterCache
    cluster: Cluster
    launcher: Launcher
    reporter: Reporter
    locks: ModelLocks
    repair: MetadataRepair
    ended: EndedJobs
    _: KW_ONLY
    limits: Limits
    progress_every: float
    pace: Pace
    take_on_after: float
    events: EventRecorder = NULL_RECORDER
    on_defect: Callable[[], None] = lambda: None
    kueue: KueueWorkloads | None = None
    nodes: NodeSizes | None = None
    credentials: ScopedCredentials | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.summaries = Summaries()
        self.progress = Progress(self.work, self.reporter, self.progress_every, self.pace, self.monotonic, self.events)
        self._patience = Patience(self.launcher.identity, self.monotonic)
        self._renewals = Renewals(self.work, self.credentials, monotonic=self.monotonic)
        self._second_looks = SecondLooks(self.work, self.reporter, self.locks, self.clock, self.monotonic)
        self.repair.look_at = self._look_again

    def run(self, alive: Callable[[], None]) -> None:
        """Work until the queue is closed."""
        while True:
            key = self.work.get(timeout=5.0)
            alive()
            if key is None:
                if self.work.closed:
                    return
                continue
            with contextlib.ExitStack() as fields:
                self._work_on(key, fields)

    def _work_on(self, key: str, fields: contextlib.ExitStack) -> None:
        """fields: takes what every log line about the Job says, those about its failure too."""
        try:
            fields.enter_context(logs.bind(**self._log_fields(key)))
            self.reconcile(key)
            self.work.succeeded(key)
        except (ObjectConflict, ObjectNotFound) as error:
            # The cache was stale: the watch brings the Job as it is now.
            log.debug("Job %s: %s", key, error)
            self.work.failed(key)
        except (PortalError, ClusterError, StorageError) as error:
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
        attempt = teams.attempt(job, self.cache.pods_of(job))
        message_id = job.annotations.message_id
        return {
            "model": job.model_id,
            "job": name,
            **({"message_id": message_id} if message_id else {}),
            **({"attempt": attempt} if attempt else {}),
        }

    def reconcile(self, name: str) -> None:
        """Bring one Job a step further. Idempotent. Raises PortalError, ClusterError, StorageError: try again."""
        if (gone := self.cache.tombstone(name)) is not None:
            self._deleted_unobserved(name, gone)
            self._forget(gone)
        job = self.cache.job(name)
        if job is None:
            self._second_looks.look(name)
            return
        if self.cache.is_behind(job):
            return
        self.ended.drop(name)
        if is_damaged(job):
            if (wait := self.repair.repair(job)) > 0:
                self.work.add_after(name, wait)
            # Otherwise the watch brings it as it is after the patch.
        elif not job.is_managed:
            self._forget(job)
        elif job.is_reported:
            # By an older version, which left it in our selection, or launched once more after its report.
            self._forget(job)
            self._second_looks.expect(job)
            if self._second_looks.look(name):
                self.ended.add(self.reporter.hide(job), self.cache.pods_of(job))
        else:
            with self.locks.hold(job.model_id):
                self._step(name, job)

    def _look_again(self, name: str) -> None:
        """Of the Jobs that were reported before this process began: some Processing may be on its way still."""
        if (ended := self.ended.get(name)) is not None:
            self._second_looks.expect(ended)

    def _step(self, name: str, job: Job) -> None:
        pods = self.cache.pods_of(job)
        now = self.clock()
        job = self._record_disruptions(job, pods)
        if job.is_reported:
            return  # by another replica; the watch is behind
        summary = summarise(job, pods)
        self.summaries.note(name, summary)
        decided = self._decide(job, pods, now)
        self.summaries.note(name, summary.after(decided))
        if isinstance(decided, Ended):
            if (wait := max(self._patience.deference(job), self._doubt(decided, pods, now))) > 0:
                self.work.add_after(name, wait)
                return
            if outcome.rests_on_stale_cache(job, pods) or self.cache.is_adopted(job):
                pods = self._refresh_pods(job, pods)
                self.cache.complete(job, pods)
                decided = outcome.decide(job, pods, (), now, self.limits)
                self.summaries.note(name, summary.after(decided))
            if isinstance(decided, Ended) and decided.verdict.code == _DELETED and self.cluster.get_job(name) is None:
                return  # though its finalizer held it: reported by another replica. The watch will bring its end
        rests = False
        match decided:
            case Ended() as ended:
                released = self.reporter.report(job, ended, pods)
                self.cache.released(job)
                self._forget(job)
                self._let_go(released, pods)
                return
            case Stop():
                self._stop(name, job, now)
            case Going() as going:
                self._go_on(name, job, pods, going, now)
                # Last: nothing of a Job's has to wait for storage.
                self._renewals.renew(job, now, doubted_at(pods, going.progress, now))
                rests = job.is_acknowledged and not going.remove_pods
        self.work.add_after(name, backoff.jittered(_REST if rests else _LOOK_AGAIN, 0.75, 1.25))

    def _let_go(self, released: Job | None, pods: Sequence[Pod]) -> None:
        """The Job is reported, and leaves the cache: it is remembered for a second look, and for the status page."""
        if released is not None and released.is_reported:
            self.ended.add(released, pods)
            self._second_looks.expect(released)

    def _record_disruptions(self, job: Job, pods: Sequence[Pod]) -> Job:
        """Note on the Job which pods Kubernetes took away, since the pods themselves do not last.

        A crash before the patch: the pods are still there, or their Job has ended without them.
        """
        taken = disruptions.unrecorded(job, pods)
        if not taken:
            return job
        note = {names.DISRUPTED: disruptions.annotation(job, pods)}
        patch = {"metadata": {"uid": job.uid, "annotations": note}}
        job = self.cluster.patch_job(job.name, patch)
        gone = " ".join(pod.name for pod in pods if pod.uid in taken)
        count = len(disruptions.recorded(job))
        self.events.record(job, "Disrupted", f"Kubernetes took away {gone}; {count} of this Job so far", "Warning")
        return job

    def _go_on(self, name: str, job: Job, pods: list[Pod], going: Going, now: float) -> None:
        """The Job has not ended: do what its launch or deletion lacks, and report what it waits for."""
        if going.remove_pods:
            if job.is_deleting:
                self.events.record(job, "Deleted", "The Job was deleted: its pods are ended, then it is reported")
            self._remove_pods([pod for pod in pods if going.only in ("", pod.uid)])
        if going.check_at is not None:
            self.work.add_after(name, max(1.0, going.check_at - now))
        if not job.is_launched:
            self._half_launched(name, job)
        elif not job.is_acknowledged:
            # After its trainer's end only the outcome is told: a user may have moved on from what the trainer said.
            if not any(pod.has_ended and not pod.is_over for pod in pods):
                self.progress.begins(name, job)
        elif going.progress:
            place = self.kueue.progress(job) if self.kueue is not None else None
            if place:
                self.summaries.waits(name, place)
            self.progress.waits(name, job, place or going.progress)
            if self.kueue is not None and job.is_suspended:
                # No event of the Job tells that its place in the queue has changed.
                self.work.add_after(name, self.progress.round())
        elif any(pod.runs for pod in pods if not pod.is_over):
            self.progress.runs(name, job)

    def _stop(self, name: str, job: Job, now: float) -> None:
        """Stop the Job if the API server confirms what the cache says, which may be minutes old (a half-open watch)."""
        live = self.cluster.get_job(name)
        if live is None or live.uid != job.uid:
            return  # the watch will update the cache
        # Of pods that are gone only their end counts; their last state while they ran may be outdated.
        pods = self._refresh_pods(live, [pod for pod in self.cache.pods_of(live) if pod.is_over])
        decided = self._decide(live, pods, now)
        if isinstance(decided, Stop):
            self.reporter.stop(live, decided.verdict)

    def _decide(self, job: Job, pods: list[Pod], now: float) -> Outcome:
        since = self._patience.failing_since(job, pods, now)
        return decide(self.cluster, job, pods, now, self.limits, since, self.nodes)

    def _doubt(self, ended: Ended, pods: Sequence[Pod], now: float) -> float:
        """Seconds until the portal's Processing is proof that the trainer of a deleted Job has told nothing later.

        People delete Jobs whose model they see as Completed, and an answer that is behind would have us report Failed.
        """
        if ended.verdict.code != _DELETED:
            return 0.0
        return ends.unheard_until(pods, self.reporter.lag) - now

    def _refresh_pods(self, job: Job, known: list[Pod]) -> list[Pod]:
        """The Job's pods as the API server has them now, after the last known states of those that are gone."""
        # Not by a label of ours, which anybody may have changed.
        listing = self.cluster.list_pods(f"{names.POD_OF}={job.uid}")
        live = {pod.uid: pod for pod in listing if pod.owner_uid == job.uid}
        if listing.left_out:
            raise ObjectUnreadable(f"Pods of Job {job.name} cannot be read: {', '.join(listing.left_out)}")
        return [*(pod for pod in known if pod.uid not in live), *live.values()]

    def _half_launched(self, name: str, job: Job) -> None:
        """The next delivery of its message continues the launch, unless the message is gone (expired, purged)."""
        if job.is_deleting:
            return
        left = self.take_on_after - self.cache.seconds_known(job)
        if left > 0:
            self.work.add_after(name, left)
            return
        log.warning("Job %s was created but never launched, and no message came for it: taking it on", name)
        log.info("Job %s: %s", name, self.launcher.take_on(job).sentence)
        self.work.add_after(name, _TAKE_ON_AGAIN)

    def _remove_pods(self, pods: list[Pod]) -> None:
        for pod in pods:
            if pod.is_over or pod.is_deleting:
                continue
            with contextlib.suppress(ObjectNotFound, ObjectConflict):
                self.cluster.delete_pod(pod.name, pod.uid)

    def _deleted_unobserved(self, name: str, job: Job) -> None:
        """Report a Job whose finalizer somebody removed, if the API server confirms that it is gone (F30)."""
        live = self.cluster.get_job(name)
        if live is not None and live.uid == job.uid:
            # It exists: it has left the selection, or the watch was wrong.
            if is_damaged(live):
                if (wait := self.repair.repair(live)) > 0:
                    self.work.add_after(name, wait)
                    return
            elif live.is_reported:
                self._let_go(live, self.cache.pods_of(job))  # by another replica
            elif not live.is_managed:
                log.warning("Job %s lost the dispatcher's label and finalizer: its end is not reported", name)
        elif job.is_launched:  # else nothing had begun; its message, if any, begins anew
            ended = outcome.decide(job, self.cache.pods_of(job), (), self.clock(), self.limits)
            if not isinstance(ended, Ended):
                ended = Ended(False, outcome.JOB_VANISHED)
            # Another replica may have reported it, of which our watch and the portal's answers know nothing yet.
            if ended.verdict.code == _DELETED and (wait := self._patience.disbelief(job, self.reporter.lag)) > 0:
                self.work.add_after(name, wait)
                return
            with self.locks.hold(job.model_id):
                self.reporter.report_deleted(job, ended)
            self.ended.add_gone(job, ended.verdict.code)
        self._patience.believe(job)
        self.cache.drop_tombstone(name)

    def _forget(self, job: Job) -> None:
        self.summaries.forget(job.name)
        self.progress.forget(job)
        self.reporter.forget(job)
        self._renewals.forget(job)
        self._patience.forget(job)


def decide(
    cluster: Cluster,
    job: Job,
    pods: Sequence[Pod],
    now: float,
    limits: Limits,
    failing_since: float | None = None,
    nodes: NodeSizes | None = None,
) -> Outcome:
    """`outcome.decide`, with the Events and the nodes' sizes that explain the Job where they are needed.

    Raises ClusterError.
    """
    unexplained = waiting.needs_events(job, pods, now)
    events = cluster.list_events(unexplained) if unexplained else []
    largest = nodes.largest() if nodes is not None and waiting.needs_nodes(job, pods) else waiting.NOT_KNOWN
    return outcome.decide(job, pods, events, now, limits, failing_since, largest)
