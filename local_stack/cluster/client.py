"""The stand-in cluster's faults and events on demand, typed: a helper for tests and the demo.

What each call does is listed in local_stack/cluster/__main__.py. Times are in seconds.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local_stack.processes import Service

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ClusterFaults:
    """Talks to `/_stub` of the stand-in cluster at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request to /_stub/`path`; HTTPError when it was refused."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_stub/{path}", data=data, method=method)
        with _OPENER.open(request, timeout=10) as answer:
            return dict(json.loads(answer.read()))

    def fail(
        self,
        verb: str | None = None,
        resource: str | None = None,
        *,
        status: int = 500,
        name: str | None = None,
        count: int | None = 1,
        after: bool = False,
        retry_after: int | str | None = None,
        reason: str = "",
        message: str = "",
        seconds: float = 0.0,
    ) -> int:
        """Answer with this status. `after`: carry the call out first. `seconds`: wait first. `count` None: for ever.

        `verb`: get, list, watch, create, update, patch, delete, deletecollection; `resource`: "jobs", "pods/log".
        """
        return self._fault(
            verb,
            resource,
            kind="status",
            status=status,
            name=name,
            count=count,
            after=after,
            retry_after=retry_after,
            reason=reason,
            message=message,
            seconds=seconds,
        )

    def delay(
        self, seconds: float, verb: str | None = None, resource: str | None = None, *, count: int | None = 1
    ) -> int:
        """Answer late."""
        return self._fault(verb, resource, kind="delay", seconds=seconds, count=count)

    def cut(
        self,
        verb: str | None = None,
        resource: str | None = None,
        *,
        name: str | None = None,
        count: int | None = 1,
        after: bool = False,
    ) -> int:
        """Close the connection without an answer."""
        return self._fault(verb, resource, kind="cut", name=name, count=count, after=after)

    def hang(
        self,
        verb: str | None = None,
        resource: str | None = None,
        *,
        name: str | None = None,
        count: int | None = 1,
        after: bool = False,
    ) -> int:
        """Never answer."""
        return self._fault(verb, resource, kind="hang", name=name, count=count, after=after)

    def _fault(self, verb: str | None, resource: str | None, **what: Any) -> int:
        return int(self.call("POST", "faults", {"verb": verb, "resource": resource, **what})["id"])

    def clear_faults(self) -> None:
        """End all scripted faults; what hangs goes on hanging until its client gives up."""
        self.call("DELETE", "faults")

    def calls(self) -> dict[str, int]:
        """How often each "verb resource" was called, such as {"create jobs": 3}."""
        return dict(self.call("GET", "calls")["calls"])

    def suffered(self) -> dict[str, int]:
        """How many calls met a scripted fault, such as {"status 500": 2, "cut (carried out)": 1}."""
        return dict(self.call("GET", "calls")["faults"])

    def clear_calls(self) -> None:
        """Count from zero."""
        self.call("DELETE", "calls")

    def deny(self, *rules: Mapping[str, str]) -> None:
        """Forbid what these rules name ({"verb", "resource", "namespace", "group"}); without rules: nothing."""
        self.call("PUT", "denied", {"rules": [dict(rule) for rule in rules]})

    def compact(self) -> None:
        """Forget history: a watch from an older version, or an older continue token, is told 410."""
        self.call("POST", "compact", {})

    def cut_watches(self, resource: str | None = None) -> int:
        """Close the open watches' connections; how many there were."""
        return int(self.call("POST", "watches/cut", {"resource": resource})["watches"])

    def silence_watches(self, resource: str | None = None) -> int:
        """The open watches stay open and send nothing more: a half-open connection."""
        return int(self.call("POST", "watches/silence", {"resource": resource})["watches"])

    def open_watches(self) -> list[str]:
        """The resource of each open watch."""
        return list(self.call("GET", "watches")["watches"])

    def lose_node(self, node: str = "local-node", *, kill: bool = False, evict_after: float | None = None) -> None:
        """The node stops answering; `kill` its processes too. Pods are evicted after their toleration or this."""
        self.call("POST", f"nodes/{node}/lose", {"kill": kill, "evict_after": evict_after})

    def return_node(self, node: str = "local-node") -> None:
        """It answers again."""
        self.call("POST", f"nodes/{node}/return", {})

    def remove_node(self, node: str = "local-node", *, kill: bool = False) -> None:
        """The node object is gone, its pods are garbage; unless `kill`, their processes go on until it returns."""
        self.call("POST", f"nodes/{node}/remove", {"kill": kill})

    def reject_next_pods(
        self,
        count: int = 1,
        *,
        node: str = "local-node",
        reason: str = "UnexpectedAdmissionError",
        message: str = "",
    ) -> None:
        """The next pods bound to the node are refused by its kubelet: phase Failed, no container statuses."""
        self.call("POST", f"nodes/{node}/reject", {"count": count, "reason": reason, "message": message})

    def set_gpus(self, gpus: int, node: str = "local-node") -> None:
        """The node's capacity."""
        self.call("POST", f"nodes/{node}/gpus", {"gpus": gpus})

    def evict_by_kubelet(self, namespace: str, pod: str, *, reason: str = "Evicted", message: str = "") -> None:
        """Phase Failed with this reason: Evicted (default: low on memory) or Terminated (node shutdown)."""
        self.call("POST", f"pods/{namespace}/{pod}/evict", {"reason": reason, "message": message})

    def set_quota(self, namespace: str, hard: Mapping[str, str] | None, name: str = "gpus") -> None:
        """A ResourceQuota, such as {"requests.nvidia.com/gpu": "0"}; None removes it."""
        self.call("PUT", "quota", {"namespace": namespace, "name": name, "hard": hard})

    def set_image(
        self,
        name: str,
        entrypoint: Sequence[str] | None = None,
        *,
        instant: bool = False,
        absent: bool = False,
        pull_error: str = "",
    ) -> None:
        """An image that exists; with `absent` or `pull_error` one that cannot be pulled, saying that text."""
        words = None if entrypoint is None else list(entrypoint)
        body = {"name": name, "entrypoint": words, "instant": instant, "absent": absent}
        self.call("PUT", "images", {**body, "pull_error": pull_error})


class StandIn(ClusterFaults):
    """A running stand-in cluster: a context manager. `kubeconfig`: the file for clients; `token`: its bearer token."""

    def __init__(self, service: Service, url: str, token: str, kubeconfig: Path) -> None:
        super().__init__(url)
        self.service = service
        self.token = token
        self.kubeconfig = kubeconfig

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *error: object) -> None:
        self.service.stop()


def start_stand_in(folder: Path, *options: str, images: Sequence[str] = ()) -> StandIn:
    """Start `python -m local_stack.cluster` with its files in `folder`; returns when it listens.

    `options` go to its command line; `images` as after `--image`.
    """
    ready, kubeconfig = folder / "ready.json", folder / "kubeconfig"
    ready.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "local_stack.cluster", "--dir", str(folder / "cluster"), *options]
    argv += ["--kubeconfig", str(kubeconfig), "--ready-file", str(ready)]
    for image in images:
        argv += ["--image", image]
    service = Service("stand-in cluster", argv, folder / "cluster.log").start()
    address = service.wait_ready(lambda: json.loads(ready.read_text()) if ready.exists() else None)
    return StandIn(service, address["url"], address["token"], kubeconfig)
