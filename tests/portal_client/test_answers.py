"""portal_client.answers, through the client: what an answer that is no success leads to."""

from __future__ import annotations

import base64
import html
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote, unquote

import pytest
import requests
import responses

from portal_client.client import PortalClient
from portal_client.errors import (
    ModelUnknown,
    NotAcknowledged,
    NotFoundUnexplained,
    PortalError,
    PortalRefused,
    PortalUnauthorized,
    PortalUnavailable,
    StatusUnreadable,
    WriteConflict,
)
from portal_client.statuses import ProcessingStatus
from tests.portal_client.portal_calls import (
    BASE,
    GET_URL,
    HTML,
    KEY,
    PUT_URL,
    a_client,
    error_of_get,
    error_of_put,
    get,
    put,
)


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "ambiguous_put", "words"),
    [
        (301, PortalUnavailable, True, False, "API_BASE_URL"),
        (302, PortalUnavailable, True, False, "login page"),
        (400, PortalRefused, False, False, "refuses"),
        (401, PortalUnauthorized, True, False, "API_KEY and MODEL_API_AUTH_METHOD"),
        (403, PortalUnauthorized, True, False, "right to read and write"),
        (404, NotFoundUnexplained, True, False, "it may not know model 123, or API_BASE_URL leads elsewhere"),
        (405, PortalRefused, False, False, "refuses"),
        (407, PortalUnavailable, True, False, "cannot answer now"),
        (408, PortalUnavailable, True, True, "cannot answer now"),
        (409, WriteConflict, True, False, "Conflict"),
        (412, WriteConflict, True, False, "somebody else may be writing"),
        (423, WriteConflict, True, False, "Locked"),
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


@pytest.mark.parametrize(
    "body",
    [
        "There is no model 123",
        '{"detail": "There is no model 123"}',
        '{"title": "Not Found", "status": 404, "detail": "Model not found"}',
        '{"error": {"message": "unknown model"}}',
        '{"path": "/api/external/models/123/status", "error": "No such model"}',
    ],
)
def test_a_404_about_the_model_is_an_unknown_model(api: responses.RequestsMock, body: str) -> None:
    for error in (error_of_get, error_of_put):
        assert type(error(api, status=404, body=body, content_type="text/plain")) is ModelUnknown


@pytest.mark.parametrize(
    "body",
    [
        "",
        " \r\n",
        "{}",
        "null",
        "Not Found",
        '{"detail": "Not Found"}',
        '{"type": "https://tools.ietf.org/html/rfc9110#section-15.5.5", "title": "Not Found", "status": 404}',
        '{"message": "no Route matched with those values"}',
        '{"timestamp": 1, "status": 404, "error": "Not Found", "path": "/api/external/models/123/status"}',
        "Cannot GET /api/external/models/123/status",
        '{"MessageDetail": "No type was found that matches the controller named \'models\'."}',
        '{"error": "Unknown endpoint: external models status"}',
        "no such route: external.models.status",
        "upstream models-api not found",
    ],
)
def test_a_404_in_nobodys_words_condemns_no_model(api: responses.RequestsMock, body: str) -> None:
    for error in (error_of_get, error_of_put):
        found = error(api, status=404, body=body, content_type="application/json")
        assert type(found) is NotFoundUnexplained
        assert found.retryable
        assert "check" not in str(found) or "API_BASE_URL" in str(found)


def test_a_404_without_words_is_an_unknown_model_where_the_portal_answers_for_another_one_now(
    api: responses.RequestsMock,
) -> None:
    client = a_client()
    known = api.get(f"{BASE}/api/external/models/7/status", json={"status": "Created"})
    api.get(GET_URL, status=404)
    client.get_model_status("7")

    with pytest.raises(ModelUnknown, match="it knows model 7"):
        client.get_model_status("123")
    assert known.call_count == 2, "what it knew before proves nothing about now"

    api.replace(responses.GET, f"{BASE}/api/external/models/7/status", status=404)
    for _ in range(2):
        with pytest.raises(NotFoundUnexplained):
            client.get_model_status("123")


def test_a_model_that_was_known_is_no_proof_of_itself(api: responses.RequestsMock) -> None:
    client = a_client()
    api.get(GET_URL, json={"status": "Created"})
    get(client)
    api.replace(responses.GET, GET_URL, status=404)

    with pytest.raises(NotFoundUnexplained):
        get(client)


# --- a refused key, and a firewall's word -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "/Account/Login?ReturnUrl=%2Fapi%2Fexternal%2Fmodels%2F123%2Fstatus",
        "https://login.microsoftonline.com/tenant/oauth2/v2.0/authorize?client_id=1",
        "/signin",
        "/",
        "https://portal.example.com/",
        "https://accounts.example.com/api/external/models/123/status",
        "../../../../Identity/Account/Login",
    ],
)
def test_a_redirect_to_a_login_is_a_refused_key_and_the_other_header_is_tried(
    api: responses.RequestsMock, status: int, location: str
) -> None:
    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        if request.headers.get("Authorization") == f"Bearer {KEY}":
            return 200, {}, '{"status": "Created"}'
        return status, {"Location": location}, ""

    api.add_callback(responses.GET, GET_URL, callback=answer)

    assert get(a_client("auto")).status.title == "Created"
    with pytest.raises(PortalUnauthorized, match=r"API_KEY and MODEL_API_AUTH_METHOD"):
        get(a_client("x-api-key"))


