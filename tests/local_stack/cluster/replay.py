"""Recordings of a real Kubernetes and replays on the stand-in, reduced to what both have to agree on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from tests.world.repository import RECORDED

Obj = dict[str, Any]
Facts = dict[str, Any]

FINALIZER = "training-dispatcher/report"
_TRACKING = "batch.kubernetes.io/job-tracking"
_INDEX = "batch.kubernetes.io/job-completion-index"
_POD_NAME = re.compile(r"\b(model-\d(?:-\d)?)-[a-z0-9]{5}\b")
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NODE = re.compile(r"\b(lab-node|local-node)\b")


def recorded(situation: str, kind: str) -> list[Obj]:
    """The watch events of "jobs", "pods" or "events"."""
    text = (RECORDED / situation / f"{kind}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def shape(text: str) -> str:
    """A message without the names that differ between runs."""
    text = _POD_NAME.sub(r"\1-POD", text)
    text = _UID.sub("UID", text)
    return _NODE.sub("NODE", text)


def job_facts(event: Obj) -> Facts:
    """What a Job's version says, but for times and names, and for `ready`, which depends on when it is counted."""
    job = event["object"]
    meta, status = job["metadata"], job["status"]
    uncounted = status.get("uncountedTerminatedPods") or {}
    return {
        "gone": event["type"] == "DELETED",
        "conditions": tuple(
            (c["type"], c["status"], c["reason"], shape(c["message"])) for c in status.get("conditions") or ()
        ),
        "active": status.get("active", 0),
        "terminating": status.get("terminating"),
        "succeeded": status.get("succeeded", 0),
        "completed indexes": status.get("completedIndexes", ""),
        "failed": status.get("failed", 0),
        "uncounted": tuple(sorted((key, len(value)) for key, value in uncounted.items())),
        "times": ("startTime" in status, "completionTime" in status),
        "finalizers": tuple(meta.get("finalizers") or ()),
        "deletion": ("deletionTimestamp" in meta, meta.get("deletionGracePeriodSeconds")),
        "generation": meta["generation"],
        "spec": (job["spec"]["suspend"], job["spec"].get("ttlSecondsAfterFinished")),
    }


def pod_facts(event: Obj) -> Facts:
    """What a pod's version says, but for times, names and generated volumes."""
    pod = event["object"]
    meta, status = pod["metadata"], pod["status"]
    gone = event["type"] == "DELETED"
    conditions = {
        c["type"]: (c["status"], c.get("reason", ""), shape(c.get("message", "")))
        for c in status.get("conditions") or ()
    }
    kinds = ("DisruptionTarget", "PodScheduled", "Initialized", "PodReadyToStartContainers", "Ready")
    return {
        "gone": gone,
        "phase": (status["phase"], status.get("reason")),
        **{kind: conditions.get(kind) for kind in (*kinds, "ContainersReady")},
        "containers": tuple(_container(container) for container in status.get("containerStatuses") or ()),
        "init": tuple(_container(container) for container in status.get("initContainerStatuses") or ()),
        "class": (status["qosClass"], meta.get("labels", {}).keys() >= {"job-name", "controller-uid"}),
        "index": [(meta.get(part) or {}).get(_INDEX) for part in ("labels", "annotations")],
        "host": [pod["spec"].get(part) for part in ("hostname", "subdomain")],
        "environment": [container.get("env") for container in pod["spec"]["containers"]],
        "allocated": json.dumps(status.get("allocatedResources"), sort_keys=True),
        "resources": json.dumps(status.get("resources"), sort_keys=True),
        "placed": (status.get("nominatedNodeName") is not None, "nodeName" in pod["spec"]),
        # The last version that a watcher sees may still carry the finalizer whose removal was the end.
        "tracked": _TRACKING in (meta.get("finalizers") or ()) and not gone,
        "deletion": ("deletionTimestamp" in meta, meta.get("deletionGracePeriodSeconds"), meta["generation"]),
    }


def _container(container: Obj) -> tuple[Any, ...]:
    ((word, state),) = container["state"].items()
    return (
        container["name"],
        word,
        state.get("reason", ""),
        shape(state.get("message", "")),
        state.get("exitCode"),
        container["ready"],
        container["started"],
        container["restartCount"],
        container["image"],
        "containerID" in container,
    )


def event_facts(event: Obj) -> tuple[Any, ...]:
    """What an Event says, but for times and how often."""
    obj = event["object"]
    about = obj["involvedObject"]
    return (
        about["kind"],
        shape(about["name"]),
        about.get("fieldPath", ""),
        obj["type"],
        obj["reason"],
        shape(obj["message"]),
        obj["reportingComponent"],
        obj.get("action"),
    )


def by_object(events: list[Obj], facts: Callable[[Obj], Facts]) -> list[list[Facts]]:
    """The distinct facts of each object in their order; objects in the order in which they appeared."""
    found: dict[str, list[Facts]] = {}
    for event in events:
        steps = found.setdefault(event["object"]["metadata"]["name"], [])
        fact = facts(event)
        if not steps or steps[-1] != fact:
            steps.append(fact)
    return list(found.values())


def difference(ours: list[Facts], theirs: list[Facts]) -> str:
    """Where two histories of one object cannot be the same thing seen with other merges; empty when they can.

    Each fact for itself goes through the same values, or through fewer of them; states that both went through come in
    the same order; both begin and end alike. What the stand-in did after the recording's end is left out.
    """
    ends = [at for at, step in enumerate(ours) if step == theirs[-1]]
    if ends:
        ours = ours[: ends[-1] + 1]
    lines = []
    for fact in theirs[0]:
        mine, real = (_distinct(step[fact] for step in steps) for steps in (ours, theirs))
        if not (_is_thinned(mine, real) or _is_thinned(real, mine)):
            lines.append(f"{fact}: the stand-in {mine}, the recording {real}")
    if [step for step in ours if step in theirs] != [step for step in theirs if step in ours]:
        lines.append("the states that both went through come in another order")
    return "\n".join(lines)


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not found or found[-1] != value:
            found.append(value)
    return found


def _is_thinned(shorter: list[Any], longer: list[Any]) -> bool:
    if shorter[0] != longer[0] or shorter[-1] != longer[-1]:
        return False
    rest = iter(longer)
    return all(step in rest for step in shorter)


def plain_spec(job: Obj) -> Obj:
    """What was sent to create a recorded Job."""
    spec = json.loads(json.dumps(job["spec"]))
    for key in ("selector", "manualSelector"):
        spec.pop(key)
    spec["template"]["metadata"] = {}
    container = spec["template"]["spec"]["containers"][0]
    path = "${TERMINATION_MESSAGE_PATH:-/dev/termination-log}"
    container["command"] = [word.replace("/dev/termination-log", path) for word in container["command"]]
    return dict(spec)
