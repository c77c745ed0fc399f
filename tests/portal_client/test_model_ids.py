"""portal_client.model_ids: which names are container names, and the id in them."""

from __future__ import annotations

import logging
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal_client.model_ids import (
    InvalidContainerName,
    container_name_problem,
    extract_and_log_model_id,
    extract_model_id,
    is_container_name,
)

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

alphanumeric = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)
model_names = (
    st.lists(alphanumeric, min_size=1, max_size=6)
    .map("-".join)
    .map("model-{}".format)
    .filter(lambda name: len(name) <= 63)
)


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("model-1", "1"),
        ("model-123", "123"),
        ("model-abc123", "abc123"),
        ("model-70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8", "70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8"),
        ("model-007", "007"),
        ("model-model-1", "model-1"),
        ("model-" + "a" * 57, "a" * 57),
    ],
)
def test_the_id_is_what_follows_the_prefix(name: str, model_id: str) -> None:
    assert extract_model_id(name) == model_id


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("model123", "does not start with 'model-'"),
        ("training-1", "does not start with 'model-'"),
        ("Model-1", "does not start with 'model-'"),
        (" model-1", "does not start with 'model-'"),
        ("", "does not start with 'model-'"),
        ("model", "does not start with 'model-'"),
        ("model-", "has no id after 'model-'"),
        ("model-A", "contains 'A'"),
        ("model-1\n", r"contains '\n'"),
        ("model-1\x00", r"contains '\x00'"),
        ("model-١", r"contains '\u0661'"),
        ("model-а", r"contains '\u0430'"),
        ("model-1_0", "contains '_'"),
        ("model-1 ", "contains ' '"),
        ("model-../x", "contains '.'"),
        ("model-%2fx", "contains '%'"),
        ("model-1?x=1", "contains '?'"),
        ("model--1", "two hyphens in a row"),
        ("model-1--2", "two hyphens in a row"),
        ("model-1-", "starts or ends with a hyphen"),
        ("model-" + "a" * 58, "is 64 characters long"),
        (None, "is a NoneType, not a string"),
        (123, "is a int, not a string"),
        (b"model-1", "is a bytes, not a string"),
        (["model-1"], "is a list, not a string"),
    ],
)
def test_a_bad_model_container_name_is_refused_with_the_rule_it_breaks(name: object, rule: str) -> None:
    with pytest.raises(InvalidContainerName) as caught:
        extract_model_id(name)

    assert rule in str(caught.value)
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


def test_a_huge_name_does_not_fill_the_log() -> None:
    with pytest.raises(InvalidContainerName) as caught:
        extract_model_id("model-" + "a" * 100_000)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["abc", "dataset-xyz", "123", "a-b-c", "a" * 63])
def test_a_dataset_container_needs_no_prefix(name: str) -> None:
    assert is_container_name(name)
    assert container_name_problem(name) is None


@pytest.mark.parametrize("name", ["ab", "a" * 64, "-abc", "abc-", "a--b", "Abc", "$root", "a.b", "abc\n", "", None, 3])
def test_what_azure_refuses_is_no_container_name(name: object) -> None:
    assert not is_container_name(name)
    assert container_name_problem(name)


@given(st.text())
def test_container_names_are_exactly_those_of_azures_rule(name: str) -> None:
    by_the_rule = (
        3 <= len(name) <= 63
        and set(name) <= set(string.ascii_lowercase + string.digits + "-")
        and "--" not in name
        and name[0] != "-"
        and name[-1] != "-"
    )
    assert is_container_name(name) == by_the_rule


@given(model_names)
def test_a_model_container_name_is_a_job_name_and_a_label_value_and_round_trips(name: str) -> None:
    model_id = extract_model_id(name)

    assert f"model-{model_id}" == name
    assert DNS_LABEL.fullmatch(name)
    assert LABEL_VALUE.fullmatch(name)
    assert LABEL_VALUE.fullmatch(model_id)


@given(st.text())
def test_whatever_follows_the_prefix_is_an_id_or_a_refusal(text: str) -> None:
    try:
        assert extract_model_id("model-" + text) == text
    except InvalidContainerName:
        assert not is_container_name("model-" + text)


def test_the_documents_line_tells_which_id_was_extracted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        extract_and_log_model_id("model-123", logging.getLogger("test"))

    assert caplog.messages == ["Extracted model ID '123' from container name 'model-123'"]


def test_a_name_without_an_id_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidContainerName):
        extract_and_log_model_id("training-1", logging.getLogger("test"))

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'training-1' does not start with 'model-'" in caplog.text
