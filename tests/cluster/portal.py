"""A portal for a pod: the status API and the stand-in portal's way to make models, of what the dispatcher's image has.

    API_KEY=... python3 portal.py PORT

It listens on every address, remembers until it ends, and has no faults. local_stack.portal, which has them, needs
aiohttp and stays on loopback. StandInPortal talks to both.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from portal_client.statuses import ProcessingStatus

_STATUS = "/api/external/models/status"
_ONE = re.compile(r"/api/external/models/([^/]+)/status")
_MODEL = re.compile(r"/_stub/models/([^/]+)")


class Portal(BaseHTTPRequestHandler):
    """One connection. `models`: id → all that the model was told, of all connections."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: the second would wait for the first one's acknowledgement.
    wbufsize = -1
    models: ClassVar[dict[str, list[dict[str, Any]]]] = {}
    key = ""

    def do_GET(self) -> None:
        one = _ONE.fullmatch(self.path)
        if self.path == "/_stub/models":
            self._answer(200, {model: {**told[-1], "history": told} for model, told in self.models.items()})
        elif one is None:
            self._answer(200 if self.path == "/" else 404, {})
        elif not self._has_key():
            self._answer(401, {"detail": "The API key is missing or wrong"})
        elif told := self.models.get(one[1]):
            self._answer(200, {"status": told[-1]["status"], "message": told[-1]["message"]})
        else:
            self._answer(404, {"detail": f"There is no model {one[1]}"})

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if made := _MODEL.fullmatch(self.path):
            self._tell(made[1], body.get("status", "Created"), body.get("message", ""), "control")
        elif self.path != _STATUS:
            self._answer(404, {})
        elif not self._has_key():
            self._answer(401, {"detail": "The API key is missing or wrong"})
        elif body.get("ModelId") not in self.models:
            self._answer(404, {"detail": f"There is no model {body.get('ModelId')}"})
        else:
            self._tell(body["ModelId"], body.get("Status"), body.get("Message") or "", "api")

    def _tell(self, model: str, status: Any, message: str, by: str) -> None:
        try:
            title = ProcessingStatus.parse(status).title
        except ValueError as why:
            self._answer(400, {"detail": str(why)})
            return
        entry = {"status": title, "message": message, "by": by, "wall": time.time(), "monotonic": time.monotonic()}
        self.models.setdefault(model, []).append(entry)
        self._answer(200, {"modelId": model, "status": title})

    def _has_key(self) -> bool:
        given = (self.headers.get("x-api-key", ""), self.headers.get("Authorization", "").removeprefix("Bearer "))
        return any(hmac.compare_digest(each.encode(), self.key.encode()) for each in given)

    def _answer(self, code: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    Portal.key = os.environ["API_KEY"]
    ThreadingHTTPServer(("", int(sys.argv[1])), Portal).serve_forever()
