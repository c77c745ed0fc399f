"""The log lines that operators troubleshoot with: each block is quoted from the requirements document.

A block is held as an ordered part of what is logged: the requirements' own blocks leave out each other's lines (the
"Payload:" line stands in one, the "Trying ..." lines in another).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
import requests
import responses

from portal_client.client import PortalClient
from portal_client.errors import PortalError
from portal_client.model_ids import extract_and_log_model_id
from portal_client.statuses import ProcessingStatus

BASE = "https://localhost:44302"
PUT_URL = f"{BASE}/api/external/models/status"
KEY = "0123456789abcdef0123456789abcdef"
LOG = logging.getLogger("portal_client")

SUCCESSFUL_STATUS_UPDATE = """\
Extracted model ID '123' from container name 'model-123'
Making API PUT request to: https://localhost:44302/api/external/models/status
Payload: {'ModelId': '123', 'Status': 1, 'Message': 'Model training started'}
Model status update successful: 200
Model 123 status updated to Processing"""

FAILED_STATUS_UPDATE = """\
Extracted model ID '456' from container name 'model-456'
Making API PUT request to: https://localhost:44302/api/external/models/status
Error updating model status: HTTPSConnectionPool(host='localhost', port=44302): Max retries exceeded
Failed to update model 456 status to Processing"""

UNAUTHORIZED = "Error updating model status: 401 Client Error: Unauthorized"

SUCCESSFUL_AUTHENTICATION = """\
API Client initialized with base URL: https://localhost:44302
API Key configured: Yes (length: 32)
Model API auth method: auto
Extracted model ID '123' from container name 'model-123'
Making API PUT request to: https://localhost:44302/api/external/models/status
Using authentication method: auto
Trying x-api-key authentication...
Response status code: 200
Model status update successful with x-api-key: 200
Model 123 status updated to Processing"""

FAILED_AUTHENTICATION_WITH_FALLBACK = """\
Trying x-api-key authentication...
Response status code: 401
x-api-key authentication failed (401)
Falling back to Bearer token authentication...
Trying Bearer token authentication...
Response status code: 200
Model status update successful with Bearer token: 200
Model 123 status updated to Processing"""

REFUSED_CONNECTION = requests.ConnectionError(
    "HTTPSConnectionPool(host='localhost', port=44302): Max retries exceeded with url: "
    "/api/external/models/status (Caused by NewConnectionError(...))"
)


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "portal_client"):
        yield


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def start(method: str, container: str, key: str = KEY) -> None:
    """What a training's start does with the portal."""
    client = PortalClient(BASE, key, method)
    model_id = extract_and_log_model_id(container, LOG)
    client.update_model_status(model_id, ProcessingStatus.PROCESSING, "Model training started")


def assert_in_order(block: str, logged: list[str]) -> None:
    position = 0
    for line in block.splitlines():
        found = next((i for i in range(position, len(logged)) if logged[i].startswith(line)), None)
        assert found is not None, f"{line!r} is not in {logged[position:]}"
        # requests' own text goes on after what the requirements show of it.
        assert logged[found] == line or line.endswith("Max retries exceeded")
        position = found + 1


@pytest.mark.parametrize(
    ("method", "container", "answers", "block"),
    [
        ("x-api-key", "model-123", [200], SUCCESSFUL_STATUS_UPDATE),
        ("bearer", "model-123", [200], SUCCESSFUL_STATUS_UPDATE),
        ("x-api-key", "model-456", [REFUSED_CONNECTION], FAILED_STATUS_UPDATE),
        ("auto", "model-456", [REFUSED_CONNECTION], FAILED_STATUS_UPDATE),
        ("auto", "model-123", [200], SUCCESSFUL_AUTHENTICATION),
        ("auto", "model-123", [401, 200], FAILED_AUTHENTICATION_WITH_FALLBACK),
        ("x-api-key", "model-123", [401], UNAUTHORIZED),
        ("bearer", "model-123", [401], UNAUTHORIZED),
        ("auto", "model-123", [401, 401], UNAUTHORIZED),
    ],
)
def test_the_documents_output_is_kept_word_for_word(
    api: responses.RequestsMock,
    caplog: pytest.LogCaptureFixture,
    method: str,
    container: str,
    answers: list[int | Exception],
    block: str,
) -> None:
    for answer in answers:
        if isinstance(answer, int):
            api.put(PUT_URL, status=answer)
        else:
            api.put(PUT_URL, body=answer)
    succeeds = answers[-1] == 200

    if succeeds:
        start(method, container)
    else:
        with pytest.raises(PortalError):
            start(method, container)

    assert_in_order(block, caplog.messages)


def test_the_whole_output_of_an_update_by_auto(api: responses.RequestsMock, caplog: pytest.LogCaptureFixture) -> None:
    api.put(PUT_URL, status=200)
    lines = SUCCESSFUL_AUTHENTICATION.splitlines()
    lines.insert(5, "Payload: {'ModelId': '123', 'Status': 1, 'Message': 'Model training started'}")

    start("auto", "model-123")

    assert caplog.messages == lines
    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.parametrize(("method", "spoken"), [("x-api-key", "x-api-key"), ("bearer", "Bearer token")])