@pytest.mark.parametrize(
    "location",
    [
        "https://portal.example.com/api/external/models/123/status",
        "https://www.example.com/portal/api/external/models/123/status/",
        "http://[",
        "",
    ],
)
def test_the_same_path_elsewhere_is_another_address_and_no_refused_key(
    api: responses.RequestsMock, location: str
) -> None:
    error = error_of_get(api, status=301, headers={"Location": location})

    assert type(error) is PortalUnavailable
    assert "API_BASE_URL" in str(error)


def test_a_forbidding_web_page_is_a_firewalls_word_and_not_the_keys_rights(api: responses.RequestsMock) -> None:
    error = error_of_put(api, status=403, body=HTML, content_type="text/html")

    assert type(error) is PortalUnavailable
    assert "gateway or firewall" in str(error)
    assert "the key needs" not in str(error)


# --- what is no acknowledgement -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"success": false, "error": "Model is archived"}', "Model is archived"),
        ('{"Success": "False", "Message": "no"}', "no"),
        ('{"result": null, "success": false, "error": {"code": 0, "message": "Busy"}, "__abp": true}', "Busy"),
        ('{"isSuccess": false, "errors": ["a", "b"]}', "a"),
        ('{"ok": 0}', "ok: 0"),
        ('{"error": "Model is archived"}', "Model is archived"),
        ('{"errors": {"Message": ["too long"]}}', "too long"),
        ('{"statusCode": 500, "message": "Oops"}', "Oops"),
        ('{"status": 404, "title": "Not Found"}', "Not Found"),
        ('{"status": "error", "message": "Oops"}', "Oops"),
        ('{"data": {"success": false, "message": "Deep"}}', "Deep"),
        ("false", "false"),
        ("Error: could not save", "could not save"),
    ],
)
def test_a_success_that_its_body_denies_is_none(api: responses.RequestsMock, body: str, words: str) -> None:
    error = error_of_put(api, body=body, content_type="application/json")

    assert type(error) is NotAcknowledged
    assert (error.retryable, error.ambiguous) == (True, True)
    assert words in str(error)


CLEAR = [
    "",
    "{}",
    '{"success": true}',
    '{"success": true, "error": null}',
    '{"status": "Completed"}',
    '{"Status": 2}',
    '{"error": "", "errors": []}',
    '{"status": "ok"}',
    '{"code": 0}',
    '{"error": "a warning", "success": true}',
    '{"code": "200", "message": "saved"}',
    '{"data": {"modelId": "123", "status": "Completed"}}',
]


