"""What a Job that has not ended is waiting for, and until when that is tolerated. Pure.

Clocks start with the pod, or with the Job's (re)start where no pod could be made: a suspended Job has neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.cluster import objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions.pod_failure import AGAIN, Verdict, node_of, quoted

_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
)
_CONFIG_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
)
# How Docker Hub, ACR, ECR and containerd name a registry's rate limit, which passes. The number 429 proves nothing: it
# may be part of the image's tag or digest.
_RATE_LIMIT = ("toomanyrequests", "too many requests", "rate limit", "rate exceeded")
# Reasons of the kubelet's Events on a pod that waits in ContainerCreating, and those of one that got further.
_STUCK = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "NetworkNotReady"}
)
_SET_UP = frozenset({"Pulling", "Pulled", "Created", "Started"})
_CREATING_PATIENCE = 60.0
# Seconds without a pod before its Events are worth a call.
_NO_POD_PATIENCE = 10.0


@dataclass(frozen=True)
class Limits:
    """Seconds; 0 for unschedulable, quota and lost_node means for ever. disruptions: a number of pods; 0: no limit."""

    image_pull: float
    container_config: float
    unschedulable: float
    pod_create: float
    quota: float
    disruptions: int = 0
    lost_node: float = 0.0


@dataclass(frozen=True)
class Waiting:
    """progress: for the user, None when only the trainer may report; limit_at (epoch seconds): then verdict holds."""

    progress: str | None = None
    limit_at: float | None = None
    verdict: Verdict | None = None


def look(
    job: KubeObject,
    pods: Sequence[KubeObject],
    events: Sequence[KubeObject],
    now: float,
    limits: Limits,
    failing_since: float | None = None,
) -> Waiting:
    """The state of a Job that is neither ended, suspended nor being deleted. pods: oldest first.

    failing_since: when its container was first seen to fail to start, which Kubernetes does not record: a slow pull
    that fails once at its end still has its whole grace period.
    """
    current = [pod for pod in pods if not objects.pod_is_over(pod)]
    if not current:
        return _no_pod(job, pods, events, now, limits)
    pod = current[-1]
    state = objects.trainer_state(pod)
    if objects.is_deleting(pod):
        return _leaving(pod, limits)
    if "running" in state or "terminated" in state:
        return Waiting()
    since = objects.created_at(pod) or now
    waiting = state.get("waiting") or {}
    reason, text = waiting.get("reason", ""), quoted(waiting.get("message"))
    if reason == "InvalidImageName":
        sentence = f"The trainer image has an invalid name: {_image(pod)}. Tell the operator: {text}"
        return Waiting(None, now, Verdict("ImagePull", sentence))
    if reason in _IMAGE_REASONS:
        return _image_pull(pod, text, max(_since_scheduled(pod, since), failing_since or 0.0), limits)
    if reason in _CONFIG_REASONS:
        limit = max(_since_scheduled(pod, since), failing_since or 0.0) + limits.container_config
        sentence = f"The trainer container cannot be started ({reason}): {text}. Tell the operator"
        return Waiting(f"Waiting for the trainer's configuration: {text}", limit, Verdict("ContainerConfig", sentence))
    if (stuck := _stuck_events(events)) and waiting:
        text = quoted(stuck[-1].get("message"))
        limit = _since_scheduled(pod, since) + limits.container_config
        sentence = f"The trainer pod cannot be set up on its node: {text}. Tell the operator"
        return Waiting(
            f"Waiting for the pod's volumes and network: {text}", limit, Verdict("ContainerConfig", sentence)
        )
    return _scheduling(pod, since, limits)


def _leaving(pod: KubeObject, limits: Limits) -> Waiting:
    """It is being deleted. If its node is lost it never ends, and no other pod takes its place (F22).

    Nothing is reported meanwhile: the trainer may still run, and report itself.
    """
    due = objects.gone_at(pod)
    if due is None or not limits.lost_node:
        return Waiting()
    late = f"The training pod should have stopped {limits.lost_node:.0f} seconds ago"
    sentence = f"{late}, and {node_of(pod)} does not say that it has. {AGAIN}"
    return Waiting(None, due + limits.lost_node, Verdict("NodeLost", sentence))


def _stuck_events(events: Sequence[KubeObject]) -> list[KubeObject]:
    """The pod's Events with the reason why it has not got as far as its image; none once it has."""
    if any(event.get("reason") in _SET_UP for event in events):
        return []
    return sorted((event for event in events if event.get("reason") in _STUCK), key=_seen)


