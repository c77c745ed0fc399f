"""Prometheus metrics of the dispatcher, on a registry of their own.

Names follow the Prometheus conventions: base units, `_total` for counters, times as seconds since the epoch. Labels
have few values, which are all known: never a model's id. They begin at 0, since the first increase of a series that
was not there before is invisible to `increase()`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from dispatcher.decisions import codes
from dispatcher.decisions.admission import Action
from dispatcher.decisions.codes import CAUSES
from dispatcher.decisions.phases import ENDED, Phase
from portal_client.errors import ModelUnknown, PortalError, PortalRefused, PortalUnauthorized, StatusUnreadable

PREFIX = "training_dispatcher"

# What becomes of a message beside an admission's decision.
OTHER_RESULTS = ("outage", "retry", "poison")
LAUNCH_STEPS = ("status", "create", "mark", "resume", "delete")
# Why no message is received: the outages that the circuit breaker distinguishes, and our own reasons.
PAUSES = (*CAUSES, "full", "starting", "api_key")
WATCHED = ("jobs", "pods")
# How a watch ended: as it should, too far behind (410), or broken.
WATCH_ENDS = ("resync", "expired", "error")
QUEUES = ("requests", "poison")

# Seconds. A call to a portal or API server that is well takes milliseconds; its time-out is 30 s.
_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Up to the longest visibility timeout that anybody would choose: a quantile is never above the last bucket.
_LAUNCH_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_WAIT_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0)


class Metrics:
    """Thread-safe, as the library is."""

    def __init__(self) -> None:
        # A second series for each of ours, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._queue_and_launch()
        self._jobs()
        self._outside()
        self._inside()

    def _queue_and_launch(self) -> None:
        self.messages = self._counter("messages", "Messages handled, by what became of them", "result")
        _begin(self.messages, (*(action.value for action in Action), *OTHER_RESULTS))
        self.queue_messages = self._gauge(
            "queue_messages", "Messages on the queue, hidden ones included; approximate, for people alone", "queue"
        )
        _begin(self.queue_messages, QUEUES)
        self.oldest_message = self._gauge(
            "oldest_message_seconds", "Age of the oldest message that is visible on the queue"
        )
        self.poisoned = self._counter("poison_entries", "Messages put on the poison queue, by reason", "code")
        _begin(self.poisoned, codes.POISON)
        self.intake_paused = self._gauge("intake_paused", "1 while no message is received, by reason", "reason")
        _begin(self.intake_paused, PAUSES)
        self.launch_seconds = self._histogram(
            "launch_seconds", "From a received message to its resumed Job, and the message deleted", _LAUNCH_BUCKETS
        )
        self.launch_step_seconds = self._histogram(
            "launch_step_seconds", "One step of a launch, however it ended", _CALL_BUCKETS, "step"
        )
        _begin(self.launch_step_seconds, LAUNCH_STEPS)
        self.queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "From a message put on the queue to its resumed Job", _WAIT_BUCKETS
        )

    def _jobs(self) -> None:
        self.active_jobs = self._gauge("active_jobs", "Unfinished Jobs")
        self.max_active_jobs = self._gauge("max_active_jobs", "Unfinished Jobs at which receiving pauses")
        self.jobs = self._gauge("jobs", "Jobs by phase", "phase")
        _begin(self.jobs, Phase)
        self.longest_in_phase = self._gauge(
            "longest_in_phase_seconds", "For how long the Job that is longest in this phase has been in it", "phase"
        )
        _begin(self.longest_in_phase, (phase for phase in Phase if phase not in ENDED))
        self.unreported_jobs = self._gauge(
            "unreported_jobs", "Ended Jobs whose outcome the portal has not acknowledged"
        )
        self.unacknowledged_jobs = self._gauge(
            "unacknowledged_jobs", "Launched Jobs whose Processing the portal has not acknowledged"
        )
        self.longest_unacknowledged = self._gauge(
            "longest_unacknowledged_seconds", "Since when the longest of them was launched"
        )
        self.longest_overdue = self._gauge(
            "longest_overdue_seconds", "How far the most overdue unfinished Job is past its own time limit"
        )
        self.outcomes = self._counter("outcomes", "Jobs reported to the portal, by code", "code")
        _begin(self.outcomes, codes.OUTCOMES)
        self.refused_reports = self._counter("refused_reports", "Outcomes that the portal refused for good")
        self.repaired_outcomes = self._counter(
            "repaired_outcomes", "Outcomes said once more, because a late Processing had covered them"
        )

    def _outside(self) -> None:
        self.portal_calls = self._counter(
            "portal_calls",
            "Calls to the portal, by HTTP status (none: no answer) and result",
            "method",
            "status",
            "result",
        )
        self.portal_call_seconds = self._histogram(
            "portal_call_seconds", "One call to the portal, however it ended", _CALL_BUCKETS, "method"
        )
        _begin(self.portal_call_seconds, ("GET", "PUT"))
        self.cluster_calls = self._counter(
            "cluster_calls", "Calls to the API server, by HTTP status (none: no answer)", "verb", "resource", "status"
        )
        self.cluster_call_seconds = self._histogram(
            "cluster_call_seconds",
            "One call to the API server but for watches, however it ended",
            _CALL_BUCKETS,
            "verb",
        )
        self.watch_restarts = self._counter("watch_restarts", "Watches that ended, by reason", "kind", "reason")
        self.last_list = self._gauge("last_list_timestamp_seconds", "When Jobs or pods were last listed whole", "kind")
        self.last_event = self._gauge("last_event_timestamp_seconds", "When the last event of a watch came", "kind")
        for kind in WATCHED:
            self.last_list.labels(kind)
            self.last_event.labels(kind)
            for reason in WATCH_ENDS:
                self.watch_restarts.labels(kind, reason)

    def _inside(self) -> None:
        self.loop_silent = self._gauge("loop_silent_seconds", "Since when a loop has made no progress", "loop")
        self.work_queue = self._gauge("work_queue_jobs", "Jobs that wait to be looked at, or are being looked at")
        self.defects = self._counter(
            "defects", "Errors of the dispatcher itself, each with its traceback in the log", "loop"
        )
        _begin(self.defects, ("intake", "reconcile"))
        info = self._gauge("build_info", "1; what runs", "version", "python_version", "kubernetes_client_version")
        info.labels(version("training-dispatcher"), platform.python_version(), version("kubernetes")).set(1)

    def step(self, step: str) -> AbstractContextManager[object]:
        """Measures one step of a launch, one of LAUNCH_STEPS."""
        return self.launch_step_seconds.labels(step).time()

    def outcome(self, code: str) -> None:
        self.outcomes.labels(codes.label_of(code)).inc()

    def portal_call(self, method: str, status: int | None, error: PortalError | None, seconds: float) -> None:
        """A call to the portal; what `PortalClient` is given as its observer."""
        result = "ok" if error is None else _PORTAL_RESULTS.get(type(error), "unavailable")
        self.portal_calls.labels(method, str(status or "none"), result).inc()
        self.portal_call_seconds.labels(method).observe(seconds)

    def cluster_call(self, verb: str, resource: str, status: int | None, seconds: float) -> None:
        """A call to the API server; what `KubernetesJobs` is given as its observer."""
        self.cluster_calls.labels(verb, resource, str(status or "none")).inc()
        if verb != "watch":
            self.cluster_call_seconds.labels(verb).observe(seconds)

    def pauses(self, reason: str, is_paused: Callable[[], bool]) -> None:
        """Ask `is_paused` whenever somebody asks for the metrics. reason: one of PAUSES."""
        self.intake_paused.labels(reason).set_function(lambda: float(is_paused()))

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", what, labels, buckets=buckets, registry=self.registry)


_PORTAL_RESULTS: dict[type[PortalError], str] = {
    ModelUnknown: "unknown_model",
    PortalRefused: "refused",
    PortalUnauthorized: "unauthorized",
    StatusUnreadable: "unreadable",
}


def _begin(metric: Counter | Gauge | Histogram, values: Iterable[str]) -> None:
    for value in values:
        metric.labels(value)