@pytest.mark.parametrize("body", CLEAR)
def test_an_end_that_is_taken_without_a_doubt_is_not_asked_for(api: responses.RequestsMock, body: str) -> None:
    api.put(PUT_URL, body=body)

    a_client().update_model_status("123", ProcessingStatus.COMPLETED, "m")

    assert len(api.calls) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, ""),
        (200, "OK"),
        (200, "[]"),
        (200, '{"status": "Processing"}'),
        (200, '{"code": 1, "msg": "busy"}'),
        (200, '{"code": 0, "status": "NOK"}'),
        (200, '{"result": "error"}'),
        (200, '{"message": "The model is locked"}'),
        (200, '{"updated": false}'),
    ],
)
def test_an_end_that_may_not_have_been_taken_counts_when_it_is_shown(
    api: responses.RequestsMock, status: int, body: str
) -> None:
    api.put(PUT_URL, status=status, body=body)
    api.get(GET_URL, json={"status": "Processing"})
    with pytest.raises(NotAcknowledged, match="still shows Processing"):
        a_client().update_model_status("123", ProcessingStatus.COMPLETED, "m")

    put(a_client())  # Processing is looked at later anyway

    api.replace(responses.GET, GET_URL, json={"status": "Completed"})
    a_client().update_model_status("123", ProcessingStatus.COMPLETED, "m")


# --- statuses that differ -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"status": "Created", "Status": "Failed"}',
        '{"status": "Created", "status": "Failed"}',
        '{"STATUS": 0, "message": "", "status": "3"}',
        '{"status": "Created", "Status": "Paused"}',
    ],
)
def test_statuses_that_contradict_each_other_are_told_both(api: responses.RequestsMock, body: str) -> None:
    error = error_of_get(api, body=body)

    assert type(error) is StatusUnreadable
    given = [value for name, value in json.loads(body, object_pairs_hook=list) if name.lower() == "status"]
    assert all(repr(value) in str(error) for value in given)


def test_one_status_said_twice_is_one(api: responses.RequestsMock) -> None:
    api.get(GET_URL, body='{"status": "Created", "Status": 0, "STATUS": "0", "Message": "m"}')

    assert get(a_client()).message == "m"


def test_a_read_asks_for_no_cached_answer(api: responses.RequestsMock) -> None:
    api.get(GET_URL, json={"status": 0})
    api.put(PUT_URL)
    client = a_client()

    get(client)
    put(client)

    assert api.calls[0].request.headers["Cache-Control"] == "no-cache"
    assert "Cache-Control" not in api.calls[1].request.headers


# --- the key in the portal's words --------------------------------------------------------------------------------


ODD_KEY = "Ab+/9=&x-0123456789"


@pytest.mark.parametrize(
    "spelt",
    [
        ODD_KEY.replace("+", "\\u002B").replace("&", "\\u0026"),
        quote(ODD_KEY, safe=""),
        base64.b64encode(f"Bearer {ODD_KEY}".encode()).decode(),
        html.escape(ODD_KEY),
        f"Bearer {ODD_KEY}",
        ODD_KEY[:12] + "...",
    ],
)
def test_the_key_is_in_no_sentence_however_the_portal_spells_it(api: responses.RequestsMock, spelt: str) -> None:
    client = PortalClient(BASE, ODD_KEY, "x-api-key")
    for body in (
        f'{{"detail": "{"x" * 150} you sent {spelt}"}}',
        f'{{"status": "{spelt}"}}',
        f'{{"error": "{spelt}"}}',
    ):
        for status in (200, 400, 401, 403, 404, 500):
            api.reset()
            api.get(GET_URL, status=status, body=body)
            api.put(PUT_URL, status=status, body=body)
            for call in (get, put):
                try:
                    call(client)
                except PortalError as error:
                    said = str(error) + error.detail
                    assert ODD_KEY not in html.unescape(unquote(said).encode().decode("unicode_escape"))
                    assert spelt.rstrip(".") not in said


def test_the_key_in_a_models_message_is_not_passed_on(api: responses.RequestsMock) -> None:
    api.get(GET_URL, body='{"status": 1, "message": "by \\u004bey-0123456789 at noon"}')

    assert get(PortalClient(BASE, "Key-0123456789")).message == "by [redacted] at noon"


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


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "Model is locked"},
        {"Message": "Model is locked"},
        {"error": {"message": "Model is locked"}},
        "Model is locked",
    ],
)
def test_the_portals_own_words_are_passed_on(api: responses.RequestsMock, body: object) -> None:
    assert "saying 'Model is locked'" in str(error_of_put(api, status=422, json=body))


def test_a_portal_that_repeats_the_key_does_not_put_it_into_the_sentence(
    api: responses.RequestsMock,
) -> None:
    error = error_of_put(api, status=400, json={"detail": f"The key {KEY} is bad"})

    assert KEY not in str(error)
    assert "bad" in str(error)
