"""dispatcher.intake.circuit_breaker: closed, open, half-open, by a clock of the test's own."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.intake.circuit_breaker import CircuitBreaker, CircuitBreakers, State
from tests.world.builders import FakeClock

LONGEST = 30.0


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


DOWN = Probe(OSError("down"))


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker(LONGEST, clock)


def to_half_open(breaker: CircuitBreaker, clock: FakeClock, probe: Probe, what: str = "") -> None:
    breaker.trip("down", probe, what=what)
    clock.advance(breaker.wait_hint())
    assert breaker.ask() is State.HALF_OPEN


def test_a_new_breaker_is_closed(breaker: CircuitBreaker) -> None:
    assert breaker.ask() is breaker.state is State.CLOSED
    assert breaker.reason == ""
    assert breaker.wait_hint() == 0


def test_an_outage_opens_it_and_it_reports_why(breaker: CircuitBreaker) -> None:
    breaker.trip("The portal cannot be reached", DOWN)
    assert breaker.ask() is State.OPEN
    assert breaker.reason == "The portal cannot be reached"
    assert 0.2 < breaker.wait_hint() <= 0.3


def test_after_the_pause_the_probe_half_opens_it_and_one_success_closes_it(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    probe = Probe()
    to_half_open(breaker, clock, probe)
    assert breaker.ask() is State.HALF_OPEN, "until something goes through"
    assert probe.calls == 1
    assert breaker.reason == "down"
    breaker.record_success()
    assert breaker.ask() is State.CLOSED
    assert breaker.reason == ""


def test_a_launch_in_flight_when_it_opened_does_not_close_it(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down", Probe())
    breaker.record_success()
    clock.advance(LONGEST)
    breaker.record_success()
    assert breaker.state is State.OPEN, "nor before the probe was asked"
    assert breaker.reason == "down"


def test_a_probe_that_fails_keeps_it_open_and_the_pause_grows(breaker: CircuitBreaker, clock: FakeClock) -> None:
    probe = Probe(OSError("still down"))
    breaker.trip("down", probe)
    pauses = []
    for _ in range(10):
        clock.advance(breaker.wait_hint())
        assert breaker.ask() is State.OPEN
        pauses.append(breaker.wait_hint())
    assert probe.calls == 10
    assert breaker.reason == "still down"
    assert pauses[0] < pauses[3] < pauses[6]
    assert max(pauses) <= LONGEST
    assert pauses[-1] >= 22.5, "with jitter, near the longest pause"


def test_the_pause_grows_where_the_probe_answers_and_what_had_failed_fails_again(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    pauses = []
    for _ in range(10):
        to_half_open(breaker, clock, Probe())
        pauses.append(breaker.wait_hint())
        breaker.trip("down", Probe())
        pauses[-1] = breaker.wait_hint()
    assert pauses[0] < pauses[3] < pauses[6]
    assert pauses[-1] >= 22.5


def test_while_it_is_open_nothing_is_probed(breaker: CircuitBreaker) -> None:
    probe = Probe()
    breaker.trip("down", probe)
    for _ in range(5):
        breaker.ask()
    assert probe.calls == 0


def test_half_open_for_long_without_a_message_the_probe_decides_again(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    probe = Probe()
    to_half_open(breaker, clock, probe)
    clock.advance(LONGEST - 1)
    assert breaker.ask() is State.HALF_OPEN
    assert probe.calls == 1
    probe.error = OSError("down again")
    clock.advance(1)
    assert breaker.ask() is State.OPEN
    probe.error = None
    clock.advance(breaker.wait_hint())
    assert breaker.ask() is State.HALF_OPEN
    clock.advance(LONGEST)
    assert breaker.ask() is State.CLOSED


def test_only_a_success_of_what_had_failed_closes_it(breaker: CircuitBreaker, clock: FakeClock) -> None:
    receive, send = Probe(), Probe()
    breaker.trip("cannot receive", receive, what="receive")
    breaker.trip("cannot send", send, what="send")
    clock.advance(breaker.wait_hint())
    assert breaker.ask() is State.HALF_OPEN
    assert (receive.calls, send.calls) == (1, 1)
    breaker.record_success("receive")
    breaker.record_success("something else")
    assert breaker.state is State.HALF_OPEN
    breaker.record_success("send")
    assert breaker.state is State.CLOSED


def test_one_of_two_probes_that_fails_keeps_it_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("cannot receive", Probe(), what="receive")
    breaker.trip("cannot send", Probe(OSError("no right")), what="send")
    clock.advance(breaker.wait_hint())
    assert breaker.ask() is State.OPEN
    assert breaker.reason == "no right"


def test_while_one_thread_probes_another_finds_it_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    seen: list[State] = []
    breaker.trip("down", lambda: seen.append(breaker.ask()))
    clock.advance(LONGEST)
    assert breaker.ask() is State.HALF_OPEN
    assert seen == [State.OPEN]


def test_a_failure_while_the_probe_answers_keeps_it_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down", lambda: breaker.trip("still down", DOWN))
    clock.advance(LONGEST)
    assert breaker.ask() is breaker.state is State.OPEN


def test_an_error_without_words_is_named_by_its_kind(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down", Probe(TimeoutError()))
    clock.advance(0.3)
    breaker.ask()
    assert breaker.reason == "TimeoutError"


def test_a_probe_may_ask_for_more_time(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.trip("down", Probe(Throttled("busy")))
    clock.advance(0.3)
    breaker.ask()
    assert breaker.wait_hint() == 20


@pytest.mark.parametrize(("asked", "waited"), [(10.0, 10.0), (3600.0, LONGEST)])
def test_retry_after_is_honoured_within_the_longest_pause(breaker: CircuitBreaker, asked: float, waited: float) -> None:
    breaker.trip("busy", DOWN, retry_after=asked)
    assert breaker.wait_hint() == waited


def test_many_launches_that_meet_one_outage_are_one_outage(breaker: CircuitBreaker) -> None:
    breaker.trip("down", DOWN)
    before = breaker.wait_hint()
    for _ in range(31):
        breaker.trip("down", DOWN)
    assert breaker.wait_hint() == before


def test_a_success_forgets_how_long_the_last_outage_was(breaker: CircuitBreaker, clock: FakeClock) -> None:
    for _ in range(8):
        breaker.trip("down", Probe())
        clock.advance(LONGEST)
    breaker.ask()
    breaker.record_success()
    breaker.trip("down again", DOWN)
    assert breaker.wait_hint() <= 0.3


def test_an_outage_is_logged_once_and_so_is_its_end(
    breaker: CircuitBreaker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        breaker.trip("The portal cannot be reached", Probe())
        clock.advance(LONGEST)
    breaker.ask()
    breaker.record_success()
    breaker.record_success()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "The portal cannot be reached" in caplog.records[0].getMessage()
    assert "Messages stay on the queue" in caplog.records[0].getMessage()
    assert caplog.records[1].getMessage() == "Intake continues; it had paused: The portal cannot be reached"


@pytest.fixture
def breakers(clock: FakeClock) -> CircuitBreakers:
    return CircuitBreakers(LONGEST, clock)


def test_with_all_of_them_closed_there_is_no_limit(breakers: CircuitBreakers) -> None:
    assert breakers.limit(32) == 32
    assert breakers.reasons == []
    assert not breakers.is_open()
    assert breakers.wait_hint() == 0


def test_several_that_fail_at_once_recover_each_by_itself(breakers: CircuitBreakers, clock: FakeClock) -> None:
    portal, cluster = Probe(OSError("no portal")), Probe(OSError("no cluster"))
    breakers["portal"].trip("no portal", portal)
    breakers["cluster"].trip("no cluster", cluster)
    assert breakers.reasons == ["no portal", "no cluster"]
    portal.error = None
    clock.advance(breakers.wait_hint())
    assert breakers.limit(32) == 0, "the cluster is still out of reach"
    assert (breakers["portal"].state, breakers["cluster"].state) == (State.HALF_OPEN, State.OPEN)
    cluster.error = None
    clock.advance(breakers.wait_hint())
    assert breakers.limit(32) == 1
    breakers["portal"].record_success()
    assert breakers.limit(32) == 1, "a success of the portal says nothing of the cluster"
    assert breakers.limit(0) == 0
    breakers["cluster"].record_success()
    assert breakers.limit(32) == 32


def test_of_several_queues_one_that_is_out_of_reach_holds_back_no_other(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    breakers = CircuitBreakers(LONGEST, clock, queues=("urgent", "normal"))
    breakers.queue("urgent").trip("it does not exist", Probe())
    assert "Intake from queue urgent pauses: it does not exist" in caplog.text
    assert (breakers.limit(32, "urgent"), breakers.limit(32, "normal")) == (0, 32)
    assert (breakers.is_open("urgent"), breakers.is_open("normal")) == (True, False)
    assert breakers.wait_hint("normal") == 0
    assert breakers.reasons == ["it does not exist"]
    clock.advance(LONGEST)
    # Half-open: one at a time of this queue, whatever is in hand of the other.
    assert breakers.limit(32, "urgent", in_flight=9, from_there=0) == 1
    assert breakers.limit(32, "urgent", in_flight=9, from_there=1) == 0
    breakers.queue("urgent").record_success()
    breakers["portal"].trip("no portal", Probe())
    assert (breakers.limit(32, "urgent"), breakers.limit(32, "normal")) == (0, 0), "what all need holds all back"


MOVES = st.lists(
    st.one_of(st.sampled_from(["trip", "succeed", "ask"]), st.booleans(), st.floats(0.1, 2 * LONGEST, allow_nan=False)),
    max_size=60,
)


@given(MOVES)
def test_law_it_closes_only_after_its_probe_has_answered(moves: list[str | bool | float]) -> None:
    """A bool mends or breaks what the probe asks, a number passes time."""
    clock, probe = FakeClock(), Probe()
    breaker = CircuitBreaker(LONGEST, clock)
    answered = 0  # good answers of the probe since it opened
    for move in moves:
        before, calls = breaker.state, probe.calls
        match move:
            case "trip":
                breaker.trip("down", probe)
                answered = 0
                assert breaker.state is State.OPEN
            case "succeed":
                breaker.record_success()
                assert breaker.state is (State.OPEN if before is State.OPEN else State.CLOSED)
                assert before is State.CLOSED or breaker.state is State.OPEN or answered
            case "ask":
                assert breaker.ask() is breaker.state
                assert probe.calls - calls <= 1
                answered = 0 if probe.error else answered + probe.calls - calls
                assert breaker.state is not State.CLOSED or before is State.CLOSED or answered == 2
            case bool():
                probe.error = None if move else OSError("down")
            case _:
                clock.advance(float(move))
                assert breaker.state is before, "no time alone changes it"
        assert (breaker.reason == "") == (breaker.state is State.CLOSED)
        assert breaker.wait_hint() <= LONGEST
