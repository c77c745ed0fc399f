"""The stand-in portal's scripted faults: which call, how it fails. What each kind does is listed in portal/__main__."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local_stack.portal.history import Call

KINDS = ("status", "html", "empty", "cut", "hang", "garbage", "drip", "stale", "denied", "login", "longer")

# The status with which a kind answers where the fault gives none.
_STATUSES = {"status": 500, "login": 302, "longer": 400}

_DRIP_SECONDS = 0.05
_LOGIN_PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in</body></html>"


@dataclass
class Fault:
    """A scripted failure; `released` ends its hangs."""

    id: int
    kind: str
    method: str | None
    model: str | None
    status: int
    headers: dict[str, str]
    count: int | None
    after: bool
    seconds: float | None
    most: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, call: Call) -> bool:
        if self.kind == "longer" and len(_message(call)) <= self.most:
            return False
        if self.kind == "stale" and call.method != "GET":
            return False
        return self.count != 0 and self.method in (None, call.method) and self.model in (None, call.model)

    async def carry_out(self, request: web.Request, call: Call) -> web.Response | None:
        """The failing answer, after using the fault up once; None for a proper answer that is only late."""
        call.fault = self.id
        if self.count is not None:
            self.count -= 1
        if self.kind == "stale":
            return None
        if self.kind == "drip":
            await self._drip(request)
        if self.kind == "hang":
            try:
                await asyncio.wait_for(self.released.wait(), self.seconds)
            except TimeoutError:
                return None
        if self.kind in ("cut", "hang", "drip"):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)  # reaches nobody
        return self._failing_answer()

    def _failing_answer(self) -> web.Response:
        headers = self.headers
        match self.kind:
            case "html":
                return web.Response(status=self.status, text=_LOGIN_PAGE, content_type="text/html", headers=headers)
            case "empty":
                return web.Response(status=self.status, headers=headers)
            case "garbage":
                body = b'{"status": "Crea\xff'
                return web.Response(status=self.status, body=body, content_type="application/json", headers=headers)
            case "denied":
                return web.json_response({"success": False, "error": "This failure was scripted"}, headers=headers)
            case "login":
                headers = {"Location": "/Account/Login?ReturnUrl=%2F", **headers}
                return web.Response(status=self.status, headers=headers)
            case "longer":
                detail = f"The field Message must be a string with a maximum length of {self.most}"
                return problem(self.status, "One or more validation errors occurred", detail, headers)
        return problem(self.status, "Scripted fault", "This failure was scripted", headers)

    async def _drip(self, request: web.Request) -> None:
        """A header that never ends, a byte at a time, until the client goes or the faults are deleted."""
        piece = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: "
        while not self.released.is_set() and request.transport is not None and not request.transport.is_closing():
            request.transport.write(piece)
            piece = b"x"
            with suppress(TimeoutError):
                await asyncio.wait_for(self.released.wait(), _DRIP_SECONDS)

    @classmethod
    def parse(cls, number: int, given: dict[str, Any]) -> Fault:
        """Raises ValueError for what no fault can be: a misspelt fault would let a test pass."""
        known = {"kind", "method", "model", "status", "headers", "count", "after", "seconds", "most"}
        if unknown := set(given) - known:
            raise ValueError(f"unknown fields {sorted(unknown)}: expected some of {sorted(known)}")
        kind = given.get("kind")
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}")
        method = given.get("method")
        if method not in (None, "GET", "PUT"):
            raise ValueError(f"method is {method!r}: expected GET, PUT or null")
        status = given.get("status")
        if status is None:
            status = _STATUSES.get(kind, 200)
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"status is {status!r}: expected 200 to 599")
        model, count, seconds = given.get("model"), given.get("count", 1), given.get("seconds")
        return cls(
            id=number,
            kind=kind,
            method=method,
            model=None if model is None else str(model),
            status=status,
            headers={str(name): str(value) for name, value in (given.get("headers") or {}).items()},
            count=None if count is None else int(count),
            after=bool(given.get("after", False)),
            seconds=None if seconds is None else float(seconds),
            most=int(given.get("most") or 0),
        )


def _message(call: Call) -> str:
    return str(call.body.get("Message") or "") if call.method == "PUT" and isinstance(call.body, dict) else ""


def problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """RFC 9457, as ASP.NET answers."""
    return web.json_response(
        {"title": title, "status": status, "detail": detail},
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )
