"""Talks to the portal stub's control endpoints, and starts the stub and the stand-in cluster as processes.

What the stub and the cluster answer is written down in their own module docstrings.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from local_stack.processes import Service


def call_json(method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
    """One HTTP call with JSON in and out; None for an empty reply. Raises HTTPError on 4xx and 5xx."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
    if data is not None and "Content-type" not in request.headers:
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as reply:
        text = reply.read()
    return json.loads(text) if text else None


def _model_path(model_id: str) -> str:
    return f"/models/{urllib.parse.quote(model_id, safe='')}"


class PortalControl:
    """A running portal stub, as a test or the demo sees it from behind.

    url: its base URL (API_BASE_URL); api_key: the key it wants.
    """

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key

    def _call(self, method: str, path: str, body: object = None) -> Any:
        return call_json(method, f"{self.url}/_stub{path}", body)

    def set_model(self, model_id: str, status: str = "Created", message: str = "") -> None:
        """Put a model there in this status, whatever it was before."""
        self._call(
            "PUT", f"/models/{urllib.parse.quote(model_id, safe='')}", {"status": status, "message": message}
        )

    def remove_model(self, model_id: str) -> None:
        self._call("DELETE", _model_path(model_id))

    def models(self) -> Any:
        """All models with their history, as the stub gives them."""
        return self._call("GET", "/models")

    def status(self, model_id: str) -> tuple[str, str]:
        """(status, message), asked as a client asks, so that what is compared is what a portal user sees."""
        path = f"/api/external/models/{urllib.parse.quote(model_id, safe='')}/status"
        reply = call_json("GET", self.url + path, headers={"x-api-key": self.api_key})
        return str(reply["status"]), str(reply.get("message") or "")

    def calls(self) -> Any:
        return self._call("GET", "/calls")

    def clear_calls(self) -> None:
        self._call("DELETE", "/calls")

    def add_fault(self, kind: str, **scope: object) -> str:
        """kind: status, html, empty, cut, hang, garbage; scope: method, model, status, headers, count, after.

        Returns the fault's id.
        """
        return str(self._call("POST", "/faults", {"kind": kind, **scope})["id"])

    def clear_faults(self) -> None:
        self._call("DELETE", "/faults")


def read_ready_file(path: Path) -> dict[str, Any] | None:
    """What a service wrote when it was listening; None while it has not."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def start_portal_stub(
    folder: Path, api_key: str, *options: str, port: int = 0
) -> tuple[Service, PortalControl]:
    """Start `python -m local_stack.portal_stub`, with its files in `folder`; returns when it listens."""
    ready = folder / "portal-ready.json"
    ready.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "local_stack.portal_stub", "--port", str(port), "--api-key", api_key]
    service = Service("portal stub", [*argv, "--ready-file", ready, *options], folder / "logs" / "portal.log")
    service.start()
    address = service.wait_ready(lambda: read_ready_file(ready))
    return service, PortalControl(str(address["url"]), api_key)


class ClusterControl:
    """A running stand-in cluster. kubeconfig: the file that kubectl and the dispatcher use; url: its API."""

    def __init__(self, url: str, kubeconfig: Path) -> None:
        self.url = url.rstrip("/")
        self.kubeconfig = kubeconfig

    def _headers(self) -> dict[str, str]:
        config = yaml.safe_load(self.kubeconfig.read_text(encoding="utf-8"))
        return {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One call of the Kubernetes API, e.g. api("GET", "/apis/batch/v1/namespaces/default/jobs")."""
        return call_json(method, self.url + path, body, self._headers())

    def jobs(self, namespace: str = "default") -> list[dict[str, Any]]:
        return list(self.api("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"])

    def pods(self, namespace: str = "default") -> list[dict[str, Any]]:
        return list(self.api("GET", f"/api/v1/namespaces/{namespace}/pods")["items"])

    def put_secret(self, name: str, values: Mapping[str, str], namespace: str = "default") -> None:
        """Create or replace an Opaque Secret."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "Opaque",
            "stringData": dict(values),
        }
        path = f"/api/v1/namespaces/{namespace}/secrets"
        try:
            self.api("POST", path, body)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            self.api("PUT", f"{path}/{name}", body)


def start_cluster(
    folder: Path,
    gpus: int,
    images: Mapping[str, Sequence[str] | None],
    port: int = 0,
) -> tuple[Service, ClusterControl]:
    """Start `python -m local_stack.cluster` with its files in `folder`; returns when it listens.

    images: name → the argv of its entry point; None: an image that exists and has none.
    """
    ready, kubeconfig = folder / "cluster-ready.json", folder / "kubeconfig"
    ready.unlink(missing_ok=True)
    argv = [
        sys.executable,
        "-m",
        "local_stack.cluster",
        "--port",
        str(port),
        "--dir",
        str(folder / "cluster"),
    ]
    argv += ["--gpus", str(gpus), "--kubeconfig", str(kubeconfig), "--ready-file", str(ready)]
    for name, entry_point in images.items():
        argv += ["--image", name if entry_point is None else f"{name}={json.dumps(list(entry_point))}"]
    service = Service("stand-in cluster", argv, folder / "logs" / "cluster.log").start()
    address = service.wait_ready(lambda: read_ready_file(ready))
    return service, ClusterControl(str(address["url"]), kubeconfig)
