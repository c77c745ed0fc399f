"""What the portal is told under Processing: what lasts, not too often, and nothing that is no longer true."""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest
from msgspec.structs import replace

from dispatcher.cluster.jobs import Job
from dispatcher.controller.pace import Pace
from dispatcher.controller.progress import Progress
from dispatcher.controller.workqueue import WorkQueue
from portal_client import messages
from portal_client.errors import PortalUnavailable
from tests.world.builders import FakeClock, a_job

JOB = a_job()
SUSPENDED = "Suspended by an operator"


def told(message: str) -> Job:
    """The Job with the note of the message that the portal was sent last."""
    return replace(JOB, metadata=replace(JOB.metadata, annotations=replace(JOB.annotations, told=message)))


class Bench:
    def __init__(self) -> None:
        self.clock, self.reporter = FakeClock(), Mock()
        self.restart()

    def restart(self) -> None:
        self.work = WorkQueue(clock=self.clock)
        self.progress = Progress(self.work, self.reporter, 30, Pace(5, self.clock), self.clock)

    def waits(self, message: str, after: float = 0.0, job: Job = JOB) -> None:
        self.clock.advance(after)
        self.progress.waits(job.name, job, message)

    def runs(self, after: float = 0.0, job: Job = JOB) -> None:
        self.clock.advance(after)
        self.progress.runs(job.name, job)

    @property
    def told(self) -> list[object]:
        return list(self.reporter.progress.mock_calls)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_passes_within_seconds_is_not_told(bench: Bench) -> None:
    bench.waits("Waiting to be scheduled")
    bench.waits("Pulling the trainer image", after=9)
    bench.waits("Pulling the trainer image", after=9)
    assert bench.told == []
    bench.waits("Pulling the trainer image", after=1)
    assert bench.told == [call(JOB, "Pulling the trainer image", instead_of=None)]


def test_a_change_is_told_once_in_a_while(bench: Bench) -> None:
    bench.waits("1")
    bench.waits("1", after=10)
    for number in ("2", "2", "2"):
        bench.waits(number, after=10)
    assert [entry.args[1] for entry in bench.told] == ["1", "2"]  # type: ignore[attr-defined]


def test_a_wait_that_is_over_is_taken_back_where_the_trainer_says_nothing(bench: Bench) -> None:
    bench.waits(SUSPENDED)
    bench.waits(SUSPENDED, after=10)
    bench.runs()
    bench.runs(after=59)
    assert len(bench.told) == 1, "it has the time of two reports to speak itself"
    bench.runs(after=1)
    assert bench.told[1:] == [call(JOB, messages.STARTED, instead_of=SUSPENDED)]
    bench.runs(after=999)
    assert len(bench.told) == 2


def test_of_a_training_that_waited_for_nothing_nothing_is_taken_back(bench: Bench) -> None:
    bench.runs()
    bench.waits("Pulling the trainer image")  # not for long
    bench.runs(after=999)
    assert bench.told == []


def test_the_same_wait_is_told_again_after_it_was_taken_back(bench: Bench) -> None:
    bench.waits(SUSPENDED)
    bench.waits(SUSPENDED, after=10)
    bench.runs()
    bench.runs(after=60)
    bench.waits(SUSPENDED, after=10)
    bench.waits(SUSPENDED, after=10)
    assert [entry.args[1] for entry in bench.told] == [SUSPENDED, messages.STARTED, SUSPENDED]  # type: ignore[attr-defined]


def test_an_outage_of_the_portal_costs_only_a_delay(bench: Bench) -> None:
    bench.reporter.progress.side_effect = PortalUnavailable("The portal cannot be connected to")
    bench.waits(SUSPENDED)
    bench.waits(SUSPENDED, after=10)
    bench.reporter.progress.side_effect = None
    bench.waits(SUSPENDED, after=30)
    bench.reporter.progress.side_effect = PortalUnavailable("The portal cannot be connected to")
    bench.runs()
    bench.runs(after=60)  # no error, which would be the Job's, and keep its outcome waiting as well
    bench.reporter.progress.side_effect = None
    bench.runs(after=30)
    assert bench.told[-1] == call(JOB, messages.STARTED, instead_of=SUSPENDED)


def test_a_restart_sends_nothing_again_that_the_job_notes_as_told(bench: Bench) -> None:
    bench.waits(SUSPENDED, job=told(SUSPENDED))
    bench.waits(SUSPENDED, after=10, job=told(SUSPENDED))
    bench.waits(SUSPENDED, after=999, job=told(SUSPENDED))
    assert bench.told == []
    bench.waits("Pulling the trainer image", job=told(SUSPENDED))
    bench.waits("Pulling the trainer image", after=10, job=told(SUSPENDED))
    assert bench.told == [call(told(SUSPENDED), "Pulling the trainer image", instead_of=None)]


