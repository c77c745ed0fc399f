"""HTTP calls to servers on this machine, with JSON in and out."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any

_TRUSTING = ssl.create_default_context()
_TRUSTING.check_hostname = False
_TRUSTING.verify_mode = ssl.CERT_NONE

# A server on this machine is never behind a proxy, and no authority has signed its certificate.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_TRUSTING))


def call_json(
    method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None, *, timeout: float = 30.0
) -> Any:
    """The reply's JSON; None for an empty one. Raises HTTPError on 4xx and 5xx, OSError without an answer.

    timeout: seconds without a byte.
    """
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **(headers or {})}
    with OPENER.open(urllib.request.Request(url, data, given, method=method), timeout=timeout) as reply:
        text = reply.read()
    return json.loads(text) if text else None
