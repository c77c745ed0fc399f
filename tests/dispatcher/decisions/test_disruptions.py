"""disruptions: pods that Kubernetes took away are counted on the Job, once each, and end it at last."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import disruptions, outcome
from dispatcher.decisions.verdicts import Going, Stop
from dispatcher.decisions.waiting import Limits
from tests.world.builders import T0, a_condition, a_job, a_pod, job_json, running, terminated
from tests.world.recordings import after, recording

PREEMPTED = a_condition("DisruptionTarget", reason="PreemptionByScheduler")


def a_disrupted_pod(name: str, **arguments: Any) -> Pod:
    return a_pod(PREEMPTED, name=name, uid=name, phase="Failed", state=terminated(137), **arguments)


def annotated(text: str) -> Job:
    job = job_json()
    job["metadata"]["annotations"][names.DISRUPTED] = text
    return msgspec.convert(job, Job)


def noted(*uids: str) -> Job:
    return annotated(json.dumps(uids))


def test_each_pod_is_counted_once_however_often_it_is_seen() -> None:
    pods = [a_disrupted_pod("b", created_at=T0 + 10), a_disrupted_pod("a")]
    job = noted("a")
    assert disruptions.unrecorded(job, pods) == ["b"]
    assert json.loads(disruptions.annotation(job, pods)) == ["a", "b"]
    assert disruptions.unrecorded(noted("a", "b"), pods) == []


@pytest.mark.parametrize(
    "pod",
    [
        a_pod(phase="Failed", state=terminated(201)),
        a_pod(PREEMPTED, phase="Running", state=running()),
        a_pod(a_condition("DisruptionTarget", "False"), phase="Failed", state=terminated(137)),
    ],
    ids=["failed by itself", "marked, but still there", "not disrupted after all"],
)
def test_other_pods_are_not_counted(pod: Pod) -> None:
    assert disruptions.unrecorded(a_job(), [pod]) == []


def test_a_pod_that_is_being_taken_away_counts() -> None:
    pod = a_pod(PREEMPTED, uid="x", phase="Running", state=running(), deleted_at=T0)
    assert disruptions.unrecorded(a_job(), [pod]) == ["x"]


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "5", "null", '[1, {"a": 2}]', "[" * 5000])
def test_a_note_that_somebody_else_wrote_counts_nothing(text: str) -> None:
    assert disruptions.recorded(annotated(text)) == []


@pytest.mark.parametrize(("limit", "stopped"), [(0, False), (2, True), (3, False), (20, False)])
def test_a_job_that_is_disrupted_for_ever_is_stopped_beyond_its_limit(limit: int, stopped: bool) -> None:
    limits = Limits(600, 300, 3600, 240, 7200, disruptions=limit)
    result = outcome.decide(noted("a", "b"), [a_disrupted_pod("c")], (), T0 + 20, limits)
    if stopped:
        assert isinstance(result, Stop)
        assert result.verdict.code == "Preempted"
        assert "disrupted 3 times; the limit is 2" in result.verdict.sentence
    else:
        assert isinstance(result, Going)


@pytest.mark.parametrize(("name", "code"), [("preempted", "Preempted"), ("node-lost", "NodeLost")])
def test_recorded_disruptions_are_counted_while_their_pod_is_known(name: str, code: str) -> None:
    events = recording(name)
    seen: list[str] = []
    for number in range(1, len(events) + 1):
        world = after(events[:number])
        if world.job is not None:
            job, pods = msgspec.convert(world.job, Job), msgspec.convert(list(world.pods.values()), list[Pod])
            seen += [uid for uid in disruptions.unrecorded(job, pods) if uid not in seen]
            verdict = disruptions.verdict(noted("x"), pods, 1)
            assert verdict is None or verdict.code == code
    assert len(seen) == 1
