"""The environment of a child process, which runs code that needs neither storage nor portal: without credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from trainer_image.host import hidden
from training_common.redaction import MIN_SECRET_LENGTH

# Credentials and what leads to them: the portal's key, storage, and the pod's identity at the cloud.
_WITHHELD = re.compile(r"API_KEY|TERMINATION_MESSAGE_PATH|(?:AZURE|IDENTITY|MSI)_\w+", re.ASCII)


def without_credentials(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without credentials, under whatever name they stand in it."""
    secrets = tuple(secret for secret in hidden.secrets(inherited) if len(secret) >= MIN_SECRET_LENGTH)
    return {
        name: value
        for name, value in inherited.items()
        if not _WITHHELD.fullmatch(name) and not any(secret in value for secret in secrets)
    }
