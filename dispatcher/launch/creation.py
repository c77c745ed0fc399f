"""Step 3 of a launch: the suspended Job, and what the API server and Kueue make of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.errors import (
    ClusterError,
    ClusterUnavailable,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    RequestDenied,
)
from dispatcher.cluster.jobs import Job
from dispatcher.launch.delivery import Delivery
from dispatcher.launch.job_spec import JobDefaults, build_job
from dispatcher.launch.request import DRY_RUN, TrainingRequest
from dispatcher.ports import Cluster

log = logging.getLogger(__name__)


class TemplateRefused(Exception):
    """The API server refuses the Job for a reason that is the template's, not the message's."""


@dataclass(eq=False)
class Creation:
    """Makes suspended Jobs of the template.

    kueue_queue: the LocalQueue that resumes the Jobs by the settings, "" where the launcher does. timed(step): measures
    one step.
    """

    cluster: Cluster
    template: Mapping[str, Any]
    defaults: JobDefaults
    _: KW_ONLY
    kueue_queue: str = ""
    timed: Callable[[str], AbstractContextManager[object]] = nullcontext
    _found_queue: str = field(default="", init=False)  # the LocalQueue that Kueue puts Jobs into by itself

    @property
    def queue(self) -> str:
        """The LocalQueue that resumes the Jobs, "" where the launcher does."""
        return self.kueue_queue or self._found_queue

    def create(self, delivery: Delivery, request: TrainingRequest) -> Job | None:
        """Step 3. None: the name is taken. A crash right after it: redelivered, the Job is found, on to step 4."""
        job = self.build(delivery, request)
        try:
            with self.timed("create"):
                created = self.cluster.create_job(job)
        except ObjectConflict:
            return None
        except (ObjectNotFound, ObjectInvalid):
            # Is it the message or the template? A dry run of the template without the message's wishes decides.
            self.require_template()
            raise
        except ClusterUnavailable as error:
            if not error.ambiguous:
                raise
            # The create may have been carried out although its answer was lost (F3).
            found = self.cluster.get_job(request.model_container)
            if found is None or found.annotations.message_id != delivery.message_id:
                raise
            created = found
        return self._hold(created) if self._is_taken(created) else created

    def require_template(self) -> None:
        """Raises TemplateRefused where the API server takes no Job of the template at all, ClusterError as usual."""
        try:
            self.probe_template()
        except RequestDenied as error:
            hint = "It denies every Job of this template: change the template, or have who runs the policy admit it"
            raise TemplateRefused(f"{error}. {hint}") from None
        except ObjectInvalid as error:
            raise TemplateRefused(f"{error}. Fix the Job template; `dispatcher check` shows more") from None
        except ObjectNotFound as error:
            raise TemplateRefused(f"{error}; NAMESPACE must exist") from None

    def probe_template(self) -> Job | None:
        """Ask the API server to check a Job of the bare template, without creating it. Raises ClusterError.

        Returns what it would have made of it; None where the name is taken.
        """
        with suppress(ObjectConflict):
            return self.cluster.create_job(self.build(Delivery("dry-run", 0.0, lambda: 0.0), DRY_RUN), dry_run=True)
        return None

    def look_for_kueue(self) -> None:
        """Whether Kueue takes Jobs that nobody has given to it: they are held back until the portal was told (F51).

        Raises nothing: where it cannot be asked, the answer to the first Job's creation tells.
        """
        with suppress(ClusterError):
            if (made := self.probe_template()) is not None:
                self._is_taken(made)

    def _is_taken(self, made: Job) -> bool:
        """Whether Kueue has labelled a Job at its creation. From then on Jobs are made, and resumed, for its queue."""
        queue = made.labels.kueue_queue
        if queue in (None, names.KUEUE_HOLD):
            return False
        if queue != self._found_queue:
            log.warning(
                "Kueue queues Jobs in %s by itself: set KUEUE_QUEUE=%s, which is what is done now", queue, queue
            )
            self._found_queue = queue
        return True

    def _hold(self, job: Job) -> Job:
        """Give a Job that Kueue has queued by itself, and resumes within seconds, to a queue that does not exist.

        A crash before it: Kueue may start the training before the portal was told; it is adopted.
        """
        held = {"uid": job.uid, "labels": {names.KUEUE_QUEUE_LABEL: names.KUEUE_HOLD}}
        try:
            return self.cluster.patch_job(job.name, {"metadata": held})
        except ObjectInvalid:
            return job  # Kueue was faster, and has resumed it

    def build(self, delivery: Delivery, request: TrainingRequest) -> dict[str, Any]:
        """The Job as the API server is sent it."""
        return build_job(
            self.template,
            request,
            message_id=delivery.message_id,
            queued_at=delivery.queued_at,
            defaults=self.defaults,
            shown=delivery.shown,
            kueue=bool(self.queue),
            queue=delivery.queue,
        )
