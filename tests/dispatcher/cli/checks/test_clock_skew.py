"""How far another clock is from ours, by the Date of an answer."""

from __future__ import annotations

import pytest

from dispatcher.cli.checks import clock_skew

DATE, AT = "Thu, 01 Jan 2026 00:00:00 GMT", 1767225600.0


@pytest.mark.parametrize(
    ("date", "began", "ended", "skew"),
    [
        (DATE, AT + 0.2, AT + 0.9, 0.0),
        (DATE, AT + 0.9, AT + 1.5, 0.0),  # the second had changed for us, not for them
        (DATE, AT - 100, AT + 100, 0.0),  # a call that took long explains as much
        (DATE, AT - 60.0, AT - 59.0, 59.0),
        (DATE, AT + 61.0, AT + 62.0, -60.0),
        (None, AT, AT, None),
        ("", AT, AT, None),
        ("yesterday", AT, AT, None),
    ],
)
def test_only_what_neither_the_call_nor_the_whole_seconds_explain_is_a_skew(
    date: str | None, began: float, ended: float, skew: float | None
) -> None:
    found = clock_skew.skew(date, began, ended)
    assert found == (skew if skew is None else pytest.approx(skew))


@pytest.mark.parametrize("place", ["API server", "storage account", "portal"])
def test_the_sentence_says_which_way_how_much_and_what_breaks(place: str) -> None:
    assert clock_skew.sentence(place, 95.4).startswith("95 seconds ahead of ours: ")
    assert clock_skew.sentence(place, -95.4).startswith("95 seconds behind ours: ")
    assert not clock_skew.matters(-30.0)
    assert clock_skew.matters(-30.1)
