"""Sets the portal stub up and looks at what it saw: for tests and the demo.

with start_portal_stub("secret-key", folder) as portal:
    portal.set_model("123")
    portal.add_fault("status", status=503, headers={"Retry-After": "1"}, method="PUT")
    ...
    assert [call.status for call in portal.calls(method="PUT")] == [503, 200]
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class StubEntry:
    """status: "Created", ...; by: "control" or "api"; wall: seconds since 1970; monotonic: in seconds."""

    status: str
    message: str
    by: str
    wall: float
    monotonic: float


@dataclass(frozen=True)
class StubModel:
    status: str
    message: str
    history: tuple[StubEntry, ...]


@dataclass(frozen=True)
class StubCall:
    """auth: "x-api-key", "bearer" or "none"; status: what was answered, None for nothing; fault: its id."""

    number: int
    method: str
    path: str
    model: str | None
    body: Any
    auth: str
    status: int | None
    fault: int | None
    wall: float
    monotonic: float


class PortalControl:
    """The control endpoints of a running stub. Its errors are urllib's."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_unverified())
        )

    def set_model(self, model_id: str, status: str = "Created", message: str = "") -> None:
        self._request("PUT", f"/_stub/models/{quote(model_id, safe='')}", {"status": status, "message": message})

    def delete_model(self, model_id: str) -> None:
        self._request("DELETE", f"/_stub/models/{quote(model_id, safe='')}")

    def models(self) -> dict[str, StubModel]:
        return {
            model: StubModel(
                found["status"],
                found["message"],
                tuple(StubEntry(**entry) for entry in found["history"]),
            )
            for model, found in self._request("GET", "/_stub/models").items()
        }

    def model(self, model_id: str) -> StubModel:
        """Raises KeyError."""
        return self.models()[model_id]

    def calls(self, method: str | None = None, model: str | None = None) -> list[StubCall]:
        """The calls of the document's API so far, oldest first."""
        calls = [StubCall(**call) for call in self._request("GET", "/_stub/calls")]
        return [call for call in calls if method in (None, call.method) and model in (None, call.model)]

    def clear_calls(self) -> None:
        self._request("DELETE", "/_stub/calls")

    def add_fault(
        self,
        kind: str,
        *,
        method: str | None = None,
        model: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        count: int | None = 1,
        after: bool = False,
        seconds: float | None = None,
    ) -> int:
        """Scripts a failure (see portal/__main__) and returns its id. count: None for until cleared."""
        fault = {
            "kind": kind,
            "method": method,
            "model": model,
            "status": status,
            "headers": dict(headers or {}),
            "count": count,
            "after": after,
            "seconds": seconds,
        }
        number: int = self._request("POST", "/_stub/faults", fault)["id"]
        return number

    def clear_faults(self) -> None:
        """Also ends the hangs: those connections are cut."""
        self._request("DELETE", "/_stub/faults")

    def _request(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with self._opener.open(request, timeout=10) as response:
            raw = response.read()
        return json.loads(raw) if raw else None


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
