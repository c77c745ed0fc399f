"""Outcome → portal until acknowledged, then the one patch that lets the Job go.

The Job under its finalizer is the outbox: what could not be reported is found again by whoever lists Jobs next. Every
report is a GET before a PUT, so it may be repeated by anyone at any time.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from common.times import rfc3339
from dispatcher.cluster import names, objects
from dispatcher.cluster.errors import ObjectConflict, ObjectNotFound
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions.outcome import Ended, stop_annotations
from dispatcher.decisions.pod_failure import Verdict
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from dispatcher.telemetry.metrics import Metrics
from portal_client import messages
from portal_client.errors import PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus

log = logging.getLogger(__name__)

_PATCH_ATTEMPTS = 5
# How often the portal has to refuse an outcome before it is believed; the tries back off.
_REFUSALS = 5


class Reporter:
    """The portal's side of a Job's life after its launch. The caller holds the model's lock.

    portal: None with STATUS_TRACKING=off. ttl: seconds that a reported Job is kept.
    """

    def __init__(
        self,
        cluster: Cluster,
        portal: Portal | None,
        metrics: Metrics,
        *,
        ttl: int,
        events: EventRecorder = NULL_RECORDER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._portal = portal
        self._metrics = metrics
        self._ttl = ttl
        self._events = events
        self._clock = clock
        self._refusals: dict[str, int] = {}  # by the Job's uid

    def report(self, job: KubeObject, ended: Ended) -> None:
        """Tell the portal, then release the Job. Raises PortalError (retryable) and ClusterError: come again.

        A crash between the two: the next one GETs, finds its own status there, and only patches.
        """
        try:
            said = self._tell(job, ended)
        except PortalError as error:
            sentence = f"{_status_of(ended).title} is not told yet, and tried again: {error}"
            self._events.record(job, "ReportDelayed", sentence, "Warning", once="")
            raise
        self._release(job, ended, said)
        self._metrics.outcome(ended.verdict.code)
        self._events.record(
            job,
            _status_of(ended).title,
            f"{ended.verdict.code}: {ended.verdict.sentence} ({said})",
            "Normal" if ended.completed else "Warning",
        )
        log.info(
            "Model %s: %s (%s), %s: %s",
            objects.model_id_of(job),
            _status_of(ended).title,
            ended.verdict.code,
            said,
            ended.verdict.sentence,
        )

    def report_deleted(self, job: KubeObject, ended: Ended) -> None:
        """The Job was taken away by force before it was reported: there is nothing left to patch."""
        said = self._tell(job, ended)
        self._metrics.outcome(ended.verdict.code)
        log.warning("Model %s: Job %s vanished unreported; %s", objects.model_id_of(job), objects.name_of(job), said)

    def repair(self, job: KubeObject) -> None:
        """If a late Processing has covered the outcome that was reported, say that once more. Raises as `report`.

        The portal has no compare-and-set: a Processing that was on its way when its sender gave up or died, or whose
        sender stood still between his GET and his PUT, lands on whatever is there.
        """
        told = objects.report_of(job)
        if not {"status", "code", "sentence"} <= told.keys():
            return
        ended = Ended(told["status"] == "Completed", Verdict(str(told["code"]), str(told["sentence"])))
        if self._portal is None or told.get("portal") != "reported":
            return
        model_id = objects.model_id_of(job)
        if self._portal.get_model_status(model_id).status is not ProcessingStatus.PROCESSING:
            return
        # Read after the status: still the same Job, so this Processing is not that of a next training.
        live = self._cluster.get_job(objects.name_of(job))
        if live is None or objects.uid_of(live) != objects.uid_of(job):
            return
        log.warning("Model %s: a late Processing covers its outcome; saying it once more", model_id)
        self._portal.update_model_status(model_id, _status_of(ended), ended.verdict.sentence)
        self._metrics.repaired_outcomes.inc()
        sentence = f"A late Processing had covered {_status_of(ended).title} at the portal: said once more"
        self._events.record(job, "Repaired", sentence, "Warning")

    def stop(self, job: KubeObject, verdict: Verdict) -> KubeObject:
        """End a Job that would go on for ever: the verdict and a deadline in the past, in one patch.

        The Job controller then fails the Job and ends its pods; a crash here leaves the verdict on the Job.
        """
        log.warning("Model %s: stopping its Job: %s: %s", objects.model_id_of(job), verdict.code, verdict.sentence)
        self._events.record(job, "Stopping", f"{verdict.code}: {verdict.sentence}", "Warning")
        return self._cluster.patch_job(
            objects.name_of(job),
            {
                "metadata": {"uid": objects.uid_of(job), "annotations": stop_annotations(verdict)},
                "spec": {"activeDeadlineSeconds": 1},
            },
        )

    def progress(self, job: KubeObject, message: str, *, instead_of: str | None = None) -> bool:
        """Say under Processing what the model waits for, if Processing is what the portal has. Raises PortalError.

        instead_of: only where this message of ours still stands there. False: the portal has something else. A pod that
        started meanwhile may have been covered; so the Job is looked at once more afterwards.
        """
        model_id = objects.model_id_of(job)
        if self._portal is None:
            return False
        now = self._portal.get_model_status(model_id)
        if now.status is not ProcessingStatus.PROCESSING or instead_of not in (None, now.message):
            return False
        if now.message == message:
            return True  # another dispatcher has said it
        self._portal.update_model_status(model_id, ProcessingStatus.PROCESSING, message)
        self._look_again(job)
        return True

    def acknowledge(self, job: KubeObject) -> None:
        """Send the Processing that the portal did not take at the launch, unless it has a later status by now."""
        if self._portal is None:
            return
        model_id = objects.model_id_of(job)
        status = self._portal.get_model_status(model_id).status
        if status.is_terminal:
            return
        if status.may_start:
            # The cache may be minutes old: another replica may have acknowledged and reported this Job meanwhile, and
            # a user may ask for a new training by now. Nothing of that may be covered.
            live = self._cluster.get_job(objects.name_of(job))
            if live is None or objects.uid_of(live) != objects.uid_of(job):
                return
            if objects.is_finished(live) or objects.is_deleting(live) or objects.is_acknowledged(live):
                return
            self._portal.update_model_status(model_id, ProcessingStatus.PROCESSING, messages.STARTED)
        patch = {"metadata": {"uid": objects.uid_of(job), "annotations": {names.ACKNOWLEDGED: "true"}}}
        current = self._cluster.patch_job(objects.name_of(job), patch)
        self._events.record(job, "Processing", "The portal has acknowledged Processing")
        if objects.is_reported(current):
            self.repair(current)

    def _look_again(self, job: KubeObject) -> None:
        current = self._cluster.get_job(objects.name_of(job))
        if current is not None and objects.is_reported(current):
            self.repair(current)

    def _tell(self, job: KubeObject, ended: Ended) -> str:
        """GET before PUT; returns what happened, as one word for the annotation and the log."""
        model_id = objects.model_id_of(job)
        if self._portal is None:
            return "untracked"
        try:
            status = self._portal.get_model_status(model_id).status
            if status.is_terminal:
                return "reported"  # the trainer spoke first, or an earlier try of ours
            # Read after the status. The cache may be minutes old, and this the status of a next training.
            live = self._cluster.get_job(objects.name_of(job))
            if live is not None and objects.uid_of(live) != objects.uid_of(job):
                return "superseded"
            if live is not None and objects.is_reported(live):
                return "reported"  # by another dispatcher
            if status.may_start and objects.is_acknowledged(live or job):
                return "superseded"  # someone has moved on; what the Job did is no longer asked for
            self._portal.update_model_status(model_id, _status_of(ended), ended.verdict.sentence)
            return "reported"
        except PortalError as error:
            if error.retryable or self._may_pass(job):
                raise
            self._refused(job, error)
            return "refused"

    def _may_pass(self, job: KubeObject) -> bool:
        """A refusal counts when it is repeated: a gateway without its portal answers 404, too."""
        uid = objects.uid_of(job)
        count = self._refusals[uid] = self._refusals.get(uid, 0) + 1
        if count < _REFUSALS:
            return True
        del self._refusals[uid]
        return False

    def _refused(self, job: KubeObject, error: PortalError) -> None:
        """For good (404, another 4xx): said once, loudly, and never again (F33)."""
        self._metrics.refused_reports.inc()
        log.error("Model %s: the portal refuses its outcome: %s", objects.model_id_of(job), error)
        self._events.record(job, "ReportRefused", str(error), "Warning")

    def _release(self, job: KubeObject, ended: Ended, said: str) -> None:
        """The one patch: finalizer off, what was reported, and the time to live."""
        name = objects.name_of(job)
        for _ in range(_PATCH_ATTEMPTS):
            told = {
                "status": _status_of(ended).title,
                "code": ended.verdict.code,
                "sentence": ended.verdict.sentence,
                "portal": said,
            }
            metadata: dict[str, Any] = {
                "uid": objects.uid_of(job),
                # The list of finalizers is replaced as a whole: only the version that was read may be.
                "resourceVersion": objects.meta(job).get("resourceVersion"),
                "finalizers": [f for f in objects.meta(job).get("finalizers") or () if f != names.FINALIZER],
                "annotations": {
                    names.REPORTED: json.dumps(told),
                    names.REPORTED_AT: rfc3339(self._clock()),
                },
            }
            try:
                self._cluster.patch_job(name, {"metadata": metadata, "spec": {"ttlSecondsAfterFinished": self._ttl}})
                return
            except ObjectNotFound:
                return
            except ObjectConflict:
                current = self._cluster.get_job(name)
                if current is None or objects.uid_of(current) != objects.uid_of(job) or objects.is_reported(current):
                    return
                job = current
        raise ObjectConflict(f"Job {name} changes faster than it can be patched")


def _status_of(ended: Ended) -> ProcessingStatus:
    return ProcessingStatus.COMPLETED if ended.completed else ProcessingStatus.FAILED
