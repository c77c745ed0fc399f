"""The tries to report an outcome, and what the portal has answered to those before.

In memory, but for the time of the first refusal: a restart begins each count anew, which only makes us more patient.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from dispatcher.cluster import names
from dispatcher.cluster.errors import ObjectConflict, ObjectNotFound
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import timestamp
from dispatcher.decisions.own_writes import own_writes
from dispatcher.decisions.verdicts import Ended
from dispatcher.ports import Cluster
from portal_client import reporting
from portal_client.errors import PortalError, StatusInDoubt, WriteConflict
from portal_client.protocol import Portal
from portal_client.reporting import OutcomeWrites, Step
from portal_client.statuses import ProcessingStatus
from training_common.times import rfc3339

log = logging.getLogger(__name__)

# An outcome that is refused is offered again after a tenth of the time that it has been refused for; seconds, at most.
_REFUSED_PAUSE_MAX = 300.0


@dataclass(eq=False)
class Tries:
    """Of all Jobs; one worker at a time has a Job. lag, on_outage(sentence, model_id): see Reporter."""

    cluster: Cluster
    portal: Portal | None
    clock: Callable[[], float]
    on_outage: Callable[[str, str], None]
    lag: float

    _writes: OutcomeWrites = field(default_factory=OutcomeWrites, init=False)
    # By the Job's uid: when a look first contradicted our writes, when the outcome was first refused (epoch seconds),
    # and how often in a row the portal has failed on it.
    _doubted: dict[str, float] = field(default_factory=dict, init=False)
    _refused: dict[str, float] = field(default_factory=dict, init=False)
    _server_errors: dict[str, int] = field(default_factory=dict, init=False)

    def taken(self, model_id: str) -> None:
        """The portal has an outcome of the model."""
        self._writes.taken(model_id, self.clock())

    def refused(self, model_id: str, error: PortalError) -> None:
        """The portal has not taken the outcome of the model."""
        self._writes.refused(model_id, str(error))
        if words := self._writes.outage():
            self.on_outage(f"The portal takes no outcome of any model; they are kept on their Jobs. {words}", model_id)

    def are_over(self, job: Job) -> None:
        self._writes.forget(job.model_id)
        self._doubted.pop(job.uid, None)
        self._refused.pop(job.uid, None)
        self._server_errors.pop(job.uid, None)

    def are_superseded(self, job: Job, shown: ProcessingStatus) -> bool:
        """Whether somebody has moved on. Raises StatusInDoubt where the portal may only lag behind."""
        now = self.clock()
        own = own_writes(job, now, self.lag)
        first = self._doubted.get(job.uid)
        step = reporting.before_write(shown, own, None if first is None else now - first)
        if step is Step.LOOK_AGAIN:
            self._doubted.setdefault(job.uid, now)
            # Tried again by the work queue's own pauses: most caches have forgotten it long before it is believed.
            raise StatusInDoubt(
                f"The portal shows {shown.title} for model {job.model_id} although it has acknowledged Processing: its "
                f"answers may lag behind, so it is believed only where it stays for {self.lag:.0f} s"
            )
        self._doubted.pop(job.uid, None)
        if step is Step.SUPERSEDED:
            log.warning(
                "Model %s: the portal shows %s again: somebody has moved on, and its outcome is not reported",
                job.model_id,
                shown.title,
            )
        return step is Step.SUPERSEDED

    def write(self, job: Job, ended: Ended) -> None:
        """PUT the outcome, with shorter words where the portal dislikes these. Raises PortalError."""
        assert self.portal is not None
        model_id, texts = job.model_id, wordings_of(ended)
        try:
            taken = reporting.write(self.portal, model_id, status_of(ended), texts, self._server_errors.get(job.uid, 0))
        except WriteConflict:
            raise
        except PortalError as error:
            if reporting.may_become_the_words(error):
                self._server_errors[job.uid] = self._server_errors.get(job.uid, 0) + 1
            self.refused(model_id, error)
            raise
        self.taken(model_id)
        if taken != texts[0]:
            log.warning("Model %s: the portal did not take the whole sentence, only %r", model_id, taken)

    def are_given_up(self, job: Job, error: PortalError) -> bool:
        """Whether the portal's refusal ends the matter. If not, and if it is one, it is noted on the Job."""
        if error.retryable:
            return False
        now = self.clock()
        noted = timestamp(job.annotations.refused_at)
        since = self._refused.setdefault(job.uid, now if noted is None else noted)
        others_taken = self._writes.others_taken(job.model_id, since)
        step = reporting.after_failure(error, words_left=False, refused_for=now - since, others_taken=others_taken)
        if step is Step.GIVEN_UP:
            return True
        if noted is None:
            # A crash before it: the day begins anew.
            note = {"metadata": {"uid": job.uid, "annotations": {names.REFUSED_AT: rfc3339(since)}}}
            with suppress(ObjectNotFound, ObjectConflict):
                self.cluster.patch_job(job.name, note)
        error.retry_after = max(error.retry_after or 0.0, min(_REFUSED_PAUSE_MAX, (now - since) / 10))
        return False


def wordings_of(ended: Ended) -> tuple[str, ...]:
    return reporting.wordings(ended.verdict.sentence, ended.verdict.code)


def status_of(ended: Ended) -> ProcessingStatus:
    return ProcessingStatus.COMPLETED if ended.completed else ProcessingStatus.FAILED
