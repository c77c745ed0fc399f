"""How trainings reach the portal: by themselves, or, with credentials of their own, through a dispatcher's relay."""

from __future__ import annotations

import base64
import json
from typing import Any

from dispatcher.web.server import Answer
from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects

S = ProcessingStatus
UPDATE = "/api/external/models/status"
# Seconds for which a training tries to tell its outcome, before it leaves that to its last words.
PATIENCE = 120.0
# Seconds between two looks at its status while it trains.
EVERY = 150.0


class Telling:
    """Mixed into the trainers."""

    now: float
    scoped: bool
    models: dict[str, Any]
    secrets: dict[str, dict[str, Any]]
    _shown: dict[str, tuple[float, ProcessingStatus | None]]  # by the pod's uid: what it has read last, and when
    _telling: dict[str, float]  # by the pod's uid: since when it tries to tell its outcome

    def relayed(self, method: str, path: str, token: str, body: bytes = b"") -> Answer | None:
        raise NotImplementedError

    def trainer_says(self, model_id: str, status: ProcessingStatus, text: str) -> None:
        raise NotImplementedError

    def blur(self, model_id: str) -> None:
        raise NotImplementedError

    def shown_to(self, pod: objects.JsonObject) -> ProcessingStatus:
        """What the portal shows to the training, which goes on where it cannot be asked. It asks now and again."""
        at, shown = self._shown.get(objects.uid_of(pod), (float("-inf"), None))
        if not self.scoped or self.now - at >= EVERY:
            shown = self._read(pod)
            self._shown[objects.uid_of(pod)] = self.now, shown
        return S.PROCESSING if shown is None else shown

    def tells(self, pod: objects.JsonObject, status: ProcessingStatus, text: str) -> bool:
        """GET, then PUT. Whether that is over: taken, refused, somebody has moved on, or given up; else again later."""
        if not self.scoped:
            self.trainer_says(objects.model_id_of(pod), status, text)
            return True
        since = self._telling.setdefault(objects.uid_of(pod), self.now) if status.is_terminal else self.now
        shown = self._read(pod)
        told = shown is not None and (shown.is_terminal or self._write(pod, status, text))
        over = told or self.now - since >= PATIENCE
        if over:
            self._telling.pop(objects.uid_of(pod), None)
        return over

    def lies(self, pod: objects.JsonObject) -> None:
        """Say of itself what is not true any more, and of others what is not its own to say."""
        for model_id in (objects.model_id_of(pod), *self.models):
            for status in S:
                self._put(pod, model_id, status, "a lie")

    def cut_off(self, pod: objects.JsonObject) -> None:
        """It is ended. What it was about to tell is gone with it: it may have published, and nobody knows."""
        if self._telling.pop(objects.uid_of(pod), None) is not None:
            self.blur(objects.model_id_of(pod))

    def _read(self, pod: objects.JsonObject) -> ProcessingStatus | None:
        model_id = objects.model_id_of(pod)
        if not self.scoped:
            return self.models[model_id].status  # type: ignore[no-any-return]
        answer = self.relayed("GET", f"/api/external/models/{model_id}/status", self._token(pod))
        return S.parse(json.loads(answer.body)["status"]) if answer is not None and answer.status == 200 else None

    def _write(self, pod: objects.JsonObject, status: ProcessingStatus, text: str) -> bool:
        """Whether it was taken, or refused for good."""
        answer = self._put(pod, objects.model_id_of(pod), status, text)
        return answer is not None and answer.status in (200, 403, 404, 410)

    def _put(self, pod: objects.JsonObject, model_id: str, status: ProcessingStatus, text: str) -> Answer | None:
        body = json.dumps({"ModelId": model_id, "Status": int(status), "Message": text}).encode()
        return self.relayed("PUT", UPDATE, self._token(pod), body)

    def _token(self, pod: objects.JsonObject) -> str:
        """The file API_KEY, as the pod's volume shows it."""
        secret = self.secrets.get(f"model-{objects.model_id_of(pod)}")
        return "" if secret is None else base64.b64decode(secret["data"]["API_KEY"]).decode()
