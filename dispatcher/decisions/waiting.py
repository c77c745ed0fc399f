"""What a Job that has not ended is waiting for, and until when that is tolerated. Pure.

Clocks start with the pod, or with the Job's (re)start where no pod could be made: a suspended Job has neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from dispatcher.cluster import objects, words
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod, oldest_first
from dispatcher.decisions import containers, teams
from dispatcher.decisions.containers import Awaited
from dispatcher.decisions.pod_failure import node_of, quoted, start_failure
from dispatcher.decisions.verdicts import Holder, Verdict
from portal_client.messages import AGAIN

# Reasons of a container that is on its way. Each other one is a failure that the kubelet tries again: new versions have
# new names for them.
_ON_ITS_WAY = frozenset({"", "ContainerCreating", "PodInitializing"})
# ErrImagePull, ImagePullBackOff, ImageInspectError, RegistryUnavailable, SignatureValidationFailed...
_ABOUT_THE_IMAGE = re.compile(r"image|pull|registry|signature", re.IGNORECASE)
# How Docker Hub, ACR, ECR and containerd name a registry's rate limit, which passes. The number 429 proves nothing: it
# may be part of the image's tag or digest.
_RATE_LIMIT = ("toomanyrequests", "too many requests", "rate limit", "rate exceeded")
# Reasons of the kubelet's Events on a pod that waits in ContainerCreating, and those of one that got further.
_STUCK = frozenset(
    {
        "FailedMount",
        "FailedAttachVolume",
        "FailedMapVolume",
        "FailedPrepareDynamicResources",  # claims (DRA)
        "FailedCreatePodContainer",
        "FailedCreatePodSandBox",
        "NetworkNotReady",
    }
)
_SET_UP = frozenset({"Pulling", "Pulled", "Created", "Started"})
_CREATING = ("ContainerCreating", "PodInitializing")
_CREATING_PATIENCE = 60.0
# Seconds without a pod before its Events are worth a call.
_NO_POD_PATIENCE = 10.0
# What the scheduler adds on whom it could preempt: ". no new claims to deallocate, preemption: 0/3 nodes …".
_PREEMPTION = re.compile(r"\. (?:[^.:]+, )?preemption: .*$", re.DOTALL)
_NO_NODE = re.compile(r"0/([0-9]+) nodes are available: ")
_INSUFFICIENT = re.compile(r"\bInsufficient ([^\s,]+[^\s,.])")
_A_GPU = re.compile(r"/.*(gpu|mig)")
NOT_KNOWN: Mapping[str, int] = {}


@dataclass(frozen=True)
class Limits:
    """Seconds; 0 for unschedulable, quota, lost_node and team means for ever.

    disruptions: a number of pods (of each node); 0: no limit. team: for a team of which some pods have no node.
    """

    image_pull: float
    container_config: float
    unschedulable: float
    pod_create: float
    quota: float
    disruptions: int = 0
    lost_node: float = 0.0
    team: float = 0.0


@dataclass(frozen=True)
class Waiting:
    """progress: for the user, None when only the trainer may report; limit_at (epoch seconds): then verdict holds.

    holder: who keeps it waiting, None where nobody needs to be asked.
    """

    progress: str | None = None
    limit_at: float | None = None
    verdict: Verdict | None = None
    holder: Holder | None = field(default=None, compare=False)


def look(
    job: Job,
    pods: Sequence[Pod],
    events: Sequence[Event],
    now: float,
    limits: Limits,
    failing_since: float | None = None,
    largest: Mapping[str, int] = NOT_KNOWN,
) -> Waiting:
    """The state of a Job that is neither ended, suspended nor being deleted. pods: oldest first.

    failing_since: when its container was first seen to fail to start, which Kubernetes does not record: a slow pull
    that fails once at its end still has its whole grace period. largest: resource → the most that one node has, where
    `needs_nodes` asked for it and it may be known.
    """
    current = [pod for pod in pods if not pod.is_over]
    if not current:
        return without_pod(job, pods, events, now, limits)
    return of_pod(current[-1], events, now, limits, failing_since, job.gpus, largest)


def of_pod(
    pod: Pod,
    events: Sequence[Event],
    now: float,
    limits: Limits,
    failing_since: float | None = None,
    gpus: int | None = None,
    largest: Mapping[str, int] = NOT_KNOWN,
) -> Waiting:
    """What one pod that is not over waits for. events: its own; gpus: the number that it asks for, where known.

    largest: as for `look`.
    """
    if pod.is_deleting:
        return _leaving(pod, limits)
    if pod.runs or pod.has_ended:
        return Waiting()
    since = pod.created_at or now
    awaited = containers.awaited(pod)
    reason, text = awaited.reason, quoted(awaited.message)
    image = f"image of the {awaited.title}" if awaited.is_init else "trainer image"
    began = max(_since_scheduled(pod, since), failing_since or 0.0)
    if reason == "InvalidImageName":
        sentence = f"The {image} has an invalid name: {awaited.container.image}. Tell the operator: {text}"
        return Waiting(None, now, Verdict("ImagePull", sentence), Holder.KUBELET)
    if reason not in _ON_ITS_WAY and _ABOUT_THE_IMAGE.search(reason):
        limit = None if any(word in text.lower() for word in _RATE_LIMIT) else began + limits.image_pull
        sentence = f"The {image} {awaited.container.image} cannot be pulled: {text or 'no text'}. Tell the operator"
        progress = f"Pulling the {image}: {text}" if text else f"Pulling the {image}"
        return Waiting(progress, limit, Verdict("ImagePull", sentence), Holder.REGISTRY)
    if reason not in _ON_ITS_WAY:
        whose = f"configuration of the {awaited.title}" if awaited.is_init else "trainer's configuration"
        sentence = f"The {awaited.title} cannot be started ({reason}): {text or 'no text'}. Tell the operator"
        other = Verdict("ContainerConfig", sentence)
        verdict = start_failure(awaited.title, reason, awaited.message) or other
        return Waiting(f"Waiting for the {whose}: {text}", began + limits.container_config, verdict, Holder.KUBELET)
    if (stuck := _stuck_events(events, awaited.container.name)) and awaited.state.waiting:
        text = quoted(stuck[-1].message)
        got_on = _latest(event for event in events if event.reason in _SET_UP)
        limit = max(_since_scheduled(pod, since), got_on) + limits.container_config
        sentence = f"The trainer pod cannot be set up on its node: {text}. Tell the operator"
        progress, verdict = f"Waiting for the pod's volumes and network: {text}", Verdict("ContainerConfig", sentence)
        return Waiting(progress, limit, verdict, Holder.KUBELET)
    if awaited.is_sidecar_at_work:
        return _sidecar_at_work(awaited, began, limits)
    return _scheduling(pod, since, now, limits, gpus, largest)


def _sidecar_at_work(awaited: Awaited, began: float, limits: Limits) -> Waiting:
    """Its startup probe keeps the trainer from being started, and the GPU idle.

    One that is killed for it, and started again, has its grace from the first time on: between two runs it fails.
    """
    running = awaited.state.running
    since = max(began, objects.timestamp(running.started_at) or 0.0) if running else began
    late = f"The {awaited.title} has not started within {limits.container_config:.0f} seconds"
    sentence = f"{late}: its startup probe does not succeed, and the trainer waits for it. Tell the operator"
    progress = f"Waiting for the {awaited.title} to start"
    return Waiting(progress, since + limits.container_config, Verdict("ContainerConfig", sentence), Holder.KUBELET)


def _leaving(pod: Pod, limits: Limits) -> Waiting:
    """It is being deleted. If its node is lost it never ends, and no other pod takes its place (F22).

    Nothing is reported meanwhile: the trainer may still run, and report itself.
    """
    due = pod.gone_at
    if due is None or not limits.lost_node:
        return Waiting(holder=Holder.KUBELET)
    late = f"The training pod should have stopped {limits.lost_node:.0f} seconds ago"
    sentence = f"{late}, and {node_of(pod)} does not say that it has. {AGAIN}"
    return Waiting(None, due + limits.lost_node, Verdict("NodeLost", sentence), Holder.KUBELET)


def _stuck_events(events: Sequence[Event], container: str) -> list[Event]:
    """The pod's Events with the reason why it does not get to this container's image; none once it has.

    Another container's progress proves only that nothing was stuck until then.
    """
    got_on = [event for event in events if event.reason in _SET_UP]
    if any(event.container in ("", container) for event in got_on):
        return []
    since = _latest(got_on)
    stuck = (event for event in events if event.reason in _STUCK and event.seen_at > since)
    return sorted(stuck, key=attrgetter("seen_at"))


def _latest(events: Iterable[Event]) -> float:
    return max((event.seen_at for event in events), default=0.0)


def is_failing(pod: Pod) -> bool:
    """Whether a grace runs that Kubernetes does not time: a container does not start, or one goes on alone."""
    if pod.is_over:
        return False
    awaited = containers.awaited(pod)
    return awaited.reason not in _ON_ITS_WAY or awaited.is_sidecar_at_work or containers.goes_on_without_trainer(pod)


def _scheduling(
    pod: Pod, since: float, now: float, limits: Limits, gpus: int | None, largest: Mapping[str, int]
) -> Waiting:
    if pod.condition("PodScheduled"):
        awaited = containers.awaited(pod)
        if awaited.state.running is not None or awaited.state.terminated is not None:
            return Waiting(f"Waiting for the {awaited.title} to end", holder=Holder.KUBELET)
        # Its Events tell more once this has lasted; look then, and every so often while it lasts.
        explained_at = _since_scheduled(pod, since) + _CREATING_PATIENCE
        what = f"Pulling the image of the {awaited.title}" if awaited.is_init else "Pulling the trainer image"
        look_at = explained_at if now < explained_at else now + _CREATING_PATIENCE
        return Waiting(what, look_at, holder=Holder.KUBELET)
    unscheduled = pod.condition("PodScheduled", "False") or pod.condition("PodScheduled", "Unknown")
    if unscheduled is None:
        return Waiting("Waiting to be scheduled", holder=Holder.SCHEDULER)
    text = _of_scheduler(unscheduled.message, gpus, largest)
    if unscheduled.reason != "Unschedulable":
        progress = f"Waiting to be scheduled: {text or unscheduled.reason}"
        return Waiting(progress, holder=Holder.SCHEDULER)
    limit = since + limits.unschedulable if limits.unschedulable else None
    sentence = f"No node could take the training for {limits.unschedulable:.0f} seconds: {text}. Tell the operator"
    return Waiting(f"Waiting for a GPU: {text}", limit, Verdict("Unschedulable", sentence), Holder.SCHEDULER)


def _of_scheduler(text: str, gpus: int | None, largest: Mapping[str, int]) -> str:
    """Its words, without its search for pods to preempt, and before them what that proves."""
    said, resource = quoted(_PREEMPTION.sub("", text)), _lacking(text)
    if not resource or not gpus:
        return said
    if resource in largest and largest[resource] < gpus:
        return f"it asks for {gpus} of {resource}, and the largest node has {largest[resource]} ({said})"
    return f"it asks for {gpus} of {resource}, and no node that it may use has so many ({said})"


def _lacking(text: str) -> str | None:
    """The kind of GPU that no node has enough of, by the scheduler's words; None where they do not prove that.

    Where preemption "is not helpful" on every node, none has enough even when it is empty: waiting does not help.
    """
    search, nodes = _PREEMPTION.search(text), _NO_NODE.match(text)
    lacking = set(_INSUFFICIENT.findall(_PREEMPTION.sub("", text)))
    hopeless = search and nodes and f"{nodes[1]} Preemption is not helpful" in search[0]
    return next((found for found in lacking if hopeless and len(lacking) == 1 and _A_GPU.search(found)), None)


def needs_nodes(job: Job, pods: Iterable[Pod]) -> bool:
    """Whether how large the nodes are is worth a call: one of its pods asks for more GPUs than any has."""
    conditions = (pod.condition("PodScheduled", "False") for pod in pods if not pod.is_over)
    return bool(job.gpus) and any(found is not None and _lacking(found.message) for found in conditions)


def without_pod(job: Job, pods: Sequence[Pod], events: Sequence[Event], now: float, limits: Limits) -> Waiting:
    """Between two pods, or the API server refuses to make one."""
    since = restarted(job, pods) or now
    # Times have whole seconds.
    refused = [event for event in events if event.reason == "FailedCreate" and event.seen_at >= since - 1]
    if not refused:
        # Look again: the Event may come later than the pause between two pods.
        return Waiting(None, max(now, since) + _NO_POD_PATIENCE, holder=Holder.JOB_CONTROLLER)
    latest = max(refused, key=attrgetter("seen_at"))
    text = quoted(latest.message)
    if words.is_quota(latest.message):
        limit = since + limits.quota if limits.quota else None
        sentence = f"The namespace's quota had no room for {limits.quota:.0f} seconds: {text}. Tell the operator"
        return Waiting(f"Waiting for quota: {text}", limit, Verdict("PodCreateDenied", sentence), Holder.QUOTA)
    if _is_outage(latest):
        # Nobody has refused anything: the cluster cannot ask whom it has to ask (F59).
        limit = since + limits.quota if limits.quota else None
        late = f"The API server could not create the training pod for {limits.quota:.0f} seconds"
        progress, holder = f"Waiting for the cluster: {text}", Holder.API_SERVER
        if words.is_webhook_down(latest.message):
            late = f"An admission webhook of the cluster did not answer for {limits.quota:.0f} seconds"
            progress, holder = f"Waiting for an admission webhook of the cluster: {text}", Holder.WEBHOOK
        verdict = Verdict("WebhookUnavailable", f"{late}: {text}. {AGAIN} when who runs the cluster has mended it")
        return Waiting(progress, limit, verdict, holder)
    sentence = f"The cluster refuses to create the training pod: {text}. Tell the operator"
    # A longer wait for something else before it has not used up its grace.
    other = _latest(event for event in refused if _is_outage(event) or words.is_quota(event.message))
    began = other if other > since + limits.pod_create else since
    progress = f"Waiting for the cluster: {text}"
    return Waiting(progress, began + limits.pod_create, Verdict("PodCreateDenied", sentence), Holder.API_SERVER)


def _is_outage(event: Event) -> bool:
    """Nobody has looked at the pod: a webhook could not be called, or the API server was not able to (500, 403)."""
    text = event.message
    return words.is_webhook_down(text) or words.is_not_ready(text) or "Internal error occurred" in text


def needs_events(job: Job, pods: Sequence[Pod], now: float) -> str | None:
    """uid of the object whose Events are worth a call, None where nothing is unexplained.

    The Job, when it has been without a pod for a while; its pod, when a node has it and does not get to its image.
    """
    if job.is_suspended or job.is_finished or job.is_deleting:
        return None
    living = [pod for pod in pods if not pod.is_over]
    if job.nodes > 1:
        living = _least_far(job, pods)
    if not living:
        since = restarted(job, pods)
        return job.uid if since is not None and now >= since + _NO_POD_PATIENCE else None
    pod = living[-1]
    creating = containers.awaited(pod).reason in _CREATING
    return pod.uid if creating and now >= _since_scheduled(pod, now) + _CREATING_PATIENCE else None


def _least_far(job: Job, pods: Sequence[Pod]) -> list[Pod]:
    """Of a team's pods the one that may need an explanation; none where a node has no pod."""
    newest = teams.newest(job, oldest_first(pods))
    if len(newest.keys() | job.done) < job.nodes or any(pod.phase == "Failed" for pod in newest.values()):
        return []
    living = [pod for pod in newest.values() if not pod.is_over]
    return sorted(living, key=lambda pod: containers.awaited(pod).reason not in _CREATING)[:1]


def restarted(job: Job, pods: Sequence[Pod]) -> float | None:
    """When the Job last began to want a pod: its start, its last resume, or the end of its last pod."""
    times = [job.started_at, job.changed_at("Suspended", "False")]
    times += [objects.timestamp(pod.trainer_end.finished_at) for pod in pods]
    return max((time for time in times if time is not None), default=None)


def _since_scheduled(pod: Pod, fallback: float) -> float:
    """The image and the Secrets are first looked for when a node was found."""
    return pod.changed_at("PodScheduled") or fallback