def is_failing(pod: KubeObject) -> bool:
    """Whether its container fails to start, for a reason that may or may not pass."""
    reason = (objects.trainer_state(pod).get("waiting") or {}).get("reason")
    return reason in _IMAGE_REASONS or reason in _CONFIG_REASONS


def _image_pull(pod: KubeObject, text: str, since: float, limits: Limits) -> Waiting:
    limit = None if any(word in text.lower() for word in _RATE_LIMIT) else since + limits.image_pull
    sentence = f"The trainer image {_image(pod)} cannot be pulled: {text or 'no text'}. Tell the operator"
    progress = f"Pulling the trainer image: {text}" if text else "Pulling the trainer image"
    return Waiting(progress, limit, Verdict("ImagePull", sentence))


def _scheduling(pod: KubeObject, since: float, limits: Limits) -> Waiting:
    if objects.condition(pod, "PodScheduled"):
        return Waiting("Pulling the trainer image")
    unscheduled = objects.condition(pod, "PodScheduled", "False") or objects.condition(pod, "PodScheduled", "Unknown")
    if unscheduled is None:
        return Waiting("Waiting to be scheduled")
    text = quoted(unscheduled.get("message"))
    if unscheduled.get("reason") != "Unschedulable":
        return Waiting(f"Waiting to be scheduled: {text or unscheduled.get('reason', '')}")
    limit = since + limits.unschedulable if limits.unschedulable else None
    sentence = f"No node could take the training for {limits.unschedulable:.0f} seconds: {text}. Tell the operator"
    return Waiting(f"Waiting for a GPU: {text}", limit, Verdict("Unschedulable", sentence))


def _no_pod(
    job: KubeObject, pods: Sequence[KubeObject], events: Sequence[KubeObject], now: float, limits: Limits
) -> Waiting:
    """Between two pods, or the API server refuses to make one."""
    since = restarted(job, pods) or now
    # Times have whole seconds.
    refused = [event for event in events if event.get("reason") == "FailedCreate" and _seen(event) >= since - 1]
    if not refused:
        # Look again: the Event may come later than the pause between two pods.
        return Waiting(None, max(now, since) + _NO_POD_PATIENCE)
    text = quoted(max(refused, key=_seen).get("message"))
    if "exceeded quota" in text:
        limit = since + limits.quota if limits.quota else None
        sentence = f"The namespace's quota had no room for {limits.quota:.0f} seconds: {text}. Tell the operator"
        return Waiting(f"Waiting for quota: {text}", limit, Verdict("PodCreateDenied", sentence))
    sentence = f"The cluster refuses to create the training pod: {text}. Tell the operator"
    return Waiting(f"Waiting for the cluster: {text}", since + limits.pod_create, Verdict("PodCreateDenied", sentence))


def needs_events(job: KubeObject, pods: Sequence[KubeObject], now: float) -> str | None:
    """uid of the object whose Events are worth a call, None where nothing is unexplained.

    The Job, when it has been without a pod for a while; its pod, when a node has it and does not get to its image.
    """
    if objects.is_suspended(job) or objects.is_finished(job) or objects.is_deleting(job):
        return None
    living = [pod for pod in pods if not objects.pod_is_over(pod)]
    if not living:
        since = restarted(job, pods)
        return objects.uid_of(job) if since is not None and now >= since + _NO_POD_PATIENCE else None
    pod = living[-1]
    reason = (objects.trainer_state(pod).get("waiting") or {}).get("reason")
    if reason not in ("ContainerCreating", "PodInitializing") or now < _since_scheduled(pod, now) + _CREATING_PATIENCE:
        return None
    return objects.uid_of(pod)


def restarted(job: KubeObject, pods: Sequence[KubeObject]) -> float | None:
    """When the Job last began to want a pod: its start, its last resume, or the end of its last pod."""
    started = objects.timestamp((job.get("status") or {}).get("startTime"))
    times = [started, objects.changed_at(job, "Suspended", "False")]
    times += [objects.timestamp(objects.trainer_end(pod).get("finishedAt")) for pod in pods]
    return max((time for time in times if time is not None), default=None)


def _since_scheduled(pod: KubeObject, fallback: float) -> float:
    """The image and the Secrets are first looked for when a node was found."""
    return objects.changed_at(pod, "PodScheduled") or fallback


def _seen(event: KubeObject) -> float:
    last = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return (objects.timestamp(last) if last else objects.created_at(event)) or 0.0


def _image(pod: KubeObject) -> str:
    return str(objects.trainer_container(pod).get("image", "?"))
