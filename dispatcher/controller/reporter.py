"""Outcome → portal until acknowledged, then the one patch that releases the Job.

The Job under its finalizer is the outbox: what could not be reported is found again by whoever lists Jobs next. Every
report is a GET before a PUT, so it is idempotent: anyone may repeat it at any time. What a status or a refusal means is
decided by the table in portal_client.reporting; `tries` remembers the answers before.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.errors import ObjectConflict, ObjectNotFound
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.controller.tries import Tries, status_of, wordings_of
from dispatcher.decisions.verdicts import Ended, Verdict, stop_annotations
from dispatcher.decisions.views import timeline
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from dispatcher.telemetry.metrics import Metrics
from portal_client import messages, reporting
from portal_client.errors import PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus
from training_common.times import rfc3339

log = logging.getLogger(__name__)

_PATCH_ATTEMPTS = 5


@dataclass(eq=False)
class Reporter:
    """The portal's side of a Job's life after its launch. The caller holds the model's lock.

    portal: None with STATUS_TRACKING=off. ttl: seconds for which a reported Job is kept. lag: by how many the
    portal's answers may be behind. on_outage(sentence, model_id): called while the portal takes no outcome of any
    model.
    """

    cluster: Cluster
    portal: Portal | None
    metrics: Metrics
    _: KW_ONLY
    ttl: int
    lag: float = reporting.PLAUSIBLE_LAG
    events: EventRecorder = NULL_RECORDER
    clock: Callable[[], float] = time.time
    on_outage: Callable[[str, str], None] = lambda sentence, model_id: None

    def __post_init__(self) -> None:
        self._tries = Tries(self.cluster, self.portal, self.clock, self.on_outage, self.lag)

    def report(self, job: Job, ended: Ended, pods: Sequence[Pod] = ()) -> Job | None:
        """Send the outcome to the portal, then release the Job; returns it, if it is still there.

        pods: all that are known of it, for what it took. Raises PortalError (retryable) and ClusterError.

        A crash between the two: the next one GETs, finds its own status there, and only patches.
        """
        ended = _with_what_to_do(ended)
        try:
            result = self._send(job, ended)
        except PortalError as error:
            sentence = f"{status_of(ended).title} is not reported yet, and tried again: {error}"
            self.events.record(job, "ReportDelayed", sentence, "Warning", once="")
            raise
        self._tries.are_over(job)
        released = self._release(job, ended, result)
        title, verdict = status_of(ended).title, ended.verdict
        self.metrics.outcome(verdict.code)
        took = timeline.steps(released or job, pods)
        self.metrics.training(took, timeline.gpu_seconds(job, pods), completed=ended.completed)
        sentence = f"{verdict.code}: {verdict.sentence} ({result})"
        self.events.record(job, title, sentence, "Normal" if ended.completed else "Warning")
        log.info("Model %s: %s (%s), %s: %s", job.model_id, title, verdict.code, result, verdict.sentence)
        return released

    def witness(self, model_id: str, error: PortalError | None) -> None:
        """How the portal took an outcome that the training itself has told. error: an outage, not the words' fault."""
        if error is None:
            self._tries.taken(model_id)
        else:
            self._tries.refused(model_id, error)

    def forget(self, job: Job) -> None:
        """Nothing is left to report of it here: another replica may have reported what we have tried to."""
        self._tries.are_over(job)

    def hide(self, job: Job) -> Job:
        """Take a reported Job out of the lists and watches. Raises ClusterError."""
        return self.cluster.patch_job(job.name, {"metadata": {"uid": job.uid, "labels": {names.REPORTED: "true"}}})

    def report_deleted(self, job: Job, ended: Ended) -> None:
        """The Job was deleted by force before it was reported: there is nothing left to patch."""
        ended = _with_what_to_do(ended)
        result = self._send(job, ended)
        self._tries.are_over(job)
        self.metrics.outcome(ended.verdict.code)
        model_id, name = job.model_id, job.name
        log.warning("Model %s: Job %s was deleted before its outcome was reported; %s", model_id, name, result)

    def repair(self, job: Job) -> None:
        """If a late Processing has overwritten the outcome that was reported, report that again. Raises as `report`.

        The portal has no compare-and-set: a Processing that was on its way when its sender gave up or died, or whose
        sender stood still between its GET and its PUT, overwrites whatever is there.
        """
        report = job.report
        if not {"status", "code", "sentence"} <= report.keys():
            return
        ended = Ended(report["status"] == "Completed", Verdict(str(report["code"]), str(report["sentence"])))
        if self.portal is None or report.get("portal") != "reported":
            return
        model_id = job.model_id
        if self.portal.get_model_status(model_id).status is not ProcessingStatus.PROCESSING:
            return
        # Read after the status: still the same Job, so this Processing is not that of a next training.
        if self._live(job) is None:
            return
        log.warning("Model %s: a late Processing has overwritten its outcome; reporting it again", model_id)
        reporting.write(self.portal, model_id, status_of(ended), wordings_of(ended))
        self.metrics.repaired_outcomes.inc()
        sentence = f"A late Processing had overwritten {status_of(ended).title} at the portal: reported again"
        self.events.record(job, "Repaired", sentence, "Warning")

    def stop(self, job: Job, verdict: Verdict) -> Job:
        """End a Job that would go on for ever: the verdict and a deadline in the past, in one patch.

        The Job controller then fails the Job and ends its pods; a crash here leaves the verdict on the Job.
        """
        log.warning("Model %s: stopping its Job: %s: %s", job.model_id, verdict.code, verdict.sentence)
        self.events.record(job, "Stopping", f"{verdict.code}: {verdict.sentence}", "Warning")
        metadata = {"uid": job.uid, "annotations": stop_annotations(verdict)}
        return self.cluster.patch_job(job.name, {"metadata": metadata, "spec": {"activeDeadlineSeconds": 1}})

    def progress(self, job: Job, message: str, *, instead_of: str | None = None) -> None:
        """Write under Processing what the model waits for, if the portal has Processing. Raises PortalError.

        instead_of: only where this message of ours still stands there. A pod may have started meanwhile and its Job
        have been reported: its outcome is repaired then.
        """
        if self.portal is None:
            return
        now = self.portal.get_model_status(job.model_id)
        if now.status is ProcessingStatus.PROCESSING and instead_of in (None, now.message):
            if now.message != message:  # else another replica has written it
                texts = reporting.wordings(message, messages.STARTED)
                reporting.write(self.portal, job.model_id, ProcessingStatus.PROCESSING, texts)
        elif instead_of is None:
            return
        # A crash before the note: it is asked for once more, and found to stand there.
        note = {names.TOLD: message if instead_of is None else None}
        with suppress(ObjectNotFound, ObjectConflict):
            current = self.cluster.patch_job(job.name, {"metadata": {"uid": job.uid, "annotations": note}})
            if current.is_reported:
                self.repair(current)

    def acknowledge(self, job: Job) -> None:
        """Send the Processing that the portal did not take at the launch, unless it has a later status by now."""
        if self.portal is None:
            return
        model_id = job.model_id
        status = self.portal.get_model_status(model_id).status
        if status.is_terminal:
            return
        if status.may_start:
            # The cache may be minutes old: another replica may have acknowledged and reported this Job meanwhile, and
            # a user may ask for a new training by now. None of that may be overwritten.
            live = self._live(job)
            if live is None or live.is_finished or live.is_deleting or live.is_acknowledged:
                return
            self.portal.update_model_status(model_id, ProcessingStatus.PROCESSING, messages.STARTED)
        note = {names.ACKNOWLEDGED: "true", names.ACKNOWLEDGED_AT: rfc3339(self.clock())}
        patch = {"metadata": {"uid": job.uid, "annotations": note}}
        current = self.cluster.patch_job(job.name, patch)
        self.events.record(job, "Processing", "The portal has acknowledged Processing")
        if current.is_reported:
            self.repair(current)

    def _live(self, job: Job) -> Job | None:
        """This very Job (by uid) as the API server has it now; None where it is gone or another has its name."""
        live = self.cluster.get_job(job.name)
        return live if live is not None and live.uid == job.uid else None

    def _send(self, job: Job, ended: Ended) -> str:
        """GET before PUT; returns the result as one word for the annotation and the log. Raises PortalError: try again.

        A crash anywhere here: the next one begins with the GET.
        """
        if self.portal is None:
            return "untracked"
        try:
            shown = self.portal.get_model_status(job.model_id).status
            if shown.is_terminal:
                self._tries.taken(job.model_id)
                return "reported"  # by the trainer, or by an earlier try of ours
            # Read after the status. The cache may be minutes old, and this the status of a next training.
            live = self.cluster.get_job(job.name)
            if live is not None and live.uid != job.uid:
                return "superseded"
            if live is not None and live.is_reported:
                return "reported"  # by another replica
            if self._tries.are_superseded(live or job, shown):
                return "superseded"
            self._tries.write(job, ended)
            return "reported"
        except PortalError as error:
            if not self._tries.are_given_up(job, error):
                raise
            self.metrics.refused_reports.inc()
            log.error("Model %s: the portal refuses its outcome: %s", job.model_id, error)
            self.events.record(job, "ReportRefused", str(error), "Warning")
            return "refused"

    def _release(self, job: Job, ended: Ended, result: str) -> Job | None:
        """The one patch: finalizer off, what was reported, and the time to live. Returns the Job; None: it is gone."""
        name = job.name
        report = {
            "status": status_of(ended).title,
            "code": ended.verdict.code,
            "sentence": ended.verdict.sentence,
            "portal": result,
        }
        for _ in range(_PATCH_ATTEMPTS):
            metadata: dict[str, Any] = {
                "uid": job.uid,
                # The list of finalizers is replaced as a whole: only in the version that was read.
                "resourceVersion": job.metadata.resource_version,
                "finalizers": [f for f in job.metadata.finalizers if f != names.FINALIZER],
                "labels": {names.REPORTED: "true"},
                "annotations": {names.REPORTED: json.dumps(report), names.REPORTED_AT: rfc3339(self.clock())},
            }
            try:
                patch = {"metadata": metadata, "spec": {"ttlSecondsAfterFinished": self.ttl}}
                return self.cluster.patch_job(name, patch)
            except ObjectNotFound:
                return None
            except ObjectConflict:
                current = self._live(job)
                if current is None or current.is_reported:
                    return current
                job = current
        raise ObjectConflict(f"Job {name} changes faster than it can be patched")


def _with_what_to_do(ended: Ended) -> Ended:
    """Portal, Event, log and annotation all say what comes first: a request alone starts nothing after Failed."""
    if ended.completed:
        return ended
    return Ended(False, Verdict(ended.verdict.code, messages.failed(ended.verdict.sentence)))
