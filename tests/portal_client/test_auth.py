"""portal_client.auth, through the client: which header carries the key, and when the other one is tried."""

from __future__ import annotations

import pytest
import requests
import responses

from portal_client.client import PortalClient
from portal_client.errors import (
    PortalError,
    PortalUnauthorized,
    PortalUnavailable,
)
from tests.portal_client.portal_calls import BASE, GET_URL, KEY, PUT_URL, a_client, get, put


def keys_sent(api: responses.RequestsMock) -> list[str]:
    return [
        "x-api-key" if "x-api-key" in call.request.headers else call.request.headers["Authorization"].split()[0]
        for call in api.calls
    ]


def accept_only(api: responses.RequestsMock, header: str) -> None:
    """The portal takes the key under one header only. Replaces what it took before."""

    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        value = {"x-api-key": KEY, "Authorization": f"Bearer {KEY}"}[header]
        return (200, {}, '{"status": 0}') if request.headers.get(header) == value else (401, {}, "")

    api.reset()
    api.add_callback(responses.GET, GET_URL, callback=answer)
    api.add_callback(responses.PUT, PUT_URL, callback=answer)


@pytest.mark.parametrize(
    ("method", "accepted", "sent"),
    [
        ("auto", "x-api-key", ["x-api-key", "x-api-key"]),
        ("auto", "Authorization", ["x-api-key", "Bearer", "Bearer"]),
        ("x-api-key", "x-api-key", ["x-api-key", "x-api-key"]),
        ("bearer", "Authorization", ["Bearer", "Bearer"]),
    ],
)
def test_what_worked_is_remembered_so_that_not_every_call_pays_twice(
    api: responses.RequestsMock, method: str, accepted: str, sent: list[str]
) -> None:
    accept_only(api, accepted)
    client = a_client(method)

    get(client)
    put(client)

    assert keys_sent(api) == sent


def test_what_worked_is_forgotten_on_the_next_401(api: responses.RequestsMock) -> None:
    client = a_client("auto")
    accept_only(api, "Authorization")
    get(client)
    accept_only(api, "x-api-key")
    get(client)
    get(client)

    assert keys_sent(api) == ["Bearer", "x-api-key", "x-api-key"]


@pytest.mark.parametrize(("method", "accepted"), [("x-api-key", "Authorization"), ("bearer", "x-api-key")])
def test_a_fixed_method_never_tries_the_other(api: responses.RequestsMock, method: str, accepted: str) -> None:
    accept_only(api, accepted)

    with pytest.raises(PortalUnauthorized):
        get(a_client(method))
    assert len(api.calls) == 1


def test_auto_tries_each_method_once_and_then_says_unauthorised(api: responses.RequestsMock) -> None:
    api.put(PUT_URL, status=401)

    with pytest.raises(PortalUnauthorized):
        put(a_client("auto"))
    assert keys_sent(api) == ["x-api-key", "Bearer"]


@pytest.mark.parametrize("status", [403, 404, 500, 302])
def test_only_a_401_makes_auto_try_the_other_method(api: responses.RequestsMock, status: int) -> None:
    api.get(GET_URL, status=status)

    with pytest.raises(PortalError):
        get(a_client("auto"))
    assert len(api.calls) == 1


def test_the_second_methods_own_failure_is_the_one_reported(api: responses.RequestsMock) -> None:
    api.get(GET_URL, status=401)
    api.get(GET_URL, status=503)

    with pytest.raises(PortalUnavailable):
        get(a_client("auto"))


def test_without_a_key_nothing_is_sent(api: responses.RequestsMock) -> None:
    client = PortalClient(BASE, "")

    with pytest.raises(PortalUnauthorized, match="API_KEY not configured"):
        get(client)
    with pytest.raises(PortalUnauthorized, match="API_KEY not configured"):
        put(client)
    assert len(api.calls) == 0


def test_the_line_end_of_a_key_file_is_not_part_of_the_key(api: responses.RequestsMock) -> None:
    api.get(GET_URL, json={"status": 0})

    get(PortalClient(BASE, f"{KEY}\r\n"))

    assert api.calls[0].request.headers["x-api-key"] == KEY


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "nul\x00"])
def test_a_key_that_no_header_can_carry_is_refused_at_start_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="API_KEY") as caught:
        PortalClient(BASE, key)
    assert key not in str(caught.value)


