"""dispatcher.intake.circuit_breaker: closed, open, half-open, by a clock of the test's own."""

from __future__ import annotations

import logging

import pytest

from dispatcher.intake.circuit_breaker import CircuitBreaker
from tests.world.builders import FakeClock


class Probe:
    """Fails while `error` is set; counts its calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


class Throttled(Exception):
    retry_after = 20.0


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker(pause_max=30.0, clock=clock)


def test_a_new_breaker_is_closed(breaker: CircuitBreaker) -> None:
    assert breaker.limit(32) == 32
    assert breaker.reason == ""
    assert breaker.wait_hint() == 0


def test_an_outage_opens_it_and_it_reports_why(breaker: CircuitBreaker) -> None:
    breaker.trip("The portal cannot be reached")
    assert breaker.limit(32) == 0
    assert breaker.reason == "The portal cannot be reached"
    assert 0.2 < breaker.wait_hint() <= 0.3


def test_after_the_pause_one_message_is_the_probe(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down")
    clock.advance(0.3)
    assert breaker.limit(32) == 1
    assert breaker.limit(32) == 1, "half-open until one launch succeeds"
    assert breaker.reason == "down"
    assert breaker.limit(0) == 0


def test_one_launch_closes_it(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down")
    clock.advance(0.3)
    breaker.limit(32)
    breaker.record_success()
    assert breaker.limit(32) == 32
    assert breaker.reason == ""


def test_a_launch_in_flight_when_it_opened_does_not_close_it(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down")
    breaker.record_success()
    assert breaker.reason == "down"
    clock.advance(0.3)
    assert breaker.limit(32) == 1


def test_a_probe_that_fails_keeps_it_open_and_the_pause_grows(breaker: CircuitBreaker, clock: FakeClock) -> None:
    probe = Probe(OSError("still down"))
    breaker.trip("down", probe=probe)
    pauses = []
    for _ in range(10):
        clock.advance(breaker.wait_hint())
        assert breaker.limit(32) == 0
        pauses.append(breaker.wait_hint())
    assert probe.calls == 10
    assert breaker.reason == "still down"
    assert pauses[0] < pauses[3] < pauses[6]
    assert max(pauses) <= 30
    assert pauses[-1] >= 22.5, "with jitter, near the longest pause"


def test_while_it_is_open_nothing_is_probed(breaker: CircuitBreaker) -> None:
    probe = Probe()
    breaker.trip("down", probe=probe)
    for _ in range(5):
        breaker.limit(32)
    assert probe.calls == 0


def test_a_probe_that_answers_is_asked_once_and_one_message_follows(breaker: CircuitBreaker, clock: FakeClock) -> None:
    probe = Probe(OSError("down"))
    breaker.trip("down", probe=probe)
    clock.advance(0.3)
    assert breaker.limit(32) == 0
    probe.error = None
    clock.advance(breaker.wait_hint())
    assert breaker.limit(32) == 1
    assert breaker.limit(32) == 1
    assert probe.calls == 2


def test_an_error_without_words_is_named_by_its_kind(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down", probe=Probe(TimeoutError()))
    clock.advance(0.3)
    breaker.limit(32)
    assert breaker.reason == "TimeoutError"


def test_a_probe_may_ask_for_more_time(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down", probe=Probe(Throttled("busy")))
    clock.advance(0.3)
    breaker.limit(32)
    assert breaker.wait_hint() == 20


@pytest.mark.parametrize(("asked", "waited"), [(10.0, 10.0), (3600.0, 30.0)])
def test_retry_after_is_honoured_within_the_longest_pause(breaker: CircuitBreaker, asked: float, waited: float) -> None:
    breaker.trip("busy", retry_after=asked)
    assert breaker.wait_hint() == waited


def test_many_launches_that_meet_one_outage_are_one_outage(breaker: CircuitBreaker) -> None:
    breaker.trip("down")
    before = breaker.wait_hint()
    for _ in range(31):
        breaker.trip("down")
    assert breaker.wait_hint() == before


def test_a_success_forgets_how_long_the_last_outage_was(breaker: CircuitBreaker, clock: FakeClock) -> None:
    for _ in range(8):
        breaker.trip("down")
        clock.advance(30)
    breaker.record_success()
    breaker.trip("down again")
    assert breaker.wait_hint() <= 0.3


def test_an_idle_queue_closes_it_once_the_probe_has_answered(breaker: CircuitBreaker, clock: FakeClock) -> None:
    probe = Probe()
    breaker.trip("down", probe=probe)
    breaker.record_idle()
    assert breaker.reason == "down", "not while open"
    clock.advance(0.3)
    breaker.record_idle()
    assert breaker.reason == "down", "nor before the probe was asked"
    breaker.limit(32)
    breaker.record_idle()
    assert breaker.reason == ""
    assert breaker.limit(32) == 32


def test_an_outage_is_logged_once_and_so_is_its_end(
    breaker: CircuitBreaker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        breaker.trip("The portal cannot be reached")
        clock.advance(30)
    breaker.record_success()
    breaker.record_success()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "The portal cannot be reached" in caplog.records[0].getMessage()
    assert "Messages stay on the queue" in caplog.records[0].getMessage()
