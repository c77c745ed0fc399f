"""The crash-safe steps from a decoded message to a running Job.

    2  GET the model's status           4  PUT Processing
    3  create the Job, suspended        4b make its Secret, with scoped credentials
                                        4c make its NetworkPolicy, on several nodes
                                        5  resume the Job, noting that it was launched

Steps 1 (receive) and 6 (delete) are intake's. The suspended Job is the record: whoever comes next (this dispatcher
after a crash, another one, a timer without any message) finds it and goes on at step 4. Every step is idempotent.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterForbidden, ObjectConflict, ObjectInvalid, ObjectNotFound
from dispatcher.cluster.jobs import Job
from dispatcher.decisions import admission
from dispatcher.decisions.admission import Action, Decision, JobEffect
from dispatcher.launch.creation import Creation
from dispatcher.launch.credentials import ScopedCredentials
from dispatcher.launch.delivery import Delivery, OutOfTime
from dispatcher.launch.request import TrainingRequest
from dispatcher.launch.teams import TeamNetworks
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client import messages, reporting
from portal_client.errors import PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus
from training_common.backoff import exponential, jittered
from training_common.times import rfc3339

log = logging.getLogger(__name__)

_PUT_ATTEMPTS = 3
# Seconds between the looks whether the Secret of a former Job is gone: the garbage collector takes a moment.
_SECRET_PAUSES = (0.25, 0.5, 1.0)
_NO_CREDENTIALS = (
    "it waits for a Secret of its own, which dispatchers with CREDENTIALS=shared do not make. Set CREDENTIALS=scoped "
    "again, or delete the Job and send the request again"
)
# Seconds until the message of a Job that waits for the operator is looked at again.
_OPERATORS_PAUSE = 60.0


@dataclass(eq=False)
class Launcher:
    """Takes one request through the steps. The caller holds the model's lock.

    portal: None with STATUS_TRACKING=off. put_budget: `Settings.put_budget`; no PUT is begun with less than that left
    of the message's visibility timeout, so that none of ours can overwrite what the next receiver reports. lag: seconds
    by which the portal's answers may be behind; doubt: see `admission.decide`. credentials: None where all trainings
    share the template's; networks: None where the pods of a training on several nodes reach each other anyhow.
    identity: of this process, noted on its Jobs. timed(step): measures one step. elsewhere(): who else may have
    launched a model that is Processing without a Job here.
    """

    cluster: Cluster
    portal: Portal | None
    creation: Creation
    _: KW_ONLY
    put_budget: float
    lag: float = reporting.PLAUSIBLE_LAG
    doubt: float = admission.REFUSAL_DOUBT
    credentials: ScopedCredentials | None = None
    networks: TeamNetworks | None = None
    events: EventRecorder = NULL_RECORDER
    timed: Callable[[str], AbstractContextManager[object]] = nullcontext
    stopping: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.time
    elsewhere: Callable[[], str] = lambda: ""
    identity: str = field(default_factory=lambda: secrets.token_hex(4), init=False)

    def launch(self, delivery: Delivery, request: TrainingRequest) -> Decision:
        """Steps 2 to 5, from wherever a crash left them. Returns what became of the message.

        Raises PortalError, ClusterError and StorageError (nothing is lost: the message is redelivered), OutOfTime,
        TemplateRefused.
        """
        asked = self.clock()  # a process may stand still for long with an answer in its hands
        with self.timed("status"):
            status = self._status(request.model_id)  # step 2. A crash here: redelivered, nothing happened yet.
        # A refusal needs the Job to distinguish our own training from another's; a launch learns of it by the 409.
        job = None if status.may_start else self.cluster.get_job(request.model_container)
        decision = self._decide(status, job, delivery, asked)
        for _ in range(3):
            if decision.action.job is not JobEffect.CREATE:
                return self._apply(decision, job, request.model_id, status, delivery)
            if job is not None:
                # Finished and reported: it makes room for the next training of its model.
                with suppress(ObjectNotFound, ObjectConflict):
                    self._delete(job)
            self._check_time(delivery)
            shown = status if self.portal is not None else None
            created = self.creation.create(replace(delivery, shown=shown), request)
            if created is not None:
                return self._go_on(created, request.model_id, delivery, acknowledged=False) or decision
            # Somebody else was faster. The status is read after the Job, which makes "Created" beside it meaningful.
            job = self.cluster.get_job(request.model_container)
            asked = self.clock()
            status = self._status(request.model_id)
            decision = self._decide(status, job, delivery, asked)
        return Decision(Action.LATER, "the Job of this name keeps changing")

    def take_on(self, cached: Job) -> Decision:
        """Launch a half-launched Job whose message is gone, from its annotations. Raises as `launch`."""
        # As it is now, not as the cache has it: another dispatcher may have launched it, and its user have moved on.
        job = self.cluster.get_job(cached.name)
        if job is None or job.uid != cached.uid:
            return Decision(Action.DONE, "it is gone")
        model_id = job.model_id
        asked = self.clock()
        status = self._status(model_id)
        decision = admission.decide(status, job, job.annotations.message_id or "", asked, lag=self.lag)
        return self._apply(decision, job, model_id, status, Delivery("", 0.0, lambda: self.put_budget * 2))

    def tell_refused(self, delivery: Delivery, request: TrainingRequest, sentence: str) -> None:
        """PUT Failed for a model whose Job the API server refuses, unless somebody else speaks for the model.

        The caller holds the model's lock. A crash after it: redelivered, and rejected by the status.
        Raises PortalError and ClusterError, after which it may be repeated; OutOfTime.
        """
        # The Job first, then the status: as at a launch, "Created" means then that nobody has begun.
        if self.portal is None or self.cluster.get_job(request.model_container) is not None:
            return
        if self._status(request.model_id).may_start:
            self._check_time(delivery)
            texts = reporting.wordings(messages.failed(sentence), "JobRefused")
            reporting.write(self.portal, request.model_id, ProcessingStatus.FAILED, texts)

    def probe_cluster(self, name: str) -> None:
        """Do without an effect what a launch asks of the API server, for the Job `name`. Raises ClusterError."""
        self.cluster.get_job(name)
        with suppress(ObjectInvalid, ObjectNotFound):  # these are answers
            self.creation.probe_template()

    def probe_storage(self) -> None:
        """Make a signature that nobody gets. Raises StorageError."""
        if self.credentials is not None:
            self.credentials.probe()

    def _decide(self, status: ProcessingStatus, job: Job | None, delivery: Delivery, asked: float) -> Decision:
        """asked: when the status was asked for (epoch seconds)."""
        sent, lag, doubt = delivery.queued_at, self.lag, self.doubt
        return admission.decide(
            status,
            job,
            delivery.message_id,
            asked,
            queued_at=sent,
            lag=lag,
            doubt=doubt,
            elsewhere=self.elsewhere(),
        )

    def _apply(
        self, decision: Decision, job: Job | None, model_id: str, status: ProcessingStatus, delivery: Delivery
    ) -> Decision:
        """Carry out what was decided about a Job that exists. Returns the decision."""
        if job is None:
            return decision
        match decision.action.job:
            case JobEffect.CONTINUE:
                if job.is_scoped and self.credentials is None:
                    # Before the portal hears of it: its pod would wait for ever for a Secret that nobody makes.
                    log.warning("Model %s: Job %s stays suspended: %s", model_id, job.name, _NO_CREDENTIALS)
                    return Decision(Action.LATER, _NO_CREDENTIALS, _OPERATORS_PAUSE)
                if delivery.message_id:
                    self.events.record(job, "Adopted", "Its message was redelivered: the launch continues")
                else:
                    text = "It was never launched and no message came for it: launched from its annotations"
                    self.events.record(job, "TakenOn", text)
                acknowledged = status is ProcessingStatus.PROCESSING
                return self._go_on(job, model_id, delivery, acknowledged=acknowledged) or decision
            case JobEffect.REMOVE:
                # A crash after it: the watcher finds a deleted Job, the portal's status is terminal, and it is let go.
                log.warning("Job %s was never launched and its model has ended: removing it", job.name)
                text = "It was never launched and its model has ended: removed"
                self.events.record(job, "Abandoned", text, "Warning")
                self._delete(job)
            case JobEffect.STOP:
                # A crash after it: redelivered, and the Job is found being deleted. Its finalizer holds it until its
                # pods are gone; the watcher then finds the portal's status moved on, reports nothing and lets it go.
                log.warning("Model %s: %s", model_id, decision.sentence)
                text = f"Stopped for message {delivery.message_id}: {decision.sentence}"
                self.events.record(job, "Replaced", text)
                self._delete(job)
        return decision

    def _go_on(self, job: Job, model_id: str, delivery: Delivery, *, acknowledged: bool) -> Decision | None:
        """Steps 4 to 5. Returns what becomes of the message where that is not what was decided."""
        if not acknowledged:
            self._check_time(delivery)
            with self.timed("mark"):
                acknowledged = self._mark_processing(model_id, delivery)
            if not acknowledged and self.portal is not None:
                text = "The portal did not accept Processing; the training starts, and it is sent again later"
                self.events.record(job, "ProcessingNotAcknowledged", text, "Warning")
        # A crash here: redelivered or taken on; the Job is still suspended, step 4 is repeated, which changes nothing.
        notes = self._give_credentials(job)
        # A crash here: the same; the Secret is this Job's already, and gets signatures once more.
        if self.networks is not None and job.nodes > 1:
            with self.timed("network"):
                refused = self.networks.open(job)
            if refused:
                # Suspended as it is. Others need not wait for what the operator has to do for this one.
                return Decision(Action.LATER, refused, _OPERATORS_PAUSE)
        # A crash here: the same; the policy is found made.
        try:
            with self.timed("resume"):
                job = self._resume(job, acknowledged, notes)
        except ObjectInvalid as error:
            # The Job was taken as it is: what is denied now is no fault of the message, for which it stands.
            raise ClusterForbidden(f"{error}. The Job stays suspended until it may be resumed") from None
        # A crash here: redelivered; the Job is launched under this message's id, only the deletion is left.
        log.info("Model %s: Job %s launched", model_id, job.name)
        queue = job.labels.kueue_queue
        whose = f"queued by Kueue in {queue}" if queue else "resumed"
        wanted = self.creation.kueue_queue
        if queue and queue != wanted:
            asked = f"KUEUE_QUEUE is {wanted}" if wanted else "KUEUE_QUEUE is not set"
            log.warning("Job %s: Kueue has queued it in %s by itself, and %s", job.name, queue, asked)
            whose += f" by itself, and {asked}"
        message_id = job.annotations.message_id
        # One Event for all steps that went well: each is a call, as dear as a step.
        told = "; the portal has acknowledged Processing" if acknowledged else ""
        where = f" on {job.nodes} nodes" if job.nodes > 1 else ""
        self.events.record(job, "Launched", f"Launched for message {message_id}{where}: {whose}{told}")
        return None

    def _mark_processing(self, model_id: str, delivery: Delivery) -> bool:
        """Step 4: whether the portal has acknowledged Processing. If not, the training starts all the same."""
        if self.portal is None:
            return False
        unsure = False
        for attempt in range(_PUT_ATTEMPTS):
            try:
                if attempt:
                    # The PUT before may have been applied, or another receiver of this message may be further on:
                    # the status now decides, since a repeated PUT must not overwrite an outcome.
                    status = self._status(model_id)
                    if status is ProcessingStatus.PROCESSING:
                        return True
                    if status.is_terminal:
                        return False
                self.portal.update_model_status(model_id, ProcessingStatus.PROCESSING, messages.STARTED)
                return True
            except PortalError as error:
                unsure = unsure or error.ambiguous
                wait = jittered(error.retry_after or exponential(attempt + 1, 0.5, 2.0), 1.0, 1.25)
                if not error.retryable or delivery.remaining() - wait < self.put_budget:
                    break
                self.stopping.wait(wait)
        if unsure:
            # Perhaps the last PUT was applied, and only its answer was lost.
            with suppress(PortalError):
                if self._status(model_id) is ProcessingStatus.PROCESSING:
                    return True
        log.warning("Model %s: the portal did not accept Processing; training starts, it is sent again later", model_id)
        return False

    def _give_credentials(self, job: Job) -> dict[str, str]:
        """Step 4b: the Job's Secret. Returns what step 5 notes of it. A pod that Kueue starts earlier waits for it."""
        if self.credentials is None or not job.is_scoped:
            return {}
        try:
            with self.timed("credentials"):
                for pause in _SECRET_PAUSES:
                    with suppress(ObjectConflict, ObjectNotFound):
                        return self.credentials.give(job)
                    self.stopping.wait(pause)
                return self.credentials.give(job)
        except ObjectConflict as error:
            log.warning("%s", error)
            raise
        except ObjectInvalid as error:
            raise ClusterForbidden(f"{error}. The Job stays suspended until it has its Secret") from None

    def _resume(self, job: Job, acknowledged: bool, notes: Mapping[str, str] | None = None) -> Job:
        """Step 5, as one merge patch on this very Job; under Kueue the queue's label, and Kueue resumes it.

        notes: annotations that it writes as well. Kueue's webhook takes no other label for a Job that is not suspended,
        nor one together with its resume. Where Kueue has resumed the Job already, or queued it without being asked to,
        only the launch is noted.
        """
        if not self.creation.queue and job.labels.kueue_queue == names.KUEUE_HOLD:
            self.creation.look_for_kueue()
        if not self.creation.queue and job.labels.kueue_queue == names.KUEUE_HOLD:
            # Created while Kueue was used. A crash here: redelivered, and it is resumed as any other.
            unlabelled = {"uid": job.uid, "labels": {names.KUEUE_QUEUE_LABEL: None}}
            job = self.cluster.patch_job(job.name, {"metadata": unlabelled})
        annotations = {
            names.LAUNCHED_AT: rfc3339(self.clock()),
            names.LAUNCHED_BY: self.identity,
            names.ACKNOWLEDGED: "true" if acknowledged else "false",
            **(notes or {}),
        }
        # Should a redelivery have had it reported while this process stood still, it has to be looked at once more:
        # without the label it comes back into everybody's lists.
        labels: dict[str, str | None] = {names.REPORTED: None}
        patch: dict[str, Any] = {"metadata": {"uid": job.uid, "annotations": annotations, "labels": labels}}
        queue = job.labels.kueue_queue
        if self.creation.queue and job.is_suspended:
            labels[names.KUEUE_QUEUE_LABEL] = self.creation.queue
        elif not self.creation.queue and queue is None:
            patch["spec"] = {"suspend": False}
        try:
            return self.cluster.patch_job(job.name, patch)
        except ObjectInvalid:
            live = self.cluster.get_job(job.name)
            if live is None or live.uid != job.uid or live.is_suspended or names.KUEUE_QUEUE_LABEL not in labels:
                raise
            # Kueue was faster, as it may be with a Job of an older version: it is launched in the queue it is in.
            del labels[names.KUEUE_QUEUE_LABEL]
            return self.cluster.patch_job(job.name, patch)

    def _delete(self, job: Job) -> None:
        self.cluster.delete_job(job.name, job.uid)

    def _status(self, model_id: str) -> ProcessingStatus:
        if self.portal is None:
            return ProcessingStatus.CREATED
        return self.portal.get_model_status(model_id).status

    def _check_time(self, delivery: Delivery) -> None:
        if delivery.remaining() < self.put_budget:
            raise OutOfTime
