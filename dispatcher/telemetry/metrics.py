"""Prometheus metrics of the dispatcher, on a registry of their own.

Names follow the Prometheus conventions: base units, `_total` for counters, times as seconds since the epoch. Labels
have few values, which are all known: never a model's id. Their series begin at 0, since `increase()` does not see the
first increase of a series that did not exist before.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from importlib.metadata import version
from itertools import product
from typing import Any, TypeVar

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
from dispatcher.decisions.views.phases import ENDED, Phase
from dispatcher.decisions.views.timeline import STEPS, GpuSeconds, Step
from portal_client.errors import ModelUnknown, PortalError, PortalRefused, PortalUnauthorized, StatusUnreadable

PREFIX = "training_dispatcher"

AnyMetric = TypeVar("AnyMetric", Counter, Gauge, Histogram)

# Results of a message besides those of an admission decision.
OTHER_RESULTS = ("outage", "retry", "poison")
LAUNCH_STEPS = ("status", "create", "mark", "credentials", "network", "resume", "delete")
# Why no message is received: the outages that the circuit breaker distinguishes, and our own reasons.
PAUSES = (*CAUSES, "full", "starting", "api_key", "operator")
BREAKER_STATES = ("closed", "open", "half_open")
WATCHED = ("jobs", "pods")
# How a watch ended: by its timer, too far behind (410), or broken.
WATCH_ENDS = ("resync", "expired", "error")
QUEUES = ("requests", "poison")
# Of GPU seconds: of a training's last attempt, by how it ended; and of the attempts before it.
SPENT = ("completed", "failed", "retries")
RELAY_CALLS = ("status", "progress", "outcome", "dataset", "other")
RELAY_RESULTS = (
    "passed",
    "unauthorized",
    "forbidden",
    "over",
    "conflict",
    "paced",
    "malformed",
    "refused",
    "unavailable",
)

# Seconds. A call to a healthy portal or API server takes milliseconds; its time-out is 30 s.
_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Up to the longest visibility timeout that anybody would choose: a quantile is never above the last bucket.
_LAUNCH_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_WAIT_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0)


class Metrics:
    """Every metric of the dispatcher. Thread-safe, as the library is."""

    def __init__(self) -> None:
        # Otherwise the library adds a `_created` series to each of ours.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._queue_and_launch()
        self._jobs()
        self._outside()
        self._inside()

    def _queue_and_launch(self) -> None:
        results = (*(action.value for action in Action), *OTHER_RESULTS)
        self.messages = self._new(Counter, "messages", "Messages handled, by result", result=results)
        what = "Number of messages on the queue, hidden ones included; approximate, for people alone"
        self.queue_messages = self._new(Gauge, "queue_messages", what, queue=QUEUES)
        what = "Age of the oldest visible message on the queue"
        self.oldest_message = self._new(Gauge, "oldest_message_seconds", what)
        # By the queue's name; the two above are of all queues together.
        what = "Number of messages of each queue, hidden ones included, and of its poison queue; approximate"
        self.queue_depth = self._new(Gauge, "queue_depth", what, queue=(), kind=())
        what = "Age of the oldest visible message of each queue"
        self.queue_oldest_message = self._new(Gauge, "queue_oldest_message_seconds", what, queue=())
        self.queue_received = self._new(Counter, "queue_received_messages", "Messages received of each queue", queue=())
        self.queue_active_jobs = self._new(Gauge, "queue_active_jobs", "Unfinished Jobs of each queue", queue=())
        what = "How many more Jobs of each queue may be unfinished now"
        self.queue_room = self._new(Gauge, "queue_room_jobs", what, queue=())
        what = "1 while nothing is received from a queue because it is out of reach, or one message at a time to try"
        self.queue_paused = self._new(Gauge, "queue_paused", what, queue=())
        what = "1 while people have paused a queue alone"
        self.queue_switched_off = self._new(Gauge, "queue_switched_off", what, queue=())
        what = "Number of other namespaces whose dispatchers read this queue, too"
        self.other_readers = self._new(Gauge, "queue_other_namespaces", what)
        what = "Messages put on the poison queue, by reason"
        self.poisoned = self._new(Counter, "poison_entries", what, code=codes.POISON)
        what = "1 while no message is received, by reason"
        self.intake_paused = self._new(Gauge, "intake_paused", what, reason=PAUSES)
        what = "1 for the state that each circuit breaker is in"
        self.breaker_state = self._new(Gauge, "circuit_breaker_state", what, breaker=CAUSES, state=BREAKER_STATES)
        what = "From a received message to its resumed Job, and the message deleted"
        self.launch_seconds = self._new(Histogram, "launch_seconds", what, _LAUNCH_BUCKETS)
        what = "One step of a launch, however it ended"
        self.launch_step_seconds = self._new(Histogram, "launch_step_seconds", what, _CALL_BUCKETS, step=LAUNCH_STEPS)
        what = "From a message put on the queue to its resumed Job"
        self.queue_wait_seconds = self._new(Histogram, "queue_wait_seconds", what, _WAIT_BUCKETS)

    def _jobs(self) -> None:
        self.active_jobs = self._new(Gauge, "active_jobs", "Number of unfinished Jobs")
        what = "Number of unfinished Jobs at which receiving pauses"
        self.max_active_jobs = self._new(Gauge, "max_active_jobs", what)
        self.jobs = self._new(Gauge, "jobs", "Number of Jobs by phase", phase=Phase)
        what = "Time in this phase of the Job that has been in it longest"
        unended = [phase for phase in Phase if phase not in ENDED]
        self.longest_in_phase = self._new(Gauge, "longest_in_phase_seconds", what, phase=unended)
        what = "Number of GPUs that trainings hold, on all their nodes together, as asked for"
        self.gpus_in_use = self._new(Gauge, "gpus_in_use", what)
        what = "Number of ended Jobs whose outcome the portal has not acknowledged"
        self.unreported_jobs = self._new(Gauge, "unreported_jobs", what)
        what = "Number of launched Jobs whose Processing the portal has not acknowledged"
        self.unacknowledged_jobs = self._new(Gauge, "unacknowledged_jobs", what)
        what = "Time since the launch of the oldest of the unacknowledged Jobs"
        self.longest_unacknowledged = self._new(Gauge, "longest_unacknowledged_seconds", what)
        what = "Time by which the most overdue unfinished Job is past its own time limit"
        self.longest_overdue = self._new(Gauge, "longest_overdue_seconds", what)
        what = "Jobs reported to the portal, by code, and whose fault it was"
        self.outcomes = self._new(Counter, "outcomes", what, code=(), fault=())
        for code in codes.OUTCOMES:
            self.outcomes.labels(code, codes.FAULTS[code])
        what = "How long a step of a training took, by step; as far as its objects and the trainer's last words show it"
        self.step_seconds = self._new(Histogram, "training_step_seconds", what, _WAIT_BUCKETS, step=STEPS)
        what = "GPUs times the seconds that reported trainings held them, by what became of it"
        self.gpu_seconds = self._new(Counter, "gpu_seconds", what, spent=SPENT)
        self.refused_reports = self._new(Counter, "refused_reports", "Outcomes that the portal refused for good")
        what = "Outcomes reported again because a late Processing had overwritten them"
        self.repaired_outcomes = self._new(Counter, "repaired_outcomes", what)

    def _outside(self) -> None:
        what = "Calls to the portal, by HTTP status (none: no answer) and result"
        self.portal_calls = self._new(Counter, "portal_calls", what, method=(), status=(), result=())
        what = "One call to the portal, however it ended"
        self.portal_call_seconds = self._new(
            Histogram, "portal_call_seconds", what, _CALL_BUCKETS, method=("GET", "PUT")
        )
        what = "Calls of trainings to the relay, by what was asked for and what became of it"
        self.relay_calls = self._new(Counter, "relay_calls", what, call=RELAY_CALLS, result=RELAY_RESULTS)
        what = "Calls to the API server, by HTTP status (none: no answer)"
        self.cluster_calls = self._new(Counter, "cluster_calls", what, verb=(), resource=(), status=())
        what = "One call to the API server except watches, however it ended"
        self.cluster_call_seconds = self._new(Histogram, "cluster_call_seconds", what, _CALL_BUCKETS, verb=())
        what = "Watches that ended, by reason"
        self.watch_restarts = self._new(Counter, "watch_restarts", what, kind=WATCHED, reason=WATCH_ENDS)
        what = "When Jobs or pods were last listed in full"
        self.last_list = self._new(Gauge, "last_list_timestamp_seconds", what, kind=WATCHED)
        what = "When the last event of a watch arrived"
        self.last_event = self._new(Gauge, "last_event_timestamp_seconds", what, kind=WATCHED)

    def _inside(self) -> None:
        self.loop_silent = self._new(Gauge, "loop_silent_seconds", "Time since a loop last made progress", loop=())
        what = "Number of Jobs that are queued for the reconciler or with it"
        self.work_queue = self._new(Gauge, "work_queue_jobs", what)
        what = "Errors of the dispatcher itself, each told in the log; loop watch: objects that it cannot read"
        self.defects = self._new(Counter, "defects", what, loop=("intake", "reconcile", "watch"))
        what = "Always 1; the versions that run"
        info = self._new(Gauge, "build_info", what, version=(), python_version=(), kubernetes_client_version=())
        info.labels(version("training-dispatcher"), platform.python_version(), version("kubernetes")).set(1)

    def step(self, step: str) -> AbstractContextManager[object]:
        """Time one step of a launch, one of LAUNCH_STEPS."""
        return self.launch_step_seconds.labels(step).time()

    def outcome(self, code: str) -> None:
        label = codes.label_of(code)
        self.outcomes.labels(label, codes.FAULTS[label]).inc()

    def training(self, found: Iterable[Step], spent: GpuSeconds, *, completed: bool) -> None:
        """A training that was reported: its steps, and the GPU seconds of its last attempt and of those before it."""
        for step in found:
            if step.seconds is not None:
                self.step_seconds.labels(step.name).observe(step.seconds)
        self.gpu_seconds.labels("completed" if completed else "failed").inc(spent.last)
        self.gpu_seconds.labels("retries").inc(spent.retries)

    def portal_call(self, method: str, status: int | None, error: PortalError | None, seconds: float) -> None:
        """Count one call to the portal; the observer of `PortalClient`."""
        result = "ok" if error is None else _PORTAL_RESULTS.get(type(error), "unavailable")
        self.portal_calls.labels(method, str(status or "none"), result).inc()
        self.portal_call_seconds.labels(method).observe(seconds)

    def cluster_call(self, verb: str, resource: str, status: int | None, seconds: float) -> None:
        """Count one call to the API server; the observer of `KubernetesJobs`."""
        self.cluster_calls.labels(verb, resource, str(status or "none")).inc()
        if verb != "watch":
            self.cluster_call_seconds.labels(verb).observe(seconds)

    def pauses(self, reason: str, is_paused: Callable[[], bool]) -> None:
        """Evaluate `is_paused` at each scrape. reason: one of PAUSES."""
        self.intake_paused.labels(reason).set_function(lambda: float(is_paused()))

    def breaker_is(self, breaker: str, state: str, is_it: Callable[[], bool]) -> None:
        """Evaluate `is_it` at each scrape. breaker: one of CAUSES; state: one of BREAKER_STATES."""
        self.breaker_state.labels(breaker, state).set_function(lambda: float(is_it()))

    def _new(
        self,
        kind: type[AnyMetric],
        name: str,
        what: str,
        buckets: tuple[float, ...] | None = None,
        /,
        **labels: Iterable[str],
    ) -> AnyMetric:
        """A metric of ours, with the series of all `labels`' values at 0; none where those of a label are not known."""
        more: dict[str, Any] = {"buckets": buckets} if buckets else {}
        metric = kind(name, what, tuple(labels), namespace=PREFIX, registry=self.registry, **more)
        for values in product(*labels.values()) if labels else ():
            metric.labels(*values)
        return metric


_PORTAL_RESULTS: dict[type[PortalError], str] = {
    ModelUnknown: "unknown_model",
    PortalRefused: "refused",
    PortalUnauthorized: "unauthorized",
    StatusUnreadable: "unreadable",
}
