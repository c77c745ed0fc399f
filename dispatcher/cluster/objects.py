"""What is read of Jobs, pods, Events and Workloads: these fields are decoded, and nothing else of an object. Pure.

A Job is 9 KB of JSON, its request up to 64 KiB more, and there may be ten thousand: what is not declared here never
becomes a Python object. What is needed once (a Job's environment) is fetched then.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from dispatcher.cluster import names

# What no datetime can hold any more (epoch seconds).
_YEAR_10000 = 253402300800.0
# Characters kept of a condition's message: sentences quote at most 500.
_MESSAGE_LIMIT = 1024


class Part(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Kubernetes' JSON names fields in camel case. Nothing here can be part of a cycle: the collector skips it."""


def share(part: Part, *fields: str) -> None:
    """Have one string in place of ten thousand equal ones."""
    for field in fields:
        if text := getattr(part, field):
            msgspec.structs.force_setattr(part, field, sys.intern(text))


class Labels(Part, frozen=True):
    managed_by: str | None = msgspec.field(name=names.MANAGED_BY, default=None)
    model_id: str | None = msgspec.field(name=names.MODEL_ID, default=None)
    queue: str | None = msgspec.field(name=names.QUEUE, default=None)
    reported: str | None = msgspec.field(name=names.REPORTED, default=None)
    pod_of: str | None = msgspec.field(name=names.POD_OF, default=None)
    index: str | None = msgspec.field(name=names.INDEX, default=None)
    kueue_queue: str | None = msgspec.field(name=names.KUEUE_QUEUE_LABEL, default=None)

    def __post_init__(self) -> None:
        share(self, "managed_by", "kueue_queue", "index", "queue")


class Annotations(Part, frozen=True):
    message_id: str | None = msgspec.field(name=names.MESSAGE_ID, default=None)
    run_id: str | None = msgspec.field(name=names.RUN_ID, default=None)
    queued_at: str | None = msgspec.field(name=names.QUEUED_AT, default=None)
    status_before: str | None = msgspec.field(name=names.STATUS_BEFORE, default=None)
    launched_at: str | None = msgspec.field(name=names.LAUNCHED_AT, default=None)
    acknowledged_at: str | None = msgspec.field(name=names.ACKNOWLEDGED_AT, default=None)
    launched_by: str | None = msgspec.field(name=names.LAUNCHED_BY, default=None)
    acknowledged: str | None = msgspec.field(name=names.ACKNOWLEDGED, default=None)
    credentials_until: str | None = msgspec.field(name=names.CREDENTIALS_UNTIL, default=None)
    credentials_made: str | None = msgspec.field(name=names.CREDENTIALS_MADE, default=None)
    dataset: str | None = msgspec.field(name=names.DATASET, default=None)
    told: str | None = msgspec.field(name=names.TOLD, default=None)
    disrupted: str | None = msgspec.field(name=names.DISRUPTED, default=None)
    stopped: str | None = msgspec.field(name=names.STOPPED, default=None)
    refused_at: str | None = msgspec.field(name=names.REFUSED_AT, default=None)
    reported: str | None = msgspec.field(name=names.REPORTED, default=None)
    reported_at: str | None = msgspec.field(name=names.REPORTED_AT, default=None)
    index: str | None = msgspec.field(name=names.INDEX, default=None)


class Owner(Part, frozen=True):
    kind: str = ""
    uid: str = ""
    controller: bool = False

    def __post_init__(self) -> None:
        share(self, "kind")


class Metadata(Part, frozen=True):
    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int = 0
    labels: Labels | None = None
    annotations: Annotations | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[Owner, ...] = ()

    def __post_init__(self) -> None:
        share(self, "namespace")


_NO_LABELS, _NO_ANNOTATIONS = Labels(), Annotations()


