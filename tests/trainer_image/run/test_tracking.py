"""The trainer's lines about the portal, in the documented words and order."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import requests
import responses

from trainer_image.config.settings import Settings, from_mapping
from trainer_image.errors import UsageError
from trainer_image.run.status_tracker import StatusTracker
from trainer_image.run.tracking import connect_portal, make_tracker
from trainer_image.stop import Stop

KEY = "0123456789abcdef0123456789abcdef"
BASE = "https://localhost:44302"


def settings(tmp_path: Path, **given: str) -> Settings:
    common = {"MODEL_CONTAINER": "model-123", "API_BASE_URL": BASE, "API_KEY": KEY, "STATUS_TRACKING": "on"}
    common["AZURE_STORAGE_CONNECTION_STRING"] = "UseDevelopmentStorage=true"
    return from_mapping(common | {"REPORT_RETRY_SECONDS": "0"} | given, {"OUT": str(tmp_path), "DATA": str(tmp_path)})


def test_a_start_by_hand_logs_the_documented_lines_in_their_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with responses.RequestsMock() as api, caplog.at_level(logging.INFO):
        api.get(f"{BASE}/api/external/models/123/status", json={"status": "Created"})
        api.put(f"{BASE}/api/external/models/status", json={})
        tracker = make_tracker(settings(tmp_path), Stop(), connect_portal)
        assert tracker.begin()
        tracker.close()

    assert caplog.messages == [
        "API Client initialized with base URL: https://localhost:44302",
        "API Key configured: Yes (length: 32)",
        "Model API auth method: auto",
        "Extracted model ID '123' from container name 'model-123'",
        "Making API GET request to: https://localhost:44302/api/external/models/123/status",
        "Using authentication method: auto",
        "Trying x-api-key authentication...",
        "Response status code: 200",
        "Model status check successful with x-api-key: 200",
        "Current status of model 123: Created",
        "Making API PUT request to: https://localhost:44302/api/external/models/status",
        "Payload: {'ModelId': '123', 'Status': 1, 'Message': 'Model training started'}",
        "Using authentication method: auto",
        "Trying x-api-key authentication...",
        "Response status code: 200",
        "Model status update successful with x-api-key: 200",
        "Model 123 status updated to Processing",
    ]


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"API_KEY": "", "LAUNCHED_BY": "dispatcher"}, "API_KEY not configured"),
        ({"API_KEY": ""}, "API_KEY not configured"),
        ({"MODEL_CONTAINER": "training-1"}, "No model ID extracted: Model container name 'training-1' does not start"),
    ],
)
def test_what_is_missing_is_a_documented_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, given: dict[str, str], warned: str
) -> None:
    with caplog.at_level(logging.INFO):
        try:
            make_tracker(settings(tmp_path, **given), Stop(), connect_portal)
        except UsageError:
            assert "LAUNCHED_BY" not in given, "a training that was launched goes on"

    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(line.startswith(warned) for line in lines), lines


def test_a_token_that_lies_in_a_file_is_read_anew_when_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "API_KEY").write_text("first-token-0123456789\n")
    chosen = settings(tmp_path, API_KEY="", CREDENTIALS_DIR=str(tmp_path), LAUNCHED_BY="dispatcher")
    assert chosen.api_key == "first-token-0123456789"
    asked: list[str] = []

    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        asked.append(request.headers.get("x-api-key", "bearer"))
        return (200, {}, '{"status": "Processing"}') if "second" in asked[-1] else (401, {}, "")

    with responses.RequestsMock() as api:
        api.add_callback(responses.GET, f"{BASE}/api/external/models/123/status", callback=answer)
        (tmp_path / "API_KEY").write_text("second-token-0123456789\n")
        tracker = make_tracker(chosen, Stop(), connect_portal)
        assert tracker.begin()
        tracker.close()
    assert asked == ["first-token-0123456789", "bearer", "second-token-0123456789"]
    assert isinstance(tracker, StatusTracker)
    assert tracker.key_seconds == 180.0
