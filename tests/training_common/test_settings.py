"""training_common.settings: what a field says is read, checked across fields and shown, for whichever image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from training_common import parsers
from training_common.redaction import redact
from training_common.settings import broken, read, safe_repr, setting, settings_of


@dataclass(frozen=True, kw_only=True)
class Settings:
    name: str = setting("NAME", parsers.text, "Name of the thing", required=True)
    low: int = setting("LOW", parsers.whole(0, 9), "Least", "1")
    high: int = setting("HIGH", parsers.whole(0, 9), "Most", "5")
    key: str | None = setting("KEY", parsers.text, "Key", secret=True)
    unread: int = 3

    __repr__ = safe_repr


@dataclass(frozen=True)
class WithKey:
    api_key: str | None = setting("API_KEY", parsers.text, "Key", secret=True)
    method: str = setting("METHOD", parsers.text, "Method", "auto")

    __repr__ = safe_repr


def low_is_not_above_high(low: int, high: int) -> Iterator[str]:
    if low > high:
        yield "LOW is above HIGH"


def test_what_is_set_is_parsed_and_what_is_not_has_its_default() -> None:
    values, problems = read(Settings, {"NAME": " a\n", "HIGH": "7", "LOW": " ", "UNREAD": "4"})
    assert (values, problems) == ({"name": "a", "low": 1, "high": 7, "key": None}, [])
    assert Settings(**values) == Settings(name="a", high=7)


@pytest.mark.parametrize(
    "value", ["svc:hunter2@portal", "//svc:hunter2@portal", "portal?code=hunter2", "http://hunter2/"]
)
def test_what_may_be_meant_as_a_url_is_not_shown(value: str) -> None:
    _, (_, problem) = read(Settings, {"LOW": value})
    assert problem == "LOW must be a whole number from 0 to 9"


def test_the_log_line_of_settings_says_the_same_after_redaction() -> None:
    for shown in (repr(WithKey()), repr(WithKey(api_key="hunter2hunter2"))):
        assert redact(shown) == shown


def test_a_malformed_setting_is_named_and_left_out() -> None:
    values, problems = read(Settings, {"LOW": "ten", "KEY": "se cret", "HIGH": "https://user:word@host"})
    assert values == {}
    assert problems == [
        "NAME is not set: Name of the thing",
        "LOW 'ten' must be a whole number from 0 to 9",
        "HIGH must be a whole number from 0 to 9",
        "KEY must have no white space",
    ]


@pytest.mark.parametrize(
    ("values", "problems"),
    [({"low": 2, "high": 1}, ["LOW is above HIGH"]), ({"low": 1, "high": 1}, []), ({"low": 2}, [])],
    ids=["broken", "kept", "one of them malformed"],
)
def test_a_rule_is_applied_to_the_settings_that_it_names(values: dict[str, int], problems: list[str]) -> None:
    assert broken([low_is_not_above_high], values) == problems


def test_what_is_shown_holds_no_secret() -> None:
    assert repr(Settings(name="a", key="secret")) == "NAME=a LOW=1 HIGH=5 KEY (6 characters)"
    assert repr(Settings(name="a")) == "NAME=a LOW=1 HIGH=5 KEY (not set)"


def test_a_field_that_is_no_setting_is_left_out() -> None:
    assert [said.env for said in settings_of(Settings).values()] == ["NAME", "LOW", "HIGH", "KEY"]


@pytest.mark.parametrize("value", ["ON", "on", "On"])
def test_a_word_is_taken_in_any_letter_case(value: str) -> None:
    assert parsers.switch(value) is True
    assert parsers.choice("INFO", "on")(value) == "on"
