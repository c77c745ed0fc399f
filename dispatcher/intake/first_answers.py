"""Whether portal and queue have each given one answer that nobody else gives, since this process began: readiness.

A roll-out waits for it, so that settings which cannot work never replace ones that do; and no message is received
before. An outage later does not take it back: every replica would lose it at once, and no restart would help.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError
from dispatcher.intake.circuit_breaker import CircuitBreakers, Probe
from dispatcher.ports import Cluster, Queue
from dispatcher.queue.messages import QueueError, QueueForbidden
from portal_client.errors import NotFoundUnexplained, PortalError, PortalRefused, PortalUnavailable, StatusUnreadable
from portal_client.protocol import Portal

log = logging.getLogger(__name__)

# No model has this id: a portal that says so has accepted the key.
NO_MODEL = "dispatcher-check"
# Jobs whose models the portal is asked for, the newest of the first page; and what that page holds.
_KNOWN = 3
_PAGE = 50


@dataclass(eq=False)
class FirstAnswers:
    """proofs: by cause, one of `codes.CAUSES`. Each raises while its part has not answered."""

    breakers: CircuitBreakers
    proofs: Mapping[str, Probe]
    _missing: dict[str, str] = field(default_factory=dict, init=False)  # cause → why it is not proven

    def __post_init__(self) -> None:
        self._missing.update(dict.fromkeys(self.proofs, "it is being asked"))

    @property
    def missing(self) -> list[str]:
        """A sentence for each part that has not answered yet."""
        return [f"no answer of the {cause} since the start: {why}" for cause, why in self._missing.copy().items()]

    def ask(self, alive: Callable[[], None]) -> None:
        """Ask each part once. What does not answer opens its circuit breaker, which asks it again."""
        for cause, proof in self.proofs.items():
            probe = functools.partial(self._prove, cause, proof)
            try:
                probe()
            except (PortalError, QueueError, ClusterError) as error:
                self.breakers[cause].trip(str(error), probe, retry_after=getattr(error, "retry_after", None))
            alive()

    def _prove(self, cause: str, proof: Probe) -> None:
        try:
            proof()
        except (PortalError, QueueError, ClusterError) as error:
            if cause in self._missing and self._missing[cause] != str(error):
                self._missing[cause] = str(error)
                log.warning("Not ready, and a roll-out waits: no answer of the %s since the start: %s", cause, error)
            raise
        if self._missing.pop(cause, None) is not None and not self._missing:
            log.info("Ready: %s have answered", " and ".join(self.proofs))


def prove_queue(queue: Queue) -> None:
    """Raises QueueError. A queue is asked for its length; or, without that right, for those that are needed."""
    try:
        queue.depth()
    except QueueForbidden:
        queue.try_rights()


def known_models(cluster: Cluster) -> list[str]:
    """Ids of models that the portal should know: of the newest Jobs of a page. Raises ClusterError."""
    page = list(islice(cluster.list_metadata("jobs", names.SELECTOR), _PAGE))
    page.sort(key=lambda job: job.metadata.creation_timestamp or "", reverse=True)
    return [job.model_id for job in page[:_KNOWN] if job.model_id]


def prove_portal(portal: Portal, known: Iterable[str]) -> bool:
    """Read a model's status. False: it cannot be told from another server's answer, and there is nothing to compare.

    known: ids of models that the portal should know. Raises PortalError where the portal is out of reach, refuses the
    key, or has not a word of its own about any of them: a wrong path in API_BASE_URL, or another application.
    """
    doubt: PortalError | None = None
    asked = 0
    for model_id in (*known, NO_MODEL):
        try:
            portal.get_model_status(model_id)
        except PortalRefused:
            return True  # also "no such model": it has looked at the key and at the question
        except (NotFoundUnexplained, StatusUnreadable) as error:
            doubt, asked = doubt or error, asked + 1
        else:
            return True
    if asked > 1:
        sentence = f"{doubt}; so for {asked - 1} models that have been trained here, too: look at API_BASE_URL"
        raise PortalUnavailable(sentence, status_code=doubt.status_code if doubt else None)
    log.warning("The portal is taken for the portal although nothing shows it: %s", doubt)
    return False
