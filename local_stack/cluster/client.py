"""Starts the stand-in cluster and talks to it: the Kubernetes API in short, and the faults that it is to have.

What each control call does is listed in local_stack/cluster/__main__.py. Times are in seconds.
"""

from __future__ import annotations

import json
import sys
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local_stack.http_json import call_json
from local_stack.processes import Service, Stoppable
from local_stack.serving import read_ready_file


class StandInCluster(Stoppable):
    """A stand-in cluster that listens at `url`. kubeconfig: the file that kubectl and the dispatcher use.

    `stop` ends its process, `service`.
    """

    def __init__(self, url: str, kubeconfig: Path, service: Service) -> None:
        self.url = url.rstrip("/")
        self.kubeconfig = kubeconfig
        self.service = service

    def stop(self) -> None:
        self.service.stop()

    # The Kubernetes API

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One call of the Kubernetes API, e.g. api("GET", "/apis/batch/v1/namespaces/default/jobs"); PATCH merges."""
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
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

    def create_config_map(self, name: str, namespace: str = "default") -> None:
        """Harmless where it exists."""
        self._create(f"/api/v1/namespaces/{namespace}/configmaps", "ConfigMap", name)

    def put_secret(self, name: str, values: Mapping[str, str], namespace: str = "default") -> None:
        """Create or replace an Opaque Secret."""
        path = f"/api/v1/namespaces/{namespace}/secrets"
        if not self._create(path, "Secret", name, stringData=dict(values)):
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(values)}
            self.api("PUT", f"{path}/{name}", body)

    def _create(self, path: str, kind: str, name: str, **parts: object) -> bool:
        """False: there is one of that name."""
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **parts}
        try:
            self.api("POST", path, body)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            return False
        return True

    # Faults and events on demand

    def control(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request to /_stub/`path`; HTTPError when it was refused."""
        return dict(call_json(method, f"{self.url}/_stub/{path}", body))

    def fail(
        self,
        verb: str | None = None,
        resource: str | None = None,
        *,
        status: int = 500,
        count: int | None = 1,
        after: bool = False,
        retry_after: int | None = None,
    ) -> None:
        """Answer with this status. `after`: carry the call out first. `count` None: for ever.

        `verb`: get, list, watch, create, update, patch, delete, deletecollection; `resource`: "jobs", "pods/log".
        """
        what = {"status": status, "count": count, "after": after, "retry_after": retry_after}
        self._fault("status", verb, resource, **what)

    def delay(
        self, seconds: float, verb: str | None = None, resource: str | None = None, *, count: int | None = 1
    ) -> None:
        """Answer late."""
        self._fault("delay", verb, resource, seconds=seconds, count=count)

    def cut(
        self,
        verb: str | None = None,
        resource: str | None = None,
        *,
        name: str | None = None,
        count: int | None = 1,
        after: bool = False,
    ) -> None:
        """Close the connection without an answer."""
        self._fault("cut", verb, resource, name=name, count=count, after=after)

    def hang(self, verb: str | None = None, resource: str | None = None, *, after: bool = False) -> None:
        """Never answer."""
        self._fault("hang", verb, resource, after=after)

    def _fault(self, kind: str, verb: str | None, resource: str | None, **what: Any) -> None:
        self.control("POST", "faults", {"kind": kind, "verb": verb, "resource": resource, **what})

    def clear_faults(self) -> None:
        """End all scripted faults; what hangs goes on hanging until its client gives up."""
        self.control("DELETE", "faults")

    def calls(self) -> dict[str, int]:
        """Number of calls of each "verb resource", such as {"create jobs": 3}."""
        return dict(self.control("GET", "calls")["calls"])

    def suffered(self) -> dict[str, int]:
        """Number of calls that met each scripted fault, such as {"status 500": 2, "cut (carried out)": 1}."""
        return dict(self.control("GET", "calls")["faults"])

    def clear_calls(self) -> None:
        """Count from zero."""
        self.control("DELETE", "calls")

    def deny(self, *rules: Mapping[str, str]) -> None:
        """Forbid what these rules name ({"verb", "resource", "namespace", "group"}); without rules: nothing."""
        self.control("PUT", "denied", {"rules": [dict(rule) for rule in rules]})

    def refuse_jobs(self, message: str = "", *, name: str = "", code: int = 403) -> None:
        """Deny the creation of Jobs with `name` in their name, in a webhook's or policy's words; without: of none."""
        policies = [{"name": name, "code": code, "message": message}] if message else []
        self.control("PUT", "policies", {"policies": policies})

    def compact(self) -> None:
        """Forget history: a watch from an older version, or an older continue token, gets a 410."""
        self.control("POST", "compact", {})

    def cut_watches(self, resource: str | None = None) -> int:
        """Close the open watches' connections; returns their number."""
        return int(self.control("POST", "watches/cut", {"resource": resource})["watches"])

    def silence_watches(self, resource: str | None = None) -> int:
        """The open watches stay open and send nothing more: a half-open connection."""
        return int(self.control("POST", "watches/silence", {"resource": resource})["watches"])

    def open_watches(self) -> list[str]:
        """The resource of each open watch."""
        return list(self.control("GET", "watches")["watches"])

    def lose_node(
        self, node: str = "local-node", *, kill: bool = False, evict_after: float | None = None
    ) -> list[dict[str, Any]]:
        """The node stops answering; `kill` its processes too. Pods are evicted after their toleration or this.

        Returns the pods that were on it.
        """
        return list(self.control("POST", f"nodes/{node}/lose", {"kill": kill, "evict_after": evict_after})["pods"])

    def return_node(self, node: str = "local-node") -> None:
        """It answers again."""
        self.control("POST", f"nodes/{node}/return", {})

    def remove_node(self, node: str = "local-node", *, kill: bool = False) -> list[dict[str, Any]]:
        """The node object is gone, its pods are garbage; unless `kill`, their processes go on until it returns.

        Returns the pods that were on it.
        """
        return list(self.control("POST", f"nodes/{node}/remove", {"kill": kill})["pods"])

    def reject_next_pods(
        self,
        count: int = 1,
        *,
        node: str = "local-node",
        reason: str = "UnexpectedAdmissionError",
        message: str = "",
    ) -> None:
        """The next pods bound to the node are refused by its kubelet: phase Failed, no container statuses."""
        self.control("POST", f"nodes/{node}/reject", {"count": count, "reason": reason, "message": message})

    def set_gpus(self, gpus: int, node: str = "local-node") -> None:
        """The node's capacity."""
        self.control("POST", f"nodes/{node}/gpus", {"gpus": gpus})

    def evict_by_kubelet(self, namespace: str, pod: str, *, reason: str = "Evicted", message: str = "") -> None:
        """Phase Failed with this reason: Evicted (default: low on memory) or Terminated (node shutdown)."""
        self.control("POST", f"pods/{namespace}/{pod}/evict", {"reason": reason, "message": message})

    def set_quota(self, namespace: str, hard: Mapping[str, str] | None, name: str = "gpus") -> None:
        """A ResourceQuota, such as {"requests.nvidia.com/gpu": "0"}; None removes it."""
        self.control("PUT", "quota", {"namespace": namespace, "name": name, "hard": hard})

    def set_image(self, name: str, *, instant: bool = False, absent: bool = False, pull_error: str = "") -> None:
        """An image that exists; with `absent` or `pull_error` one that cannot be pulled, saying that text."""
        body = {"name": name, "instant": instant, "absent": absent, "pull_error": pull_error}
        self.control("PUT", "images", body)


def start_cluster(
    folder: Path, *options: str, images: Mapping[str, Sequence[str] | None] | None = None
) -> StandInCluster:
    """Start `python -m local_stack.cluster` with its files in `folder`; returns when it listens.

    options: of its command line. images: name → the argv of its entry point; None: an image without one.
    """
    ready, kubeconfig = folder / "cluster-ready.json", folder / "kubeconfig"
    ready.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "local_stack.cluster", "--dir", str(folder / "cluster"), *options]
    argv += ["--kubeconfig", str(kubeconfig), "--ready-file", str(ready)]
    for name, entry_point in (images or {}).items():
        argv += ["--image", name if entry_point is None else f"{name}={json.dumps(list(entry_point))}"]
    service = Service("stand-in cluster", argv, folder / "logs" / "cluster.log").start()
    address = service.wait_ready(lambda: read_ready_file(ready))
    return StandInCluster(str(address["url"]), kubeconfig, service)