def test_an_unknown_auth_method_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match=r"MODEL_API_AUTH_METHOD must be one of auto, x-api-key, bearer"):
        PortalClient(BASE, KEY, "basic")


def test_cookies_of_the_portal_are_not_sent_back(api: responses.RequestsMock) -> None:
    api.get(GET_URL, json={"status": 0}, headers={"Set-Cookie": "session=1; Path=/"})
    client = a_client()

    get(client)
    get(client)

    assert "Cookie" not in api.calls[1].request.headers


def accept_key(api: responses.RequestsMock, accepted: str, refusal: int = 401) -> None:
    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        return (200, {}, '{"status": 1}') if request.headers.get("x-api-key") == accepted else (refusal, {}, "")

    api.reset()
    api.add_callback(responses.GET, GET_URL, callback=answer)
    api.add_callback(responses.PUT, PUT_URL, callback=answer)


def renewable(
    newer: list[str | None], auth_method: str = "x-api-key", base: str = BASE
) -> tuple[PortalClient, list[str]]:
    """A client whose key is exchanged: `newer` holds what each look finds; and the keys that it asked about."""
    asked: list[str] = []

    def newer_key(refused: str) -> str | None:
        asked.append(refused)
        return newer.pop(0) if newer else None

    return PortalClient(base, KEY, auth_method, newer_key=newer_key), asked


@pytest.mark.parametrize("refusal", [401, 403])
@pytest.mark.parametrize("auth_method", ["x-api-key", "auto"])
def test_a_key_that_was_exchanged_is_read_anew_within_the_call(
    api: responses.RequestsMock, caplog: pytest.LogCaptureFixture, refusal: int, auth_method: str
) -> None:
    caplog.set_level("INFO")
    client, asked = renewable(["another-key-0123456789"], auth_method)
    accept_key(api, "another-key-0123456789", refusal)
    assert get(client).status.title == "Processing"
    put(client)
    assert asked == [KEY], "it is not asked for while it is taken"
    assert "API Key has been exchanged (length: 22): it is tried again" in caplog.messages
    assert "another-key" not in caplog.text


@pytest.mark.parametrize("found", [None, KEY, "not a key"], ids=["none", "the same", "malformed"])
def test_a_key_that_was_not_exchanged_yet_is_a_refusal_that_may_pass(
    api: responses.RequestsMock, found: str | None
) -> None:
    client, asked = renewable([found, "another-key-0123456789"])
    accept_key(api, "another-key-0123456789")
    with pytest.raises(PortalUnauthorized) as caught:
        get(client)
    assert caught.value.retryable
    assert len(api.calls) == 1, "the refused key is not sent twice"
    assert get(client).status.title == "Processing"
    assert asked == [KEY, KEY]


def test_a_key_that_comes_late_is_waited_for_with_nothing_sent(api: responses.RequestsMock) -> None:
    late: list[str | None] = [None, "another-key-0123456789"]
    client = PortalClient(BASE, "", newer_key=lambda refused: late.pop(0))
    accept_key(api, "another-key-0123456789")
    with pytest.raises(PortalUnauthorized, match="API_KEY not configured"):
        get(client)
    assert not api.calls
    assert get(client).status.title == "Processing"


def test_a_firewalls_403_is_no_reason_to_look_for_another_key(api: responses.RequestsMock) -> None:
    client, asked = renewable(["another-key-0123456789"])
    api.get(GET_URL, status=403, body="<html>", content_type="text/html")
    with pytest.raises(PortalUnavailable):
        get(client)
    assert asked == []


def test_http_is_told_and_no_warning_where_the_key_is_one_runs_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    renewable([], base="http://training-relay.training-system.svc:8082")
    assert [record.levelname for record in caplog.records if "unencrypted" in record.getMessage()] == ["INFO"]
    caplog.clear()
    PortalClient("http://portal.example.com", KEY)
    assert [record.levelname for record in caplog.records if "unencrypted" in record.getMessage()] == ["WARNING"]
