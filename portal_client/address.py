"""API_BASE_URL: what it may be, what is under it, and whether it leads to this very machine (pure)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

_EXPECTED = "expected a URL like https://portal.example.com"
# Narrow on purpose: what two URL parsers could read as two different hosts must not reach the loopback rule.
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.]+\])")
_URL = re.compile(
    rf"(https?)://({_HOST.pattern})(?::([0-9]{{1,5}}))?((?:/[A-Za-z0-9._~%-]+)*)/*", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class PortalAddress:
    """Where the status API is. `base_url` has no trailing slash; `host` is in lower case, unbracketed."""

    base_url: str
    host: str
    is_https: bool

    @classmethod
    def parse(cls, base_url: str) -> PortalAddress:
        """Raises ValueError with a sentence for anything but http(s)://host[:port][/path]."""
        text = base_url.strip()
        match = _URL.fullmatch(text)
        if match is None:
            raise ValueError(f"API_BASE_URL {_problem(text)}")
        port = match.group(3)
        if port is not None and not 0 < int(port) <= 65535:
            raise ValueError(f"API_BASE_URL has port {port}: ports go from 1 to 65535")
        if any(segment in (".", "..") for segment in match.group(4).split("/")):
            raise ValueError(f"API_BASE_URL has a path with dots between slashes: {_EXPECTED}")
        return cls(text.rstrip("/"), match.group(2).strip("[]").lower(), match.group(1).lower() == "https")

    @property
    def is_loopback(self) -> bool:
        """localhost, 127.0.0.0/8 or ::1, spelt out: any other spelling counts as another machine."""
        if self.host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return address in _LOOPBACK_V4 if address.version == 4 else address == _LOOPBACK_V6

    @property
    def update_url(self) -> str:
        return f"{self.base_url}/api/external/models/status"

    def status_url(self, model_id: str) -> str:
        """Raises ValueError for an id that would lead to another place of the API."""
        check_model_id(model_id)
        return f"{self.base_url}/api/external/models/{quote(model_id, safe='')}/status"


_LOOPBACK_V4 = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_V6 = ipaddress.IPv6Address("::1")


def check_model_id(model_id: str) -> None:
    """Raises ValueError for an id that cannot stand in a URL path or a log line; a container's id can."""
    if not model_id or model_id in (".", "..") or not model_id.isprintable():
        raise ValueError(f"{ascii(model_id)[:80]} cannot be a model ID: expected the part after 'model-'")


def _problem(text: str) -> str:
    """Never quotes the URL where it may hold a password."""
    if not text:
        return f"is empty: {_EXPECTED}"
    if "@" in text:
        return f"contains '@': a user name or password does not belong there; {_EXPECTED}"
    try:
        parts = urlsplit(text)
    except ValueError:
        return f"is no valid URL: {_EXPECTED}"
    if parts.query or parts.fragment or "?" in text or "#" in text:
        return f"has a query or a fragment: {_EXPECTED}"
    if parts.scheme not in ("http", "https") or not text.lower().startswith(("http://", "https://")):
        return f"{ascii(text)[:120]} does not start with https:// or http://: {_EXPECTED}"
    return f"{ascii(text)[:120]} is no valid URL: {_EXPECTED}"
