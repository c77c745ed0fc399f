"""The environment of a child process, which runs code that needs neither storage nor portal: without credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from training_common.redaction import MIN_SECRET_LENGTH

# Credentials and what leads to them: the portal's key, storage, and the pod's identity at the cloud.
_WITHHELD = re.compile(r"API_KEY|TERMINATION_MESSAGE_PATH|(?:AZURE|IDENTITY|MSI)_\w+", re.ASCII)


def secret_values(api_key: str | None, connection_string: str | None) -> tuple[str, ...]:
    """The literals that no log line, message or child process may hold: the account's key by itself is one, too."""
    account_key = re.search(r"AccountKey=([^;]+)", connection_string or "")
    return tuple(s for s in (api_key, connection_string, account_key and account_key[1]) if s)


def without_credentials(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without credentials, under whatever name they stand in it."""
    secrets = secret_values(inherited.get("API_KEY"), inherited.get("AZURE_STORAGE_CONNECTION_STRING"))
    secrets = tuple(secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH)
    return {
        name: value
        for name, value in inherited.items()
        if not _WITHHELD.fullmatch(name) and not any(secret in value for secret in secrets)
    }
