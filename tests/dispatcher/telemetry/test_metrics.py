"""metrics and job_gauges: what is counted, from what, and with how many series."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterUnavailable, Listing, WatchEvent, WatchExpired
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.job_gauges import JobGauges
from dispatcher.controller.summaries import Summaries, summarise
from dispatcher.controller.watcher import Watcher
from dispatcher.decisions import codes
from dispatcher.intake.circuit_breaker import State
from dispatcher.queue.messages import QueuePair, QueueUnavailable
from dispatcher.telemetry.metrics import BREAKER_STATES, PREFIX, Metrics
from portal_client.errors import ModelUnknown, PortalError, PortalUnavailable
from tests.world.builders import T0, a_condition, a_job, a_pod, failed, failing, running

NOW = T0 + 1000


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"{PREFIX}_{name}", labels)


def gauges(metrics: Metrics, cache: ClusterCache | None = None, **how: Any) -> JobGauges:
    """Before nothing but this cache."""
    return JobGauges(
        cache or ClusterCache(lambda name: None),
        Summaries(),
        EndedJobs(ttl=3600),
        metrics,
        stopping=threading.Event(),
        clock=lambda: NOW,
        **how,
    )


def measured(metrics: Metrics, *jobs: Job, pods: tuple[Pod, ...] = (), **how: Any) -> None:
    """As after a look at each Job: the reported ones have left the cache."""
    cache = ClusterCache(lambda name: None)
    measure = gauges(metrics, cache, **how)
    cache.replace("jobs", [job for job in jobs if not job.is_reported])
    cache.replace("pods", pods)
    for job in jobs:
        if job.is_reported:
            measure.ended.add(job, cache.pods_of(job))
        else:
            measure.summaries.note(job.name, summarise(job, cache.pods_of(job)))
    measure.set_job_gauges()


def a(number: int, *conditions: dict[str, Any], **fields: Any) -> Job:
    return a_job(*conditions, model_id=str(number), uid=f"u{number}", **fields)


def test_every_job_is_counted_in_one_phase(metrics: Metrics) -> None:
    measured(
        metrics,
        a(1, launched=False),
        a(2, suspended=True),
        a(3),
        a(4),
        a(5, failing(), status={"failed": 1}),
        a(6, *failed()),
        a(7, *failed(), reported=True),
        pods=(a_pod(name="p4", model_id="4", job_uid="u4", phase="Running", state=running()),),
    )
    assert {phase: value(metrics, "jobs", phase=phase) for phase in ("launching", "queued", "waiting", "running")} == {
        "launching": 1,
        "queued": 1,
        "waiting": 1,
        "running": 1,
    }
    assert [value(metrics, "jobs", phase=p) for p in ("stopping", "reporting", "failed", "completed")] == [1, 1, 1, 0]
    assert value(metrics, "active_jobs") == 5
    assert value(metrics, "unreported_jobs") == 1


def test_gpus_are_those_that_run_or_wait_for_a_node_of_theirs(metrics: Metrics) -> None:
    template = {"spec": {"containers": [{"name": "trainer", "env": [{"name": "GPUS", "value": "4"}]}]}}
    runs: dict[str, Any] = {"phase": "Running", "state": running()}
    measured(
        metrics,
        a(1, spec={"template": template}),
        a(2, spec={"template": template}),
        a(3, spec={"template": template, "completionMode": "Indexed", "completions": 3}),
        a(4, spec={"template": template, "completionMode": "Indexed", "completions": 3}),
        pods=(
            a_pod(name="p1", model_id="1", job_uid="u1", **runs),
            a_pod(name="p2", model_id="2", job_uid="u2"),
            *(a_pod(name=f"p3-{k}", model_id="3", job_uid="u3", index=k, **runs) for k in range(3)),
            *(a_pod(name=f"p4-{k}", model_id="4", job_uid="u4", index=k, **runs) for k in range(2)),
        ),
    )
    assert value(metrics, "gpus_in_use") == 4 + 3 * 4 + 2 * 4
    assert {phase: value(metrics, "jobs", phase=phase) for phase in ("waiting", "running")} == {
        "waiting": 2,
        "running": 2,
    }


def test_a_phase_that_is_empty_again_is_0_again(metrics: Metrics) -> None:
    measured(metrics, a(1, *failed()), a(2, acknowledged=False, spec={"activeDeadlineSeconds": 600}))
    names_ = ("unreported_jobs", "unacknowledged_jobs", "longest_unacknowledged_seconds", "longest_overdue_seconds")
    assert [value(metrics, name) for name in names_] == [1, 1, 1000, 400]
    assert value(metrics, "longest_in_phase_seconds", phase="reporting") == 1000
    measured(metrics)
    assert [value(metrics, name) for name in names_] == [0, 0, 0, 0]
    assert value(metrics, "longest_in_phase_seconds", phase="reporting") == 0


def test_the_longest_of_a_phase_is_told_and_not_the_latest(metrics: Metrics) -> None:
    since = [a_condition("Failed", at=T0 + second) for second in (900, 100, 500)]
    measured(metrics, *(a(number, end) for number, end in enumerate(since)))
    assert value(metrics, "longest_in_phase_seconds", phase="reporting") == 900


def test_without_a_portal_no_job_waits_to_be_acknowledged(metrics: Metrics) -> None:
    measured(metrics, a(1, acknowledged=False), tracking=False)
    assert value(metrics, "unacknowledged_jobs") == 0


def test_a_job_that_was_taken_away_by_force_waits_for_its_report(metrics: Metrics) -> None:
    cache = ClusterCache(lambda name: None)
    job = a(1)
    cache.replace("jobs", [job])
    cache.apply("DELETED", job)
    gauges(metrics, cache).set_job_gauges()
    assert value(metrics, "unreported_jobs") == 1


def test_a_code_of_the_trainers_own_making_makes_no_series_of_its_own(metrics: Metrics) -> None:
    before = len(list(metrics.outcomes.collect()[0].samples))
    for number in range(50):
        metrics.outcome(f"MadeUp{number}")
    assert len(list(metrics.outcomes.collect()[0].samples)) == before
    assert value(metrics, "outcomes_total", code="Other", fault="user") == 50


def test_every_code_has_one_fault_and_its_series_from_the_beginning(metrics: Metrics) -> None:
    assert set(codes.FAULTS) == {*codes.OUTCOMES, *codes.POISON}
    assert sum(map(len, codes._CODES_OF.values())) == len(codes.FAULTS), "a code stands in two rows"
    samples = {tuple(sample.labels.values()): sample.value for sample in metrics.outcomes.collect()[0].samples}
    assert samples == {(code, codes.FAULTS[code].value): 0 for code in codes.OUTCOMES}


def test_the_first_of_its_kind_is_an_increase(metrics: Metrics) -> None:
    """`increase()` does not see the step from no series to 1."""
    assert value(metrics, "outcomes_total", code="ImagePull", fault="operator") == 0
    assert value(metrics, "poison_entries_total", code="NotJson") == 0
    assert value(metrics, "messages_total", result="duplicate") == 0
    assert value(metrics, "watch_restarts_total", kind="jobs", reason="error") == 0
    assert value(metrics, "defects_total", loop="reconcile") == 0


@pytest.mark.parametrize(
    ("status", "error", "labels"),
    [
        (200, None, {"status": "200", "result": "ok"}),
        (404, ModelUnknown("unknown"), {"status": "404", "result": "unknown_model"}),
        (503, PortalUnavailable("down"), {"status": "503", "result": "unavailable"}),
        (None, PortalUnavailable("no answer"), {"status": "none", "result": "unavailable"}),
    ],
)
def test_a_call_to_the_portal_is_counted_by_what_came_of_it(
    metrics: Metrics, status: int | None, error: PortalError | None, labels: dict[str, str]
) -> None:
    metrics.portal_call("GET", status, error, 0.2)
    assert value(metrics, "portal_calls_total", method="GET", **labels) == 1
    assert value(metrics, "portal_call_seconds_sum", method="GET") == pytest.approx(0.2)


class Impatient(threading.Event):
    """Nobody waits for it."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class Stream:
    """A cluster whose watches end as `ends` says, one after the other; then the watcher is to stop."""

    def __init__(self, stopping: threading.Event, *ends: Exception | None) -> None:
        self._stopping = stopping
        self._ends = list(ends)

    def list_jobs(self, selector: str) -> Listing[Job]:
        return Listing(iter([((), "1")]))

    def watch(self, kind: str, selector: str, resource_version: str, seconds: float) -> Iterator[WatchEvent]:
        yield WatchEvent("BOOKMARK", KubeObject())
        end = self._ends.pop(0)
        if not self._ends:
            self._stopping.set()
        if end is not None:
            raise end


