"""The Kubernetes API as plain dictionaries, through the official client; the same on the stand-in and on a cluster."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from local_stack.processes import WaitedTooLong, wait_until

Obj = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
FINALIZER = "training-dispatcher/report"
WAIT = 60.0  # seconds: a real cluster pulls, schedules and backs off; the stand-in needs far less


@dataclass(frozen=True)
class Answer:
    """One answer: `code` is HTTP's, `body` the object, `headers` with lower-case names."""

    code: int
    body: Obj
    headers: dict[str, str]

    @property
    def reason(self) -> str:
        """The Status object's reason."""
        return str(self.body.get("reason", ""))

    @property
    def message(self) -> str:
        """The Status object's message."""
        return str(self.body.get("message", ""))


_GROUPS = {
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
}


class Kube:
    """One cluster, one namespace. `image` has sh and sleep. `run` is a word that this run's objects carry."""

    def __init__(self, kubeconfig: Path, namespace: str, image: str) -> None:
        settings = client.Configuration()
        # The client's own helpers have no types.
        load: Any = config.load_kube_config
        load(str(kubeconfig), client_configuration=settings)
        # It would read the environment anew at each call, which pytest changes meanwhile.
        settings.refresh_api_key_hook = None
        settings.retries = False
        self._api = client.ApiClient(settings)
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.image = image
        self.run = secrets.token_hex(3)

    def path(self, plural: str, name: str = "", *, namespace: str | None = None) -> str:
        """The path of a namespaced collection or object."""
        prefix = _GROUPS.get(plural, "/api/v1")
        where = f"{prefix}/namespaces/{namespace or self.namespace}/{plural}"
        return f"{where}/{name}" if name else where

    def _open(
        self,
        method: str,
        path: str,
        body: object,
        query: dict[str, Any] | None,
        content: str,
        timeout: float,
        accept: str = "application/json",
    ) -> urllib3.HTTPResponse:
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = content
        words = self._api.param_serialize(
            method=method,
            resource_path=path,
            query_params=[(key, str(value)) for key, value in (query or {}).items()],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        response: urllib3.HTTPResponse = self._api.call_api(*words, _request_timeout=(5, timeout)).response
        return response

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, Any] | None = None,
        content: str = "application/json",
        timeout: float = 20.0,
        accept: str = "application/json",
    ) -> Answer:
        """One request; a refusal is an answer like any other."""
        response = self._open(method, path, body, query, content, timeout, accept)
        data = response.read()
        headers = {key.lower(): value for key, value in response.headers.items()}
        return Answer(response.status, json.loads(data) if data else {}, headers)

    def get(self, plural: str, name: str) -> Obj | None:
        """The object, or None when there is none."""
        answer = self.call("GET", self.path(plural, name))
        if answer.code == 404:
            return None
        assert answer.code == 200, answer.body
        return answer.body

    def list_all(self, plural: str, **query: Any) -> list[Obj]:
        """The items of a list."""
        answer = self.call("GET", self.path(plural), query=query)
        assert answer.code == 200, answer.body
        return list(answer.body["items"])

    def create(self, plural: str, body: Obj, **query: Any) -> Obj:
        """The created object."""
        answer = self.call("POST", self.path(plural), body, query=query)
        assert answer.code == 201, answer.body
        return answer.body

    def patch(self, plural: str, name: str, body: object, content: str = MERGE, **query: Any) -> Answer:
        """A patch, by default a merge patch."""
        return self.call("PATCH", self.path(plural, name), body, query=query, content=content)

    def delete(self, plural: str, name: str, **options: Any) -> Answer:
        """DELETE with these DeleteOptions."""
        return self.call("DELETE", self.path(plural, name), options or None)

    def pods(self, job: str) -> list[Obj]:
        """The Job's pods."""
        return self.list_all("pods", labelSelector=f"batch.kubernetes.io/job-name={job}")

    def pod(self, job: str) -> Obj | None:
        """The Job's newest pod."""
        found = sorted(self.pods(job), key=lambda pod: int(pod["metadata"]["resourceVersion"]))
        return found[-1] if found else None

    def events(self, name: str) -> list[Obj]:
        """The Events about the objects of this name."""
        return self.list_all("events", fieldSelector=f"involvedObject.name={name}")

    def log(self, pod: str, **query: Any) -> str:
        """The pod's log."""
        response = self._open("GET", self.path("pods", pod) + "/log", None, query, "", 20.0)
        return response.read().decode()

    def watch(
        self,
        plural: str,
        seconds: float,
        *,
        opened: list[urllib3.HTTPResponse] | None = None,
        accept: str = "application/json",
        **query: Any,
    ) -> Iterator[Obj]:
        """The events of one watch, until the server ends it after `seconds` (whole ones).

        `opened` gets the response, for another thread to shut it down.
        """
        asked = {"watch": "true", "timeoutSeconds": int(seconds), **query}
        response = self._open("GET", self.path(plural), None, asked, "", seconds + 10, accept)
        if response.status != 200:
            raise AssertionError(f"watch {plural}: {response.status} {response.read()!r}")
        if opened is not None:
            opened.append(response)
        rest = b""
        try:
            for chunk in response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        finally:
            response.close()

    @contextmanager
    def watching(self, plural: str, **query: Any) -> Iterator[list[Obj]]:
        """A list that fills with what happens from now on, for as long as the block runs."""
        version = self.call("GET", self.path(plural), query={"limit": 1}).body["metadata"]["resourceVersion"]
        found: list[Obj] = []
        opened: list[urllib3.HTTPResponse] = []

        def read() -> None:
            # Its end is the block's: shutting a response down breaks the read.
            with suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
                for event in self.watch(plural, 300, opened=opened, resourceVersion=version, **query):
                    found.append(event)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        wait_until(lambda: opened)
        try:
            yield found
        finally:
            opened[0].shutdown()
            thread.join(timeout=10)

    def job_body(self, name: str, script: str, *, pod: Obj | None = None, **spec: Any) -> Obj:
        """A Job as the dispatcher makes them: one container `trainer`, no retries, Ignore and FailJob rules."""
        container = {
            "name": "trainer",
            "image": self.image,
            "command": ["/bin/sh", "-c", script],
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        pod = dict(pod or {})
        container |= pod.pop("container", {})
        template = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
        rules = [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": "trainer", "operator": "In", "values": [64, 65, 66]},
            },
        ]
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": {"contracts": self.run}},
            "spec": {
                "backoffLimit": 0,
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": {"rules": rules},
                "template": {"spec": {**template, **pod}},
                **spec,
            },
        }

    def start(self, name: str, script: str, *, finalizer: bool = False, **spec: Any) -> Obj:
        """Create such a Job."""
        body = self.job_body(name, script, **spec)
        if finalizer:
            body["metadata"]["finalizers"] = [FINALIZER]
        return self.create("jobs", body)

    def wait_job(self, name: str, condition: str, *, status: str = "True") -> Obj:
        """The Job, once this condition has this status."""

        def found() -> Obj | None:
            job = self.get("jobs", name)
            met = job is not None and find(job, condition).get("status") == status
            return job if met else None

        return wait_until(found, WAIT, what=lambda: f"{condition} of {name}: {self.get('jobs', name)}")

    def wait_pod(self, job: str, test: Callable[[Obj], Any]) -> Obj:
        """The Job's newest pod, once `test` holds for it."""

        def found() -> Obj | None:
            pod = self.pod(job)
            return pod if pod is not None and test(pod) else None

        return wait_until(found, WAIT, what=lambda: f"the pod of {job}: {self.pod(job)}")

    def wait_gone(self, plural: str, name: str) -> None:
        """Until the object is gone."""
        wait_until(
            lambda: self.get(plural, name) is None,
            WAIT,
            what=lambda: f"the end of {plural}/{name}: {self.get(plural, name)}",
        )

    def clear(self, name: str) -> None:
        """Remove a Job, its finalizers and its pods, whatever state they are in."""
        self.delete("jobs", name, propagationPolicy="Background")
        self.patch("jobs", name, {"metadata": {"finalizers": None}})
        for pod in self.pods(name):
            self.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=0)


def find(obj: Obj, condition: str) -> Obj:
    """The condition of this type; empty when there is none."""
    found = (c for c in obj.get("status", {}).get("conditions") or () if c["type"] == condition)
    return next(found, {})


def container_state(pod: Obj) -> Obj:
    """The first container's state object; empty before there is one."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    state: Obj = statuses[0].get("state") or {}
    return state


def waiting_reason(pod: Obj) -> str:
    """Why the first container waits."""
    return str((container_state(pod).get("waiting") or {}).get("reason", ""))


def is_running(pod: Obj) -> bool:
    """Whether the first container runs."""
    return "running" in container_state(pod)


__all__ = ["WaitedTooLong", "wait_until"]
