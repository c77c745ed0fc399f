"""Wiring only: builds the parts, runs the loops, stops them.

queue ──intake──▶ launcher ──▶ Job (suspended ▶ resumed)
                     │            │ list + watch
                   portal ◀── reporter ◀── reconciler ◀── cache
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from dispatcher import factories
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.config.placeholders import placeholders
from dispatcher.config.settings import Settings
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.job_gauges import JobGauges
from dispatcher.controller.kueue_workloads import KueueWorkloads
from dispatcher.controller.metadata_repair import MetadataRepair
from dispatcher.controller.node_sizes import NodeSizes
from dispatcher.controller.pace import Pace
from dispatcher.controller.reconciler import Reconciler
from dispatcher.controller.reporter import Reporter
from dispatcher.controller.watcher import Watcher
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.decisions.readers import perhaps
from dispatcher.intake.circuit_breaker import CircuitBreakers, Probe
from dispatcher.intake.first_answers import FirstAnswers, known_models, prove_portal, prove_queue
from dispatcher.intake.gauges import IntakeGauges
from dispatcher.intake.loop import Intake
from dispatcher.intake.pause_switch import PauseSwitch
from dispatcher.intake.queue_readers import QueueReaders
from dispatcher.intake.refusals import Refusals
from dispatcher.launch.creation import Creation
from dispatcher.launch.credentials import ScopedCredentials
from dispatcher.launch.launcher import Launcher
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.launch.teams import TeamNetworks
from dispatcher.loops import Loops
from dispatcher.relay import rules
from dispatcher.relay.listener import listen_to_trainings, open_relay, tokens_of
from dispatcher.telemetry.job_events import JobEvents
from dispatcher.telemetry.metrics import Metrics
from dispatcher.web.health import Heartbeats, Readiness
from dispatcher.web.listen import listen
from dispatcher.web.status_feeds import StatusFeeds
from dispatcher.web.status_page import Process, StatusPage
from dispatcher.web.status_rows import Rules
from portal_client.errors import NotFoundUnexplained, PortalError, PortalRefused, StatusUnreadable

log = logging.getLogger(__name__)

EXIT_LOOP_DIED = 70

# What may fail at the portal beside status checks: see `CircuitBreaker.trip`.
_WRITE = "write"

# Seconds after all else has stopped for trainings' calls that are under way.
_LAST_ANSWERS = 5.0

# Seconds that the events of one change of a Job are apart at most.
_BURST = 0.25


class App:
    """The running dispatcher. Build it, `run` it once."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError (TemplateError), ClusterForbidden and QueueForbidden for what cannot work."""
        self._settings = settings
        self._stopping = threading.Event()
        self._heartbeats = Heartbeats()
        self._metrics = Metrics()
        self._loops = Loops(self._stopping, self._heartbeats, self._metrics)
        self._breakers = CircuitBreakers(settings.outage_pause, queues=settings.queues)
        template = factories.read_template(settings)
        factories.say_what_is_left_out(settings, template)
        self._placeholders = list(placeholders(settings, os.environ, template))
        self._bounds = factories.bounds_of(settings, template)
        self._cluster = KubernetesJobs(
            settings.namespace,
            pool_size=settings.launch_concurrency
            + settings.report_concurrency
            + (12 if settings.relay_listens_on else 4),
            on_call=self._metrics.cluster_call,
            on_defect=self._metrics.defects.labels("watch").inc,
        )
        self._queues = factories.open_queues(settings)
        self._lanes = factories.lanes_of(settings)
        self._portal = factories.open_portal(settings, self._on_portal_call)
        self._locks = ModelLocks()
        self._events = JobEvents(self._cluster)
        self._ended = EndedJobs(settings.ttl_after_report)
        self._repair = MetadataRepair(self._cluster, self._ended, self._events, self._stopping)
        # A change of a Job comes as a burst of events (the Job, its pod, their status): looked at once.
        self._cache = ClusterCache(
            lambda name: self._work.add_after(name, _BURST), leaves_out=self._repair.old.leaves_out
        )
        self._work = WorkQueue(urgent=self._cache.may_have_ended)
        self._refusals = Refusals()
        self._credentials = self._make_credentials()
        self._creation = Creation(
            self._cluster,
            template,
            factories.defaults_of(settings),
            kueue_queue=settings.kueue_queue,
            timed=self._metrics.step,
        )
        self._launcher = Launcher(
            self._cluster,
            self._portal,
            self._creation,
            put_budget=settings.put_budget,
            lag=settings.status_lag,
            credentials=self._credentials,
            networks=TeamNetworks(self._cluster, self._events) if settings.team_network_policy else None,
            events=self._events,
            timed=self._metrics.step,
            stopping=self._stopping,
            elsewhere=self._elsewhere,
        )
        self._readers = QueueReaders(
            [pair.requests for pair in self._queues],
            self._cluster.place,
            self._cluster.namespace,
            stopping=self._stopping,
        )
        self._pace = Pace(settings.progress_rate)
        self._reporter = self._make_reporter()
        self._reconciler = self._make_reconciler()
        self._relay = open_relay(
            settings,
            factories.open_relay_portal(settings, self._metrics.portal_call),
            self._cluster,
            self._locks,
            self._pace,
            self._cache.job,
            self._metrics,
            credentials=self._credentials,
            on_outcome=self._on_told_outcome,
            stopping=self._stopping,
        )
        self._intake = self._make_intake()
        self._first = self._make_first_answers()
        self._switch = PauseSwitch(
            self._cluster, self._launcher.identity, self._intake.in_hand, stopping=self._stopping
        )
        self._page = self._make_page()
        self._connect_metrics()

    def _make_credentials(self) -> ScopedCredentials | None:
        settings = self._settings
        if not settings.scoped:
            return None
        return ScopedCredentials(self._cluster, factories.open_signatures(settings), tokens_of(settings).make)

    def _make_reporter(self) -> Reporter:
        return Reporter(
            self._cluster,
            self._portal,
            self._metrics,
            ttl=self._settings.ttl_after_report,
            lag=self._settings.status_lag,
            events=self._events,
            on_outage=self._on_refused_outcomes,
        )

    def _make_reconciler(self) -> Reconciler:
        settings = self._settings
        kueue = KueueWorkloads(self._cluster.list_workloads, settings.progress, self._events)
        return Reconciler(
            self._work,
            self._cache,
            self._cluster,
            self._launcher,
            self._reporter,
            self._locks,
            self._repair,
            self._ended,
            limits=factories.limits_of(settings),
            progress_every=settings.progress,
            pace=self._pace,
            take_on_after=settings.take_on_after,
            events=self._events,
            on_defect=self._metrics.defects.labels("reconcile").inc,
            kueue=kueue if settings.kueue_queue else None,
            nodes=NodeSizes(self._cluster.list_nodes),
            credentials=self._credentials,
        )

    def _make_intake(self) -> Intake:
        return Intake(
            dict(zip(self._lanes, self._queues, strict=True)),
            self._launcher,
            self._locks,
            self._breakers,
            self._metrics,
            self._settings,
            bounds=self._bounds,
            active=self._cache.unfinished_by_queue,
            expect=self._cache.expect,
            probe=self._probe_portal,
            stopping=self._stopping,
            refusals=self._refusals,
            holds=self._holds,
            # What a launch may take is bounded by its message's visibility timeout: it begins nothing after that.
            working=lambda: self._heartbeats.work("launch", self._settings.visibility_timeout),
        )

    def _make_first_answers(self) -> FirstAnswers:
        proofs: dict[str, Probe] = {
            self._breakers.cause_of(pair.name): functools.partial(prove_queue, pair.requests) for pair in self._queues
        }
        portal = factories.open_reading_portal(self._settings)
        if portal is not None:
            proofs["portal"] = lambda: prove_portal(portal, known_models(self._cluster))
        return FirstAnswers(self._breakers, proofs)

    def _make_page(self) -> StatusPage:
        settings = self._settings
        feeds = StatusFeeds(
            self._queues,
            factories.open_reading_portal(settings),
            progress_every=settings.progress,
            stopping=self._stopping,
        )
        return StatusPage(
            self._cache,
            self._reconciler.summaries,
            self._ended,
            feeds,
            self._refusals,
            rules=Rules(factories.limits_of(settings), self._bounds),
            process=Process(identity=self._launcher.identity, namespace=self._cluster.namespace),
            lanes=self._lanes,
            active=self._cache.unfinished_by_queue,
            most=settings.max_active_jobs,
            not_ready=self.pauses,
            paused=lambda queue: pause.sentence if (pause := self._switch.pause_of(queue)) is not None else "",
            elsewhere=self._elsewhere,
        )

    def _elsewhere(self) -> str:
        """Who else may have launched a model that trains and has no Job here."""
        return perhaps(self._readers.others, self._cluster.namespace)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit code. Raises CannotListen."""
        settings = self._settings
        log.info("Settings: %r", settings)
        for sentence in self._placeholders:
            log.warning("%s", sentence)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        servers = listen(settings, self._heartbeats, self.readiness, self._metrics.registry, self._page)
        relay = listen_to_trainings(settings, self._relay, servers)
        if self._portal is not None and not settings.api_key:
            # The client has warned "API_KEY not configured". Without the key no status can be checked, and a model
            # whose status is unknown must not be trained.
            log.warning("No message is taken until API_KEY is set; set it and restart, or set STATUS_TRACKING=off")
            self._stopping.wait()
        else:
            self._run_loops()
        if relay is not None:
            # Trainings are served to the last: what they tell now need not be told by anybody else.
            relay.finish(_LAST_ANSWERS)
        for server in servers:
            server.stop()
        if self._loops.died:
            return EXIT_LOOP_DIED
        log.info("Stopped; running Jobs continue")
        return 0

    def _run_loops(self) -> None:
        settings = self._settings
        for kind in ("jobs", "pods"):
            watcher = Watcher(kind, self._cluster, self._cache, settings.resync, self._stopping, self._metrics)
            self._loops.start(f"watch-{kind}", watcher.run)
        # Adopt what runs before the first message is received (F9).
        while not self._stopping.is_set() and not self._cache.wait_ready(0.5):
            continue
        names = [f"reconcile-{number}" for number in range(settings.report_concurrency)]
        reconcilers = [self._loops.start(name, self._reconciler.run) for name in names]
        events = self._loops.start("events", self._events.run)
        self._loops.start("mend", self._repair.run)
        gauges = JobGauges(
            self._cache,
            self._reconciler.summaries,
            self._ended,
            self._metrics,
            stopping=self._stopping,
            tracking=self._portal is not None,
            queues=self._queues,
        )
        self._loops.start("gauges", gauges.run)
        if not settings.kueue_queue:
            self._creation.look_for_kueue()
        self._loops.start("pause", self._switch.run)
        self._loops.start("readers", self._readers.run)
        intake = self._loops.start("intake", self._take_in)
        self._stopping.wait()
        deadline = time.monotonic() + settings.shutdown_grace
        intake.join(settings.shutdown_grace)
        self._work.close()
        for thread in reconcilers:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._events.close()
        events.join(max(0.0, min(2.0, deadline - time.monotonic())))

    def _holds(self, queue: str) -> bool:
        return self._switch.holds(queue)

    def _take_in(self, alive: Callable[[], None]) -> None:
        self._first.ask(alive)
        self._intake.run(alive)

    def readiness(self) -> Readiness:
        """Of this process, for a roll-out; and what holds up the intake of all, which no restart ends."""
        return Readiness(self._unready(), self._held_up())

    def pauses(self) -> list[str]:
        """Why no work would be taken now."""
        return self._unready() + self._held_up()

    def _unready(self) -> list[str]:
        reasons = []
        if self._portal is not None and not self._settings.api_key:
            reasons.append("API_KEY not configured")
        if not self._cache.ready:
            reasons.append("Jobs and pods were not listed yet")
        elif not reasons and (missing := self._first.missing):
            reasons += [*missing, *self._placeholders]
        if self._stopping.is_set():
            reasons.append("stopping")
        return reasons

    def _held_up(self) -> list[str]:
        reasons = [f"intake pauses: {reason}" for reason in self._breakers.reasons]
        if self._switch.pause is not None:
            reasons.append(f"intake is {self._switch.pause.sentence}")
        switched_off = [pause for queue, pause in self._switch.queues.items() if queue in self._settings.queues]
        reasons += [f"intake from queue {pause.queue} is {pause.sentence}" for pause in switched_off]
        if self._switch.problem:
            reasons.append(f"whether the intake is paused cannot be read: {self._switch.problem}")
        return reasons

    def _connect_metrics(self) -> None:
        """The gauges that are read at each scrape; the loop `gauges` sets the others."""
        metrics, settings = self._metrics, self._settings
        IntakeGauges(
            self._breakers,
            self._lanes,
            self._cache.unfinished_by_queue,
            settings.max_active_jobs,
            lambda queue: queue in self._switch.queues,
        ).connect(metrics)
        metrics.other_readers.set_function(lambda: self._readers.running)
        metrics.work_queue.set_function(lambda: len(self._work))
        metrics.loop_silent.labels("launch").set_function(lambda: self._heartbeats.silence("launch"))
        metrics.pauses("starting", lambda: not self._cache.ready or not self._switch.is_known)
        metrics.pauses("operator", lambda: self._switch.pause is not None)
        metrics.pauses("api_key", lambda: self._portal is not None and not settings.api_key)

    def _probe_portal(self, model_id: str) -> None:
        """Ask for the status of the model that met the outage: any real answer ends it."""
        # A refusal is an answer, too: this model's status concerns its message alone. So is a 404 without words: the
        # next message may be of a model that the portal knows.
        with suppress(PortalRefused, StatusUnreadable, NotFoundUnexplained):
            if self._portal is not None:
                self._portal.get_model_status(model_id)

    def _on_portal_call(self, method: str, status: int | None, error: PortalError | None, seconds: float) -> None:
        self._metrics.portal_call(method, status, error, seconds)
        if method == "PUT" and error is None:
            self._breakers["portal"].record_success(_WRITE)

    def _on_refused_outcomes(self, sentence: str, model_id: str) -> None:
        """Trainings whose end cannot be told are started one at a time. The probe only reads; a launch writes."""
        self._breakers["portal"].trip(sentence, functools.partial(self._probe_portal, model_id), what=_WRITE)

    def _on_told_outcome(self, model_id: str, error: PortalError | None) -> None:
        """How the portal took an outcome that a training told through the relay: evidence as good as our own."""
        if error is None:
            self._breakers["portal"].record_success(_WRITE)
        if error is None or rules.shows_an_outage(error):
            self._reporter.witness(model_id, error)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping.is_set():
            return
        log.info("%s: no more messages are received; finishing those in flight", signal.Signals(number).name)
        self._stopping.set()
