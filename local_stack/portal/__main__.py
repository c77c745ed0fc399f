"""The portal's status API, standing in for the real one: two endpoints, recorded calls, scripted faults.

    python -m local_stack.portal --port 0 --api-key K --ready-file F [--auth both]
                                      [--tls-cert F --tls-key F] [--create-unknown] [--numeric]

Listens on 127.0.0.1 only. The ready file is JSON {"url": ..., "pid": ...}, there once it listens.

The document's API (key needed):
    GET /api/external/models/{id}/status     PUT /api/external/models/status

Control (no key):
    PUT    /_stub/models/{id}   {"status": "Created", "message": ""}: creates or sets a model
    GET    /_stub/models        {id: {"status", "message", "history": [...]}}, an entry of the history
                                being {"status", "message", "by": "control" or "api", "wall", "monotonic"}
    DELETE /_stub/models/{id}
    GET    /_stub/calls         [{"number", "method", "path", "model", "body", "auth", "status", "fault",
                                "wall", "monotonic"}]; auth names the header that carried a key ("x-api-key",
                                "bearer", "none"), never the key; status is null for a call without an answer
    DELETE /_stub/calls
    POST   /_stub/faults        {"kind", "method", "model", "status", "headers", "count", "after", "seconds"}
                                -> {"id"}
    DELETE /_stub/faults        also ends the hangs

Faults are tried in the order they were added. `method`, `model`: which calls (null: all). `count`: how many
(default 1; null: until deleted). `after`: the call is carried out first, then fails; one that is refused
anyway does not use it up. Kinds:
    status    `status` (default 500) with a JSON problem
    html      a login page; empty: no body; garbage: no JSON although it says so; `status` default 200
    cut       the connection ends without an answer
    hang      no answer until the faults are deleted, then a cut; with `seconds`: a proper answer, that late
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import signal
import ssl
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from local_stack.portal.faults import Fault, Recorded, problem
from portal_client.statuses import ProcessingStatus

AUTH_CHOICES = ("both", "x-api-key", "bearer")


@dataclass
class Entry:
    """One state a model has been in. by: "control" or "api"; wall: seconds since 1970."""

    status: str
    message: str
    by: str
    wall: float = field(default_factory=time.time)
    monotonic: float = field(default_factory=time.monotonic)


class Portal:
    """The stub's memory and its rules; `application` is what aiohttp serves."""

    def __init__(self, api_key: str, auth: str, *, create_unknown: bool, numeric: bool) -> None:
        self._api_key = api_key
        self._auth = auth
        self._create_unknown = create_unknown
        self._numeric = numeric
        self._models: dict[str, list[Entry]] = {}
        self._calls: list[Recorded] = []
        self._faults: list[Fault] = []
        self._numbers = 0

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.put("/api/external/models/status", self._api),
                web.get("/api/external/models/{id}/status", self._api),
                web.put("/_stub/models/{id}", self._set_model),
                web.get("/_stub/models", self._list_models),
                web.delete("/_stub/models/{id}", self._delete_model),
                web.get("/_stub/calls", self._list_calls),
                web.delete("/_stub/calls", self._delete_calls),
                web.post("/_stub/faults", self._add_fault),
                web.delete("/_stub/faults", self._delete_faults),
            ]
        )
        return application

    def end_hangs(self) -> None:
        """Deletes every fault and lets the calls that hang on one go."""
        for fault in self._faults:
            fault.released.set()
        self._faults.clear()

    async def _api(self, request: web.Request) -> web.StreamResponse:
        """Record, then a scripted fault or the proper answer."""
        raw = await request.read()
        call = self._record(request, raw)
        fault = next((fault for fault in self._faults if fault.matches(call)), None)
        if fault is None:
            answer = self._answer(request, call)
        elif fault.after:
            answer = self._answer(request, call)
            if answer.status < 300:
                answer = await fault.carry_out(request, call) or answer
        else:
            answer = await fault.carry_out(request, call) or self._answer(request, call)
        if request.transport is not None and not request.transport.is_closing():
            call.status = answer.status
        return answer

    def _record(self, request: web.Request, raw: bytes) -> Recorded:
        body: Any = None
        if raw:
            try:
                body = json.loads(raw)
            except ValueError:
                body = raw.decode("utf-8", "replace")
        model = request.match_info.get("id")
        if model is None and isinstance(body, dict) and "ModelId" in body:
            model = str(body["ModelId"])
        call = Recorded(len(self._calls) + 1, request.method, request.path, model, body, _auth_used(request))
        self._calls.append(call)
        return call

    def _answer(self, request: web.Request, call: Recorded) -> web.Response:
        """What the portal would answer."""
        if not self._is_authorised(request):
            return problem(401, "Unauthorized", "The API key is missing or wrong")
        if call.method == "GET":
            return self._get_status(call)
        return self._put_status(request, call)

    def _get_status(self, call: Recorded) -> web.Response:
        history = self._models.get(call.model or "")
        if history is None:
            return problem(404, "Not Found", f"There is no model {call.model}")
        now = history[-1]
        status: str | int = ProcessingStatus.parse(now.status).value if self._numeric else now.status
        return web.json_response({"status": status, "message": now.message})

    def _put_status(self, request: web.Request, call: Recorded) -> web.Response:
        if request.content_type != "application/json":
            return problem(415, "Unsupported Media Type", "Expected Content-Type: application/json")
        body = call.body
        if not isinstance(body, dict):
            return problem(400, "Bad Request", "Expected a JSON object with ModelId, Status and Message")
        model, message = body.get("ModelId"), body.get("Message", "")
        if not isinstance(model, str) or not model:
            return problem(400, "Bad Request", "ModelId must be a string that is not empty")
        if not isinstance(message, str | None):
            return problem(400, "Bad Request", "Message must be a string")
        try:
            status = ProcessingStatus.parse(body.get("Status"))
        except ValueError as error:
            return problem(400, "Bad Request", f"Status: {error}")
        if model not in self._models and not self._create_unknown:
            return problem(404, "Not Found", f"There is no model {model}")
        self._models.setdefault(model, []).append(Entry(status.title, message or "", "api"))
        return web.json_response({"modelId": model, "status": status.title})

    def _is_authorised(self, request: web.Request) -> bool:
        key = self._api_key.encode()
        if self._auth in ("both", "x-api-key"):
            given = request.headers.get("x-api-key", "").encode("utf-8", "surrogateescape")
            if hmac.compare_digest(given, key):
                return True
        if self._auth in ("both", "bearer"):
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            return hmac.compare_digest(given, b"Bearer " + key)
        return False

    async def _set_model(self, request: web.Request) -> web.Response:
        try:
            given = await _json_object(request)
            status = ProcessingStatus.parse(given.get("status", "Created"))
        except ValueError as error:
            return problem(400, "Bad Request", str(error))
        history = self._models.setdefault(request.match_info["id"], [])
        history.append(Entry(status.title, str(given.get("message", "")), "control"))
        return web.json_response({"status": status.title})

    async def _list_models(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                model: {
                    "status": history[-1].status,
                    "message": history[-1].message,
                    "history": [asdict(entry) for entry in history],
                }
                for model, history in self._models.items()
            }
        )

    async def _delete_model(self, request: web.Request) -> web.Response:
        found = self._models.pop(request.match_info["id"], None)
        return web.Response(status=204 if found is not None else 404)

    async def _list_calls(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(call) for call in self._calls])

    async def _delete_calls(self, _: web.Request) -> web.Response:
        self._calls.clear()
        return web.Response(status=204)

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            fault = Fault.parse(self._numbers + 1, await _json_object(request))
        except (TypeError, ValueError, AttributeError) as error:
            return problem(400, "Bad Request", str(error))
        self._numbers = fault.id
        self._faults.append(fault)
        return web.json_response({"id": fault.id})

    async def _delete_faults(self, _: web.Request) -> web.Response:
        self.end_hangs()
        return web.Response(status=204)


