"""portal_client.statuses: what the portal's words and numbers mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal_client.statuses import ProcessingStatus


@pytest.mark.parametrize(
    ("number", "word", "may_start", "is_terminal"),
    [
        (0, "Created", True, False),
        (1, "Processing", False, False),
        (2, "Completed", False, True),
        (3, "Failed", False, True),
        (4, "Reconfigure", True, False),
    ],
)
def test_every_status_of_the_document_has_its_number_word_and_meaning(
    number: int, word: str, may_start: bool, is_terminal: bool
) -> None:
    status = ProcessingStatus(number)

    assert (status.title, status.may_start, status.is_terminal) == (word, may_start, is_terminal)
    for spelling in (number, str(number), word, word.lower(), word.upper()):
        assert ProcessingStatus.parse(spelling) is status


@pytest.mark.parametrize(
    "value",
    [
        5,
        -1,
        True,
        False,
        1.0,
        None,
        "",
        " Created",
        "Created\n",
        "01",
        "١",
        "done",
        [],
        {},
        pytest.param(10**5000, id="huge"),
        "Failed ",
        b"0",
    ],
)
def test_anything_else_is_no_status_and_the_sentence_names_the_known_ones(value: object) -> None:
    with pytest.raises(ValueError, match=r"Created \(0\).*Reconfigure \(4\)"):
        ProcessingStatus.parse(value)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())))
def test_parsing_never_fails_in_another_way_than_value_error(value: object) -> None:
    try:
        status = ProcessingStatus.parse(value)
    except ValueError:
        return
    assert str(value).lower() in (str(status.value), status.title.lower())
