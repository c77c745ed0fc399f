"""The control calls under `/_stub`: faults, nodes, evictions, quotas, counts. cluster/__main__.py lists them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from local_stack.cluster.api.answers import respond
from local_stack.cluster.api.faults import Fault, Faults, Policy
from local_stack.cluster.api.verbs import Verbs
from local_stack.cluster.api.watch import Watches
from local_stack.cluster.node.agent import NodeAgent
from local_stack.cluster.node.images import Image, Images
from local_stack.cluster.registry.errors import ApiError, bad_request
from local_stack.cluster.registry.resources import PODS, RESOURCES
from local_stack.cluster.registry.writes import Registry

_LOW_MEMORY = (
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. Container trainer was using "
    "1Gi, request is 0, has larger consumption of memory. "
)
_NO_GPU = (
    "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices "
    "nvidia.com/gpu, which is unexpected"
)


@dataclass(frozen=True)
class ControlApi:
    """Answers /_stub requests."""

    registry: Registry
    verbs: Verbs
    faults: Faults
    watches: Watches
    images: Images
    agents: dict[str, NodeAgent]

    async def handle(self, request: web.BaseRequest, path: str) -> web.Response:
        """One request; `path` without the prefix."""
        body = json.loads(await request.read() or b"{}")
        if not isinstance(body, dict):
            raise bad_request("the body is a JSON object")
        try:
            answer = self._act(request.method, path.strip("/").split("/"), body)
        except (ValueError, TypeError, KeyError) as why:
            raise bad_request(f"{request.method} /_stub/{path}: {why}") from why
        if answer is None:
            raise ApiError(404, "NotFound", f"there is no {request.method} /_stub/{path}")
        return respond(answer)

    def _act(self, method: str, parts: list[str], body: dict[str, Any]) -> dict[str, Any] | None:
        match parts:
            case ["faults" | "calls" | "denied" | "policies" as what]:
                return self._faults(method, what, body)
            case ["watches", *action]:
                return self._watch(action, body)
            case ["nodes", name, action]:
                agent = self.agents.get(name)
                if agent is None:
                    raise ValueError(f"there is no node {name}; there are {', '.join(self.agents)}")
                return self._node(agent, action, body)
            case ["pods", namespace, name, "evict"]:
                return self._evict(namespace, name, body)
            case ["objects"]:
                return self._park(body)
            case ["compact"]:
                return self._compact()
            case ["images"]:
                return self._set_image(body)
            case ["quota"]:
                return self._set_quota(body)
        return None

    def _faults(self, method: str, what: str, body: dict[str, Any]) -> dict[str, Any] | None:
        faults = self.faults
        match method, what:
            case "POST", "faults":
                faults.scripted.append(Fault.parse(body))
            case "DELETE", "faults":
                faults.scripted.clear()
            case "GET", "calls":
                return {"calls": dict(faults.calls), "faults": dict(faults.suffered)}
            case "DELETE", "calls":
                faults.calls.clear()
                faults.suffered.clear()
            case "PUT", "denied":
                faults.denied = list(body["rules"])
            case "PUT", "policies":
                faults.policies = [Policy(str(p["name"]), int(p["code"]), str(p["message"])) for p in body["policies"]]
            case _:
                return None
        return {}

    def _watch(self, action: list[str], body: dict[str, Any]) -> dict[str, Any] | None:
        match action:
            case []:
                return {"watches": [watch.asked.resource.plural for watch in self.watches.open]}
            case ["cut"]:
                return {"watches": self.watches.cut(body.get("resource"))}
            case ["silence"]:
                return {"watches": self.watches.silence(body.get("resource"))}
        return None

    def _compact(self) -> dict[str, Any]:
        self.registry.store.compact()
        self.verbs.forget_moments()
        return {"resourceVersion": str(self.registry.store.version)}

    def _park(self, body: dict[str, Any]) -> dict[str, Any]:
        resource = RESOURCES[body["resource"]]
        for obj in body["objects"]:
            self.registry.store.park(
                resource.plural, {**obj, "kind": resource.kind, "apiVersion": resource.api_version}
            )
        return {"resourceVersion": str(self.registry.store.version)}

    def _node(self, agent: NodeAgent, action: str, body: dict[str, Any]) -> dict[str, Any] | None:
        pods = agent.pods()
        match action:
            case "lose":
                after = body.get("evict_after")
                agent.lose(kill=bool(body.get("kill", False)), evict_after=None if after is None else float(after))
            case "return":
                agent.come_back()
            case "remove":
                agent.remove_node(kill=bool(body.get("kill", False)))
            case "gpus":
                agent.set_gpus(int(body["gpus"]))
            case "reject":
                reason = body.get("reason") or "UnexpectedAdmissionError"
                agent.reject_next(reason, body.get("message") or _NO_GPU, int(body.get("count", 1)))
            case _:
                return None
        return {"pods": pods}

    def _evict(self, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        pod = self.registry.get(PODS, namespace, name)
        agent = self.agents.get(pod["spec"].get("nodeName", ""))
        if agent is None:
            raise ValueError(f"pod {namespace}/{name} is on no node")
        agent.evict(pod, body.get("reason") or "Evicted", body.get("message") or _LOW_MEMORY)
        return {}

    def _set_image(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["name"]
        self.images.known.pop(name, None)
        self.images.refusals.pop(name, None)
        if body.get("pull_error"):
            self.images.refusals[name] = str(body["pull_error"])
        elif not body.get("absent"):
            self.images.known[name] = Image(instant=bool(body.get("instant")))
        return {}

    def _set_quota(self, body: dict[str, Any]) -> dict[str, Any]:
        quotas, namespace = RESOURCES["resourcequotas"], body["namespace"]
        name, hard = body.get("name") or "gpus", body.get("hard")
        store = self.registry.store
        if store.find("resourcequotas", namespace, name):
            store.remove("resourcequotas", namespace, name)
        if hard is not None:
            self.registry.create(quotas, namespace, {"metadata": {"name": name}, "spec": {"hard": hard}})
        return {}
