"""Dispatchers side by side: who launched a Job reports it; the others step in when he does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import Mock

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.errors import Listing
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.metadata_repair import MetadataRepair
from dispatcher.controller.reconciler import Reconciler
from dispatcher.controller.workqueue import WorkQueue
from dispatcher.launch.model_locks import ModelLocks
from tests.world.builders import LIMITS, T0, FakeClock, a_job, a_pod, complete, failed, terminated

OURS, THEIRS = "0a0a0a0a", "0b0b0b0b"


class Bench:
    """A reconciler before a cache that the test fills."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = ClusterCache(lambda name: None, clock=self.clock)
        self.cache.replace("pods", [])
        self.cluster = Mock()
        self.cluster.list_pods.return_value = Listing([], "1")
        self.reporter = Mock()
        launcher = Mock()
        launcher.identity = OURS
        self.reconciler = Reconciler(
            WorkQueue(clock=self.clock),
            self.cache,
            self.cluster,
            launcher,
            self.reporter,
            ModelLocks(),
            MetadataRepair(self.cluster),
            limits=LIMITS,
            progress_every=30,
            take_on_after=270,
            clock=lambda: T0 + self.clock.now,
            monotonic=self.clock,
        )

    def see(self, job: Mapping[str, Any], *pods: Mapping[str, Any]) -> None:
        self.cache.replace("jobs", [job])
        self.cache.replace("pods", pods)

    def reported(self) -> int:
        self.reconciler.reconcile("model-1")
        return int(self.reporter.report.call_count)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def _ended(launched_by: str | None) -> dict[str, Any]:
    job = a_job(*complete())
    if launched_by is not None:
        job["metadata"]["annotations"][names.LAUNCHED_BY] = launched_by
    return job


@pytest.mark.parametrize("launched_by", [OURS, None], ids=["ours", "nobody's"])
def test_the_one_that_launched_a_job_reports_it_at_once(bench: Bench, launched_by: str | None) -> None:
    bench.see(_ended(launched_by), a_pod(phase="Succeeded"))
    assert bench.reported() == 1


def test_another_one_waits_for_its_report_and_steps_in_when_it_does_not_come(bench: Bench) -> None:
    bench.see(_ended(THEIRS), a_pod(phase="Succeeded"))
    assert bench.reported() == 0
    bench.clock.advance(4)
    assert bench.reported() == 1


def test_an_end_whose_pods_were_not_heard_of_is_told_in_the_trainers_words(bench: Bench) -> None:
    """The watch of pods is silent; the API server has them."""
    said = '{"message": "Invalid dataset: it is empty", "code": "DatasetInvalid", "exit": 65}'
    pod = a_pod(phase="Failed", state=terminated(65, said))
    bench.cluster.list_pods.return_value = Listing([pod], "1")
    bench.see(a_job(*failed("PodFailurePolicy", "Container trainer failed with exit code 65")))
    assert bench.reported() == 1
    ended = bench.reporter.report.call_args.args[1]
    assert (ended.verdict.code, ended.verdict.sentence) == ("DatasetInvalid", "Invalid dataset: it is empty")


def test_nothing_stays_of_jobs_that_were_deleted_or_taken_away(bench: Bench) -> None:
    # Such a Job is never seen as reported: a dispatcher that runs for months would keep a little of each.
    kept = vars(bench.reconciler).values()
    for taken_away in (False, True):
        waiting = a_job(suspended=True)
        waiting["metadata"]["annotations"][names.LAUNCHED_BY] = THEIRS
        bench.see(waiting)
        bench.reported()
        deleted = waiting if taken_away else {**waiting, "metadata": waiting["metadata"] | {"deletionTimestamp": "x"}}
        bench.see(deleted)
        bench.reported()
        bench.clock.advance(4)
        bench.reported()
        bench.cluster.get_job.return_value = None
        bench.cache.replace("jobs", [])
        bench.reported()
        assert bench.reconciler.progress.seen() == {}
        assert [d for d in kept if isinstance(d, dict) and d] == []
    assert bench.reporter.report.call_count == 1
    assert bench.reporter.report_deleted.call_count == 1
