"""portal_client.answers, through the client: what an answer that is no success leads to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import responses

from portal_client.errors import (
    ModelUnknown,
    PortalError,
    PortalRefused,
    PortalUnauthorized,
    PortalUnavailable,
    StatusUnreadable,
)
from tests.portal_client.portal_calls import GET_URL, HTML, KEY, PUT_URL, error_of_get, error_of_put


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "ambiguous_put", "words"),
    [
        (301, PortalUnavailable, True, False, "API_BASE_URL"),
        (302, PortalUnavailable, True, False, "login page"),
        (400, PortalRefused, False, False, "refuses"),
        (401, PortalUnauthorized, True, False, "API_KEY and MODEL_API_AUTH_METHOD"),
        (403, PortalUnauthorized, True, False, "right to read and write"),
        (404, ModelUnknown, False, False, "does not know model 123"),
        (405, PortalRefused, False, False, "refuses"),
        (407, PortalUnavailable, True, False, "cannot answer now"),
        (408, PortalUnavailable, True, True, "cannot answer now"),
        (409, PortalRefused, False, False, "Conflict"),
        (410, PortalRefused, False, False, "Gone"),
        (418, PortalRefused, False, False, "refuses"),
        (422, PortalRefused, False, False, "refuses"),
        (429, PortalUnavailable, True, False, "Too Many Requests"),
        (499, PortalRefused, False, False, "499 Unknown"),
        (500, PortalUnavailable, True, True, "Internal Server Error"),
        (502, PortalUnavailable, True, True, "Bad Gateway"),
        (503, PortalUnavailable, True, True, "Service Unavailable"),
        (504, PortalUnavailable, True, True, "Gateway Timeout"),
        (599, PortalUnavailable, True, True, "599"),
    ],
)
def test_a_refusal_says_whether_a_retry_makes_sense(
    api: responses.RequestsMock,
    status: int,
    kind: type[PortalError],
    retryable: bool,
    ambiguous_put: bool,
    words: str,
) -> None:
    for error, ambiguous, url in (
        (error_of_get(api, status=status, json={"title": "no"}), False, GET_URL),
        (error_of_put(api, status=status, json={"title": "no"}), ambiguous_put, PUT_URL),
    ):
        assert type(error) is kind
        assert (error.retryable, error.ambiguous, error.status_code) == (retryable, ambiguous, status)
        assert error.retry_after is None
        assert words in str(error)
        assert url in str(error)
        assert KEY not in str(error)


@pytest.mark.parametrize("status", [400, 404, 405, 410])
def test_a_web_page_from_a_wrong_base_url_condemns_no_model(api: responses.RequestsMock, status: int) -> None:
    error = error_of_get(api, status=status, body=HTML, content_type="text/html")

    assert type(error) is PortalUnavailable
    assert "check API_BASE_URL" in str(error)


@pytest.mark.parametrize("body", ["404 page not found\n", "default backend - 404", "404: Not Found"])
def test_a_router_without_a_route_condemns_no_model(api: responses.RequestsMock, body: str) -> None:
    assert type(error_of_get(api, status=404, body=body, content_type="text/plain")) is PortalUnavailable


@pytest.mark.parametrize("body", ["", '{"title": "Not Found"}', "There is no model 123"])
def test_the_portals_own_404_is_an_unknown_model(api: responses.RequestsMock, body: str) -> None:
    assert type(error_of_put(api, status=404, body=body, content_type="text/plain")) is ModelUnknown


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (HTML, "text/html; charset=utf-8", "an HTML page"),
        ("\n " + HTML, "application/json", "an HTML page"),
        ('{"status": "Created"}', "text/html", "an HTML page"),
        ("", "application/json", "an empty body"),
        (" \n", "application/json", "an empty body"),
        ("Created", "text/plain", "no JSON"),
        (b'{"status": "Crea\xff"}', "application/json", "no JSON"),
        ('{"status": ' + "1" * 5000 + "}", "application/json", "no JSON"),
        ("[" * 20_000, "application/json", "no JSON"),
        ('{"status": "Created", "message": "' + "x" * 70_000 + '"}', "application/json", "more than 64 KiB"),
    ],
)
def test_what_is_no_answer_of_the_api_is_unavailable_though_it_says_200(
    api: responses.RequestsMock, body: str | bytes, content_type: str, words: str
) -> None:
    error = error_of_get(api, body=body, content_type=content_type)

    assert type(error) is PortalUnavailable
    assert words in str(error)
    assert (error.retryable, error.ambiguous, error.status_code) == (True, False, 200)


def test_a_login_page_is_no_successful_update(api: responses.RequestsMock) -> None:
    error = error_of_put(api, body=HTML, content_type="text/html")

    assert type(error) is PortalUnavailable
    assert error.ambiguous


@pytest.mark.parametrize(
    "body",
    [
        '{"status": "Paused"}',
        '{"status": 5}',
        '{"status": null}',
        '{"status": true}',
        '{"state": 1}',
        "[]",
        '"x"',
        "null",
    ],
)
def test_an_unknown_status_is_told_apart_and_not_retried(api: responses.RequestsMock, body: str) -> None:
    error = error_of_get(api, body=body, content_type="application/json")

    assert type(error) is StatusUnreadable
    assert not error.retryable


def test_a_redirect_is_not_followed(api: responses.RequestsMock) -> None:
    api.get("https://login.example.com/", json={"status": "Created"})

    error_of_get(api, status=302, headers={"Location": "https://login.example.com/"})

    assert len(api.calls) == 1


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        (" 0.5 ", 0.5, 0.5),
        # Written when the tests are collected, read minutes later.
        (format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True), 3600, 10801),
        (format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True), 0, 0),
    ],
    ids=["seconds", "with spaces", "a date", "a date that has passed"],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_in_seconds_however_it_was_said(
    api: responses.RequestsMock, status: int, value: str, low: float, high: float
) -> None:
    error = error_of_get(api, status=status, headers={"Retry-After": value})

    assert error.retry_after is not None
    assert low <= error.retry_after <= high


@pytest.mark.parametrize("value", ["soon", "-1", "1e9", "", "Wed, 99 Foo 2026 00:00:00 GMT", "9" * 30, "١"])
def test_an_unreadable_retry_after_is_none(api: responses.RequestsMock, value: str) -> None:
    error = error_of_get(api, status=429, headers={"Retry-After": value})

    assert error.retry_after is None


@pytest.mark.parametrize("body", [{"detail": "Model is locked"}, {"Message": "Model is locked"}, "Model is locked"])
def test_the_portals_own_words_are_passed_on(api: responses.RequestsMock, body: object) -> None:
    assert "saying 'Model is locked'" in str(error_of_put(api, status=409, json=body))


def test_a_portal_that_repeats_the_key_does_not_put_it_into_the_sentence(
    api: responses.RequestsMock,
) -> None:
    error = error_of_put(api, status=400, json={"detail": f"The key {KEY} is bad"})

    assert KEY not in str(error)
    assert "bad" in str(error)
