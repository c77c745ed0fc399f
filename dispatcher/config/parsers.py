"""How one setting's text is read: each function takes the text and raises ValueError with the end of a sentence. Pure.

The sentences never repeat the value: the caller decides whether it may be shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from common.redaction import redact
from portal_client.address import PortalAddress
from portal_client.model_ids import is_container_name


def text(value: str) -> str:
    if re.search(r"\s", value):
        raise ValueError("must have no white space")
    return value


def url(value: str) -> str:
    try:
        parts = urlsplit(text(value))
        parts.port  # noqa: B018  (reading it checks it)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL such as https://portal.example.com")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be a plain URL without user, password, query or fragment")
    return value.rstrip("/")


def portal_url(value: str) -> str:
    plain = url(value)
    try:
        # The client is stricter; it would say so after the queue and the cluster were touched.
        PortalAddress.parse(plain)
    except ValueError:
        raise ValueError("must be a URL such as https://portal.example.com") from None
    return plain


def key(value: str) -> str:
    # It travels in a request header: what does not fit there must not fail at the first call.
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("must be printable ASCII without white space")
    return value


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value.lower()

    return parse


def switch(value: str) -> bool:
    if value.lower() not in ("on", "off"):
        raise ValueError("must be on or off")
    return value.lower() == "on"


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", value) or not low <= float(value) <= high:
            raise ValueError(f"must be a number of seconds from {low:.10g} to {high:.10g}")
        return float(value)

    return parse


def queue(value: str) -> str:
    # Queue names obey the rule of container names; 63 less "-poison" leaves 56 characters.
    if not is_container_name(value) or len(value) > 56:
        raise ValueError(
            "must be an Azure queue name of 3 to 56 characters: lower-case letters, digits and single hyphens"
        )
    return value


def namespace(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError("must be a Kubernetes namespace: lower-case letters, digits and hyphens")
    return value


def queue_label(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", value):
        raise ValueError("must be the name of a LocalQueue: lower-case letters, digits, hyphens and dots")
    return value


def resource(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value):
        raise ValueError("must be an extended resource such as nvidia.com/gpu")
    return value


def names(value: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in found:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
            raise ValueError(f"must be names of PriorityClasses separated by commas; {redact(name)[:80]!r} is none")
    return found


def file(value: str) -> Path:
    path = Path(value)
    try:
        found = path.is_file()
    except OSError as error:
        raise ValueError(f"names a file that cannot be looked at: {error.strerror}") from None
    if not found:
        raise ValueError("names a file that is not there")
    return path
