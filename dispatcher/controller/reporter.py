"""Outcome → portal until acknowledged, then the one patch that releases the Job.

The Job under its finalizer is the outbox: what could not be reported is found again by whoever lists Jobs next. Every
report is a GET before a PUT, so it is idempotent: anyone may repeat it at any time.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

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
from training_common.times import rfc3339

log = logging.getLogger(__name__)

_PATCH_ATTEMPTS = 5
# How often the portal has to refuse an outcome before it is given up; the tries back off.
_REFUSALS = 5


@dataclass(eq=False)
class Reporter:
    """The portal's side of a Job's life after its launch. The caller holds the model's lock.

    portal: None with STATUS_TRACKING=off. ttl: seconds for which a reported Job is kept.
    """

    cluster: Cluster
    portal: Portal | None
    metrics: Metrics
    _: KW_ONLY
    ttl: int
    events: EventRecorder = NULL_RECORDER
    clock: Callable[[], float] = time.time

    _refusals: dict[str, int] = field(default_factory=dict, init=False)  # by the Job's uid

    def report(self, job: KubeObject, ended: Ended) -> None:
        """Send the outcome to the portal, then release the Job. Raises PortalError (retryable) and ClusterError.

        A crash between the two: the next one GETs, finds its own status there, and only patches.
        """
        try:
            result = self._send(job, ended)
        except PortalError as error:
            sentence = f"{_status_of(ended).title} is not reported yet, and tried again: {error}"
            self.events.record(job, "ReportDelayed", sentence, "Warning", once="")
            raise
        self._release(job, ended, result)
        title, verdict = _status_of(ended).title, ended.verdict
        self.metrics.outcome(verdict.code)
        sentence = f"{verdict.code}: {verdict.sentence} ({result})"
        self.events.record(job, title, sentence, "Normal" if ended.completed else "Warning")
        log.info("Model %s: %s (%s), %s: %s", objects.model_id_of(job), title, verdict.code, result, verdict.sentence)

    def report_deleted(self, job: KubeObject, ended: Ended) -> None:
        """The Job was deleted by force before it was reported: there is nothing left to patch."""
        result = self._send(job, ended)
        self.metrics.outcome(ended.verdict.code)
        model_id, name = objects.model_id_of(job), objects.name_of(job)
        log.warning("Model %s: Job %s was deleted before its outcome was reported; %s", model_id, name, result)

    def repair(self, job: KubeObject) -> None:
        """If a late Processing has overwritten the outcome that was reported, report that again. Raises as `report`.

        The portal has no compare-and-set: a Processing that was on its way when its sender gave up or died, or whose
        sender stood still between its GET and its PUT, overwrites whatever is there.
        """
        report = objects.report_of(job)
        if not {"status", "code", "sentence"} <= report.keys():
            return
        ended = Ended(report["status"] == "Completed", Verdict(str(report["code"]), str(report["sentence"])))
        if self.portal is None or report.get("portal") != "reported":
            return
        model_id = objects.model_id_of(job)
        if self.portal.get_model_status(model_id).status is not ProcessingStatus.PROCESSING:
            return
        # Read after the status: still the same Job, so this Processing is not that of a next training.
        if self._live(job) is None:
            return
        log.warning("Model %s: a late Processing has overwritten its outcome; reporting it again", model_id)
        self.portal.update_model_status(model_id, _status_of(ended), ended.verdict.sentence)
        self.metrics.repaired_outcomes.inc()
        sentence = f"A late Processing had overwritten {_status_of(ended).title} at the portal: reported again"
        self.events.record(job, "Repaired", sentence, "Warning")

    def stop(self, job: KubeObject, verdict: Verdict) -> KubeObject:
        """End a Job that would go on for ever: the verdict and a deadline in the past, in one patch.

        The Job controller then fails the Job and ends its pods; a crash here leaves the verdict on the Job.
        """
        log.warning("Model %s: stopping its Job: %s: %s", objects.model_id_of(job), verdict.code, verdict.sentence)
        self.events.record(job, "Stopping", f"{verdict.code}: {verdict.sentence}", "Warning")
        metadata = {"uid": objects.uid_of(job), "annotations": stop_annotations(verdict)}
        return self.cluster.patch_job(
            objects.name_of(job), {"metadata": metadata, "spec": {"activeDeadlineSeconds": 1}}
        )

    def progress(self, job: KubeObject, message: str, *, instead_of: str | None = None) -> None:
        """Write under Processing what the model waits for, if the portal has Processing. Raises PortalError.

        instead_of: only where this message of ours still stands there. A pod may have started meanwhile and its Job
        have been reported: its outcome is repaired then.
        """
        model_id = objects.model_id_of(job)
        if self.portal is None:
            return
        now = self.portal.get_model_status(model_id)
        if now.status is not ProcessingStatus.PROCESSING or instead_of not in (None, now.message):
            return
        if now.message == message:
            return  # another replica has written it
        self.portal.update_model_status(model_id, ProcessingStatus.PROCESSING, message)
        current = self.cluster.get_job(objects.name_of(job))
        if current is not None and objects.is_reported(current):
            self.repair(current)

    def acknowledge(self, job: KubeObject) -> None:
        """Send the Processing that the portal did not take at the launch, unless it has a later status by now."""
        if self.portal is None:
            return
        model_id = objects.model_id_of(job)
        status = self.portal.get_model_status(model_id).status
        if status.is_terminal:
            return
        if status.may_start:
            # The cache may be minutes old: another replica may have acknowledged and reported this Job meanwhile, and
            # a user may ask for a new training by now. None of that may be overwritten.
            live = self._live(job)
            if live is None or objects.is_finished(live) or objects.is_deleting(live) or objects.is_acknowledged(live):
                return
            self.portal.update_model_status(model_id, ProcessingStatus.PROCESSING, messages.STARTED)
        patch = {"metadata": {"uid": objects.uid_of(job), "annotations": {names.ACKNOWLEDGED: "true"}}}
        current = self.cluster.patch_job(objects.name_of(job), patch)
        self.events.record(job, "Processing", "The portal has acknowledged Processing")
        if objects.is_reported(current):
            self.repair(current)

    def _live(self, job: KubeObject) -> KubeObject | None:
        """This very Job (by uid) as the API server has it now; None where it is gone or another has its name."""
        live = self.cluster.get_job(objects.name_of(job))
        return live if live is not None and objects.uid_of(live) == objects.uid_of(job) else None

    def _send(self, job: KubeObject, ended: Ended) -> str:
        """GET before PUT; returns the result as one word for the annotation and the log."""
        model_id = objects.model_id_of(job)
        if self.portal is None:
            return "untracked"
        try:
            status = self.portal.get_model_status(model_id).status
            if status.is_terminal:
                return "reported"  # by the trainer, or by an earlier try of ours
            # Read after the status. The cache may be minutes old, and this the status of a next training.
            live = self.cluster.get_job(objects.name_of(job))
            if live is not None and objects.uid_of(live) != objects.uid_of(job):
                return "superseded"
            if live is not None and objects.is_reported(live):
                return "reported"  # by another replica
            if status.may_start and objects.is_acknowledged(live or job):
                return "superseded"  # the user has moved on: nobody asks for this Job's outcome any more
            self.portal.update_model_status(model_id, _status_of(ended), ended.verdict.sentence)
            return "reported"
        except PortalError as error:
            if error.retryable or self._may_pass(job):
                raise
            # It refuses for good (404, another 4xx): logged once as an error, and never tried again (F33).
            self.metrics.refused_reports.inc()
            log.error("Model %s: the portal refuses its outcome: %s", model_id, error)
            self.events.record(job, "ReportRefused", str(error), "Warning")
            return "refused"

    def _may_pass(self, job: KubeObject) -> bool:
        """A refusal counts only when it is repeated: a gateway without its portal answers 404, too."""
        uid = objects.uid_of(job)
        count = self._refusals.pop(uid, 0) + 1
        if count < _REFUSALS:
            self._refusals[uid] = count
        return count < _REFUSALS

    def _release(self, job: KubeObject, ended: Ended, result: str) -> None:
        """The one patch: finalizer off, what was reported, and the time to live."""
        name = objects.name_of(job)
        report = {
            "status": _status_of(ended).title,
            "code": ended.verdict.code,
            "sentence": ended.verdict.sentence,
            "portal": result,
        }
        for _ in range(_PATCH_ATTEMPTS):
            metadata: dict[str, Any] = {
                "uid": objects.uid_of(job),
                # The list of finalizers is replaced as a whole: only in the version that was read.
                "resourceVersion": objects.meta(job).get("resourceVersion"),
                "finalizers": [f for f in objects.meta(job).get("finalizers") or () if f != names.FINALIZER],
                "annotations": {names.REPORTED: json.dumps(report), names.REPORTED_AT: rfc3339(self.clock())},
            }
            try:
                self.cluster.patch_job(name, {"metadata": metadata, "spec": {"ttlSecondsAfterFinished": self.ttl}})
                return
            except ObjectNotFound:
                return
            except ObjectConflict:
                current = self._live(job)
                if current is None or objects.is_reported(current):
                    return
                job = current
        raise ObjectConflict(f"Job {name} changes faster than it can be patched")


def _status_of(ended: Ended) -> ProcessingStatus:
    return ProcessingStatus.COMPLETED if ended.completed else ProcessingStatus.FAILED
