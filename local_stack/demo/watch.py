"""Looks at queue, cluster, portal and storage from outside, as an operator would: the state of each request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from azure.core.exceptions import ResourceNotFoundError

from local_stack.demo.requests import Outcome, Request
from local_stack.stack import NAMESPACE, Stack

MODEL_ID_LABEL = "training-dispatcher/model-id"
FINALIZER = "training-dispatcher/report"


@dataclass(frozen=True)
class Seen:
    """One request at one moment.

    portal: (status, message) of its model. job: "", suspended, waiting, running, succeeded, failed.
    waited: seconds from the queue to the container's start; trained: from there to its end or till now.
    reported: the dispatcher has let go of the Job.
    """

    portal: tuple[str, str] | None = None
    job: str = ""
    waited: float | None = None
    trained: float | None = None
    reported: bool = False


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment.

    queued: messages, hidden ones included. poison: request name → code of its entry. gpus_busy: of running pods.
    """

    requests: Mapping[str, Seen]
    queued: int
    poison: Mapping[str, str]
    gpus_busy: int


@dataclass
class Watch:
    """Observes `requests` on `stack`. sent: request name → epoch seconds when its message was sent."""

    stack: Stack
    requests: tuple[Request, ...]
    sent: dict[str, float] = field(default_factory=dict)

    def look(self) -> Snapshot:
        models = {name: (m.status, m.message) for name, m in self.stack.portal.models().items()}
        jobs = {job["metadata"]["name"]: job for job in self.stack.cluster.jobs(NAMESPACE)}
        pods = self.stack.cluster.pods(NAMESPACE)
        seen = {}
        for request in self.requests:
            portal = models.get(request.model_id) if request.model_id is not None else None
            own = request.after is None and request.container is not None
            job = jobs.get(request.container or "") if own else None
            seen[request.name] = self._seen(request, portal, job, pods)
        return Snapshot(
            requests=seen,
            queued=int(self.stack.queue().get_queue_properties().approximate_message_count or 0),
            poison={name: code for name, (code, _) in self._poison().items()},
            gpus_busy=sum(_gpus(pod) for pod in pods if _phase(pod) == "Running"),
        )

    def _seen(
        self,
        request: Request,
        portal: tuple[str, str] | None,
        job: Mapping[str, Any] | None,
        pods: Iterable[Mapping[str, Any]],
    ) -> Seen:
        if job is None:
            return Seen(portal)
        own = [p for p in pods if p["metadata"].get("labels", {}).get(MODEL_ID_LABEL) == request.model_id]
        began, ended = _times(own)
        sent = self.sent.get(request.name)
        return Seen(
            portal=portal,
            job=_job_state(job, own),
            waited=max(0.0, began - sent) if began is not None and sent is not None else None,
            trained=None if began is None else max(0.0, (ended or time.time()) - began),
            reported=FINALIZER not in job["metadata"].get("finalizers", []),
        )

    def settled(self, snapshot: Snapshot) -> bool:
        """Nothing more will happen: messages consumed, Jobs reported, expected poison entries there."""
        poison = {request.name for request in self.requests if request.expected.kind == "poisoned"}
        return (
            snapshot.queued == 0
            and poison <= set(snapshot.poison)
            and all(
                seen.job in ("succeeded", "failed") and seen.reported
                for request in self.requests
                if request.expected.kind in ("trained", "failed")
                for seen in (snapshot.requests[request.name],)
            )
        )

    def outcomes(self, snapshot: Snapshot) -> dict[str, Outcome]:
        """The outcome of each request, with what its container and the poison queue hold."""
        poison = self._poison()
        outcomes = {}
        for request in self.requests:
            seen = snapshot.requests[request.name]
            outcomes[request.name] = Outcome(
                portal=seen.portal,
                job=bool(seen.job),
                waited=seen.waited,
                trained=seen.trained,
                poison=poison.get(request.name),
                **self._published(request),
            )
        return outcomes

    def _poison(self) -> dict[str, tuple[str, str]]:
        """Request name → (code, sentence) of its entry in the poison queue."""
        entries = [json.loads(message.content) for message in self.stack.poison.peek_messages(32)]
        return {
            request.name: (str(entry["code"]), str(entry["sentence"]))
            for request in self.requests
            for entry in entries
            if entry.get("original") == request.message
        }

    def _published(self, request: Request) -> dict[str, Any]:
        """metrics, runs and place of the model in the request's container."""
        if request.container is None:
            return {}
        container = self.stack.blobs.get_container_client(request.container)
        runs = {name.split("/")[1] for name in container.list_blob_names(name_starts_with="runs/")}
        try:
            run = json.loads(container.download_blob("latest.json").readall())["run_id"]
            report = json.loads(container.download_blob(f"runs/{run}/report.json").readall())
        except ResourceNotFoundError:
            return {"runs": len(runs)}
        return {
            "metrics": {name: value for name, value in report["metrics"].items() if isinstance(value, (int, float))},
            "runs": len(runs),
            "place": f"{request.container}/runs/{run}",
        }


def _job_state(job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> str:
    conditions = {c["type"] for c in job.get("status", {}).get("conditions", ()) if c["status"] == "True"}
    if "Complete" in conditions:
        return "succeeded"
    if "Failed" in conditions:
        return "failed"
    if job["spec"].get("suspend"):
        return "suspended"
    return "running" if any(_phase(pod) == "Running" for pod in pods) else "waiting"


def _phase(pod: Mapping[str, Any]) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def _gpus(pod: Mapping[str, Any]) -> int:
    limits = [c.get("resources", {}).get("limits", {}) for c in pod["spec"]["containers"]]
    return sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits)


def _times(pods: Iterable[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """(first start, last end) of the pods' containers in epoch seconds; no end while one runs."""
    starts, ends, running = [], [], False
    for pod in pods:
        for status in pod.get("status", {}).get("containerStatuses", ()):
            state = status.get("state", {})
            # A container that could not be started has ended, at no time or at the epoch.
            if "terminated" in state and (start := _epoch(state["terminated"].get("startedAt"))):
                starts.append(start)
                ends.append(_epoch(state["terminated"]["finishedAt"]))
            elif "running" in state:
                starts.append(_epoch(state["running"]["startedAt"]))
                running = True
    return min(starts, default=None), None if running else max(ends, default=None)


def _epoch(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
