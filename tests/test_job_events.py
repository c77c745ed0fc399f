"""Events on the Job: written beside the work, never in its way."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

from dispatcher.job_events import JobEvents
from dispatcher.kubernetes_jobs import ClusterUnavailable
from dispatcher.ports import Cluster
from tests.builders import a_job


class Recorder:
    def __init__(self, fail_first: bool = False) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.fail = fail_first

    def create_event(self, event: Mapping[str, Any]) -> None:
        if self.fail:
            self.fail = False
            raise ClusterUnavailable("out of reach")
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
    assert event["involvedObject"]["uid"] == job["metadata"]["uid"]
    assert event["involvedObject"]["kind"] == "Job"
    assert (event["reason"], event["type"], event["firstTimestamp"]) == ("Failed", "Warning", "1970-01-01T00:00:00Z")
    assert len(event["message"]) == 1024


def test_an_api_server_out_of_reach_costs_one_event_and_nothing_else() -> None:
    recorder = Recorder(fail_first=True)
    events = JobEvents(cast(Cluster, recorder))
    events.record(a_job(), "Launched", "one")
    events.record(a_job(), "Launched", "two")
    assert [event["message"] for event in written(recorder, events)] == ["two"]


def test_more_events_than_are_written_never_hold_up_a_launch() -> None:
    events = JobEvents(cast(Cluster, Recorder()))
    for number in range(2000):
        events.record(a_job(), "Launched", str(number))
