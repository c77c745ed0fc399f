"""How often an idle queue is asked: promptly after work, seldom when it has been quiet for long."""

from __future__ import annotations

import pytest

from dispatcher.intake.loop import idle_pause


def quiet_until(pause: float, shortest: float = 0.2, longest: float = 120.0) -> float:
    """Seconds of quiet after which the pauses are that long, each drawn between a quarter and the whole."""
    quiet, empty = 0.0, 1
    while (now := idle_pause(empty, shortest, longest)) < pause:
        quiet, empty = quiet + 0.625 * now, empty + 1
    return quiet


def test_the_first_pause_after_work_is_the_shortest_and_none_exceeds_the_longest() -> None:
    assert idle_pause(1, 0.2, 1.0) == 0.2
    assert idle_pause(10**9, 0.2, 1.0) == 1.0


@pytest.mark.parametrize("pause", [0.5, 1.0, 10.0, 120.0])
def test_a_message_waits_for_a_twentieth_of_the_quiet_before_it_at_most(pause: float) -> None:
    assert 20 * (pause - 0.2) < quiet_until(pause) < 30 * pause


def test_the_longest_pause_is_reached_after_a_quarter_of_a_minute() -> None:
    assert 15 < quiet_until(1.0) < 25
