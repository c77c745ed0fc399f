"""What the HTTP library takes from the environment by itself, and stumbles over at its first call: looked at before."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from trainer_image.errors import ConfigInvalid
from trainer_image.storage.blob_names import printable


def check() -> None:
    """Raises ConfigInvalid with the name of the variable that cannot be used. A proxy's address may hold a password."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        value = os.environ.get(name)
        if value and not _are_certificates(Path(value)):
            raise ConfigInvalid(f"{name} {printable(value)} cannot be read as CA certificates in PEM format")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value and not _is_proxy(value):
            raise ConfigInvalid(f"{name} is no address of a proxy: http://host:port would be right")


def _are_certificates(path: Path) -> bool:
    try:
        if path.is_dir():
            ssl.create_default_context(capath=path)
        else:
            ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        return False
    return True


def _is_proxy(value: str) -> bool:
    try:
        address = urlsplit(value if "://" in value else f"http://{value}")
        address.port  # noqa: B018  (reading it checks it)
    except ValueError:
        return False
    return bool(address.hostname) and not re.search(r"\s", value)
