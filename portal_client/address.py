"""API_BASE_URL: what it may be, what is under it, and whether it leads to this very machine (pure)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote

EXAMPLE = "https://portal.example.com"
# Narrow on purpose: what two URL parsers could read as two different hosts must not reach the loopback rule.
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.]+\])")
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_HOST.pattern})(?::(?P<port>[0-9]{{1,5}}))?(?P<path>(?:/[A-Za-z0-9._~%-]+)*)/*",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class PortalAddress:
    """Where the status API is. `base_url` has no trailing slash; `host` is in lower case, unbracketed."""

    base_url: str
    host: str
    is_https: bool

    @classmethod
    def parse(cls, base_url: str) -> PortalAddress:
        """Raises ValueError, which does not quote it, for anything but http(s)://host[:port][/path]."""
        text = base_url.strip()
        match = _URL.fullmatch(text)
        if (
            match is None
            or (match["port"] is not None and not 0 < int(match["port"]) <= 65535)
            or not {".", ".."}.isdisjoint(match["path"].split("/"))
        ):
            raise ValueError(f"must be a URL such as {EXAMPLE}")
        return cls(text.rstrip("/"), match["host"].strip("[]").lower(), match["scheme"].lower() == "https")

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
