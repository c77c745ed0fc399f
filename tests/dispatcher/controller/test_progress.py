"""What the portal is told under Processing: what lasts, not too often, and nothing that is no longer true."""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest

from dispatcher.controller.progress import Progress
from dispatcher.controller.workqueue import WorkQueue
from portal_client import messages
from portal_client.errors import PortalUnavailable
from tests.world.builders import FakeClock, a_job

JOB = a_job()
SUSPENDED = "Suspended by an operator"


class Bench:
    def __init__(self) -> None:
        self.clock, self.reporter = FakeClock(), Mock()
        self.progress = Progress(WorkQueue(clock=self.clock), self.reporter, 30, self.clock)

    def waits(self, message: str, after: float = 0.0) -> None:
        self.clock.advance(after)
        self.progress.waits("model-1", JOB, message)

    def runs(self, after: float = 0.0) -> None:
        self.clock.advance(after)
        self.progress.runs("model-1", JOB)

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
    assert bench.told == [call(JOB, "Pulling the trainer image")]


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
    with pytest.raises(PortalUnavailable):
        bench.runs(after=60)
    bench.reporter.progress.side_effect = None
    bench.runs(after=1)
    assert bench.told[-1] == call(JOB, messages.STARTED, instead_of=SUSPENDED)