def test_the_whole_output_of_an_update_by_a_fixed_method(
    api: responses.RequestsMock, caplog: pytest.LogCaptureFixture, method: str, spoken: str
) -> None:
    api.put(PUT_URL, status=200)

    start(method, "model-123")

    assert caplog.messages == [
        "API Client initialized with base URL: https://localhost:44302",
        "API Key configured: Yes (length: 32)",
        f"Model API auth method: {method}",
        "Extracted model ID '123' from container name 'model-123'",
        "Making API PUT request to: https://localhost:44302/api/external/models/status",
        "Payload: {'ModelId': '123', 'Status': 1, 'Message': 'Model training started'}",
        f"Using authentication method: {method}",
        f"Trying {spoken} authentication...",
        "Response status code: 200",
        "Model status update successful: 200",
        "Model 123 status updated to Processing",
    ]


def test_the_whole_output_of_a_status_check(api: responses.RequestsMock, caplog: pytest.LogCaptureFixture) -> None:
    api.get(f"{BASE}/api/external/models/123/status", status=401)
    api.get(f"{BASE}/api/external/models/123/status", json={"status": 0})
    client = PortalClient(BASE, KEY)
    caplog.clear()

    client.get_model_status("123")

    assert caplog.messages == [
        "Making API GET request to: https://localhost:44302/api/external/models/123/status",
        "Using authentication method: auto",
        "Trying x-api-key authentication...",
        "Response status code: 401",
        "x-api-key authentication failed (401)",
        "Falling back to Bearer token authentication...",
        "Trying Bearer token authentication...",
        "Response status code: 200",
        "Model status check successful with Bearer token: 200",
        "Current status of model 123: Created",
    ]


def test_a_failed_status_check_is_told_in_the_same_words(
    api: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    api.get(f"{BASE}/api/external/models/123/status", status=404)

    with pytest.raises(PortalError):
        PortalClient(BASE, KEY, "bearer").get_model_status("123")

    assert caplog.messages[-2:] == [
        "Error checking model status: 404 Client Error: Not Found",
        "Failed to retrieve status of model 123",
    ]


def test_a_login_page_is_not_logged_as_success(api: responses.RequestsMock, caplog: pytest.LogCaptureFixture) -> None:
    api.put(PUT_URL, body="<html>Sign in</html>", content_type="text/html")

    with pytest.raises(PortalError):
        start("auto", "model-123")

    assert not any("successful" in line or "updated to" in line for line in caplog.messages)


@pytest.mark.parametrize(("status", "line"), [(500, "500 Server Error: Internal Server Error"), (302, "302 Found")])
def test_other_answers_are_named_as_the_401_is(
    api: responses.RequestsMock, caplog: pytest.LogCaptureFixture, status: int, line: str
) -> None:
    api.put(PUT_URL, status=status)

    with pytest.raises(PortalError):
        start("bearer", "model-123")

    assert f"Error updating model status: {line}" in caplog.messages


def test_fall_backs_and_failures_are_warnings(api: responses.RequestsMock, caplog: pytest.LogCaptureFixture) -> None:
    api.put(PUT_URL, status=401)

    with pytest.raises(PortalError):
        start("auto", "model-123")

    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "x-api-key authentication failed (401)",
        "Falling back to Bearer token authentication...",
        "Bearer token authentication failed (401)",
        UNAUTHORIZED,
        "Failed to update model 123 status to Processing",
    ]


def test_a_missing_key_is_the_documents_warning(caplog: pytest.LogCaptureFixture) -> None:
    PortalClient(BASE, "", "auto")

    assert caplog.messages[1] == "API Key configured: No"
    assert ("WARNING", "API_KEY not configured") in [(r.levelname, r.message) for r in caplog.records]


def test_http_to_another_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    PortalClient("http://portal.example.com", KEY)
    PortalClient("http://127.0.0.1:80", KEY)
    PortalClient("https://portal.example.com", KEY)

    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].endswith("unencrypted to portal.example.com")


@pytest.mark.parametrize("answer", [200, 401, 403, 404, 500, requests.ReadTimeout("slow")])
@pytest.mark.parametrize("method", ["auto", "x-api-key", "bearer"])
def test_the_key_is_in_no_line(
    api: responses.RequestsMock, caplog: pytest.LogCaptureFixture, method: str, answer: int | Exception
) -> None:
    if isinstance(answer, int):
        api.put(PUT_URL, status=answer, json={"detail": f"You sent {KEY}"})
        if answer == 200:  # such an answer says neither that it was taken nor that it was not
            api.get(f"{BASE}/api/external/models/123/status", json={"status": "Failed", "message": f"You sent {KEY}"})
    else:
        api.put(PUT_URL, body=answer)
    client = PortalClient(BASE, KEY, method)

    raised = ""
    try:
        client.update_model_status("123", ProcessingStatus.FAILED, f"Could not use {KEY}, AccountKey=abc123==;")
    except PortalError as error:
        raised = repr(error) + error.detail

    assert (raised == "") == (answer == 200)
    assert KEY not in raised
    assert KEY not in caplog.text
    assert "abc123" not in caplog.text


def test_a_logger_of_ones_own_gets_all_lines(caplog: pytest.LogCaptureFixture) -> None:
    bound = logging.LoggerAdapter(logging.getLogger("portal_client.bound"), {"model": "123"})

    PortalClient(BASE, KEY, logger=bound)

    assert {record.name for record in caplog.records} == {"portal_client.bound"}
    assert all(re.search("API", line) for line in caplog.messages)
