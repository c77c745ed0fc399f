"""Calls of the stand-in portal by hand, and not by our client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from local_stack.portal.client import StandInPortal

KEY = "key-0123456789abcdef"


def call(
    portal: StandInPortal, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """(status, parsed JSON or raw bytes) of one call, by hand and not by our client."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "x-api-key": portal.api_key} | (headers or {})
    request = urllib.request.Request(portal.url + path, data, {k: v for k, v in given.items() if v}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            status, raw = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    try:
        return status, json.loads(raw)
    except ValueError:
        return status, raw


def get(portal: StandInPortal, model: str, **headers: str) -> tuple[int, Any]:
    return call(portal, "GET", f"/api/external/models/{model}/status", headers=headers)


def put(portal: StandInPortal, body: object, **headers: str) -> tuple[int, Any]:
    return call(portal, "PUT", "/api/external/models/status", body, headers)


def an_update(model: str, status: object = 1) -> dict[str, object]:
    return {"ModelId": model, "Status": status, "Message": "m"}
