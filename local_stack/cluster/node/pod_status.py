"""A pod's status as its kubelet writes it: phase, conditions and container states, as in tests/recorded (pure)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from local_stack.cluster.registry.objects import Obj, now_stamp
from local_stack.cluster.registry.quantities import pod_limits, pod_requests, shown

_OWN = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_TERMINAL = ("Succeeded", "Failed")
_NEVER = "1970-01-01T00:00:00Z"
LOST = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
    "startedAt": None,
    "finishedAt": None,
}


@dataclass
class ContainerState:
    """One container: `state` is its waiting, running or terminated object; `is_init`: it is no main one."""

    spec: Obj
    is_init: bool = False
    state: Obj = field(default_factory=dict)
    last: Obj = field(default_factory=dict)
    restarts: int = 0
    identity: str = ""

    @property
    def name(self) -> str:
        """Its name within the pod."""
        return str(self.spec["name"])

    @property
    def is_sidecar(self) -> bool:
        """Whether it is a native one: started like an init container, and ended after the main ones."""
        return self.is_init and self.spec.get("restartPolicy") == "Always"

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return "running" in self.state

    @property
    def has_run(self) -> bool:
        """Whether its process was ever started."""
        started = (self.state.get("terminated") or {}).get("startedAt") or _NEVER
        return self.running or bool(self.last) or started != _NEVER

    @property
    def is_done(self) -> bool:
        """Of one under `initContainers`: whether the next may begin."""
        return self.running if self.is_sidecar else self.exit_code == 0

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

    def refuse(self, why: str) -> None:
        """The runtime made it, and could not start its process."""
        self.run()
        self.state = {}
        self.end(128, "StartError", why)

    def end(self, code: int, reason: str, message: str) -> None:
        """Its process has ended."""
        started = (self.state.get("running") or {}).get("startedAt", _NEVER)
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
            "ready": self.is_done if self.is_init else self.running,
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

    def __post_init__(self) -> None:
        for container in self.all:
            container.wait("PodInitializing" if self.init else "ContainerCreating")

    @property
    def all(self) -> list[ContainerState]:
        """Every container, in the order in which they start."""
        return [*self.init, *self.containers]

    @property
    def is_initialized(self) -> bool:
        """Whether the main containers may start, or have: a sidecar that is restarted meanwhile changes nothing."""
        return all(c.is_done for c in self.init) or any(c.has_run for c in self.containers)

    def went_on(self) -> None:
        """A container has started or ended: Running once every main one was started (the kubelet's getPhase)."""
        if not any("waiting" in c.state and not c.last for c in self.containers) and any(
            c.running or c.last for c in self.containers
        ):
            self.phase = "Running"

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
            by_name = sorted(self.containers, key=lambda container: container.name)
            status["containerStatuses"] = [container.status() for container in by_name]
        status["qosClass"] = pod["status"].get("qosClass", "BestEffort")
        resources = _pod_resources(pod)
        if resources:
            if "requests" in resources:
                status["allocatedResources"] = resources["requests"]
            ended = any("terminated" in c.state for c in self.containers) or self.phase in _TERMINAL
            over = self.stopping or (ended and any(c.has_run for c in self.containers))
            status["resources"] = _without_devices(resources) if over else resources
        return status

    def _conditions(self, pod: Obj, generation: int) -> list[Obj]:
        unready = [c.name for c in self.all if not c.running and (c.is_sidecar or not c.is_init)]
        ended = [c.exit_code for c in self.containers if c.exit_code is not None]
        over = len(ended) == len(self.containers) and not any(c.running for c in self.init)
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
        if not self.is_initialized:
            names = [c.name for c in self.init if not c.is_done]
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
    """The sums over the containers; as it is written where only one asks for anything."""
    spec = pod["spec"]
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    asking = [container["resources"] for container in containers if container.get("resources")]
    if len(asking) == 1:
        return {key: value for key, value in asking[0].items() if key in ("limits", "requests") and value}
    sums = {"limits": pod_limits(spec), "requests": pod_requests(spec)}
    return {
        kind: {name: shown(amount) for name, amount in amounts.items()} for kind, amounts in sums.items() if amounts
    }
