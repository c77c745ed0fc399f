"""One Job at a time: look, decide, act. Driven by the work queue: the watch, passed limits and the sweep fill it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dispatcher.cluster import names, objects
from dispatcher.cluster.errors import ClusterError, ObjectConflict, ObjectNotFound
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.kueue_workloads import KueueWorkloads
from dispatcher.controller.metadata_repair import MetadataRepair, is_damaged
from dispatcher.controller.progress import Progress
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.decisions import disruptions, outcome, waiting
from dispatcher.decisions.outcome import Ended, Going, Stop
from dispatcher.decisions.waiting import Limits
from dispatcher.launch.launcher import Launcher
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.ports import Cluster
from dispatcher.telemetry import logs
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client.errors import PortalError

log = logging.getLogger(__name__)

# So long after a report at the latest, a Processing that was on its way to the portal has landed: twice the time that
# the client waits for an answer.
_LATE_WRITE = 60.0
# So long a Job's end is left to the dispatcher that launched it: side by side, each of them would tell the portal.
_OTHERS_TURN = 2.0
# A portal that asks for more patience than this is asked once in between.
_RETRY_AFTER_MAX = 300.0


@dataclass
class _Look:
    """The second look at a reported Job. seen: uid and launch; due: monotonic seconds; left: how many are due."""

    seen: tuple[str, str]
    due: float
    left: int


class Reconciler:
    """Level-triggered: what it does depends on what is, not on which event came.

    progress_every: seconds between two progress messages of a model. take_on_after: seconds after which a half-launched
    Job is believed to have lost its message. kueue: tells how far a Job has come in Kueue's queue.
    """

    def __init__(
        self,
        work: WorkQueue,
        cache: ClusterCache,
        cluster: Cluster,
        launcher: Launcher,
        reporter: Reporter,
        locks: ModelLocks,
        *,
        limits: Limits,
        progress_every: float,
        take_on_after: float,
        events: EventRecorder = NULL_RECORDER,
        on_defect: Callable[[], None] = lambda: None,
        kueue: KueueWorkloads | None = None,
        repair: MetadataRepair | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._cache = cache
        self._cluster = cluster
        self._launcher = launcher
        self._reporter = reporter
        self._locks = locks
        self._limits = limits
        self._take_on_after = take_on_after
        self._events = events
        self._on_defect = on_defect
        self._kueue = kueue
        self._repair = repair or MetadataRepair(cluster)
        self._clock = clock
        self._monotonic = monotonic
        self._progress = Progress(work, reporter, progress_every, monotonic, events)
        self._guard = threading.Lock()
        self._looks: dict[str, _Look] = {}  # by the Job's name
        self._failing: dict[str, float] = {}  # by the Job's uid
        self._turns: dict[str, float] = {}  # by the Job's uid

    def run(self, alive: Callable[[], None]) -> None:
        """Work until the queue is closed."""
        while True:
            key = self._work.get(timeout=5.0)
            alive()
            if key is None:
                if self._work.closed:
                    return
                continue
            with logs.bind(**self._speaking_of(key)):
                self._work_on(key)

    def _work_on(self, key: str) -> None:
        try:
            self.reconcile(key)
            self._work.succeeded(key)
        except (ObjectConflict, ObjectNotFound) as error:
            # The cache was older than the Job: the watch brings the new one.
            log.debug("Job %s: %s", key, error)
            self._work.failed(key)
        except (PortalError, ClusterError) as error:
            wait = self._work.failed(key, at_least=min(getattr(error, "retry_after", None) or 0.0, _RETRY_AFTER_MAX))
            log.warning("Job %s: %s. Tried again in %.0f s", key, error, wait)
        except Exception:
            # One bad object is logged and comes again, slower and slower; the others go on (F14).
            log.exception("Job %s: the dispatcher failed on it", key)
            self._on_defect()
            self._work.failed(key)
        finally:
            self._work.done(key)

    def _speaking_of(self, name: str) -> dict[str, str | int]:
        """What every line about the Job says of it."""
        job = self._cache.job(name) or self._cache.tombstone(name)
        if job is None:
            return {"job": name}
        pods = len(self._cache.pods_of(job))
        message_id = objects.annotation(job, names.MESSAGE_ID)
        return {
            "model": objects.model_id_of(job),
            "job": name,
            **({"message_id": message_id} if message_id else {}),
            **({"attempt": pods} if pods else {}),
        }

    def reconcile(self, name: str) -> None:
        """Bring one Job a step further. Raises PortalError and ClusterError: come again."""
        if (gone := self._cache.tombstone(name)) is not None:
            self._deleted_unobserved(name, gone)
            self._forget(name, gone)
        job = self._cache.job(name)
        if job is not None and is_damaged(job):
            if (wait := self._repair.repair(job)) > 0:
                self._work.add_after(name, wait)
            return  # the watch brings it as it is then
        if job is None or objects.is_reported(job) or not objects.is_managed(job):
            self._forget(name, job)
            if job is not None and objects.is_managed(job):
                self._second_look(name, job)
            return
        with self._locks.hold(objects.model_id_of(job)):
            self._step(name, job)

    def waiting_for(self) -> dict[str, str]:
        """By the Job's uid, what it was last seen to wait for, also what only its Events or Kueue tell."""
        return self._progress.seen()

    def _step(self, name: str, job: KubeObject) -> None:
        pods = self._cache.pods_of(job)
        now = self._clock()
        if taken := disruptions.unrecorded(job, pods):
            gone = " ".join(objects.name_of(pod) for pod in pods if objects.uid_of(pod) in taken)
            # A crash before it: the pods are still there, or their Job has ended without them.
            note = {names.DISRUPTED: disruptions.annotation(job, pods)}
            job = self._cluster.patch_job(name, {"metadata": {"uid": objects.uid_of(job), "annotations": note}})
            count = len(disruptions.recorded(job))
            self._events.record(job, "Disrupted", f"Kubernetes took away {gone}; {count} of this Job so far", "Warning")
        asked = waiting.needs_events(job, pods, now)
        events = self._cluster.list_events(asked) if asked else []
        decided = outcome.decide(job, pods, events, now, self._limits, self._failing_since(job, pods, now))
        if isinstance(decided, Ended):
            if (wait := self._others_turn(job)) > 0:
                self._work.add_after(name, wait)
                return
            if outcome.rests_on_missing_news(job, pods):
                pods = self._ask_for_pods(job, pods)
                decided = outcome.decide(job, pods, (), now, self._limits)
        match decided:
            case Ended() as ended:
                self._reporter.report(job, ended)
                self._cache.released(job)
                # A Job that was deleted goes with that: nobody sees it as reported.
                self._forget(name, job)
            case Stop():
                self._stop(name, job, now)
            case Going() as going:
                self._go_on(name, job, pods, going, now)

    def _go_on(self, name: str, job: KubeObject, pods: list[KubeObject], going: Going, now: float) -> None:
        """Not at its end: what it waits for is told, and what its launch or deletion lacks is done."""
        if going.remove_pods:
            self._events.record(job, "Deleted", "The Job was deleted: its pods are ended, then it is reported")
            self._remove_pods(pods)
        if going.check_at is not None:
            self._work.add_after(name, max(1.0, going.check_at - now))
        if not objects.is_launched(job):
            self._half_launched(name, job)
        elif not objects.is_acknowledged(job):
            self._reporter.acknowledge(job)
        elif going.progress:
            place = self._kueue.progress(job) if self._kueue is not None else None
            self._progress.waits(name, job, place or going.progress)
        elif any("running" in objects.trainer_state(pod) for pod in pods if not objects.pod_is_over(pod)):
            self._progress.runs(name, job)

    def _stop(self, name: str, job: KubeObject, now: float) -> None:
        """The cache may be minutes old (a half-open watch): what would be stopped is looked at as it is now."""
        live = self._cluster.get_job(name)
        if live is None or objects.uid_of(live) != objects.uid_of(job):
            return  # the cache will learn of it
        # Of the pods that are gone only their last words count: what they were thought to be doing is no news.
        pods = self._ask_for_pods(live, [pod for pod in self._cache.pods_of(live) if objects.pod_is_over(pod)])
        asked = waiting.needs_events(live, pods, now)
        events = self._cluster.list_events(asked) if asked else []
        decided = outcome.decide(live, pods, events, now, self._limits, self._failing_since(live, pods, now))
        if isinstance(decided, Stop):
            self._reporter.stop(live, decided.verdict)

    def _others_turn(self, job: KubeObject) -> float:
        """Seconds that are left to another dispatcher to report the Job; it may be gone, so they are few."""
        if objects.annotation(job, names.LAUNCHED_BY) in (None, self._launcher.identity):
            return 0.0
        now = self._monotonic()
        with self._guard:
            due = self._turns.setdefault(objects.uid_of(job), now + _OTHERS_TURN * random.uniform(1.0, 1.5))  # noqa: S311
        return due - now

    def _ask_for_pods(self, job: KubeObject, known: list[KubeObject]) -> list[KubeObject]:
        """The Job's pods as the API server has them now, and what those that are gone last said."""
        selector = f"{names.SELECTOR},{names.MODEL_ID}={objects.model_id_of(job)}"
        uid = objects.uid_of(job)
        live = {objects.uid_of(p): p for p in self._cluster.list_pods(selector).items if objects.owner_uid(p) == uid}
        gone = [pod for pod in known if objects.uid_of(pod) not in live]
        return [*gone, *live.values()]

    def _failing_since(self, job: KubeObject, pods: list[KubeObject], now: float) -> float | None:
        """When its container began to fail to start, as far as this process knows; a restart begins the grace anew."""
        with self._guard:
            if not any(waiting.is_failing(pod) for pod in pods):
                self._failing.pop(objects.uid_of(job), None)
                return None
            return self._failing.setdefault(objects.uid_of(job), now)

    def _half_launched(self, name: str, job: KubeObject) -> None:
        """Its message brings it further, unless that is gone (expired, purged)."""
        if objects.is_deleting(job):
            return
        left = self._take_on_after - self._cache.seconds_known(job)
        if left > 0:
            self._work.add_after(name, left)
            return
        log.warning("Job %s was created but never launched, and no message came for it: taking it on", name)
        decision = self._launcher.take_on(job)
        log.info("Job %s: %s", name, decision.sentence)

    def _remove_pods(self, pods: list[KubeObject]) -> None:
        for pod in pods:
            if objects.pod_is_over(pod) or objects.is_deleting(pod):
                continue
            try:
                self._cluster.delete_pod(objects.name_of(pod), objects.uid_of(pod))
            except (ObjectNotFound, ObjectConflict):
                continue

    def _deleted_unobserved(self, name: str, job: KubeObject) -> None:
        """Gone without a report: somebody removed the finalizer. Ask the API server before believing it (F30)."""
        live = self._cluster.get_job(name)
        if live is not None and objects.uid_of(live) == objects.uid_of(job):
            # Not gone: no longer ours by its label, or the watch was wrong.
            if is_damaged(live) and (wait := self._repair.repair(live)) > 0:
                self._work.add_after(name, wait)
                return
            if not objects.is_managed(live):
                log.warning("Job %s was taken out of our hands with label and finalizer: its end is not reported", name)
            self._cache.drop_tombstone(name)
            return
        if not objects.is_launched(job):
            self._cache.drop_tombstone(name)  # nothing had begun; its message, if any, begins anew
            return
        pods = self._cache.pods_of(job)
        ended = outcome.decide(job, pods, (), self._clock(), self._limits)
        if not isinstance(ended, Ended):
            ended = Ended(False, outcome.JOB_VANISHED)
        with self._locks.hold(objects.model_id_of(job)):
            self._reporter.report_deleted(job, ended)
        self._cache.drop_tombstone(name)

    def _second_look(self, name: str, job: KubeObject) -> None:
        """Once, a while after a Job was reported: a Processing that came late may have covered its outcome.

        A launch that stood still and wakes up resumes the Job once more; that is seen here, too.
        """
        now = self._monotonic()
        launched, reported = (objects.annotation(job, key) or "" for key in (names.LAUNCHED_AT, names.REPORTED_AT))
        seen = (objects.uid_of(job), launched)
        # Spread: a restarted dispatcher sees all of them at once.
        late = _LATE_WRITE * random.uniform(1.0, 1.5)  # noqa: S311
        with self._guard:
            look = self._looks.get(name)
            if look is None or look.seen != seen:
                # Launched after it was reported: that launch's Processing has landed already.
                look = _Look(seen, now, 2) if launched > reported else _Look(seen, now + late, 1)
                self._looks[name] = look
        if look.left and now >= look.due:
            with self._locks.hold(objects.model_id_of(job)):
                self._reporter.repair(job)
            look.left -= 1
            look.due = now + late
        if look.left:
            self._work.add_after(name, look.due - now)

    def _forget(self, name: str, job: KubeObject | None) -> None:
        if job is not None:
            self._progress.forget(job)
        with self._guard:
            if job is None:
                self._looks.pop(name, None)
            else:
                self._failing.pop(objects.uid_of(job), None)
                self._turns.pop(objects.uid_of(job), None)
