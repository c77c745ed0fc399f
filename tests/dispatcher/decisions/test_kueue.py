"""A Job's place in Kueue's queue, in words: which Workload is its own, who comes first, why it waits."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterForbidden, ObjectNotFound
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Workload
from dispatcher.controller.kueue_workloads import KueueWorkloads
from dispatcher.decisions import kueue
from dispatcher.decisions.kueue import Workloads
from tests.world.builders import JOB_UID, T0, FakeClock, a_condition, a_job
from training_common.times import rfc3339

QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100, 1 more"
PENDING = a_condition("QuotaReserved", "False", "Pending", f"{QUOTA} needed")
RESERVED = a_condition("QuotaReserved", reason="QuotaReserved")
NOW = T0 + 3600


def a_workload(
    *conditions: dict[str, Any],
    owner: str = "another-job",
    queue: str = "training",
    priority: int | None = 0,
    created: float = T0,
    active: bool | None = None,
    checks: list[dict[str, str]] | None = None,
) -> Workload:
    """As Kueue writes it; created: epoch seconds."""
    spec: dict[str, Any] = {"queueName": queue} | ({} if active is None else {"active": active})
    written = {
        "metadata": {
            "name": f"job-{owner}",
            "uid": f"uid-of-{owner}-{created}",
            "creationTimestamp": rfc3339(created),
            "ownerReferences": [{"kind": "Job", "uid": owner, "controller": True}],
        },
        "spec": spec if priority is None else spec | {"priority": priority},
        "status": {"conditions": list(conditions), "admissionChecks": checks or []},
    }
    return msgspec.convert(written, Workload)


OURS = a_workload(PENDING, owner=JOB_UID)


@pytest.mark.parametrize(
    ("other", "ahead"),
    [
        (a_workload(created=T0 - 1), 1),
        (a_workload(created=T0 + 1), 0),
        (a_workload(created=T0 + 1, priority=1), 1),
        (a_workload(created=T0 - 1, priority=-1), 0),
        (a_workload(created=T0 - 1, priority=None), 1),
        (a_workload(created=T0 - 1, queue="another"), 0),
        (a_workload(created=T0 - 1, active=False), 0),
        (a_workload(RESERVED, created=T0 - 1), 0),
        (a_workload(RESERVED, a_condition("Admitted"), created=T0 - 1), 0),
        (a_workload(a_condition("Finished"), created=T0 - 1), 0),
        # Preempted, it keeps its place; after a time-out of its pods it queues anew.
        (a_workload(PENDING, a_condition("Evicted", reason="Preempted", at=T0 + 9), created=T0 - 1), 1),
        (a_workload(PENDING, a_condition("Evicted", reason="PodsReadyTimeout", at=T0 + 9), created=T0 - 1), 0),
        (a_workload(PENDING, a_condition("Evicted", "False", "PodsReadyTimeout", at=T0 + 9), created=T0 - 1), 1),
        (a_workload(PENDING, a_condition("Evicted", reason="AdmissionCheck", at=T0 - 1), created=T0 - 99), 1),
    ],
)
def test_ahead_are_those_of_the_queue_that_wait_and_come_first(other: Workload, ahead: int) -> None:
    assert Workloads([OURS, other]).ahead(OURS) == ahead
    assert kueue.sentence(OURS, Workloads([other, OURS]), NOW) == f"Queued by Kueue: {ahead} ahead ({QUOTA} needed)"


CHECK = {"name": "capacity", "state": "Pending", "message": "a node is being made"}


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (a_workload(), "Queued by Kueue: 0 ahead"),
        (a_workload(PENDING), f"Queued by Kueue: 0 ahead ({QUOTA} needed)"),
        (
            a_workload(RESERVED, checks=[CHECK, {"name": "paid", "state": "Ready"}]),
            "Kueue has a place for the training and waits for capacity: a node is being made",
        ),
        (a_workload(RESERVED), "Kueue has a place for the training and waits for its admission"),
        (a_workload(RESERVED, a_condition("Admitted", at=NOW - 600)), "Admitted by Kueue, about to start"),
        (
            a_workload(RESERVED, a_condition("Admitted", at=NOW - 601)),
            f"Kueue has admitted the training at {rfc3339(NOW - 601)} and not started it. Tell the operator",
        ),
        (a_workload(active=False), "Kueue has deactivated the training. Tell the operator"),
        (
            a_workload(a_condition("Evicted", reason="Deactivated", message="exceeded its retries"), active=False),
            "Kueue has deactivated the training: exceeded its retries. Tell the operator",
        ),
    ],
)
def test_the_sentence_says_what_kueue_waits_for(own: Workload, sentence: str) -> None:
    assert kueue.sentence(own, Workloads([own]), NOW) == sentence


def test_a_workload_that_a_job_of_the_same_name_left_behind_is_not_its_own() -> None:
    left_behind = a_workload(owner="the-job-before", created=T0 + 9)
    assert Workloads([left_behind]).of(a_job()) is None
    newest = a_workload(owner=JOB_UID, created=T0 + 5)
    for listed in ([OURS, newest, left_behind], [left_behind, newest, OURS]):
        assert Workloads(listed).of(a_job()) == newest


class Bench:
    """A KueueWorkloads before Workloads that the test sets, or an error."""

    def __init__(self) -> None:
        self.clock, self.lists = FakeClock(), 0
        self.answer: list[Workload] | Exception = [OURS]
        self.queue = KueueWorkloads(self._list, 30, clock=lambda: NOW, monotonic=self.clock)

    def _list(self) -> list[Workload]:
        self.lists += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def _queued(**wishes: Any) -> Job:
    return a_job(suspended=True, labels={names.KUEUE_QUEUE_LABEL: "training"}, **wishes)


def test_all_jobs_that_wait_share_one_list_in_a_while() -> None:
    bench = Bench()
    for _ in range(100):
        assert (bench.queue.progress(_queued()) or "").startswith("Queued by Kueue: 0 ahead")
        assert bench.queue.progress(_queued(uid="one that Kueue has not seen yet")) is None
    assert bench.lists == 1
    bench.clock.advance(30)
    bench.queue.progress(_queued())
    assert bench.lists == 2


@pytest.mark.parametrize("job", [a_job(), a_job(suspended=True), _queued(launched=False)])
def test_no_list_is_made_for_a_job_that_does_not_wait_for_kueue(job: Job) -> None:
    bench = Bench()
    assert bench.queue.progress(job) is None
    assert bench.lists == 0


@pytest.mark.parametrize("error", [ClusterForbidden("Cannot list workloads: no"), ObjectNotFound("no such resource")])
def test_without_the_right_or_without_kueue_nothing_is_told_and_the_log_says_so_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.answer = error
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert bench.queue.progress(_queued()) is None
            bench.clock.advance(30)
    assert [str(error) in line for line in caplog.messages] == [True]
    bench.answer = [OURS]
    assert bench.queue.progress(_queued()) is not None


def test_a_job_that_kueue_admitted_and_does_not_resume_is_an_alarm_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.answer = [a_workload(RESERVED, a_condition("Admitted", at=T0), owner=JOB_UID)]
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert "Tell the operator" in (bench.queue.progress(_queued()) or "")
            bench.clock.advance(30)
    assert len([line for line in caplog.messages if "has not resumed its Job" in line]) == 1
