"""training_common.text: what a program prints cannot rewrite a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_common.text import one_line, plain


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]0;a title that nothing ends", "0;a title that nothing ends"),
        ("\x1b[2Kbar\r", "bar "),
        ("two\n\tlines", "two\n\tlines"),
        ("bell\x07, next line\x85", "bell , next line "),
        ("a half \ud800, an emoji \U0001f600", "a half  , an emoji \U0001f600"),
        ("\u202egnorw", " gnorw"),
    ],
)
def test_escapes_go_and_what_cannot_be_shown_becomes_a_space(text: str, clean: str) -> None:
    assert plain(text) == clean


@given(st.text())
def test_one_line_is_one_line_that_can_be_sent(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    line.encode()
    assert one_line(line) == line
