"""Starts the stand-in portal, sets it up and reads what it recorded.

with start_portal(folder, "secret-key") as portal:
    portal.set_model("123")
    portal.add_fault("status", status=503, headers={"Retry-After": "1"}, method="PUT")
    ...
    assert [call.status for call in portal.calls(method="PUT")] == [503, 200]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from local_stack.http_json import call_json
from local_stack.portal.history import Call, Entry
from local_stack.processes import Service, Stoppable
from local_stack.serving import read_ready_file


@dataclass(frozen=True)
class Model:
    """A model's status now, and every one it has had."""

    status: str
    message: str
    history: tuple[Entry, ...]


class StandInPortal(Stoppable):
    """A stand-in portal that listens at `url` (API_BASE_URL), and the key that it wants. Its errors are urllib's.

    `stop` ends its process, `service`.
    """

    def __init__(self, url: str, api_key: str, service: Service) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key
        self.service = service

    def stop(self) -> None:
        self.service.stop()

    def status(self, model_id: str) -> tuple[str, str]:
        """(status, message), asked as a client asks, so that what is compared is what a portal user sees."""
        reply = self.call_api("GET", f"{quote(model_id, safe='')}/status")
        return str(reply["status"]), str(reply.get("message") or "")

    def call_api(self, method: str, path: str, body: object = None, *, timeout: float = 30.0) -> Any:
        """One call of the status API, with the key; `path` after /api/external/models/."""
        headers = {"x-api-key": self.api_key}
        return call_json(method, f"{self.url}/api/external/models/{path}", body, headers, timeout=timeout)

    def set_model(self, model_id: str, status: str = "Created", message: str = "") -> None:
        self._control("PUT", f"models/{quote(model_id, safe='')}", {"status": status, "message": message})

    def set_models(self, model_ids: Sequence[str], status: str = "Created") -> None:
        """Many at once."""
        for at in range(0, len(model_ids), 10_000):
            self._control("PUT", "models", {"models": model_ids[at : at + 10_000], "status": status})

    def delete_model(self, model_id: str) -> None:
        self._control("DELETE", f"models/{quote(model_id, safe='')}")

    def models(self) -> dict[str, Model]:
        return {
            model: Model(found["status"], found["message"], tuple(Entry(**entry) for entry in found["history"]))
            for model, found in self._control("GET", "models").items()
        }

    def model(self, model_id: str) -> Model:
        """Raises KeyError."""
        return self.models()[model_id]

    def calls(self, method: str | None = None, model: str | None = None) -> list[Call]:
        """The calls of the status API so far, oldest first."""
        calls = [Call(**call) for call in self._control("GET", "calls")]
        return [call for call in calls if method in (None, call.method) and model in (None, call.model)]

    def clear_calls(self) -> None:
        self._control("DELETE", "calls")

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
        most: int | None = None,
    ) -> int:
        """Scripts a failure (see portal/__main__) and returns its id. count: None for until cleared."""
        fault = {"kind": kind, "method": method, "model": model, "status": status, "headers": dict(headers or {})}
        when = {"count": count, "after": after, "seconds": seconds, "most": most}
        return int(self._control("POST", "faults", {**fault, **when})["id"])

    def clear_faults(self) -> None:
        """Also ends the hangs: those connections are cut."""
        self._control("DELETE", "faults")

    def _control(self, method: str, path: str, body: object = None) -> Any:
        return call_json(method, f"{self.url}/_stub/{path}", body)


def start_portal(folder: Path, api_key: str, *options: str) -> StandInPortal:
    """Start `python -m local_stack.portal`, with its files in `folder`; returns when it listens."""
    ready = folder / "portal-ready.json"
    ready.unlink(missing_ok=True)
    argv: list[str | Path] = [
        sys.executable,
        "-m",
        "local_stack.portal",
        f"--api-key={api_key}",
        "--ready-file",
        ready,
        *options,
    ]
    service = Service("stand-in portal", argv, folder / "logs" / "portal.log").start()
    address = service.wait_ready(lambda: read_ready_file(ready))
    return StandInPortal(str(address["url"]), api_key, service)
