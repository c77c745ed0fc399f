"""Watches: a stream of JSON lines from a version on, with selectors, bookmarks, and faults on demand.

Source of the rules: the API server's watch cache (k8s.io/apiserver/pkg/storage/cacher).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from local_stack.cluster.api.forms import Form, bookmark, one
from local_stack.cluster.registry.errors import ApiError, bad_request, expired
from local_stack.cluster.registry.objects import to_json
from local_stack.cluster.registry.resources import Resource
from local_stack.cluster.registry.selectors import Matcher
from local_stack.cluster.registry.store import Change, Store, Stored

_MOST_WAITING = 50_000
# Seconds before the time-out that a watch asked for at which it gets a bookmark, to be renewed from there.
_BEFORE_THE_END = 2.0
_INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class WatchRequest:
    """What is watched. `version` "" or "0": begin with what there is. `timeout` in seconds, 0: the server's choice."""

    resource: Resource
    namespace: str
    matcher: Matcher | None
    version: str
    timeout: float
    bookmarks: bool
    initial_end: bool
    form: Form


class Watches:
    """Every open watch. `period`: seconds between bookmarks."""

    def __init__(self, store: Store, period: float) -> None:
        self._store = store
        self._period = period
        self.open: set[Watch] = set()

    def cut(self, plural: str | None) -> int:
        """End the watches (of one resource) by closing their connections; returns their number."""
        chosen = self._of(plural)
        for watch in chosen:
            watch.cut()
        return len(chosen)

    def silence(self, plural: str | None) -> int:
        """The open watches (of one resource) stay open and send nothing more; returns their number."""
        chosen = self._of(plural)
        for watch in chosen:
            watch.silent = True
        return len(chosen)

    def _of(self, plural: str | None) -> list[Watch]:
        return [watch for watch in self.open if plural in (None, watch.asked.resource.plural)]

    async def serve(self, request: web.BaseRequest, asked: WatchRequest) -> web.StreamResponse:
        """Answer one watch until it times out, is cut, or its client goes."""
        watch = Watch(self._store, asked, self._period)
        self.open.add(watch)
        try:
            return await watch.serve(request)
        finally:
            watch.close()
            self.open.discard(watch)


class Watch:
    """One watch."""

    def __init__(self, store: Store, asked: WatchRequest, period: float) -> None:
        self.asked = asked
        self.silent = False
        self._store = store
        self._period = period
        self._waiting: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._transport: asyncio.BaseTransport | None = None
        self._stop: Callable[[], None] = lambda: None
        self._ended = False
        self._begin()

    def _begin(self) -> None:
        plural = self.asked.resource.plural
        version = self.asked.version
        if version and not version.isdigit():
            raise bad_request(
                f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax'
            )
        start = int(version or 0)
        if start > self._store.version:
            text = f"Timeout: Too large resource version: {start}, current: {self._store.version}"
            causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
            raise ApiError(504, "Timeout", text, {"retryAfterSeconds": 1, "causes": causes})
        if start == 0:
            self._push_all()
        elif start < self._store.compacted[plural]:
            why = expired(f"too old resource version: {start} ({self._store.compacted[plural]})")
            self._waiting.append(to_json({"type": "ERROR", "object": why.status()}) + b"\n")
            self._ended = True
        else:
            for change in self._store.history[plural]:
                if change.stored.version > start:
                    self._changed(change)
        if not self._ended:
            self._stop = self._store.listen(plural, self._changed)

    def _push_all(self) -> None:
        """Everything that there is, as if it were added now."""
        for stored in self._store.all(self.asked.resource.plural, self.asked.namespace):
            if self.asked.matcher is None or self.asked.matcher(stored.selectable):
                self._push("ADDED", stored)
        if self.asked.initial_end:
            self._bookmark({_INITIAL_END: "true"})

    def _changed(self, change: Change) -> None:
        obj = change.stored.selectable
        asked = self.asked
        if asked.namespace and obj["metadata"].get("namespace") != asked.namespace:
            return
        if asked.matcher is None:
            self._push(change.kind, change.stored)
            return
        before = change.previous is not None and asked.matcher(change.previous.selectable)
        now = change.kind != "DELETED" and asked.matcher(obj)
        if now:
            self._push("MODIFIED" if before else "ADDED", change.stored)
        elif before and change.previous is not None:
            if change.kind == "DELETED":
                self._push("DELETED", change.stored)
            else:
                # It left the selector: the watcher gets its last matching state under the new version.
                last = change.previous.obj
                meta = {**last["metadata"], "resourceVersion": str(change.stored.version)}
                self._push("DELETED", Stored({**last, "metadata": meta}, change.stored.version))

    def _push(self, kind: str, stored: Stored) -> None:
        body = one(self.asked.resource, stored, self.asked.form)
        self._waiting.append(b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n")
        self._wake.set()

    def _bookmark(self, annotations: dict[str, str] | None = None) -> None:
        obj = bookmark(self.asked.resource, self._store.version, annotations or {}, self.asked.form)
        self._waiting.append(b'{"type":"BOOKMARK","object":' + obj + b"}\n")

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache"})
        response.enable_chunked_encoding()
        self._transport = request.transport
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self.asked.timeout or random.uniform(1800, 3600))
        mark = self._next_mark(loop.time(), deadline)
        while True:
            if self._waiting and not self.silent:
                lines = b"".join(self._waiting)
                self._waiting.clear()
                await response.write(lines)
                continue
            if self._ended or loop.time() >= deadline or len(self._waiting) > _MOST_WAITING:
                break
            self._wake.clear()
            try:
                async with asyncio.timeout_at(min(deadline, mark)):
                    await self._wake.wait()
            except TimeoutError:
                if loop.time() >= mark:
                    self._bookmark()
                    mark = self._next_mark(loop.time(), deadline)
        if self.silent:
            await asyncio.Event().wait()
        await response.write_eof()
        return response

    def _next_mark(self, now: float, deadline: float) -> float:
        """When the next bookmark is due, by the loop's clock; infinite: never."""
        before_the_end = deadline - _BEFORE_THE_END
        return (
            min([now + self._period, *([before_the_end] if before_the_end > now else [])])
            if self.asked.bookmarks
            else math.inf
        )

    def cut(self) -> None:
        """Close the connection at once."""
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    def close(self) -> None:
        """Listen no more."""
        self._stop()
