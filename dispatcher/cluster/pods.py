"""What is read of pods: their containers, as specified and as they are. Pure. See `objects` for why so little."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dispatcher.cluster import names
from dispatcher.cluster.objects import Condition, Conditioned, Part, Status, plain_number, share


class Limits(Part, frozen=True):
    memory: str | None = None


class Resources(Part, frozen=True):
    limits: Limits | None = None


class RestartRule(Part, frozen=True):
    action: str = ""


class Container(Part, frozen=True):
    """As a pod specifies it."""

    name: str = ""
    image: str = "?"
    restart_policy: str | None = None
    restart_policy_rules: tuple[RestartRule, ...] = ()
    resources: Resources = Resources()

    def __post_init__(self) -> None:
        share(self, "name", "image", "restart_policy")


class PodSpec(Part, frozen=True):
    node_name: str | None = None
    restart_policy: str | None = None
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()

    def __post_init__(self) -> None:
        share(self, "node_name", "restart_policy")


class Waiting(Part, frozen=True):
    reason: str = ""
    message: str = ""


class Running(Part, frozen=True):
    started_at: str | None = None


class Terminated(Part, frozen=True):
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None


class ContainerState(Part, frozen=True):
    """One of the three; none before the kubelet wrote one."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Part, frozen=True):
    """started: of a sidecar, whether its startup probe has succeeded, where it has one."""

    name: str = ""
    started: bool = False
    state: ContainerState = ContainerState()

    def __post_init__(self) -> None:
        share(self, "name")


_KEPT = ("PodScheduled", "DisruptionTarget")


def _is_silence(entry: Condition) -> bool:
    """The node controller's word on the pods of a node that does not answer; the kubelet gives a reason (recorded)."""
    return entry.type == "Ready" and entry.status == "False" and not entry.reason


class PodStatus(Status, frozen=True):
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()

    def __post_init__(self) -> None:
        kept = tuple(entry for entry in self.conditions if entry.type in _KEPT or _is_silence(entry))
        msgspec.structs.force_setattr(self, "conditions", kept)


_NO_CONTAINER, _NO_STATE, _NOT_ENDED = Container(), ContainerState(), Terminated()


class Pod(Conditioned, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def owner_uid(self) -> str | None:
        """uid of the Job that controls the pod, or did until `kubectl delete job --cascade=orphan` took it away."""
        for owner in self.metadata.owner_references:
            if owner.controller and owner.kind == "Job":
                return owner.uid
        return self.labels.pod_of

    @property
    def phase(self) -> str:
        return self.status.phase

    @property
    def is_over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def node(self) -> str | None:
        return self.spec.node_name

    @property
    def index(self) -> int | None:
        """Which node of its team it is, from 0; None where its Job is for one node."""
        return plain_number(self.labels.index or self.annotations.index)

    @property
    def silent_since(self) -> float | None:
        """Since when its node does not answer (epoch seconds); None while it does."""
        return self.changed_at("Ready", "False")

    @property
    def trainer(self) -> Container:
        """Its trainer container; empty where there is none."""
        return next((c for c in self.spec.containers if c.name == names.TRAINER_CONTAINER), _NO_CONTAINER)

    @property
    def trainer_state(self) -> ContainerState:
        for status in self.status.container_statuses:
            if status.name == names.TRAINER_CONTAINER:
                return status.state
        return _NO_STATE

    @property
    def runs(self) -> bool:
        return self.trainer_state.running is not None

    @property
    def trainer_end(self) -> Terminated:
        """How the trainer container ended; its exit code is None while it has not."""
        return self.trainer_state.terminated or _NOT_ENDED

    @property
    def has_ended(self) -> bool:
        return self.trainer_state.terminated is not None


def oldest_first(pods: Iterable[Pod]) -> list[Pod]:
    return sorted(pods, key=lambda pod: (pod.metadata.creation_timestamp or "", pod.name))
