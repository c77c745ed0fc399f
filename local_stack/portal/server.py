"""The stand-in portal's answers: the status API as the real portal gives it, and the control calls of tests."""

from __future__ import annotations

import hmac
import json
import time
from dataclasses import asdict
from typing import Any

from aiohttp import web

from local_stack.portal.faults import Fault, problem
from local_stack.portal.history import Call, Entry
from portal_client.statuses import ProcessingStatus


class PortalServer:
    """What the stand-in portal remembers, and its rules; `application` is what aiohttp serves."""

    def __init__(self, api_key: str, auth: str, *, create_unknown: bool, numeric: bool) -> None:
        self._api_key = api_key
        self._auth = auth
        self._create_unknown = create_unknown
        self._numeric = numeric
        self._models: dict[str, list[Entry]] = {}
        self._calls: list[Call] = []
        self._faults: list[Fault] = []
        self._numbers = 0

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.put("/api/external/models/status", self._api),
                web.get("/api/external/models/{id}/status", self._api),
                web.put("/_stub/models/{id}", self._set_model),
                web.put("/_stub/models", self._set_models),
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
        elif fault.kind == "stale":
            await fault.carry_out(request, call)
            answer = self._answer(request, call, behind=60.0 if fault.seconds is None else fault.seconds)
        elif fault.after:
            answer = self._answer(request, call)
            if answer.status < 300:
                answer = await fault.carry_out(request, call) or answer
        else:
            answer = await fault.carry_out(request, call) or self._answer(request, call)
        if request.transport is not None and not request.transport.is_closing():
            call.status = answer.status
        return answer

    def _record(self, request: web.Request, raw: bytes) -> Call:
        body: Any = None
        if raw:
            try:
                body = json.loads(raw)
            except ValueError:
                body = raw.decode("utf-8", "replace")
        model = request.match_info.get("id")
        if model is None and isinstance(body, dict) and "ModelId" in body:
            model = str(body["ModelId"])
        call = Call(len(self._calls) + 1, request.method, request.path, model, body, _auth_used(request))
        self._calls.append(call)
        return call

    def _answer(self, request: web.Request, call: Call, behind: float = 0.0) -> web.Response:
        """What the portal would answer; behind: with what it knew so many seconds ago."""
        if not self._is_authorised(request):
            return problem(401, "Unauthorized", "The API key is missing or wrong")
        if call.method == "GET":
            return self._get_status(call, behind)
        return self._put_status(request, call)

    def _get_status(self, call: Call, behind: float) -> web.Response:
        history = self._models.get(call.model or "")
        if history is None:
            return problem(404, "Not Found", f"There is no model {call.model}")
        known = [entry for entry in history if entry.monotonic <= time.monotonic() - behind]
        now = known[-1] if known else history[0]
        status: str | int = ProcessingStatus.parse(now.status).value if self._numeric else now.status
        return web.json_response({"status": status, "message": now.message})

    def _put_status(self, request: web.Request, call: Call) -> web.Response:
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

    async def _set_models(self, request: web.Request) -> web.Response:
        try:
            given = await _json_object(request)
            status = ProcessingStatus.parse(given.get("status", "Created"))
        except ValueError as error:
            return problem(400, "Bad Request", str(error))
        for model in given.get("models", ()):
            self._models.setdefault(str(model), []).append(Entry(status.title, "", "control"))
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
