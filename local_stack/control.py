"""Starts the portal stub and the stand-in cluster as processes, and talks to them.

What they answer is written down in their own module docstrings.
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

from local_stack.portal.client import PortalControl
from local_stack.processes import Service

# What runs on this machine is never behind a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call_json(method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
    """One HTTP call with JSON in and out; None for an empty reply. Raises HTTPError on 4xx and 5xx."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
    if data is not None and "Content-type" not in request.headers:
        request.add_header("Content-Type", "application/json")
    with OPENER.open(request, timeout=30) as reply:
        text = reply.read()
    return json.loads(text) if text else None


class Portal(PortalControl):
    """A running portal stub and the key that it wants. `url` is its base URL (API_BASE_URL)."""

    def __init__(self, url: str, api_key: str) -> None:
        super().__init__(url)
        self.api_key = api_key

    def status(self, model_id: str) -> tuple[str, str]:
        """(status, message), asked as a client asks, so that what is compared is what a portal user sees."""
        path = f"/api/external/models/{urllib.parse.quote(model_id, safe='')}/status"
        reply = call_json("GET", self.url + path, headers={"x-api-key": self.api_key})
        return str(reply["status"]), str(reply.get("message") or "")


def read_ready_file(path: Path) -> dict[str, Any] | None:
    """What a service wrote when it was listening; None while it has not."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def start_portal_stub(folder: Path, api_key: str, *options: str, port: int = 0) -> tuple[Service, Portal]:
    """Start `python -m local_stack.portal`, with its files in `folder`; returns when it listens."""
    ready = folder / "portal-ready.json"
    ready.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "local_stack.portal", "--port", str(port), f"--api-key={api_key}"]
    service = Service("portal stub", [*argv, "--ready-file", ready, *options], folder / "logs" / "portal.log")
    service.start()
    address = service.wait_ready(lambda: read_ready_file(ready))
    return service, Portal(str(address["url"]), api_key)


class ClusterControl:
    """A running stand-in cluster. kubeconfig: the file that kubectl and the dispatcher use; url: its API."""

    def __init__(self, url: str, kubeconfig: Path) -> None:
        self.url = url.rstrip("/")
        self.kubeconfig = kubeconfig

    def _headers(self) -> dict[str, str]:
        config = yaml.safe_load(self.kubeconfig.read_text(encoding="utf-8"))
        return {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One call of the Kubernetes API, e.g. api("GET", "/apis/batch/v1/namespaces/default/jobs"); PATCH merges."""
        headers = self._headers()
        if method == "PATCH":
            headers["Content-type"] = "application/merge-patch+json"
        return call_json(method, self.url + path, body, headers)

    def jobs(self, namespace: str = "default") -> list[dict[str, Any]]:
        return list(self.api("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"])

    def pods(self, namespace: str = "default") -> list[dict[str, Any]]:
        return list(self.api("GET", f"/api/v1/namespaces/{namespace}/pods")["items"])

    def create_namespace(self, name: str) -> None:
        """Harmless where it exists."""
        self._create("/api/v1/namespaces", "Namespace", name)

    def create_service_account(self, name: str, namespace: str = "default") -> None:
        """Harmless where it exists."""
        self._create(f"/api/v1/namespaces/{namespace}/serviceaccounts", "ServiceAccount", name)

    def _create(self, path: str, kind: str, name: str) -> None:
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
        try:
            self.api("POST", path, body)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise

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
    options: Sequence[str] = (),
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
    argv += options
    service = Service("stand-in cluster", argv, folder / "logs" / "cluster.log").start()
    address = service.wait_ready(lambda: read_ready_file(ready))
    return service, ClusterControl(str(address["url"]), kubeconfig)
