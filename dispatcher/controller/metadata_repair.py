"""Repairs Jobs of ours whose labels or annotations somebody removed, so that their models do not stay Processing.

Our finalizer marks a Job as ours; without the label no watch shows it, and without the annotations nobody reports it.
What is lost is derived from what cannot be changed: the Job's name and its pod template. Somebody who removes the
finalizer, too, has taken the Job out of the dispatcher's control.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, ClusterUnavailable, ObjectConflict, ObjectNotFound
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.old_reports import OldReports
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client.model_ids import MODEL_PREFIX
from training_common import backoff
from training_common.times import rfc3339

log = logging.getLogger(__name__)

# Seconds between two repairs of one Job: whoever keeps removing its labels is not fought more often than this.
_REPAIR_EVERY = 60.0
# Seconds between two lists of the Jobs without our label; a running dispatcher sees a label go at once.
_LIST_EVERY = 600.0
# Seconds until what failed is tried again: a list of fifty thousand may be too old to be continued before it ends.
_AGAIN = 30.0
_WITHOUT_LABEL = f"{names.MANAGED_BY}!={names.MANAGER}"
# The message id where nobody knows it any more: no message is taken for this Job's own then.
_UNKNOWN = "unknown"


def is_damaged(job: KubeObject) -> bool:
    """Whether it has our finalizer, and lacks what we identify it by, or has the label that hides it from us."""
    return job.has_finalizer and bool(_lost(job))


def repaired_metadata(job: Job, environment: Mapping[str, str], now: float) -> dict[str, Any]:
    """The metadata to merge into a damaged Job. environment: its trainer's, as launch/job_spec wrote it.

    now: epoch seconds.
    """
    annotations: dict[str, str] = {}
    # Suspended and without Kueue's label its launch is not over, and is continued.
    began = job.status.start_time
    launched = bool(_half_a_launch(job))
    if job.annotations.message_id is None:
        annotations[names.MESSAGE_ID] = _UNKNOWN
        # In a pod's environment "$$" is a dollar sign. The request is not kept of a Job: written again it is the same.
        for key, variable in ((names.RUN_ID, "RUN_ID"), (names.REQUEST, "TRAINING_REQUEST")):
            if variable in environment and (key is names.REQUEST or job.annotations.run_id is None):
                annotations[key] = environment[variable].replace("$$", "$")
        queued = job.labels.kueue_queue not in (None, names.KUEUE_HOLD)
        launched = bool(launched or began or not job.is_suspended or queued)
    if launched and not job.is_launched:
        annotations[names.LAUNCHED_AT] = began or rfc3339(now)
    # A launch always tries Processing; sent once more it could overwrite a Reconfigure that came since then.
    if launched and job.annotations.acknowledged is None:
        annotations[names.ACKNOWLEDGED] = "true"
    return {
        "uid": job.uid,
        "labels": {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: _model_id(job), names.REPORTED: None},
        "annotations": annotations,
    }


def _lost(job: KubeObject) -> list[str]:
    """Keys that are gone, or have another value than ours. A changed model id would report to another model."""
    lost = [] if job.labels.managed_by == names.MANAGER else [names.MANAGED_BY]
    lost += [] if job.labels.model_id == _model_id(job) else [names.MODEL_ID]
    lost += [] if job.annotations.message_id is not None else [names.MESSAGE_ID]
    lost += [] if job.labels.reported is None else [names.REPORTED]
    return lost + _half_a_launch(job)


def _half_a_launch(job: KubeObject) -> list[str]:
    """Which of the two annotations of the launch's last patch is gone, where the other is still there.

    Left so, the launch would be repeated, or Processing sent once more: over whatever status the portal has by then.
    """
    notes = {names.LAUNCHED_AT: job.annotations.launched_at, names.ACKNOWLEDGED: job.annotations.acknowledged}
    lost = [key for key, value in notes.items() if value is None]
    return lost if len(lost) == 1 else []


def _model_id(job: KubeObject) -> str:
    return job.name.removeprefix(MODEL_PREFIX)


@dataclass(eq=False)
class MetadataRepair:
    """Repairs on sight, and looks for the Jobs that no watch shows. Thread-safe.

    ended: filled once with the reported Jobs that the cluster has. look_at(name): called for each of them.
    """

    cluster: Cluster
    ended: EndedJobs
    events: EventRecorder = NULL_RECORDER
    stopping: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    look_at: Callable[[str], None] = field(default=lambda name: None, init=False)
    old: OldReports = field(init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _repaired: dict[str, float] = field(default_factory=dict, init=False)  # uid → when, within _REPAIR_EVERY

    def __post_init__(self) -> None:
        self.old = OldReports(self.cluster, self.ended, self.stopping, self.clock, self.monotonic)

    def repair(self, job: KubeObject) -> float:
        """Put back what a damaged Job has lost. Returns the seconds to wait where that was done just before, else 0.

        Raises ClusterError.
        """
        live = self.cluster.get_job(job.name)
        if live is None or live.uid != job.uid or not is_damaged(live):
            return 0.0  # the cache was stale
        now, uid = self.monotonic(), live.uid
        with self._guard:
            self._repaired = {key: at for key, at in self._repaired.items() if now - at < _REPAIR_EVERY}
            if uid in self._repaired:
                return self._repaired[uid] + _REPAIR_EVERY - now
            self._repaired[uid] = now
        text = f"Somebody removed or changed {', '.join(_lost(live))} of this Job; they are put back"
        try:
            environment = self.cluster.get_environment(live.name) if live.annotations.message_id is None else {}
            self.cluster.patch_job(live.name, {"metadata": repaired_metadata(live, environment, self.clock())})
        except (ObjectNotFound, ObjectConflict):
            return 0.0  # deleted, or replaced by another Job
        log.warning("Job %s: %s. `kubectl delete job` or `dispatcher cancel` end a training", live.name, text)
        self.events.record(live, "Mended", text, "Warning")
        return 0.0

    def run(self, alive: Callable[[], None]) -> None:
        """Look for damaged Jobs until `stopping`; first at once: no dispatcher may have run when it happened."""
        chores: list[tuple[Callable[[Callable[[], None]], bool], float]] = [
            (self.once, _LIST_EVERY),
            (self.fill_ended, math.inf),  # once: reports are seen as they are made
            (self.old.label, 0.0),
        ]
        due = [self.monotonic()] * len(chores)
        while not self.stopping.is_set():
            for number, (chore, every) in enumerate(chores):
                if self.monotonic() >= due[number]:
                    # Spread: every replica looks, and one is enough.
                    pause = every if chore(alive) else _AGAIN
                    due[number] = self.monotonic() + backoff.jittered(pause, 0.75, 1.25)
            alive()
            self.stopping.wait(5.0)

    def once(self, alive: Callable[[], None] = lambda: None) -> bool:
        """Look once at every Job of the namespace that lacks our label; returns whether that succeeded."""
        try:
            for job in self.cluster.list_metadata("jobs", _WITHOUT_LABEL):
                alive()
                if is_damaged(job):
                    self._try(job)
        except ClusterError as error:
            log.warning("%s. Jobs without our label are looked for again later", error)
            return False
        return True

    def fill_ended(self, alive: Callable[[], None] = lambda: None) -> bool:
        """Learn of the reported Jobs, which lists and watches leave out; returns whether that succeeded."""

        def found() -> Iterator[KubeObject]:
            for job in self.cluster.list_metadata("jobs", names.REPORTED_JOBS):
                alive()
                if is_damaged(job):
                    self._try(job)  # somebody hid it from us
                elif job.is_reported:
                    yield job

        try:
            for name in self.ended.fill(found()):
                self.look_at(name)
        except ClusterError as error:
            log.warning("%s. The reported Jobs are looked for again later", error)
            return False
        return True

    def _try(self, job: KubeObject) -> None:
        """What forbids one repair (a policy, a webhook) need not forbid the next. Raises ClusterUnavailable."""
        try:
            self.repair(job)
        except ClusterUnavailable:
            raise
        except ClusterError as error:
            log.warning("%s. The end of Job %s is not reported until it is repaired", error, job.name)
