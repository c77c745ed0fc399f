"""The relay: takes one request of a training, decides by the rules, asks the portal, answers.

It has no memory that a restart would miss: whether the run may speak is read from its Job, whether a status may be
written from the portal, before each write. What it remembers besides only makes it stricter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field

from dispatcher.cluster.errors import ClusterError, ClusterForbidden
from dispatcher.cluster.jobs import Job
from dispatcher.controller.pace import Pace, of_training
from dispatcher.launch.credentials import DatasetRefused, ScopedCredentials
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.ports import Cluster
from dispatcher.relay import rules
from dispatcher.relay.rules import AskDataset, Read, Reply, Write
from dispatcher.relay.tokens import Claims, RelayTokens
from dispatcher.storage.errors import StorageError
from dispatcher.telemetry import logs
from dispatcher.web.server import Answer, Request
from portal_client import messages
from portal_client.errors import PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus

log = logging.getLogger(__name__)

# What one run may ask, outcomes apart from the rest: so many at once, and so many more a second.
_BURST, _RATE = 20, 5.0
# Reads and progress that are with the portal at a time: outcomes find the portal and us free.
_AT_ONCE = 24
# Seconds to wait for the model's lock, and for a turn of the pace.
_LOCK_PATIENCE, _PACE_PATIENCE = 10.0, 2.0
# Results that somebody may have to look at.
_TOLD = ("forbidden", "malformed", "conflict")
# Runs that are remembered.
_REMEMBERED = 10_000


@dataclass(eq=False)
class Relay:
    """Thread-safe.

    portal: None with STATUS_TRACKING=off; address: API_BASE_URL, which no answer shows. known(name): the Job as the
    cache has it. auth_method: MODEL_API_AUTH_METHOD. credentials: None where trainings share them. on_call(call,
    result): counts. on_outcome(model id, error): how the portal took an outcome. patience: seconds to wait for the
    model's lock, and for a turn of the pace.
    """

    tokens: RelayTokens
    portal: Portal | None
    cluster: Cluster
    locks: ModelLocks
    pace: Pace
    known: Callable[[str], Job | None]
    _: KW_ONLY
    address: str
    auth_method: str
    credentials: ScopedCredentials | None = None
    on_call: Callable[[str, str], None] = lambda call, result: None
    on_outcome: Callable[[str, PortalError | None], None] = lambda model_id, error: None
    stopping: threading.Event = field(default_factory=threading.Event)
    patience: tuple[float, float] = (_LOCK_PATIENCE, _PACE_PATIENCE)
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._budgets = Budgets(self.monotonic)
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._guard = threading.Lock()
        # By run: the outcome that was passed on, or may have been.
        self._told: OrderedDict[Claims, ProcessingStatus] = OrderedDict()

    def route(self, request: Request) -> Answer:
        """One request, answered. Never raises for what a training, the portal or the cluster does."""
        token = rules.token_of(request.headers, self.auth_method)
        claims = None if token is None else self.tokens.check(token)
        if claims is None:
            self.on_call("other", "unauthorized")
            return _answer(rules.unauthorized())
        with logs.bind(model=claims.model_id, job=claims.job):
            wish = rules.wish_of(request.method, request.target, request.body, claims)
            reply = wish if isinstance(wish, Reply) else self._answered(wish, claims)
            self.on_call(_call(wish), reply.result)
            is_told = _is_outcome(wish) or isinstance(wish, AskDataset) or reply.result in _TOLD
            level = logging.INFO if is_told else logging.DEBUG
            what = f"{request.method} {ascii(request.target[:100])[1:-1]}" if isinstance(wish, Reply) else _shown(wish)
            told = claims.model_id, claims.run_id, what, reply.status, reply.result
            log.log(level, "Model %s: run %s asks the relay for %s: %d, %s", *told)
        return _answer(reply)

    def _answered(self, wish: Read | Write | AskDataset, claims: Claims) -> Reply:
        if not self._budgets.spend(claims, urgent=_is_outcome(wish)):
            return rules.too_many()
        try:
            job = rules.of_run(self._job(claims), claims)
            if isinstance(job, Reply):
                return job
            match wish:
                case AskDataset():
                    return self._dataset(wish, claims)
                case _ if self.portal is None:
                    return rules.refusal(404, "refused", "STATUS_TRACKING is off: no status is kept")
                case Read():
                    with self._slot() as mine:
                        return rules.shown(self.portal.get_model_status(claims.model_id)) if mine else rules.busy()
                case Write(status=ProcessingStatus.PROCESSING):
                    with self._slot() as mine:
                        return self._progress(wish, claims, job, self.portal) if mine else rules.busy()
                case Write():
                    return self._write(wish, claims, job, self.portal)
        except PortalError as error:
            level = logging.INFO if _is_outcome(wish) else logging.DEBUG
            log.log(level, "Model %s: run %s: %s", claims.model_id, claims.run_id, error)
            return rules.failed(error, self.address)
        except ClusterError as error:
            log.warning("Model %s: run %s: its Job cannot be looked at: %s", claims.model_id, claims.run_id, error)
            why = "may not" if isinstance(error, ClusterForbidden) else "cannot"
            return rules.unavailable(f"The dispatcher {why} look at the Job now")
        except StorageError as error:
            log.warning("Model %s: run %s: no signature for its dataset: %s", claims.model_id, claims.run_id, error)
            return rules.unavailable("The dispatcher can make no signature for the dataset now; its log tells why")
        raise AssertionError("every wish has its case")

    def _job(self, claims: Claims) -> Job | None:
        """The run's Job. What the cache has against the run is asked of the API server: it may be minutes old."""
        job = self.known(claims.job)
        return job if job is not None and rules.over(job, claims) is None else self.cluster.get_job(claims.job)

    def _progress(self, wish: Write, claims: Claims, job: Job, portal: Portal) -> Reply:
        """In its turn, as all that the portal is told of trainings that have not ended."""
        key = of_training(job.uid)
        wait = self.pace.wait(key)
        if wait > self.patience[1]:
            return rules.paced(wait)  # it keeps its place
        self.stopping.wait(wait)
        with self.pace.turn(key) as mine:
            return self._write(wish, claims, job, portal) if mine else rules.paced(1.0)

    def _write(self, wish: Write, claims: Claims, job: Job, portal: Portal) -> Reply:
        """GET before PUT, beside no other author of this process.

        A crash anywhere here: the training gets no answer, and begins again with its own GET.
        """
        with self.locks.hold(claims.model_id, self.patience[0]) as held:
            if not held:
                return rules.busy()
            shown = portal.get_model_status(claims.model_id).status
            if wish.status.is_terminal or shown.may_start:
                # Read after the status. The cache may be minutes old, and this the status of a next training.
                live = rules.of_run(self.cluster.get_job(claims.job), claims)
                if isinstance(live, Reply):
                    return live
                job = live
            with self._guard:
                told = self._told.get(claims)
            if (refused := rules.before_write(wish, shown, job, told)) is not None:
                return refused
            self._put(wish, claims, portal)
        return rules.written(wish)

    def _dataset(self, wish: AskDataset, claims: Claims) -> Reply:
        """The dataset is noted on the Job: read in its version of now, and beside no renewal of this process."""
        if self.credentials is None:
            # Of a training from before, which RELAY_PORT is still served for: no fault of its configuration.
            return rules.unavailable("CREDENTIALS is not scoped: trainings share the Job template's")
        with self.locks.hold(claims.model_id, self.patience[0]) as held:
            if not held:
                return rules.busy()
            live = rules.of_run(self.cluster.get_job(claims.job), claims)
            if isinstance(live, Reply):
                return live
            try:
                return rules.dataset(self.credentials.for_dataset(live, wish.container))
            except DatasetRefused as error:
                return rules.refusal(403, "refused", str(error))

    def _put(self, wish: Write, claims: Claims, portal: Portal) -> None:
        if wish.status is ProcessingStatus.PROCESSING:
            portal.update_model_status(claims.model_id, wish.status, wish.message or messages.STARTED)
            return
        try:
            portal.update_model_status(claims.model_id, wish.status, wish.message or wish.status.title)
        except PortalError as error:
            if error.ambiguous:
                self._remember(claims, wish.status)
            self.on_outcome(claims.model_id, error)
            raise
        self._remember(claims, wish.status)
        self.on_outcome(claims.model_id, None)

    def _remember(self, claims: Claims, status: ProcessingStatus) -> None:
        with self._guard:
            self._told[claims] = status
            while len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)

    @contextmanager
    def _slot(self) -> Iterator[bool]:
        mine = self._slots.acquire(blocking=False)
        try:
            yield mine
        finally:
            if mine:
                self._slots.release()


