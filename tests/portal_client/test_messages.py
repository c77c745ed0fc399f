"""portal_client.messages: what a model's message at the portal may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from portal_client.messages import portal_message


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60), st.integers(1, 20))
def test_a_message_always_fits_and_is_always_sendable(text: str, limit: int) -> None:
    message = portal_message(text, limit)

    assert len(message.encode("utf-16-le")) <= 2 * limit
    message.encode("utf-8")


def test_a_message_keeps_its_lines_and_loses_what_databases_refuse() -> None:
    assert portal_message("Failed:\n\tfile 1\x00\x1b[31m \ud800é😀") == "Failed:\n\tfile 1  [31m \ufffdé😀"


def test_a_cut_message_shows_that_it_was_cut() -> None:
    assert portal_message("abcdef", 4) == "abc…"
    assert portal_message("abcd", 4) == "abcd"
    assert portal_message("ab😀😀", 4) == "ab\ufffd…"