class KubeObject(Part, frozen=True):
    """Any object, by its metadata alone."""

    metadata: Metadata = Metadata()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def labels(self) -> Labels:
        return self.metadata.labels or _NO_LABELS

    @property
    def annotations(self) -> Annotations:
        return self.metadata.annotations or _NO_ANNOTATIONS

    @property
    def model_id(self) -> str:
        return self.labels.model_id or self.name.removeprefix("model-")

    @property
    def is_managed(self) -> bool:
        return self.labels.managed_by == names.MANAGER and self.annotations.message_id is not None

    @property
    def is_reported(self) -> bool:
        """Whether the portal acknowledged its outcome, as we noted. A removed finalizer proves nothing."""
        return self.annotations.reported is not None

    @property
    def has_finalizer(self) -> bool:
        return names.FINALIZER in self.metadata.finalizers

    @property
    def report(self) -> Mapping[str, Any]:
        """As noted on the Job: status, code, sentence, portal. Where somebody edited it, some may be missing."""
        report = decoded(self.annotations.reported)
        return report if isinstance(report, dict) else {}

    @property
    def created_at(self) -> float | None:
        """creationTimestamp (epoch seconds)."""
        return timestamp(self.metadata.creation_timestamp)

    @property
    def is_deleting(self) -> bool:
        return bool(self.metadata.deletion_timestamp)

    @property
    def gone_at(self) -> float | None:
        """deletionTimestamp (epoch seconds): when deletion was requested, plus the grace period (API, ObjectMeta)."""
        return timestamp(self.metadata.deletion_timestamp)


class Condition(Part, frozen=True):
    """It counts by its *status*, never by its presence: a resumed Job keeps Suspended with status False."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None

    def __post_init__(self) -> None:
        share(self, "type", "status", "reason")
        if len(self.message) > _MESSAGE_LIMIT:
            msgspec.structs.force_setattr(self, "message", self.message[:_MESSAGE_LIMIT])

    @property
    def since(self) -> float | None:
        """When it came to this status (epoch seconds)."""
        return timestamp(self.last_transition_time)


class Status(Part, frozen=True):
    conditions: tuple[Condition, ...] = ()


class Conditioned(KubeObject, frozen=True):
    """An object whose status has conditions."""

    status: Status = Status()

    def condition(self, kind: str, status: str = "True") -> Condition | None:
        """The condition of type `kind` if it has this status (True, False or Unknown), else None."""
        return next((c for c in self.status.conditions if c.type == kind and c.status == status), None)

    def changed_at(self, kind: str, status: str = "True") -> float | None:
        """When the condition came to this status (epoch seconds); None where it has another, or none."""
        found = self.condition(kind, status)
        return found.since if found else None


class Series(Part, frozen=True):
    last_observed_time: str | None = None


class Reference(Part, frozen=True):
    field_path: str = ""


class Event(KubeObject, frozen=True):
    involved_object: Reference = Reference()
    reason: str = ""
    message: str = ""
    series: Series | None = None
    last_timestamp: str | None = None
    event_time: str | None = None

    @property
    def container(self) -> str:
        """Of a pod's Event: the container that it is about; "" for the whole pod."""
        return self.involved_object.field_path.partition("{")[2].rstrip("}")

    @property
    def seen_at(self) -> float:
        """When it was last seen (epoch seconds)."""
        last = (self.series and self.series.last_observed_time) or self.last_timestamp or self.event_time
        return (timestamp(last) if last else self.created_at) or 0.0


class AdmissionCheck(Part, frozen=True):
    name: str = ""
    state: str = ""
    message: str = ""


class WorkloadSpec(Part, frozen=True):
    queue_name: str = ""
    priority: int | None = None
    active: bool | None = None


class WorkloadStatus(Status, frozen=True):
    admission_checks: tuple[AdmissionCheck, ...] = ()


class Workload(Conditioned, frozen=True):
    """Kueue's, kueue.x-k8s.io/v1beta2."""

    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()


class NodeStatus(Part, frozen=True):
    allocatable: dict[str, str] = {}


class Node(KubeObject, frozen=True):
    status: NodeStatus = NodeStatus()


def decoded(annotation: str | None) -> Any:
    """The value of an annotation that holds JSON; None where it is missing, or somebody made it unreadable."""
    try:
        # json would take half of a Unicode pair, which cannot be encoded again: not for the portal, an Event or a log.
        return msgspec.json.decode(annotation or "null")
    except (ValueError, RecursionError):
        return None


def plain_number(text: str | None) -> int | None:
    """The whole number that a text of at most nine ASCII digits says; None for anything else, and for none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def timestamp(text: str | None) -> float | None:
    """RFC 3339 as Kubernetes writes it → seconds since the epoch; None for anything else.

    Anybody may have written an annotation, and every dispatcher reads it: no text in it may end one of them.
    """
    try:
        when = datetime.fromisoformat(text) if text else None
        seconds = when.timestamp() if when and when.tzinfo else None
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and 0 <= seconds < _YEAR_10000 else None