def _auth_used(request: web.Request) -> str:
    if "x-api-key" in request.headers:
        return "x-api-key"
    return "bearer" if request.headers.get("Authorization", "").startswith("Bearer ") else "none"


async def _json_object(request: web.Request) -> dict[str, Any]:
    given = await request.json()
    if not isinstance(given, dict):
        raise ValueError("expected a JSON object")
    return given


async def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    portal = Portal(options.api_key, options.auth, create_unknown=options.create_unknown, numeric=options.numeric)
    tls = None
    if options.tls_cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls_cert, options.tls_key)
    runner = web.AppRunner(portal.application(), access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if options.ready_file:
        partial = Path(f"{options.ready_file}.{os.getpid()}.partial")
        partial.write_text(json.dumps({"url": url, "pid": os.getpid()}))
        partial.replace(options.ready_file)
    print(f"Portal stub listens on {url}", flush=True)
    await stop.wait()
    portal.end_hangs()
    await runner.cleanup()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local_stack.portal", description="A stand-in portal")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--auth", choices=AUTH_CHOICES, default="both", help="which header may carry the key")
    parser.add_argument("--create-unknown", action="store_true", help="a PUT creates a model that is unknown")
    parser.add_argument("--numeric", action="store_true", help="a GET answers numbers instead of words")
    parser.add_argument("--tls-cert", help="PEM file; with --tls-key the stub speaks https")
    parser.add_argument("--tls-key")
    parser.add_argument("--ready-file")
    options = parser.parse_args(arguments)
    if bool(options.tls_cert) != bool(options.tls_key):
        parser.error("--tls-cert and --tls-key belong together")
    try:
        asyncio.run(serve(options))
    except OSError as error:
        print(f"The portal stub cannot start on port {options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
