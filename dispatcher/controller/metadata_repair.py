"""Jobs of ours whose labels or annotations somebody took away: put back, so that their models do not stay Processing.

Our finalizer says whose a Job is; without the label no watch shows it, and without the annotations nobody reports it.
What is lost is made anew from what cannot be changed: the Job's name and its pod template. Somebody who takes the
finalizer off, too, has taken the Job out of our hands.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from common.times import rfc3339
from dispatcher.cluster import names, objects
from dispatcher.cluster.errors import ClusterError, ClusterUnavailable, ObjectConflict, ObjectNotFound
from dispatcher.cluster.objects import KubeObject
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client.model_ids import MODEL_PREFIX

log = logging.getLogger(__name__)

# Whoever keeps taking them away is not fought more often than this (seconds).
_PATIENCE = 60.0
# Between two lists of the Jobs without our label (seconds); a running dispatcher sees a label go at once.
_LOOK_EVERY = 600.0
_WITHOUT_LABEL = f"{names.MANAGED_BY}!={names.MANAGER}"
# What the message id is called when nobody knows it any more: a message is then no longer told to be this Job's.
_UNKNOWN = "unknown"


def is_damaged(job: KubeObject) -> bool:
    """It holds our finalizer, and not what we know it by."""
    return names.FINALIZER in (objects.meta(job).get("finalizers") or ()) and bool(_lost(job))


def repaired_metadata(job: KubeObject, now: float) -> dict[str, Any]:
    """The metadata to merge into a damaged Job. now: epoch seconds."""
    annotations: dict[str, str] = {}
    # Suspended and without Kueue's label its launch is not over, and is gone on with.
    began = (job.get("status") or {}).get("startTime")
    launched = bool(_half_a_launch(job))
    if objects.annotation(job, names.MESSAGE_ID) is None:
        annotations[names.MESSAGE_ID] = _UNKNOWN
        environment = _environment(job)
        for key, variable in ((names.RUN_ID, "RUN_ID"), (names.REQUEST, "TRAINING_REQUEST")):
            if objects.annotation(job, key) is None and variable in environment:
                annotations[key] = environment[variable]
        launched = bool(
            launched or began or not objects.is_suspended(job) or objects.label(job, names.KUEUE_QUEUE_LABEL)
        )
    if launched and not objects.is_launched(job):
        annotations[names.LAUNCHED_AT] = began or rfc3339(now)
    # Nothing is launched whose Processing was not tried; and a Reconfigure since then must not be covered.
    if launched and objects.annotation(job, names.ACKNOWLEDGED) is None:
        annotations[names.ACKNOWLEDGED] = "true"
    return {
        "uid": objects.uid_of(job),
        "labels": {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: _model_id(job)},
        "annotations": annotations,
    }


def _lost(job: KubeObject) -> list[str]:
    """Keys that are gone, or have another's value."""
    lost = [] if objects.label(job, names.MANAGED_BY) == names.MANAGER else [names.MANAGED_BY]
    # A changed id would bring the outcome to another model.
    lost += [] if objects.label(job, names.MODEL_ID) == _model_id(job) else [names.MODEL_ID]
    lost += [] if objects.annotation(job, names.MESSAGE_ID) is not None else [names.MESSAGE_ID]
    return lost + _half_a_launch(job)


def _half_a_launch(job: KubeObject) -> list[str]:
    """What is gone of the two annotations that one patch writes at the launch's end, where the other is still there.

    Left so, the launch would be begun anew, or Processing sent once more: over whatever status the portal has by then.
    """
    written = (names.LAUNCHED_AT, names.ACKNOWLEDGED)
    lost = [key for key in written if objects.annotation(job, key) is None]
    return lost if len(lost) == 1 else []


def _model_id(job: KubeObject) -> str:
    return objects.name_of(job).removeprefix(MODEL_PREFIX)


def _environment(job: KubeObject) -> dict[str, str]:
    """Of the trainer, as job_spec wrote it: the pod template of a Job cannot be changed."""
    pod = (((job.get("spec") or {}).get("template") or {}).get("spec")) or {}
    return {
        entry["name"]: str(entry["value"]).replace("$$", "$")
        for container in pod.get("containers") or ()
        if container.get("name") == names.TRAINER_CONTAINER
        for entry in container.get("env") or ()
        if "value" in entry
    }


class MetadataRepair:
    """Mends on sight, and looks for those that no watch shows. Thread-safe."""

    def __init__(
        self,
        cluster: Cluster,
        events: EventRecorder = NULL_RECORDER,
        stopping: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._events = events
        self._stopping = stopping or threading.Event()
        self._clock = clock
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._repaired: dict[str, float] = {}  # uid → when, for as long as that counts

    def repair(self, job: KubeObject) -> float:
        """Put back what a damaged Job has lost; returns the seconds to wait, where that was done just before.

        Raises ClusterError.
        """
        live = self._cluster.get_job(objects.name_of(job))
        if live is None or objects.uid_of(live) != objects.uid_of(job) or not is_damaged(live):
            return 0.0  # it was seen as it no longer is
        job = live
        now, uid = self._monotonic(), objects.uid_of(job)
        with self._guard:
            self._repaired = {key: at for key, at in self._repaired.items() if now - at < _PATIENCE}
            if uid in self._repaired:
                return self._repaired[uid] + _PATIENCE - now
            self._repaired[uid] = now
        text = f"Somebody removed or changed {', '.join(_lost(job))} of this Job; they are put back"
        try:
            self._cluster.patch_job(objects.name_of(job), {"metadata": repaired_metadata(job, self._clock())})
        except (ObjectNotFound, ObjectConflict):
            return 0.0  # it is gone, or another one
        log.warning(
            "Job %s: %s. `kubectl delete job` or `dispatcher cancel` end a training", objects.name_of(job), text
        )
        self._events.record(job, "Mended", text, "Warning")
        return 0.0

    def run(self, alive: Callable[[], None]) -> None:
        """Look for damaged Jobs until `stopping`: at once, because nobody may have been there to see it; and on."""
        due = self._monotonic()
        while not self._stopping.is_set():
            if self._monotonic() >= due:
                self.once(alive)
                # Spread: each dispatcher looks, and one is enough.
                due = self._monotonic() + _LOOK_EVERY * random.uniform(0.75, 1.25)  # noqa: S311
            alive()
            self._stopping.wait(5.0)

    def once(self, alive: Callable[[], None] = lambda: None) -> None:
        """One look at every Job of the namespace that has not our label."""
        try:
            for job in self._cluster.list_jobs(_WITHOUT_LABEL).items:
                alive()
                if is_damaged(job):
                    self._try(job)
        except ClusterError as error:
            log.warning("%s. Jobs without our label are looked for again later", error)

    def _try(self, job: KubeObject) -> None:
        """Whatever forbids it for one Job (a policy, a webhook) says nothing of the next. Raises ClusterUnavailable."""
        try:
            self.repair(job)
        except ClusterUnavailable:
            raise
        except ClusterError as error:
            log.warning("%s. Nobody reports the end of Job %s until it is mended", error, objects.name_of(job))
