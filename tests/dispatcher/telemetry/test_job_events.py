"""Events on the Job: written beside the work, never in its way."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

import pytest

from dispatcher.cluster.errors import ClusterUnavailable, ObjectConflict
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import JobEvents
from tests.world.builders import a_job


class Recorder:
    def __init__(self, fail_first: bool = False) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.fail = fail_first
        self.calls = 0

    def create_event(self, event: Mapping[str, Any]) -> None:
        self.calls += 1
        if self.fail:
            self.fail = False
            raise ClusterUnavailable("out of reach")
        if any(event["metadata"]["name"] == known["metadata"]["name"] for known in self.events):
            raise ObjectConflict("Cannot create events: it exists")
        self.events.append(event)


def written(recorder: Recorder, events: JobEvents) -> list[Mapping[str, Any]]:
    thread = threading.Thread(target=events.run, args=(lambda: None,))
    thread.start()
    events.close()
    thread.join(10)
    assert not thread.is_alive()
    return recorder.events


def test_an_event_speaks_of_its_job_and_is_no_longer_than_the_api_server_takes() -> None:
    recorder = Recorder()
    events = JobEvents(cast(Cluster, recorder), clock=lambda: 0.0)
    job = a_job()
    events.record(job, "Failed", "x" * 5000, "Warning")
    [event] = written(recorder, events)
    assert event["involvedObject"]["uid"] == job.uid
    assert event["involvedObject"]["kind"] == "Job"
    assert (event["reason"], event["type"], event["firstTimestamp"]) == ("Failed", "Warning", "1970-01-01T00:00:00Z")
    assert len(event["message"]) == 1024


def test_an_event_has_no_character_that_cannot_be_sent() -> None:
    recorder = Recorder()
    events = JobEvents(cast(Cluster, recorder))
    events.record(a_job(), "ReportDelayed", "half \ud800 of one")
    [event] = written(recorder, events)
    assert event["message"] == "half   of one"


def test_an_api_server_out_of_reach_costs_one_event_and_nothing_else() -> None:
    recorder = Recorder(fail_first=True)
    events = JobEvents(cast(Cluster, recorder))
    events.record(a_job(), "Launched", "one")
    events.record(a_job(), "Launched", "two")
    assert [event["message"] for event in written(recorder, events)] == ["two"]


def test_the_same_event_is_written_once_whoever_says_it() -> None:
    """The API server refuses a name that is taken: by another replica, or by the process before."""
    recorder = Recorder()
    for _ in range(2):
        events = JobEvents(cast(Cluster, recorder))
        events.record(a_job(), "Waiting", "Waiting for a GPU: 0/4 nodes", once="Waiting for a GPU")
        events.record(a_job(), "Waiting", "Waiting for a GPU: 0/5 nodes", once="Waiting for a GPU")
        events.record(a_job(), "Launched", "Launched for message m")
        events.record(a_job(uid="the next training"), "Launched", "Launched for message m")
        written(recorder, events)
    assert [event["message"] for event in recorder.events] == [
        "Waiting for a GPU: 0/4 nodes",
        "Launched for message m",
        "Launched for message m",
    ]
    assert recorder.calls == 6, "what this process has said costs no second call"


def test_an_event_that_could_not_be_written_is_tried_when_it_is_said_again() -> None:
    recorder = Recorder(fail_first=True)
    events = JobEvents(cast(Cluster, recorder))
    events.record(a_job(), "Launched", "one")
    events.record(a_job(), "Launched", "one")
    assert [event["message"] for event in written(recorder, events)] == ["one"]


def test_outcomes_and_warnings_are_written_before_what_is_only_good_to_know() -> None:
    recorder = Recorder()
    events = JobEvents(cast(Cluster, recorder))
    events.record(a_job(), "Waiting", "for a GPU")
    events.record(a_job(), "Completed", "trained")
    events.record(a_job(), "Launched", "resumed")
    events.record(a_job(), "Failed", "it is empty", "Warning")
    assert [event["reason"] for event in written(recorder, events)] == ["Completed", "Failed", "Waiting", "Launched"]


def test_events_are_written_at_a_bounded_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    events = JobEvents(cast(Cluster, Recorder()))
    monkeypatch.setattr(events._closing, "wait", pauses.append)
    for number in range(3):
        events.record(a_job(), "Launched", str(number))
    written(Recorder(), events)
    assert pauses[0] <= 0
    assert all(0 < pause <= 0.02 for pause in pauses[1:])


def test_more_events_than_are_written_never_hold_up_a_launch() -> None:
    events = JobEvents(cast(Cluster, Recorder()))
    for number in range(2000):
        events.record(a_job(), "Launched", str(number))
