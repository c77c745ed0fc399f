"""One dispatcher process in the world: the real stages on fake ports, with nothing of its own that outlives it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError
from dispatcher.config.settings import Settings
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.job_gauges import JobGauges
from dispatcher.controller.metadata_repair import MetadataRepair
from dispatcher.controller.pace import Pace
from dispatcher.controller.reconciler import Reconciler
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.decisions.fairness import Lane
from dispatcher.factories import bounds_of, limits_of
from dispatcher.intake.circuit_breaker import CircuitBreakers
from dispatcher.intake.loop import Intake
from dispatcher.launch.creation import Creation
from dispatcher.launch.credentials import ScopedCredentials
from dispatcher.launch.job_spec import JobDefaults
from dispatcher.launch.launcher import Launcher
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.launch.teams import TeamNetworks
from dispatcher.queue.messages import QueuePair
from dispatcher.relay import rules
from dispatcher.relay.relay import Relay
from dispatcher.relay.tokens import RelayTokens
from dispatcher.telemetry.job_events import NULL_RECORDER, JobEvents
from dispatcher.telemetry.metrics import Metrics
from portal_client.errors import PortalError
from portal_client.reporting import PLAUSIBLE_LAG
from tests.world import json_objects as objects
from tests.world.builders import TEMPLATE
from tests.world.simulated.fakes import FakeCluster, FakePortal, FakeQueue, FakeStorage, VirtualEvent
from tests.world.simulated.world import TRAINER, World

VISIBILITY = 100.0
# At least the visibility time-out, as the settings demand, and long enough for the second look after a silent watch.
TTL = 400
TEAM_WAIT = 150
SETTINGS = Settings.read(
    {
        "QUEUE_NAME": "requests",
        "AZURE_STORAGE_QUEUE_URL": "https://account.queue.core.windows.net",
        "JOB_TEMPLATE": __file__,  # must exist; TEMPLATE is used
        "STATUS_TRACKING": "off",
        "VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY),
        "MAX_DELIVERIES": "5",
        "LAUNCH_CONCURRENCY": "4",
        "MAX_TIME_LIMIT_SECONDS": "600",
        "IMAGE_PULL_GRACE_SECONDS": "600",
        "CONTAINER_CONFIG_GRACE_SECONDS": "300",
        "UNSCHEDULABLE_LIMIT_SECONDS": "3600",
        "POD_CREATE_GRACE_SECONDS": "300",
        "QUOTA_LIMIT_SECONDS": "3600",
        "MAX_DISRUPTIONS": "0",
        "LOST_NODE_LIMIT_SECONDS": "0",
        "TEAM_WAIT_SECONDS": str(TEAM_WAIT),
        "TTL_AFTER_REPORT_SECONDS": str(TTL),
        "RESYNC_SECONDS": "90",
    }
)
METRICS = Metrics()
Disturb = Callable[[], str]
"""What becomes of one watch event: "now", "drop", "double" or "later" (after the ones that follow it)."""


TOKENS = RelayTokens(["the key of the relay's tokens here"])


@dataclass(frozen=True)
class Parts:
    """The stages to run; a mutation test puts a broken one in."""

    creation: type[Creation] = Creation
    launcher: type[Launcher] = Launcher
    reporter: type[Reporter] = Reporter
    reconciler: type[Reconciler] = Reconciler
    intake: type[Intake] = Intake
    relay: type[Relay] = Relay


class _Idle(BaseException):
    """Nothing is due, or there is no time left: the reconciler's loop ends its turn."""


class _Work(WorkQueue):
    busy: Callable[[], bool] = staticmethod(lambda: False)

    def get(self, timeout: float | None = None) -> str | None:
        key = None if self.busy() else super().get(timeout=0)
        if key is None:
            raise _Idle
        return key

    def add_after(self, key: str, seconds: float) -> None:
        # What is due in no time by rounding would be due for ever on a clock that stands.
        super().add_after(key, max(seconds, 0.01))


