"""Kubernetes objects as dictionaries: their JSON, time stamps, conditions and phases (pure)."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Mapping
from typing import Any

Obj = dict[str, Any]
# (namespace, name); namespace is "" where there is none.
Key = tuple[str, str]


def to_json(value: object) -> bytes:
    """Compact JSON, as the API server writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def fresh_copy(value: Any) -> Any:
    """A deep copy of JSON-like data."""
    if isinstance(value, dict):
        return {key: fresh_copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fresh_copy(item) for item in value]
    return value


def now_stamp(seconds: float | None = None) -> str:
    """RFC 3339 with whole seconds in UTC: the API's metav1.Time. `seconds`: Unix time, default now."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def micro_stamp() -> str:
    """RFC 3339 with microseconds in UTC: the API's metav1.MicroTime."""
    moment = time.time()
    return now_stamp(moment)[:-1] + f".{int(moment % 1 * 1e6):06d}Z"


def seconds_of(stamp: str) -> float:
    """Unix seconds of a metav1.Time."""
    return float(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")))


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether its phase is final."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def key_of(obj: Mapping[str, Any]) -> Key:
    """Its namespace and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def find_condition(status: Mapping[str, Any], kind: str) -> Obj | None:
    """The condition of this type, whatever its status."""
    return next((c for c in status.get("conditions") or () if c["type"] == kind), None)


def condition_status(status: Mapping[str, Any], kind: str) -> str | None:
    """True, False or Unknown; None when there is no such condition."""
    found = find_condition(status, kind)
    return found["status"] if found else None


def new_condition(kind: str, status: str, reason: str = "", message: str = "") -> Obj:
    """A pod's condition that has just changed."""
    condition = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": now_stamp()}
    return {**condition, **({"reason": reason} if reason else {}), **({"message": message} if message else {})}


def with_condition(status: Mapping[str, Any], condition: Obj) -> Obj:
    """A status in which this condition stands, last, in place of the one of its type."""
    others = [c for c in status.get("conditions") or () if c["type"] != condition["type"]]
    return {**status, "conditions": [*others, condition]}
