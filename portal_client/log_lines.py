"""The documented log lines, to the letter: operators search for them.

%-templates for `logging`. Documented are the lines of updates; a status check's are worded after them.
What went as planned is logged at info, a fall-back or a failure at warning.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

AnyLogger = logging.Logger | logging.LoggerAdapter[Any]

EXTRACTED = "Extracted model ID '%s' from container name '%s'"
NOT_EXTRACTED = "No model ID extracted: %s"

INITIALISED = "API Client initialized with base URL: %s"
KEY_CONFIGURED = "API Key configured: Yes (length: %d)"
KEY_MISSING = "API Key configured: No"
KEY_MISSING_WARNING = "API_KEY not configured"
AUTH_METHOD = "Model API auth method: %s"
UNENCRYPTED = "API_BASE_URL is http, not https: the API key travels unencrypted to %s"
UNENCRYPTED_FOR_ONE_RUN = "API_BASE_URL is http, not https: the token of this run alone travels unencrypted to %s"
KEY_CHANGED = "API Key has been exchanged (length: %d): it is tried again"

MAKING_REQUEST = "Making API %s request to: %s"
PAYLOAD = "Payload: %s"
USING_METHOD = "Using authentication method: %s"
TRYING = "Trying %s authentication..."
RESPONSE_CODE = "Response status code: %d"
AUTH_FAILED = "%s authentication failed (%d)"
FALLING_BACK = "Falling back to %s authentication..."

UPDATED = "Model %s status updated to %s"
NOT_UPDATED = "Failed to update model %s status to %s"
RETRIEVED = "Current status of model %s: %s"
NOT_RETRIEVED = "Failed to retrieve status of model %s"


@dataclass(frozen=True)
class Wording:
    """The lines in which PUT and GET differ. `successful_with` names the method that auto found to work."""

    successful: str
    successful_with: str
    error: str


PUT = Wording(
    successful="Model status update successful: %d",
    successful_with="Model status update successful with %s: %d",
    error="Error updating model status: %s",
)
GET = Wording(
    successful="Model status check successful: %d",
    successful_with="Model status check successful with %s: %d",
    error="Error checking model status: %s",
)
