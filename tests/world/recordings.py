"""The recordings of a real cluster (tests/recorded), as a dispatcher would have lived through them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.objects import timestamp
from tests.world import json_objects as objects
from tests.world.repository import RECORDED

NAMES = sorted(path.name for path in RECORDED.iterdir() if path.is_dir())
JOB = "model-1"


@dataclass(frozen=True)
class Recorded:
    """One watch event. at: the newest time that it mentions, which is about when it came (epoch seconds)."""

    kind: str  # jobs, pods or events
    type: str  # ADDED, MODIFIED, DELETED
    object: dict[str, Any]
    at: float

    @property
    def version(self) -> int:
        return int(self.object["metadata"]["resourceVersion"])


@dataclass
class World:
    """What is known after some events: the Job, its pods by uid, the Job's Events, and the time."""

    job: dict[str, Any] | None = None
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    now: float = 0.0

    def apply(self, event: Recorded) -> None:
        self.now = max(self.now, event.at)
        if event.kind == "jobs":
            self.job = None if event.type == "DELETED" else event.object
        elif event.kind == "events":
            self.events.append(event.object)
        elif event.type == "DELETED":
            self.pods.pop(objects.uid_of(event.object), None)
        else:
            self.pods[objects.uid_of(event.object)] = event.object


@cache
def recording(name: str) -> tuple[Recorded, ...]:
    """Everything about model-1 in order, with what the dispatcher would have written on the Job."""
    found: list[Recorded] = []
    latest = 0.0
    uid = None
    for kind in ("jobs", "pods", "events"):
        for line in (RECORDED / name / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            item = event["object"]
            if kind == "jobs":
                if objects.name_of(item) != JOB:
                    continue
                uid = objects.uid_of(item)
                item = _as_launched(item)
            elif kind == "pods":
                if objects.owner_uid(item) != uid:
                    continue
            elif item["involvedObject"].get("uid") != uid:
                continue
            found.append(Recorded(kind, event["type"], item, max(_times(item))))
    found.sort(key=lambda event: event.version)
    ordered = []
    for event in found:
        latest = max(latest, event.at)
        ordered.append(Recorded(event.kind, event.type, event.object, latest))
    return tuple(ordered)


def after(events: Iterable[Recorded]) -> World:
    """What is known when all of `events` have come."""
    world = World()
    for event in events:
        world.apply(event)
    return world


def has_ended(event: Recorded) -> bool:
    """Whether the Job has an end in this event: a terminal condition with status True, or its deletion."""
    return event.kind == "jobs" and (
        objects.is_finished(event.object) or objects.is_deleting(event.object) or event.type == "DELETED"
    )


def _as_launched(job: dict[str, Any]) -> dict[str, Any]:
    """The recorded Jobs were made by hand: add what the launch writes; one that is suspended is half-launched."""
    job = copy.deepcopy(job)
    metadata = job["metadata"]
    metadata.setdefault("labels", {}).update({names.MANAGED_BY: names.MANAGER, names.MODEL_ID: "1"})
    annotations = metadata.setdefault("annotations", {})
    annotations[names.MESSAGE_ID] = "message-1"
    if not objects.is_suspended(job):
        annotations[names.LAUNCHED_AT] = metadata["creationTimestamp"]
        annotations[names.ACKNOWLEDGED] = "true"
    return job


def _times(value: Any, key: str = "") -> Iterator[float]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _times(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _times(item)
    # A deletion's time lies in the future by the grace period.
    elif isinstance(value, str) and key.endswith(("Time", "Timestamp", "At")) and key != "deletionTimestamp":
        at = timestamp(value)
        if at is not None:
            yield at
