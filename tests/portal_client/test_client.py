"""portal_client.client: what each answer of the portal leads to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
import responses

from portal_client.client import PortalClient
from portal_client.errors import PortalError, PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.portal_client.portal_calls import BASE, GET_URL, KEY, PUT_URL, a_client, error_of_get, error_of_put, get, put

# --- what works ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"status": "Created", "message": "ready"}, ModelStatus(ProcessingStatus.CREATED, "ready")),
        ({"status": 4, "message": ""}, ModelStatus(ProcessingStatus.RECONFIGURE, "")),
        ({"status": "3"}, ModelStatus(ProcessingStatus.FAILED, "")),
        ({"status": "completed", "message": None}, ModelStatus(ProcessingStatus.COMPLETED, "")),
        ({"Status": 1, "Message": "going on"}, ModelStatus(ProcessingStatus.PROCESSING, "going on")),
        ({"status": 0, "message": 7, "more": [1]}, ModelStatus(ProcessingStatus.CREATED, "")),
    ],
)
def test_a_status_is_read_as_word_or_number(api: responses.RequestsMock, body: object, expected: ModelStatus) -> None:
    api.get(GET_URL, json=body)

    assert get(a_client()) == expected


def test_a_byte_order_mark_does_not_hide_the_status(api: responses.RequestsMock) -> None:
    api.get(GET_URL, body=b'\xef\xbb\xbf{"status": "Created"}')

    assert get(a_client()).status is ProcessingStatus.CREATED


def test_the_update_is_what_the_document_says(api: responses.RequestsMock) -> None:
    api.put(PUT_URL, json={})

    put(a_client())

    request = api.calls[0].request
    assert json.loads(request.body or b"") == {
        "ModelId": "123",
        "Status": 1,
        "Message": "Model training started",
    }
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["x-api-key"] == KEY
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(("status", "body"), [(200, ""), (204, ""), (200, "OK"), (202, "{}"), (200, "x" * 100_000)])
def test_an_update_needs_no_particular_body_to_succeed(api: responses.RequestsMock, status: int, body: str) -> None:
    api.put(PUT_URL, status=status, body=body, content_type="text/plain")

    put(a_client())


def test_a_strange_id_stays_in_its_place_in_the_path(api: responses.RequestsMock) -> None:
    api.get(f"{BASE}/api/external/models/..%2Fstatus%3Fx%3D1%23y%252f/status", json={"status": 0})

    assert a_client().get_model_status("../status?x=1#y%2f").status is ProcessingStatus.CREATED


@pytest.mark.parametrize("model_id", ["", ".", "..", "1\n2", "\x00"])
def test_an_id_that_leads_elsewhere_is_never_sent(api: responses.RequestsMock, model_id: str) -> None:
    with pytest.raises(ValueError, match="cannot be a model ID"):
        a_client().get_model_status(model_id)
    with pytest.raises(ValueError, match="cannot be a model ID"):
        a_client().update_model_status(model_id, ProcessingStatus.FAILED, "")
    assert len(api.calls) == 0


def test_a_path_in_the_base_url_is_kept(api: responses.RequestsMock) -> None:
    api.get(f"{BASE}/portal/api/external/models/123/status", json={"status": 0})

    assert get(PortalClient(f" {BASE}/portal/ \n", KEY)).status is ProcessingStatus.CREATED


def test_a_message_is_cut_and_holds_no_secret(api: responses.RequestsMock) -> None:
    api.put(PUT_URL)
    client = a_client()

    client.update_model_status("123", ProcessingStatus.FAILED, f"AccountKey=abcdefgh; {KEY} " + "x" * 5000)

    message = json.loads(api.calls[0].request.body or b"")["Message"]
    assert message.startswith("AccountKey=[redacted]; [redacted] xxx")
    assert len(message) <= 4000
    assert message.endswith("…")


# --- no answer at all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "ambiguous", "words"),
    [
        (requests.ConnectTimeout("slow"), False, "did not take a connection within 30 s"),
        (requests.ReadTimeout("slow"), True, "did not answer within 30 s"),
        (requests.ConnectionError(ConnectionResetError("reset")), True, "cut the connection"),
        (requests.exceptions.ChunkedEncodingError("short"), True, "cut the connection"),
        (requests.exceptions.ProxyError("no proxy"), False, "HTTPS_PROXY"),
        (OSError("no such CA file"), False, "cannot be called from here: no such CA file"),
    ],
)
def test_no_answer_is_unavailable_and_a_write_may_have_arrived(
    api: responses.RequestsMock, failure: Exception, ambiguous: bool, words: str
) -> None:
    read, written = error_of_get(api, body=failure), error_of_put(api, body=failure)

    assert type(read) is type(written) is PortalUnavailable
    assert (read.ambiguous, written.ambiguous) == (False, ambiguous)
    assert words in str(written)
    assert BASE in str(written)
    assert written.status_code is None


def test_an_error_carries_no_request_with_the_key_in_its_chain(api: responses.RequestsMock) -> None:
    error = error_of_get(api, body=requests.ConnectTimeout("slow"))

    assert error.__cause__ is None
    assert error.__context__ is None


def test_both_waits_are_bounded_and_certificates_checked(
    api: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    sent = responses.matchers.request_kwargs_matcher(
        {"timeout": (30.0, 30.0), "verify": True, "stream": True, "cert": None}
    )
    api.get(GET_URL, json={"status": 0}, match=[sent])

    get(a_client())


def test_a_netrc_entry_does_not_replace_the_key(
    api: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine portal.example.com login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    api.get(GET_URL, json={"status": 0})

    get(a_client("bearer"))

    assert api.calls[0].request.headers["Authorization"] == f"Bearer {KEY}"


# --- who is told of it --------------------------------------------------------------------------------------------


def test_an_observer_is_told_of_every_call_and_how_it_ended(api: responses.RequestsMock) -> None:
    api.get(GET_URL, json={"status": "Created"})
    api.get(GET_URL, status=404, json={"detail": "There is no model 123"})
    api.put(PUT_URL, status=204)
    api.put(PUT_URL, body=requests.ConnectionError("cut"))
    calls: list[tuple[str, int | None, str]] = []

    def on_call(method: str, status: int | None, error: PortalError | None, seconds: float) -> None:
        assert seconds >= 0
        calls.append((method, status, type(error).__name__))

    client = PortalClient(BASE, KEY, "x-api-key", on_call=on_call)
    get(client)
    with pytest.raises(PortalError):
        get(client)
    put(client)
    with pytest.raises(PortalError):
        put(client)
    assert calls == [
        ("GET", 200, "NoneType"),
        ("GET", 404, "ModelUnknown"),
        ("PUT", 204, "NoneType"),
        ("PUT", None, "PortalUnavailable"),
    ]
