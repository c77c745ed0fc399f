"""The latest reported Jobs, which no list has any more: bounded, the newest, until their time is over."""

from __future__ import annotations

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller import ended_jobs
from dispatcher.controller.ended_jobs import EndedJobs
from tests.world import json_objects as objects
from tests.world.builders import T0, a_pod, complete, job_json
from training_common.times import rfc3339

TTL = 3600.0


def reported(number: int, at: float | None = None) -> Job:
    job = job_json(*complete(), model_id=str(number), uid=f"uid-{number}", reported=True)
    job["metadata"]["annotations"][names.REPORTED_AT] = rfc3339(T0 + number if at is None else at)
    return objects.job(job)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> EndedJobs:
    monkeypatch.setattr(ended_jobs, "_MOST", 20)
    return EndedJobs(TTL)


def kept(ended: EndedJobs, now: float = T0) -> set[str]:
    return {each.job.name for each in ended.latest(now)}


def test_what_is_kept_is_bounded_and_the_newest(ended: EndedJobs) -> None:
    for number in (*range(100, 0, -1), *range(101, 201)):
        ended.add(reported(number))
        assert len(kept(ended)) <= 22
    assert kept(ended) >= {f"model-{number}" for number in range(181, 201)}


def test_of_those_that_the_cluster_has_the_newest_are_taken(ended: EndedJobs) -> None:
    found = ended.fill(KubeObject(reported(number).metadata) for number in range(1, 101))
    newest = {f"model-{number}" for number in range(81, 101)}
    assert set(found) == kept(ended) == newest


def test_it_is_known_whether_older_ones_are_left_out(ended: EndedJobs) -> None:
    ended.fill(KubeObject(reported(number).metadata) for number in range(1, 21))
    assert not ended.is_cut
    ended.fill(KubeObject(reported(number).metadata) for number in range(1, 22))
    assert ended.is_cut
    kept(ended, T0 + TTL + 3)  # the first of those that are kept has gone: so have all that were left out
    assert not ended.is_cut
    for number in range(22, 30):
        ended.add(reported(number))
    assert ended.is_cut


def test_a_list_does_not_replace_what_is_known_with_its_pods(ended: EndedJobs) -> None:
    ended.add(reported(1), [a_pod()])
    assert ended.fill([KubeObject(reported(1).metadata)]) == ["model-1"]
    assert [each.seen for each in ended.latest(T0)] == [(reported(1), a_pod())]
    assert ended.get("model-1") == reported(1)


def test_they_are_forgotten_when_they_are_gone_or_trained_anew(ended: EndedJobs) -> None:
    for number in (1, 2, 3):
        ended.add(reported(number, at=T0 + 100 * number))
    assert kept(ended, T0 + TTL + 100) == {"model-2", "model-3"}
    assert ended.get("model-1") is None
    ended.drop("model-2")
    ended.drop("never seen")
    assert kept(ended) == {"model-3"}


def test_a_time_that_somebody_made_unreadable_is_that_of_its_creation(ended: EndedJobs) -> None:
    job = job_json(*complete(), reported=True)
    job["metadata"]["annotations"][names.REPORTED_AT] = "yesterday"
    ended.add(objects.job(job))
    assert kept(ended, T0 + TTL - 1) == {"model-1"}
    assert kept(ended, T0 + TTL) == set()
