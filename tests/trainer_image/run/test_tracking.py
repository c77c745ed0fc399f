"""The trainer's lines about the portal, in the documented words and order."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import responses

from trainer_image.config.settings import Settings, from_mapping
from trainer_image.errors import UsageError
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
