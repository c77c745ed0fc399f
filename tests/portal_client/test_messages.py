"""portal_client.messages: what a model's message at the portal may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from portal_client import messages
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


def test_a_failed_ends_with_what_comes_first_at_the_portal_and_says_it_once() -> None:
    asks = messages.failed("Unknown key; did you mean train.lr?")
    assert "train.lr? To train it again, set" in asks
    plain = messages.failed("Out of memory: use a smaller batch size.")
    assert plain.startswith("Out of memory: use a smaller batch size. To train it again, set the model to Reconfigure")
    assert messages.failed(plain) == plain
    said = f"The pod was deleted. {messages.AGAIN}"
    assert messages.failed(said) == said


def test_a_failed_that_is_too_long_is_cut_before_what_is_to_be_done() -> None:
    sentence = messages.failed("x" * 5000)
    assert sentence.endswith("put the request on the queue again")
    assert messages.portal_message(sentence) == sentence


def test_a_remark_stands_before_what_is_to_be_done() -> None:
    said = messages.with_remark(f"Its node is gone. {messages.AGAIN}", "after 3 attempts")
    assert said == f"Its node is gone (after 3 attempts). {messages.AGAIN}"
    assert messages.with_remark("Out of memory.", "after 3 attempts") == "Out of memory (after 3 attempts)"
