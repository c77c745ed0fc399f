"""dispatcher.intake.circuit_breaker: closed, ajar, open, by a clock of the test's own."""

from __future__ import annotations

import logging

import pytest

from dispatcher.intake.circuit_breaker import Gate
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
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gate(clock: FakeClock) -> Gate:
    return Gate(pause_max=30.0, clock=clock)


def test_a_new_gate_is_open(gate: Gate) -> None:
    assert gate.limit(32) == 32
    assert gate.reason == ""
    assert gate.wait_hint() == 0


def test_an_outage_closes_it_and_says_why(gate: Gate) -> None:
    gate.trip("The portal cannot be reached")
    assert gate.limit(32) == 0
    assert gate.reason == "The portal cannot be reached"
    assert 0.2 < gate.wait_hint() <= 0.3


def test_after_the_pause_one_message_is_the_probe(gate: Gate, clock: FakeClock) -> None:
    gate.trip("down")
    clock.advance(0.3)
    assert gate.limit(32) == 1
    assert gate.limit(32) == 1, "ajar until one launch succeeds"
    assert gate.reason == "down"
    assert gate.limit(0) == 0


def test_one_launch_opens_it(gate: Gate, clock: FakeClock) -> None:
    gate.trip("down")
    clock.advance(0.3)
    gate.limit(32)
    gate.opened()
    assert gate.limit(32) == 32
    assert gate.reason == ""


def test_a_launch_that_was_in_hand_when_it_closed_does_not_open_it(gate: Gate, clock: FakeClock) -> None:
    gate.trip("down")
    gate.opened()
    assert gate.reason == "down"
    clock.advance(0.3)
    assert gate.limit(32) == 1


def test_a_probe_that_fails_keeps_it_closed_and_the_pause_grows(gate: Gate, clock: FakeClock) -> None:
    probe = Probe(OSError("still down"))
    gate.trip("down", probe=probe)
    pauses = []
    for _ in range(10):
        clock.advance(gate.wait_hint())
        assert gate.limit(32) == 0
        pauses.append(gate.wait_hint())
    assert probe.calls == 10
    assert gate.reason == "still down"
    assert pauses[0] < pauses[3] < pauses[6]
    assert max(pauses) <= 30
    assert pauses[-1] >= 22.5, "with jitter, near the longest pause"


def test_while_it_is_closed_nobody_is_asked(gate: Gate) -> None:
    probe = Probe()
    gate.trip("down", probe=probe)
    for _ in range(5):
        gate.limit(32)
    assert probe.calls == 0


def test_a_probe_that_answers_is_asked_once_and_one_message_follows(gate: Gate, clock: FakeClock) -> None:
    probe = Probe(OSError("down"))
    gate.trip("down", probe=probe)
    clock.advance(0.3)
    assert gate.limit(32) == 0
    probe.error = None
    clock.advance(gate.wait_hint())
    assert gate.limit(32) == 1
    assert gate.limit(32) == 1
    assert probe.calls == 2


def test_an_error_without_words_is_named_by_its_kind(gate: Gate, clock: FakeClock) -> None:
    gate.trip("down", probe=Probe(TimeoutError()))
    clock.advance(0.3)
    gate.limit(32)
    assert gate.reason == "TimeoutError"


def test_a_probe_may_ask_for_more_time(gate: Gate, clock: FakeClock) -> None:
    gate.trip("down", probe=Probe(Throttled("busy")))
    clock.advance(0.3)
    gate.limit(32)
    assert gate.wait_hint() == 20


@pytest.mark.parametrize(("asked", "waited"), [(10.0, 10.0), (3600.0, 30.0)])
def test_retry_after_is_honoured_within_the_longest_pause(gate: Gate, asked: float, waited: float) -> None:
    gate.trip("busy", retry_after=asked)
    assert gate.wait_hint() == waited


def test_many_launches_that_meet_one_outage_are_one_outage(gate: Gate) -> None:
    gate.trip("down")
    before = gate.wait_hint()
    for _ in range(31):
        gate.trip("down")
    assert gate.wait_hint() == before


def test_a_success_forgets_how_long_the_last_outage_was(gate: Gate, clock: FakeClock) -> None:
    for _ in range(8):
        gate.trip("down")
        clock.advance(30)
    gate.opened()
    gate.trip("down again")
    assert gate.wait_hint() <= 0.3


def test_an_idle_queue_opens_it_once_the_probe_has_answered(gate: Gate, clock: FakeClock) -> None:
    probe = Probe()
    gate.trip("down", probe=probe)
    gate.idle()
    assert gate.reason == "down", "not while closed"
    clock.advance(0.3)
    gate.idle()
    assert gate.reason == "down", "nor before the probe was asked"
    gate.limit(32)
    gate.idle()
    assert gate.reason == ""
    assert gate.limit(32) == 32


def test_an_outage_is_told_once_and_so_is_its_end(
    gate: Gate, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        gate.trip("The portal cannot be reached")
        clock.advance(30)
    gate.opened()
    gate.opened()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "The portal cannot be reached" in caplog.records[0].getMessage()
    assert "Messages stay on the queue" in caplog.records[0].getMessage()
