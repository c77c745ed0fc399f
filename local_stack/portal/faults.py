"""The stand-in portal's scripted faults: which call, how it fails. What each kind does is listed in portal/__main__."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local_stack.portal.history import Call

KINDS = ("status", "html", "empty", "cut", "hang", "garbage")

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
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, call: Call) -> bool:
        return self.count != 0 and self.method in (None, call.method) and self.model in (None, call.model)

    async def carry_out(self, request: web.Request, call: Call) -> web.Response | None:
        """The failing answer, after using the fault up once; None for a proper answer that is only late."""
        call.fault = self.id
        if self.count is not None:
            self.count -= 1
        if self.kind == "hang":
            try:
                await asyncio.wait_for(self.released.wait(), self.seconds)
            except TimeoutError:
                return None
        if self.kind in ("cut", "hang"):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)  # reaches nobody
        if self.kind == "html":
            return web.Response(status=self.status, text=_LOGIN_PAGE, content_type="text/html", headers=self.headers)
        if self.kind == "empty":
            return web.Response(status=self.status, headers=self.headers)
        if self.kind == "garbage":
            return web.Response(
                status=self.status,
                body=b'{"status": "Crea\xff',
                content_type="application/json",
                headers=self.headers,
            )
        return problem(self.status, "Scripted fault", "This failure was scripted", self.headers)

    @classmethod
    def parse(cls, number: int, given: dict[str, Any]) -> Fault:
        """Raises ValueError for what no fault can be: a misspelt fault would let a test pass."""
        known = {"kind", "method", "model", "status", "headers", "count", "after", "seconds"}
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
            status = 500 if kind == "status" else 200
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
        )


def problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """RFC 9457, as ASP.NET answers."""
    return web.json_response(
        {"title": title, "status": status, "detail": detail},
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )
