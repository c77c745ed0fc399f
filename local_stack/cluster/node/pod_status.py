"""A pod's status as its kubelet writes it: phase, conditions and container states, as in tests/recorded (pure)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from local_stack.cluster.registry.objects import Obj, now_stamp

_OWN = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_TERMINAL = ("Succeeded", "Failed")
LOST = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
    "startedAt": None,
    "finishedAt": None,
}


@dataclass
class ContainerState:
    """One container: `state` is its waiting, running or terminated object."""

    spec: Obj
    state: Obj = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Obj = field(default_factory=dict)
    restarts: int = 0
    identity: str = ""

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """Once it has ended."""
        ended = self.state.get("terminated")
        return None if ended is None else ended["exitCode"]

    def wait(self, reason: str, message: str = "") -> None:
        """It cannot run yet, for this reason."""
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}

    def run(self) -> None:
        """Its process has started."""
        seed = f"{self.spec['name']}{id(self)}{self.restarts}{now_stamp()}"
        self.identity = "containerd://" + hashlib.sha256(seed.encode()).hexdigest()
        self.state = {"running": {"startedAt": now_stamp()}}

    def end(self, code: int, reason: str, message: str) -> None:
        """Its process has ended."""
        started = (self.state.get("running") or {}).get("startedAt", "1970-01-01T00:00:00Z")
        ended: Obj = {"exitCode": code, "reason": reason}
        if message:
            ended["message"] = message
        ended |= {"startedAt": started, "finishedAt": now_stamp()}
        if self.identity:
            ended["containerID"] = self.identity
        self.state = {"terminated": ended}

    def status(self, mounts: bool = True) -> Obj:
        """Its entry under containerStatuses."""
        spec = self.spec
        shown: Obj = {
            "name": spec["name"],
            "state": self.state,
            "lastState": self.last,
            "ready": self.running,
            "restartCount": self.restarts,
            "image": spec["image"],
            "imageID": "sha256:" + hashlib.sha256(spec["image"].encode()).hexdigest() if self.identity else "",
        }
        if self.identity:
            shown["containerID"] = self.identity
        shown["started"] = self.running
        resources = spec.get("resources") or {}
        if self.identity and resources:
            if resources.get("requests"):
                shown["allocatedResources"] = resources["requests"]
            shown["resources"] = resources
        if mounts and spec.get("volumeMounts"):
            shown["volumeMounts"] = [
                {
                    "name": mount["name"],
                    "mountPath": mount["mountPath"],
                    **({"readOnly": True, "recursiveReadOnly": "Disabled"} if mount.get("readOnly") else {}),
                }
                for mount in spec["volumeMounts"]
            ]
        return shown


@dataclass
class PodState:
    """What the kubelet knows of one pod. `sandbox` is True while its sandbox (network, folders) exists."""

    containers: list[ContainerState]
    init: list[ContainerState] = field(default_factory=list)
    phase: str = "Pending"
    sandbox: bool = False
    address: str = ""
    reason: str = ""
    message: str = ""
    started: str = field(default_factory=now_stamp)
    stopping: bool = False
    stamps: dict[str, tuple[str, str]] = field(default_factory=dict)

    def render(self, pod: Obj) -> Obj:
        """The whole status, for the newest version of the pod."""
        generation = pod["metadata"].get("generation", 1)
        status: Obj = {"observedGeneration": generation, "phase": self.phase}
        status["conditions"] = self._conditions(pod, generation)
        if self.reason:
            status["reason"] = self.reason
        if self.message:
            status["message"] = self.message
        if self.address:
            status |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        status["startTime"] = self.started
        if self.init:
            status["initContainerStatuses"] = [container.status() for container in self.init]
        if self.containers:
            status["containerStatuses"] = [container.status() for container in self.containers]
        status["qosClass"] = pod["status"].get("qosClass", "BestEffort")
        resources = _pod_resources(pod)
        if resources:
            if "requests" in resources:
                status["allocatedResources"] = resources["requests"]
            over = self.stopping or self.phase in _TERMINAL or any("terminated" in c.state for c in self.containers)
            status["resources"] = _without_devices(resources) if over else resources
        return status

    def _conditions(self, pod: Obj, generation: int) -> list[Obj]:
        unready = [c.spec["name"] for c in self.containers if not c.running]
        ended = [c.exit_code for c in self.containers if c.exit_code is not None]
        over = len(ended) == len(self.containers)
        done = "PodCompleted" if over and not any(ended) else "PodFailed"
        reason, message = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
        if over or self.phase in _TERMINAL:
            reason, message = done, ""
        ready = "False" if unready or self.phase in _TERMINAL else "True"
        why = (reason, message) if ready == "False" else ("", "")
        values: dict[str, tuple[str, str, str]] = {
            "PodReadyToStartContainers": ("True" if self.sandbox else "False", "", ""),
            "Initialized": ("True", "PodCompleted" if over and done == "PodCompleted" else "", ""),
            "Ready": (ready, why[0], why[1]),
            "ContainersReady": (ready, why[0], why[1]),
            "PodScheduled": ("True", "", ""),
        }
        if any(c.exit_code != 0 for c in self.init):
            names = [c.spec["name"] for c in self.init if c.exit_code != 0]
            text = f"containers with incomplete status: [{' '.join(names)}]"
            values["Initialized"] = ("False", "ContainersNotInitialized", text)
        conditions = [c for c in pod["status"].get("conditions") or () if c["type"] not in _OWN]
        for kind in _OWN:
            value, cause, text = values[kind]
            known = self.stamps.get(kind)
            if known is None or known[0] != value:
                self.stamps[kind] = known = (value, now_stamp())
            shown: Obj = {
                "type": kind,
                "observedGeneration": generation,
                "status": value,
                "lastProbeTime": None,
                "lastTransitionTime": known[1],
            }
            if cause:
                shown["reason"] = cause
            if text:
                shown["message"] = text
            conditions.append(shown)
        return conditions


def _without_devices(resources: Obj) -> Obj:
    """What is left in the status of an ended pod: devices are freed, and limits no longer apply."""
    requests = {name: value for name, value in resources.get("requests", {}).items() if "/" not in name}
    return {"requests": requests} if requests else {}


def _pod_resources(pod: Obj) -> Obj:
    containers = pod["spec"].get("containers") or []
    if len(containers) != 1:
        return {}
    resources = containers[0].get("resources") or {}
    return {key: value for key, value in resources.items() if key in ("limits", "requests") and value}
