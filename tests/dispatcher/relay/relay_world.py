"""A relay behind its real HTTP server, between a portal and a cluster in memory."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterUnavailable
from dispatcher.cluster.jobs import Job
from dispatcher.controller.pace import Pace
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.relay.listener import RelayServer
from dispatcher.relay.relay import Relay
from dispatcher.relay.tokens import RelayTokens
from portal_client.client import PortalClient
from portal_client.errors import ModelUnknown, PortalError
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.world.builders import job_json

KEY = "a key of the relay's own, 32 long"
RUN = "20261123t080000-1a2b3c4d"
OTHER_RUN = "20261124t080000-5e6f7a8b"
ADDRESS = "https://portal.example.com"
S = ProcessingStatus


def a_job(model_id: str = "1", run_id: str | None = RUN, **more: Any) -> Job:
    found = job_json(model_id=model_id, **more)
    if run_id is not None:
        found["metadata"]["annotations"][names.RUN_ID] = run_id
    return msgspec.convert(found, Job)


class MemoryPortal:
    """Models by id. during(what): called in the middle of each call; it may raise."""

    def __init__(self) -> None:
        self.models: dict[str, ModelStatus] = {}
        self.calls: list[str] = []
        self.during: Callable[[str], None] = lambda what: None

    def get_model_status(self, model_id: str) -> ModelStatus:
        self._call(f"GET {model_id}")
        if model_id not in self.models:
            raise ModelUnknown(f"The portal does not know model {model_id} ({ADDRESS})", status_code=404)
        return self.models[model_id]

    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        self._call(f"PUT {model_id} {status.title}")
        self.models[model_id] = ModelStatus(status, message)

    def _call(self, what: str) -> None:
        self.calls.append(what)
        self.during(what)

    @property
    def puts(self) -> list[str]:
        return [call for call in self.calls if call.startswith("PUT")]

    def fail(self, error: PortalError, method: str = "") -> None:
        def during(what: str) -> None:
            if what.startswith(method):
                raise error

        self.during = during


class MemoryCluster:
    """Jobs by name, as the API server has them."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.asked = 0
        self.away = False

    def get_job(self, name: str) -> Job | None:
        self.asked += 1
        if self.away:
            raise ClusterUnavailable("The API server is out of reach")
        return self.jobs.get(name)

    def have(self, *jobs: Job) -> None:
        self.jobs |= {job.name: job for job in jobs}


class RelayWorld:
    """Model 1 is Processing, with a Job of run RUN that cache and API server know. now: of the relay's clock."""

    def __init__(self, **options: Any) -> None:
        self.portal, self.cluster, self.locks = MemoryPortal(), MemoryCluster(), ModelLocks()
        self.cached: dict[str, Job] = {}
        self.tokens = RelayTokens([KEY])
        self.counted: list[tuple[str, str]] = []
        self.outcomes: list[tuple[str, PortalError | None]] = []
        self.stopping = threading.Event()
        self.now = 1000.0
        self.portal.models = {"1": ModelStatus(S.PROCESSING, "Model training started"), "2": ModelStatus(S.CREATED, "")}
        job = a_job()
        self.cached[job.name] = job
        self.cluster.have(job)
        wanted: dict[str, Any] = {"address": ADDRESS, "auth_method": "auto", "patience": (0.0, 0.0), **options}
        self.relay = Relay(
            self.tokens,
            wanted.pop("portal", self.portal),
            self.cluster,  # type: ignore[arg-type]
            self.locks,
            Pace(100, lambda: self.now),
            self.cached.get,
            on_call=lambda call, result: self.counted.append((call, result)),
            on_outcome=lambda model, error: self.outcomes.append((model, error)),
            stopping=self.stopping,
            monotonic=lambda: self.now,
            **wanted,
        )
        self.server = RelayServer("127.0.0.1", 0, self.relay)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.port}"

    def token(self, model_id: str = "1", run_id: str = RUN) -> str:
        return self.tokens.make(model_id, run_id)

    def client(self, token: str | None = None, auth_method: str = "auto") -> PortalClient:
        """A trainer's."""
        return PortalClient(self.url, token or self.token(), auth_method, timeout=10)

    def ask(
        self, method: str, path: str, body: object = None, token: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON or text, headers) of one call; body: bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        given = {} if token == "" else {"x-api-key": token or self.token()}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {**given, **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        try:
            return answer.status, json.loads(text), dict(answer.getheaders())
        except ValueError:
            return answer.status, text, dict(answer.getheaders())

    def get(self, model_id: str = "1", **more: Any) -> tuple[int, Any, dict[str, str]]:
        return self.ask("GET", f"/api/external/models/{model_id}/status", **more)

    def put(self, status: int = 1, message: str = "Epoch 1 of 3", model_id: str = "1", **more: Any) -> tuple[int, Any]:
        body = {"ModelId": model_id, "Status": status, "Message": message}
        return self.ask("PUT", "/api/external/models/status", body, **more)[:2]

    def change(self, **more: Any) -> None:
        """Another state of the Job, for cache and API server."""
        job = a_job(**more)
        self.cached[job.name] = job
        self.cluster.have(job)

    def stop(self) -> None:
        self.server.stop()
