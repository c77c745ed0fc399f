"""Reported Jobs leave every list and watch by their label: who gets it, who loses it again, and who is not fooled."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from dispatcher.cluster import names
from tests.failure_modes.bench import Bench, S, a_world, disturb, live, statuses, undisturbed
from tests.world import json_objects as objects
from tests.world.builders import T0, a_pod, complete, failed, job_json, pod_json, running, terminated
from tests.world.simulated.dispatcher import Process
from tests.world.simulated.faults import Fail
from training_common.times import rfc3339

HIDDEN = {names.REPORTED: "true"}
REPORT = {
    "status": "Failed",
    "code": "DatasetInvalid",
    "sentence": "Invalid dataset: it is empty",
    "portal": "reported",
}


def reported_json(at: float, **wishes: Any) -> dict[str, Any]:
    job = job_json(*failed(), reported=True, **wishes)
    job["metadata"]["annotations"] |= {names.REPORTED: json.dumps(REPORT), names.REPORTED_AT: rfc3339(at)}
    return job


def is_hidden(bench: Bench) -> bool:
    return objects.label(bench.job(), names.REPORTED) is not None


def test_a_job_that_an_older_version_has_reported_is_hidden() -> None:
    bench = Bench()
    bench.put(reported_json(T0), status=S.FAILED)
    bench.pass_time(3600)
    assert bench.look() == ["cluster.patch"], "reported so long ago that no late Processing is on its way"
    assert is_hidden(bench)
    assert bench.look() == []
    assert bench.process.cache.tombstones() == 0
    assert bench.process.ended.get("model-1") is not None, "the status page shows it"


def test_one_that_an_older_version_has_just_reported_is_looked_at_before() -> None:
    bench = Bench()
    bench.put(reported_json(T0), status=S.PROCESSING)  # late, and over its outcome
    assert bench.look() == []
    bench.pass_time(91)
    assert bench.look() == ["portal.get", "cluster.get", "portal.put", "cluster.patch"]
    assert bench.portal() == ("Failed", REPORT["sentence"])
    assert is_hidden(bench)


def test_a_running_job_that_somebody_hid_is_shown_again_and_reported_at_its_end() -> None:
    bench = Bench()
    bench.put(job_json(), pod_json(phase="Running", state=running()))
    bench.look()
    bench.job()["metadata"]["labels"].update(HIDDEN)
    assert bench.look() == ["cluster.get", "cluster.get", "cluster.patch"]
    assert not is_hidden(bench)
    assert bench.portal()[0] == "Processing"
    bench.look()
    assert bench.process.cache.job("model-1") is not None
    bench.put(job_json(*complete()), pod_json(phase="Succeeded", state=terminated(0)))
    bench.look()
    assert bench.portal()[0] == "Completed"
    assert is_hidden(bench)


def test_one_that_was_hidden_while_no_dispatcher_ran_is_found_by_the_next() -> None:
    bench = Bench()
    bench.put(job_json(labels=HIDDEN), pod_json(phase="Running", state=running()))
    bench.look()
    assert not is_hidden(bench)
    assert bench.process.ended.get("model-1") is None


def a_late_launch() -> Bench:
    """A launch stood still after its Processing was sent; a redelivery was reported, and now the launch goes on."""
    bench = Bench()
    bench.put(reported_json(T0, labels=HIDDEN), status=S.PROCESSING)
    bench.pass_time(60)
    bench.process.launcher._resume(objects.job(bench.job()), acknowledged=True, notes={})
    return bench


def test_a_late_launch_brings_a_reported_job_back_and_its_outcome_is_repaired() -> None:
    bench = a_late_launch()
    assert not is_hidden(bench)
    assert "portal.put" in bench.look()
    assert bench.portal() == ("Failed", REPORT["sentence"])
    assert not is_hidden(bench), "its launcher may have another Processing on its way"
    bench.pass_time(91)
    assert bench.look() == ["portal.get", "cluster.patch"]
    assert is_hidden(bench)


def test_a_late_launch_is_looked_at_twice_and_no_more() -> None:
    bench = a_late_launch()
    for _ in range(30):
        bench.process.tick()
        bench.pass_time(10)
    assert is_hidden(bench)
    assert [call for _, call in bench.world.calls].count("portal.get") == 2


def test_what_another_replica_reports_is_no_deletion(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world("invalid-unreported")
    first, second = Process(world, disturb=lambda: "now"), Process(world, disturb=lambda: "now")
    disturb(world, "portal.put", "before", Fail("503"), times=None, skip=1)
    live(world, first, second, most=3, until_settled=False)
    assert statuses(world) == ["Created", "Processing"]
    assert second.cache.job("model-1") is not None
    world.now += 10
    second.tick()
    assert kept(second), "it has tried, too"
    undisturbed(world)
    first.tick()
    assert statuses(world) == ["Created", "Processing", "Failed"]
    seen = len(world.calls)
    with caplog.at_level(logging.WARNING):
        second._receive(lambda: "now")
        assert second.cache.tombstones() == 1, "it is told as it was before its report"
        second.reconciler.reconcile("model-1")
    assert [call for _, call in world.calls[seen:]] == ["cluster.get"]
    assert "was deleted" not in caplog.text
    assert second.cache.tombstones() == 0
    ended = second.ended.get("model-1")
    assert ended is not None
    assert ended.report["code"] == "DatasetInvalid"
    assert second.reconciler.summaries.all() == {}
    assert not kept(second)


def kept(process: Process) -> list[object]:
    """What a process remembers of its tries to report."""
    tries = process.reporter._tries
    return [entry for entry in (tries._writes._refused, *vars(tries).values()) if isinstance(entry, dict) and entry]


def test_a_pod_that_is_told_after_its_job_was_reported_changes_nothing() -> None:
    bench = Bench()
    bench.put(job_json(*complete()), pod_json(phase="Succeeded", state=terminated(0)))
    bench.look()
    assert bench.portal()[0] == "Completed"
    bench.look()
    bench.process.cache.apply("MODIFIED", a_pod(phase="Succeeded", state=terminated(0), version="2"))
    assert bench.process.cache._pods == {}
    bench.process.reconciler.reconcile("model-1")
    assert [call for _, call in bench.world.calls].count("portal.put") == 1


def test_a_watch_that_is_behind_its_own_report_counts_and_reports_nothing_twice() -> None:
    bench = Bench()
    bench.put(job_json(*failed()), pod_json(phase="Failed", state=terminated(65)))
    bench.look()
    before = len(bench.world.calls)
    bench.process.cache.replace("jobs", [objects.job(job_json(*failed()))])  # a state from before the report
    bench.process.cache.released(objects.job(job_json()))
    bench.process.reconciler.reconcile("model-1")
    assert len(bench.world.calls) == before
    assert bench.process.ended.get("model-1") is not None
