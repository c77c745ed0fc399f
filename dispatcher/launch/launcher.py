"""The crash-safe steps from a decoded message to a running Job.

    2  GET the model's status           4  PUT Processing
    3  create the Job, suspended        5  resume the Job, noting that it was launched

Steps 1 (receive) and 6 (delete) are intake's. The suspended Job is the record: whoever comes next (this dispatcher
after a crash, another one, the sweep without any message) finds it and goes on at step 4.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from common.times import rfc3339
from dispatcher.cluster import names, objects
from dispatcher.cluster.errors import ClusterUnavailable, ObjectConflict, ObjectInvalid, ObjectNotFound
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions import admission
from dispatcher.decisions.admission import Action, Decision
from dispatcher.launch.job_spec import JobDefaults, build_job
from dispatcher.launch.request import TrainingRequest
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder
from portal_client import messages
from portal_client.errors import PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus

log = logging.getLogger(__name__)

_PUT_ATTEMPTS = 3


class OutOfTime(Exception):
    """The message is not surely ours for long enough to go on: release it."""


class TemplateRefused(Exception):
    """The API server refuses the Job for a reason that is the template's, not the message's."""


@dataclass(frozen=True)
class Delivery:
    """A message in hand. queued_at: epoch seconds; remaining(): seconds for which it is surely ours."""

    message_id: str
    queued_at: float
    remaining: Callable[[], float]


class Launcher:
    """Takes one request through the steps. The caller holds the model's lock.

    portal: None with STATUS_TRACKING=off. put_budget: seconds that a PUT may take at worst; none is begun later than
    that before the message becomes visible to others, so that none of ours can cover what they report.
    kueue_queue: the LocalQueue that resumes the Jobs, "" where we do. identity: of this process, noted on its Jobs.
    timed(step): measures one step.
    """

    def __init__(
        self,
        cluster: Cluster,
        portal: Portal | None,
        template: Mapping[str, Any],
        defaults: JobDefaults,
        *,
        put_budget: float,
        kueue_queue: str = "",
        events: EventRecorder = NULL_RECORDER,
        timed: Callable[[str], AbstractContextManager[object]] = nullcontext,
        stopping: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._portal = portal
        self._template = template
        self._defaults = defaults
        self._put_budget = put_budget
        self._kueue_queue = kueue_queue
        self._events = events
        self._timed = timed
        self._stopping = stopping or threading.Event()
        self._clock = clock
        self.identity = secrets.token_hex(4)

    def launch(self, delivery: Delivery, request: TrainingRequest) -> Decision:
        """Steps 2 to 5, from wherever a crash left them. Returns what became of the message.

        Raises PortalError and ClusterError (nothing was lost: the message comes again), OutOfTime, TemplateRefused.
        """
        with self._timed("status"):
            status = self._status(request.model_id)  # step 2. A crash here: redelivered, nothing happened yet.
        # A refusal needs the Job to tell a stranger's training from our own; a launch learns of it by the 409.
        job = None if status.may_start else self._cluster.get_job(request.model_container)
        decision = admission.decide(status, job, delivery.message_id)
        for _ in range(3):
            if decision.action is not Action.LAUNCH:
                return self._act(decision, job, delivery, request, status)
            if job is not None:
                self._remove(job)
            self._check_time(delivery)
            created = self._create(delivery, request)
            if created is not None:
                self._events.record(
                    created,
                    "Created",
                    f"Created, suspended, for message {delivery.message_id}; Processing is sent next",
                )
                self._go_on(created, request.model_id, delivery, acknowledged=False)
                return decision
            # Somebody was faster. The status is read after the Job, which makes "Created" beside it meaningful.
            job = self._cluster.get_job(request.model_container)
            status = self._status(request.model_id)
            decision = admission.decide(status, job, delivery.message_id)
        return Decision(Action.LATER, "the Job of this name keeps changing")

    def take_on(self, job: KubeObject) -> Decision:
        """A half-launched Job whose message is gone: go on from its annotations. Raises as `launch`."""
        live = self._cluster.get_job(objects.name_of(job))
        if live is None or objects.uid_of(live) != objects.uid_of(job):
            return Decision(Action.DONE, "it is gone")
        # As it is now, not as it was seen: another dispatcher may have launched it, and its user have moved on.
        job = live
        model_id = objects.model_id_of(job)
        status = self._status(model_id)
        decision = admission.decide(status, job, objects.annotation(job, names.MESSAGE_ID) or "")
        if decision.action is Action.ADOPT:
            self._events.record(
                job, "TakenOn", "It was never launched and no message came for it: launching it from its annotations"
            )
            delivery = Delivery("", 0.0, lambda: self._put_budget * 2)
            self._go_on(job, model_id, delivery, acknowledged=status is ProcessingStatus.PROCESSING)
        elif decision.action is Action.ABANDON:
            self._abandon(job)
        return decision

    def probe_template(self) -> None:
        """Ask the API server to check a Job of the bare template, without creating it. Raises ClusterError."""
        request = TrainingRequest(
            "dispatcher-dry-run", "model-dispatcher-dry-run", None, None, None, None, {"task": "train"}
        )
        try:
            self._cluster.create_job(self._build(Delivery("dry-run", 0.0, lambda: 0.0), request), dry_run=True)
        except ObjectConflict:
            return

    def _act(
        self,
        decision: Decision,
        job: KubeObject | None,
        delivery: Delivery,
        request: TrainingRequest,
        status: ProcessingStatus,
    ) -> Decision:
        if job is None:
            return decision
        if decision.action is Action.ADOPT:
            self._events.record(job, "Adopted", "Its message came again: the launch goes on where it had stopped")
            self._go_on(job, request.model_id, delivery, acknowledged=status is ProcessingStatus.PROCESSING)
        elif decision.action is Action.ABANDON:
            self._abandon(job)
        elif decision.action is Action.REPLACE:
            # A crash here: the message comes again and finds the Job being deleted. Its finalizer holds it until its
            # pods are gone; the watcher then finds the portal's status moved on, reports nothing and lets it go.
            log.warning("Model %s: %s", request.model_id, decision.sentence)
            self._events.record(job, "Replaced", f"Stopped for message {delivery.message_id}: {decision.sentence}")
            self._cluster.delete_job(objects.name_of(job), objects.uid_of(job))
        return decision

    def _create(self, delivery: Delivery, request: TrainingRequest) -> KubeObject | None:
        """Step 3. None: the name is taken. A crash right after it: redelivered, the Job is found, on to step 4."""
        job = self._build(delivery, request)
        try:
            with self._timed("create"):
                return self._cluster.create_job(job)
        except ObjectConflict:
            return None
        except ObjectNotFound as error:
            raise TemplateRefused(f"{error}; NAMESPACE must exist") from None
        except ObjectInvalid as error:
            # The message's own fault, or the template's? The template without the message's wishes tells.
            try:
                self.probe_template()
            except ObjectInvalid:
                raise TemplateRefused(f"{error}. Mend the Job template; `dispatcher check` tells more") from None
            raise
        except ClusterUnavailable as error:
            if not error.ambiguous:
                raise
            # The create may have been carried out although its answer was lost (F3).
            found = self._cluster.get_job(request.model_container)
            if found is not None and objects.annotation(found, names.MESSAGE_ID) == delivery.message_id:
                return found
            raise

    def _go_on(self, job: KubeObject, model_id: str, delivery: Delivery, *, acknowledged: bool) -> None:
        """Steps 4 and 5."""
        if not acknowledged:
            self._check_time(delivery)
            with self._timed("mark"):
                acknowledged = self._mark_processing(model_id, delivery)
            if acknowledged:
                self._events.record(job, "Processing", "The portal has acknowledged Processing")
            elif self._portal is not None:
                self._events.record(
                    job,
                    "ProcessingNotAcknowledged",
                    "The portal did not take Processing; the training goes on, and it is sent later",
                    "Warning",
                )
        # A crash here: redelivered (or swept); the Job is still suspended, step 4 is repeated, which changes nothing.
        with self._timed("resume"):
            self._resume(job, acknowledged)
        # A crash here: redelivered; the Job is launched under this message's id, only the deletion is left.
        log.info("Model %s: Job %s launched", model_id, objects.name_of(job))
        whose = f"queued by Kueue in {self._kueue_queue}" if self._kueue_queue else "resumed"
        message_id = objects.annotation(job, names.MESSAGE_ID)
        self._events.record(job, "Launched", f"Launched for message {message_id}: {whose}")

    def _mark_processing(self, model_id: str, delivery: Delivery) -> bool:
        """Step 4: whether the portal has acknowledged Processing. Training goes on without (the document)."""
        if self._portal is None:
            return False
        unsure = False
        for attempt in range(_PUT_ATTEMPTS):
            try:
                if attempt:
                    # The PUT before may have been applied, or whoever else has this message may have come further:
                    # what is there now decides, a repeated PUT must not cover an outcome.
                    status = self._status(model_id)
                    if status is ProcessingStatus.PROCESSING:
                        return True
                    if status.is_terminal:
                        return False
                self._portal.update_model_status(model_id, ProcessingStatus.PROCESSING, messages.STARTED)
                return True
            except PortalError as error:
                unsure = unsure or error.ambiguous
                wait = (error.retry_after or 0.5 * 2**attempt) * random.uniform(1.0, 1.25)  # noqa: S311
                if not error.retryable or delivery.remaining() - wait < self._put_budget:
                    break
                self._stopping.wait(wait)
        # The last one's answer may be all that was lost.
        if unsure and self._is_processing(model_id):
            return True
        log.warning("Model %s: the portal did not take Processing; training goes on, it is sent later", model_id)
        return False

    def _resume(self, job: KubeObject, acknowledged: bool) -> None:
        """Step 5, as one merge patch on this very Job; under Kueue the queue's label, and Kueue resumes it."""
        metadata: dict[str, Any] = {
            "uid": objects.uid_of(job),
            "annotations": {
                names.LAUNCHED_AT: rfc3339(self._clock()),
                names.LAUNCHED_BY: self.identity,
                names.ACKNOWLEDGED: "true" if acknowledged else "false",
            },
        }
        patch: dict[str, Any] = {"metadata": metadata}
        if self._kueue_queue:
            metadata["labels"] = {names.KUEUE_QUEUE_LABEL: self._kueue_queue}
        else:
            patch["spec"] = {"suspend": False}
        self._cluster.patch_job(objects.name_of(job), patch)

    def _abandon(self, job: KubeObject) -> None:
        """Our half-launched Job, and the portal says that the model has ended: nothing of it may start."""
        log.warning("Job %s was never launched and its model has ended: removing it", objects.name_of(job))
        self._events.record(job, "Abandoned", "It was never launched and its model has ended: removed", "Warning")
        self._cluster.delete_job(objects.name_of(job), objects.uid_of(job))
        # A crash here: the watcher finds a deleted Job, the portal's status is terminal, and it lets it go.

    def _remove(self, job: KubeObject) -> None:
        """A finished and reported Job makes room for the next training of its model."""
        try:
            self._cluster.delete_job(objects.name_of(job), objects.uid_of(job))
        except (ObjectNotFound, ObjectConflict):
            return

    def _status(self, model_id: str) -> ProcessingStatus:
        if self._portal is None:
            return ProcessingStatus.CREATED
        return self._portal.get_model_status(model_id).status

    def _is_processing(self, model_id: str) -> bool:
        try:
            return self._status(model_id) is ProcessingStatus.PROCESSING
        except PortalError:
            return False

    def _build(self, delivery: Delivery, request: TrainingRequest) -> dict[str, Any]:
        return build_job(
            self._template,
            request,
            message_id=delivery.message_id,
            queued_at=delivery.queued_at,
            defaults=self._defaults,
        )

    def _check_time(self, delivery: Delivery) -> None:
        if delivery.remaining() < self._put_budget:
            raise OutOfTime