def test_how_a_watch_ended_and_when_it_last_said_something_is_told(metrics: Metrics) -> None:
    stopping = Impatient()
    cluster = Stream(stopping, None, WatchExpired("410"), None, ClusterUnavailable("broke off"))
    watcher = Watcher("jobs", cluster, ClusterCache(lambda name: None), 600, stopping, metrics)  # type: ignore[arg-type]
    watcher.run(lambda: None)
    ends = {
        reason: value(metrics, "watch_restarts_total", kind="jobs", reason=reason) for reason in ("resync", "error")
    }
    assert ends == {"resync": 2, "error": 1}
    assert value(metrics, "watch_restarts_total", kind="jobs", reason="expired") == 1
    assert (value(metrics, "last_list_timestamp_seconds", kind="jobs") or 0) > T0
    assert (value(metrics, "last_event_timestamp_seconds", kind="jobs") or 0) > T0
    assert value(metrics, "last_event_timestamp_seconds", kind="pods") == 0


def test_the_states_of_the_breakers_are_those_of_the_metric() -> None:
    assert tuple(State) == BREAKER_STATES


def test_a_queue_that_cannot_be_asked_has_no_number(metrics: Metrics) -> None:
    """The last one that was known would be told as if it were true."""
    answers: list[int | Exception] = [7, QueueUnavailable("down")]

    def depth() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    poison = Mock(depth=depth)
    measure = gauges(metrics, queues=[QueuePair("requests", Mock(depth=lambda: 3, oldest=lambda: None), poison)])
    measure.set_queue_gauges()
    assert value(metrics, "queue_messages", queue="poison") == 7
    assert value(metrics, "queue_depth", queue="requests", kind="poison") == 7
    measure.set_queue_gauges()
    assert math.isnan(value(metrics, "queue_messages", queue="poison") or 0)


def test_no_label_names_a_model() -> None:
    families = Metrics().registry.collect()
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert not labels & {"model", "model_id", "job", "message_id", names.MODEL_ID}