def test_what_was_told_before_a_restart_is_taken_back_when_the_trainer_runs(bench: Bench) -> None:
    bench.runs(job=told(SUSPENDED))
    bench.runs(after=59, job=told(SUSPENDED))
    assert bench.told == [], "it has the time of two reports to speak itself"
    bench.runs(after=1, job=told(SUSPENDED))
    assert bench.told == [call(told(SUSPENDED), messages.STARTED, instead_of=SUSPENDED)]
    bench.runs(after=999)
    assert len(bench.told) == 1


def test_many_that_wait_are_told_one_after_the_other(bench: Bench) -> None:
    jobs = [a_job(model_id=str(number), uid=f"uid-{number}") for number in range(20)]
    for wait in (0.0, 10.0):
        bench.clock.advance(wait)
        for job in jobs:
            bench.waits(SUSPENDED, job=job)
    assert len(bench.told) == 1, "five a second"
    for _ in range(4):
        bench.clock.advance(1.0)
        for job in jobs:
            bench.waits(SUSPENDED, job=job)
    assert [entry.args[0] for entry in bench.told] == jobs, "each once, in their order"  # type: ignore[attr-defined]


def test_two_at_most_are_told_at_once_however_slow_the_portal_is(bench: Bench) -> None:
    jobs = [a_job(model_id=str(number), uid=f"uid-{number}") for number in range(3)]

    def slow(job: Job, message: str, instead_of: str | None) -> None:
        """While the portal takes its time, the other workers come to theirs."""
        following = jobs[jobs.index(job) + 1 :]
        if following:
            bench.waits(SUSPENDED, job=following[0])

    bench.reporter.progress.side_effect = slow
    for job in jobs:
        bench.waits(SUSPENDED, job=job)
    bench.clock.advance(10)
    for job in jobs:
        bench.progress.pace.wait(job.uid)
    bench.clock.advance(1)
    bench.waits(SUSPENDED, job=jobs[0])
    assert [entry.args[0] for entry in bench.told] == jobs[:2]  # type: ignore[attr-defined]
    bench.clock.advance(1)
    assert bench.work.get(0) is not None, "the third comes again"
    bench.waits(SUSPENDED, job=jobs[2])
    assert [entry.args[0] for entry in bench.told] == jobs  # type: ignore[attr-defined]


def test_a_portal_that_takes_its_time_is_not_asked_for_by_all_who_wait_at_once(bench: Bench) -> None:
    """Ten thousand whose turn has come would keep the workers from outcomes."""
    jobs = {f"model-{number}": a_job(model_id=str(number), uid=f"uid-{number}") for number in range(500)}
    for job in jobs.values():
        bench.waits(SUSPENDED, job=job)
    looks = 0
    with bench.progress.pace.turn("one"), bench.progress.pace.turn("another"):
        for _ in range(300):
            bench.clock.advance(1)
            while (name := bench.work.get(0)) is not None:
                looks += 1
                bench.waits(SUSPENDED, job=jobs[name])
                bench.work.done(name)
    assert bench.told == []
    assert 300 <= looks <= 500 + 300 * 5 + 2 * 300, "one for each at first, then five a second and the next one"


def test_whoever_waits_no_longer_leaves_the_line(bench: Bench) -> None:
    """Ten thousand that were given up kept the next one waiting for half an hour."""
    jobs = [a_job(model_id=str(number), uid=f"uid-{number}") for number in range(1000)]
    for after in (0, 10):
        bench.clock.advance(after)
        for job in jobs:
            bench.waits(SUSPENDED, job=job)
    for job in jobs[:500]:
        bench.progress.forget(job)
    for job in jobs[500:]:
        bench.waits(
            SUSPENDED, job=replace(job, metadata=replace(job.metadata, annotations=told(SUSPENDED).annotations))
        )
    bench.waits(SUSPENDED)
    before = len(bench.told)
    bench.waits(SUSPENDED, after=10)
    bench.waits(SUSPENDED, after=1)
    assert len(bench.told) == before + 1


def test_a_processing_that_is_sent_again_keeps_the_pace_of_all(bench: Bench) -> None:
    """After an outage none of ten thousand Jobs is acknowledged."""
    jobs = {f"model-{number}": a_job(model_id=str(number), uid=f"uid-{number}") for number in range(100)}
    sent = bench.reporter.acknowledge
    for name, job in jobs.items():
        bench.progress.begins(name, job)
    for seconds in range(1, 11):
        bench.clock.advance(1)
        while (name := bench.work.get(0)) is not None:
            bench.progress.begins(name, jobs[name])
            bench.work.done(name)
        assert sent.call_count <= 1 + seconds * 5
    assert sent.call_count >= 45


def test_one_that_the_portal_does_not_take_is_sent_again_and_keeps_no_outcome_waiting(bench: Bench) -> None:
    bench.reporter.acknowledge.side_effect = PortalUnavailable("no")
    bench.progress.begins(JOB.name, JOB)
    bench.clock.advance(30)
    assert bench.work.get(0) == JOB.name


def test_without_a_portal_there_is_no_turn_to_wait_for(bench: Bench) -> None:
    bench.reporter.portal = None
    bench.progress.begins(JOB.name, JOB)
    assert not bench.reporter.acknowledge.called
    assert bench.progress.pace._turns == {}