class Budgets:
    """How much each run may ask: a bucket of `_BURST` calls that fills by `_RATE` a second, one more for its end."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._left: OrderedDict[tuple[Claims, bool], tuple[float, float]] = OrderedDict()  # calls, and when

    def spend(self, claims: Claims, *, urgent: bool) -> bool:
        """Whether one call is left."""
        key, now = (claims, urgent), self._monotonic()
        with self._lock:
            left, at = self._left.pop(key, (float(_BURST), now))
            left = min(_BURST, left + (now - at) * _RATE)
            self._left[key] = (left - 1 if left >= 1 else left), now
            while len(self._left) > 2 * _REMEMBERED:
                self._left.popitem(last=False)
        return left >= 1


def _is_outcome(wish: object) -> bool:
    return isinstance(wish, Write) and wish.status.is_terminal


def _call(wish: Read | Write | AskDataset | Reply) -> str:
    """For the metric: one of RELAY_CALLS."""
    if isinstance(wish, Write):
        return "outcome" if _is_outcome(wish) else "progress"
    return {Read: "status", AskDataset: "dataset"}.get(type(wish), "other")


def _shown(wish: Read | Write | AskDataset) -> str:
    match wish:
        case Write():
            return wish.status.title
        case AskDataset():
            return f"the dataset {wish.container[:80]!a}"
    return "its status"


def _answer(reply: Reply) -> Answer:
    return Answer(reply.status, reply.body, reply.kind, reply.headers)