class Process:
    """Build it to start it; drop it to kill it. disturb: None lists before every look, else events come by it.

    with_events: whether Events are written (see `write_events`), which no decision rests on.
    """

    def __init__(
        self,
        world: World,
        parts: Parts | None = None,
        disturb: Disturb | None = None,
        name: str = "",
        settings: Settings = SETTINGS,
        with_events: bool = False,
    ) -> None:
        parts = parts or Parts()
        self.world = world
        world.processes += 1
        self.name = name or f"dispatcher-{world.processes}"
        self.watch_silent_until = 0.0  # a half-open watch: silent until then
        self._disturb = disturb
        if disturb is not None:
            world.watch()
        self._resync = settings.resync
        self._cursor = 0
        self._listed_at = float("-inf")
        self._filled = False
        self._ticks = 0
        self.cluster = FakeCluster(world, self.name)
        portal = FakePortal(world, self.name)
        pace = Pace(settings.progress_rate, lambda: world.now)
        self._events = JobEvents(self.cluster, world.epoch) if with_events else None
        events = self._events or NULL_RECORDER
        locks = ModelLocks()
        stopping = VirtualEvent(world)

        def monotonic() -> float:
            return world.now

        self.ended = EndedJobs(settings.ttl_after_report)
        self.repair = MetadataRepair(
            self.cluster, self.ended, stopping=stopping, clock=world.epoch, monotonic=monotonic
        )
        self.cache = ClusterCache(lambda name: self.work.add_after(name, 0.25), monotonic, self.repair.old.leaves_out)
        self.work = _Work(clock=monotonic, urgent=self.cache.may_have_ended)
        self.credentials = (
            ScopedCredentials(self.cluster, FakeStorage(world, self.name), TOKENS.make, clock=world.epoch)
            if world.scoped
            else None
        )
        self.launcher = parts.launcher(
            self.cluster,
            portal,
            parts.creation(self.cluster, TEMPLATE, JobDefaults({}, int(settings.max_time_limit), scoped=world.scoped)),
            credentials=self.credentials,
            networks=TeamNetworks(self.cluster, events),
            lag=settings.status_lag,
            put_budget=min(settings.put_budget, settings.visibility_timeout * 0.4),
            # This world's portal is behind for longer than a refusal is doubted by default.
            doubt=PLAUSIBLE_LAG,
            events=events,
            stopping=stopping,
            clock=world.epoch,
        )
        self.reporter = parts.reporter(
            self.cluster,
            portal,
            METRICS,
            ttl=settings.ttl_after_report,
            lag=settings.status_lag,
            events=events,
            clock=world.epoch,
        )
        self.reconciler = parts.reconciler(
            self.work,
            self.cache,
            self.cluster,
            self.launcher,
            self.reporter,
            locks,
            self.repair,
            self.ended,
            limits=limits_of(settings),
            progress_every=settings.progress,
            pace=pace,
            take_on_after=settings.take_on_after,
            events=events,
            credentials=self.credentials,
            clock=world.epoch,
            monotonic=monotonic,
        )
        self.gauges = JobGauges(
            self.cache,
            self.reconciler.summaries,
            self.ended,
            METRICS,
            stopping=threading.Event(),
            clock=world.epoch,
        )
        self.queue, self.poison_queue = FakeQueue(world, self.name), FakeQueue(world, self.name)
        self.intake = parts.intake(
            {Lane("requests"): QueuePair("requests", self.queue, self.poison_queue)},
            self.launcher,
            locks,
            CircuitBreakers(settings.outage_pause, clock=monotonic),
            METRICS,
            settings,
            bounds=bounds_of(settings),
            active=self.cache.unfinished_by_queue,
            expect=self.cache.expect,
            probe=portal.get_model_status,
            stopping=stopping,
        )

        if world.scoped:
            relay = parts.relay(
                TOKENS,
                FakePortal(world, self.name, author=TRAINER),
                self.cluster,
                locks,
                pace,
                self.cache.job,
                address="",
                auth_method="auto",
                credentials=self.credentials,
                on_outcome=self._witness,
                stopping=stopping,
                # A model that is being worked on is not waited for: who works on it stands still meanwhile.
                patience=(0.0, 0.0),
                monotonic=monotonic,
            )
            world.relays[self.name] = relay.route

    def _witness(self, model_id: str, error: PortalError | None) -> None:
        if error is None or rules.shows_an_outage(error):
            self.reporter.witness(model_id, error)

    def take(self) -> None:
        """Receive one batch of messages and handle it."""
        for message in self.intake._receive(0):
            self.intake.handle(message)

    def tick(self) -> None:
        """What the loops do when each has its turn. May raise Crash and Violation."""
        try:
            self.refresh()
        except ClusterError:
            return
        self.take()
        try:
            self.refresh()
        except ClusterError:
            return
        self._ticks += 1
        if self._ticks % 8 == 1:  # a tenth of a tick's time; no decision rests on them
            self.gauges.set_job_gauges()
        for name in self.known():
            self.work.add(name)
        self.reconcile()

    def reconcile(self) -> None:
        """Look at every Job that is due."""
        try:
            self.reconciler.run(lambda: None)
        except _Idle:
            return

    def write_events(self) -> None:
        """What the thread of the Events does: all that wait."""
        if self._events is not None:
            self._events.close()  # `run` ends behind them
            self._events.run(lambda: None)

    def known(self) -> set[str]:
        """Every Job that may need work: those that exist, and tombstones."""
        return {*self.cache._jobs, *self.cache._tombstones}

    def refresh(self) -> None:
        """A list, or the watch events since the last time."""
        if self.world.now < self.watch_silent_until:
            return
        if self._disturb is not None and self._listed_at >= 0:
            self._receive(self._disturb)
        if self._disturb is None or self.world.now >= self._listed_at + self._resync:
            self.cache.replace("jobs", self.cluster.list_jobs(names.UNREPORTED_JOBS))
            self.cache.replace("pods", self.cluster.list_pods(names.SELECTOR))
            self._filled = self._filled or self.repair.fill_ended()
            self.repair.old.label()
            self._cursor = len(self.world.log)
            self._listed_at = self.world.now

    def _receive(self, disturb: Disturb) -> None:
        late = []
        while self._cursor < len(self.world.log):
            change = self.world.log[self._cursor]
            self._cursor += 1
            fate = disturb()
            if fate == "later":
                late.append(change)
            elif fate != "drop":
                for _ in range(2 if fate == "double" else 1):
                    self._apply(*change)
        for change in late:
            self._apply(*change)

    def _apply(self, kind: str, change: str, item: Any) -> None:
        self.cache.apply(change, objects.job(item) if kind == "jobs" else objects.pod(item))
