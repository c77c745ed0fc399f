"""What a child process is not to inherit: it runs code that needs neither storage nor portal."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from portal_client.redaction import MIN_SECRET_LENGTH
from trainer_image.config.settings import account_key

# Credentials and what leads to them: the portal's key, storage, and the pod's identity at the cloud.
_WITHHELD = re.compile(r"API_KEY|TERMINATION_MESSAGE_PATH|(?:AZURE|IDENTITY|MSI)_\w+", re.ASCII)


def without(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without credentials, under whatever name they stand in it."""
    connection = inherited.get("AZURE_STORAGE_CONNECTION_STRING", "")
    secrets = [inherited.get("API_KEY", ""), connection, account_key(connection) or ""]
    secrets = [secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH]
    return {
        name: value
        for name, value in inherited.items()
        if not _WITHHELD.fullmatch(name) and not any(secret in value for secret in secrets)
    }
