"""A pod is more than its trainer: which container it waits for, and whether it goes on after its trainer. Pure.

Init containers run one after the other before the trainer. One of them with `restartPolicy: Always` is a sidecar: it is
only waited for until it has started, goes on beside the trainer, and is ended by the kubelet (Kubernetes 1.29).
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.cluster.pods import Container, ContainerState, Pod

_NOT_YET = ContainerState()


@dataclass(frozen=True)
class Awaited:
    """The container that keeps a pod from running its trainer. title: for sentences; is_init: not the trainer."""

    container: Container
    state: ContainerState
    title: str
    is_init: bool = True

    @property
    def reason(self) -> str:
        """Kubernetes' own for why it waits; "" where it does not."""
        return self.state.waiting.reason if self.state.waiting else ""

    @property
    def message(self) -> str:
        return self.state.waiting.message if self.state.waiting else ""

    @property
    def is_sidecar_at_work(self) -> bool:
        """A sidecar that runs, or has crashed and comes back, and has not started: its startup probe has to succeed."""
        at_work = self.state.running is not None or self.state.terminated is not None
        return self.is_init and is_sidecar(self.container) and at_work


def is_sidecar(container: Container) -> bool:
    """Of an init container: whether it is one that goes on beside the trainer."""
    return container.restart_policy == "Always"


def awaited(pod: Pod) -> Awaited:
    """What the pod waits for next: the first init container that is not done, else the trainer."""
    waiting: list[Awaited] = []
    statuses = {status.name: status for status in pod.status.init_container_statuses}
    for container in pod.spec.init_containers:
        status = statuses.get(container.name)
        if status is None:
            continue
        sidecar = is_sidecar(container)
        found = Awaited(container, status.state, f"{'sidecar' if sidecar else 'init container'} {container.name}")
        if sidecar:
            if not status.started:
                waiting.append(found)
        elif status.state.running is not None:
            # A sidecar before it that crashes meanwhile keeps nobody waiting.
            return found
        elif status.state.terminated is None or status.state.terminated.exit_code:
            waiting.append(found)
    if waiting and not pod.runs and not pod.has_ended:
        return waiting[0]
    return Awaited(pod.trainer, pod.trainer_state, "trainer container", is_init=False)


def goes_on_without_trainer(pod: Pod) -> bool:
    """Whether only other containers keep the pod from ending: its trainer has ended, and nobody starts it again.

    The kubelet ends native sidecars by itself; an ordinary second container it lets run as long as that likes. A
    trainer that is restarted in place looks ended in between (`restartPolicy` of the container or the pod).
    """
    if pod.is_over or not pod.has_ended or _comes_back(pod):
        return False
    ended = {status.name for status in pod.status.container_statuses if status.state.terminated is not None}
    return any(container.name not in ended for container in pod.spec.containers)


def _comes_back(pod: Pod) -> bool:
    trainer = pod.trainer
    if any(rule.action.startswith("Restart") for rule in trainer.restart_policy_rules):
        return True  # by which exit codes is the kubelet's to know
    policy = trainer.restart_policy or pod.spec.restart_policy
    return policy == "Always" or (policy == "OnFailure" and pod.trainer_end.exit_code != 0)
