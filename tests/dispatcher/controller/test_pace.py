"""Turns at a bounded pace: in the order of asking, so many a second, two at the same time."""

from __future__ import annotations

import pytest

from dispatcher.controller.pace import Pace
from tests.world.builders import FakeClock


@pytest.fixture
def pace(clock: FakeClock) -> Pace:
    return Pace(5, clock)


def test_who_comes_first_has_the_first_turn_and_keeps_it_while_others_come(pace: Pace, clock: FakeClock) -> None:
    assert [pace.wait(key) for key in "abc"] == pytest.approx([0, 0.2, 0.4])
    assert [pace.wait(key) for key in "cab"] == pytest.approx([0.4, 0, 0.2])
    clock.advance(0.3)
    assert pace.wait("d") == pytest.approx(0.3)
    assert [pace.wait(key) for key in "abc"] == pytest.approx([0, 0, 0.1])


def test_there_are_so_many_turns_a_second_and_no_more(pace: Pace, clock: FakeClock) -> None:
    took: list[float] = []
    begin, keys = clock.now, [str(number) for number in range(50)]
    while keys:
        for key in [key for key in keys if pace.wait(key) == 0]:
            with pace.turn(key) as mine:
                assert mine
            took.append(clock.now - begin)
            keys.remove(key)
        clock.advance(0.1)
    assert took[-1] == pytest.approx(49 / 5, abs=0.2)
    assert all(sum(second <= at < second + 1 for at in took) <= 6 for second in range(10))


def test_turns_that_nobody_took_are_not_saved_up(pace: Pace, clock: FakeClock) -> None:
    pace.wait("a")
    clock.advance(3600)
    assert [pace.wait(key) for key in "bcd"] == pytest.approx([0, 0.2, 0.4])


def test_one_who_had_his_turn_gets_the_last(pace: Pace) -> None:
    for key in "ab":
        pace.wait(key)
    with pace.turn("a"):
        pass
    assert pace.wait("a") == pytest.approx(0.4)


def test_one_who_is_forgotten_leaves_nothing_and_begins_anew(pace: Pace, clock: FakeClock) -> None:
    for key in "ab":
        pace.wait(key)
    pace.forget("b")
    pace.forget("never seen")
    assert pace.wait("c") == pytest.approx(0.2), "the next has the place that was left"
    assert pace.wait("b") == pytest.approx(0.4)
    for key in "abc":
        pace.forget(key)
    assert not pace._turns
    clock.advance(10)
    assert pace.wait("a") == 0, "a place that has passed is nobody's"
    assert not pace._free


def test_two_are_at_it_at_once_and_the_third_gets_the_next_turn(pace: Pace, clock: FakeClock) -> None:
    for key in "abc":
        pace.wait(key)
    clock.advance(1)
    with pace.turn("a") as first:
        with pace.turn("b") as second, pace.turn("c") as third:
            assert (first, second, third) == (True, True, False)
        assert pace.wait("c") == 0
        with pace.turn("c") as again:
            assert again, "one of the two is free"
        with pace.turn("d") as fourth, pace.turn("e") as fifth:
            assert (fourth, fifth) == (True, False)
        assert pace.wait("e") == pytest.approx(0.2), "so many try in a second as are taken"


def test_a_turn_that_fails_is_over_all_the_same(pace: Pace) -> None:
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), pace.turn("a") as mine:
            assert 1 // 0, mine
    with pace.turn("a") as mine:
        assert mine
