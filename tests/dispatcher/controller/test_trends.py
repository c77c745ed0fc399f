"""How many trainings were launched and ended in each of the last 24 hours, and what a restart still knows of them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.trends import Trend
from dispatcher.decisions import codes
from tests.world import json_objects as objects
from tests.world.builders import FakeClock, job_json
from training_common.times import rfc3339

HOUR = 3600.0
NOW = 1795420800.0 + 1800  # half past an hour
DAY = 24 * HOUR


def launched(model_id: str, at: float) -> Job:
    return objects.job(_json(model_id, at))


def ended(model_id: str, at: float, code: str = "Completed", lasted: float = 600.0) -> Job:
    """Reported at that time."""
    job = _json(model_id, at - lasted)
    status = "Completed" if code == "Completed" else "Failed"
    told = json.dumps({"status": status, "code": code, "sentence": "It ended", "portal": "reported"})
    job["metadata"]["annotations"] |= {names.REPORTED: told, names.REPORTED_AT: rfc3339(at)}
    return objects.job(job)


def _json(model_id: str, at: float) -> dict[str, object]:
    job = job_json(model_id=model_id, uid=f"uid-{model_id}")
    job["metadata"]["annotations"] |= {names.LAUNCHED_AT: rfc3339(at)}
    return job


def listed(*jobs: Job) -> list[KubeObject]:
    """As a list of metadata has them."""
    return [KubeObject(job.metadata) for job in jobs]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def kept(clock: FakeClock) -> EndedJobs:
    return EndedJobs(DAY, clock)


def hours(kept: EndedJobs, *unreported: Job, now: float = NOW) -> list[Trend]:
    return kept.trends(unreported, now)[1]


def sums(kept: EndedJobs, *unreported: Job, now: float = NOW) -> tuple[int, int, dict[str, int]]:
    found = hours(kept, *unreported, now=now)
    failed: Counter[str] = Counter()
    for hour in found:
        failed.update(hour.failed)
    return sum(hour.launched for hour in found), sum(hour.completed for hour in found), dict(failed)


def test_each_training_counts_where_it_was_launched_and_where_it_ended(kept: EndedJobs) -> None:
    kept.add(ended("1", NOW - 10))
    kept.add(ended("2", NOW - 10, "OutOfMemory", lasted=2 * HOUR))
    kept.add(ended("3", NOW - 3 * HOUR, "OutOfMemory", lasted=30 * HOUR))  # launched the day before
    found = hours(kept, launched("4", NOW - HOUR))
    assert len(found) == 24
    assert found[-1] == Trend(rfc3339(NOW - 1800), 1, 1, {"OutOfMemory": 1})
    assert (found[-2].launched, found[-3].launched, found[-4].failed) == (1, 1, {"OutOfMemory": 1})
    assert sums(kept) == (2, 1, {"OutOfMemory": 2})


def test_a_report_that_is_seen_twice_counts_once(kept: EndedJobs) -> None:
    for _ in range(3):
        kept.add(ended("1", NOW))
    assert sums(kept) == (1, 1, {})


def test_the_next_training_of_a_model_counts_again(kept: EndedJobs) -> None:
    kept.add(ended("1", NOW - HOUR, "DatasetInvalid"))
    kept.drop("model-1")
    again = ended("1", NOW)
    kept.add(objects.job(_json("1", NOW) | {"metadata": _renamed(again)}))
    assert sums(kept) == (2, 1, {"DatasetInvalid": 1})


def _renamed(job: Job) -> dict[str, object]:
    notes = {names.REPORTED: job.annotations.reported, names.REPORTED_AT: job.annotations.reported_at}
    notes |= {names.LAUNCHED_AT: job.annotations.launched_at}
    return {"name": job.name, "uid": "uid-of-the-next", "annotations": notes}


def test_after_a_restart_what_the_cluster_has_is_counted_once_whenever_the_list_comes(kept: EndedJobs) -> None:
    early, late = ended("early", NOW - 5), ended("late", NOW)
    kept.add(early)  # reported by us before the list was read…
    pages = iter(listed(ended("old", NOW - 9 * HOUR, "Timeout"), ended("lost", NOW - 40 * HOUR), early, late))

    def read() -> object:
        for item in pages:
            yield item
            if item.name == late.name:
                kept.add(late)  # …and while it was

    kept.fill(read())  # type: ignore[arg-type]
    assert sums(kept) == (3, 2, {"Timeout": 1})
    kept.add(late)
    assert sums(kept) == (3, 2, {"Timeout": 1})


def test_it_is_said_since_when_all_is_counted(clock: FakeClock) -> None:
    kept = EndedJobs(6 * HOUR, clock)
    clock.advance(600)
    assert kept.trends((), NOW + 600)[0] == NOW, "before the list came: since this process began"
    kept.fill([])
    assert kept.trends((), NOW + 600)[0] == NOW + 600 - 6 * HOUR, "a Job is there for so long after its report"


def test_a_job_that_left_nothing_behind_is_counted_by_those_who_saw_it(kept: EndedJobs) -> None:
    kept.add_gone(launched("1", NOW - 2 * HOUR), "JobDeleted")
    assert sums(kept) == (1, 0, {"JobDeleted": 1})


def test_what_is_older_than_a_day_goes(kept: EndedJobs, clock: FakeClock) -> None:
    kept.add(ended("1", NOW))
    clock.advance(DAY)
    kept.add(ended("2", NOW + DAY, "Timeout"))
    assert sums(kept, now=NOW + DAY) == (1, 0, {"Timeout": 1})


def test_memory_is_bounded_whatever_annotations_say(kept: EndedJobs) -> None:
    for number in range(3000):
        odd = ended(str(number), NOW, f"Invented{number}")
        notes = {names.REPORTED: odd.annotations.reported, names.LAUNCHED_AT: f"99{number:02}-01-01T00:00:00Z"}
        metadata = {"name": odd.name, "uid": odd.uid, "annotations": notes | {names.REPORTED_AT: rfc3339(NOW)}}
        kept.add(objects.job(_json(str(number), NOW) | {"metadata": metadata}))
        kept.add(ended(f"{number}-b", NOW - number * HOUR, "Completed"))
    numbers = kept._trends._hours
    assert len(numbers) <= 26
    assert sum(map(len, numbers.values())) <= 26 * (len(codes.OUTCOMES) + 1)
    assert sums(kept)[2] == {"Other": 3000}
    claims = {names.REPORTED: '{"status": "Failed", "code": "Completed"}', names.REPORTED_AT: rfc3339(NOW)}
    kept.add(objects.job(_json("x", NOW) | {"metadata": {"name": "model-x", "uid": "x", "annotations": claims}}))
    assert sums(kept)[2] == {"Other": 3001}
