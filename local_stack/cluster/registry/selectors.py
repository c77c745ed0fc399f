"""Label and field selectors, as the API's query parameters write them (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from local_stack.cluster.registry.errors import bad_request
from local_stack.cluster.registry.resources import Resource

Matcher = Callable[[dict[str, Any]], bool]

_SET = re.compile(r"\s*([^\s!=,()]+)\s+(in|notin)\s*\(([^)]*)\)\s*")
_SPLIT = re.compile(r",(?![^(]*\))")
_COMMON = ("metadata.name", "metadata.namespace")
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "jobs": ("status.successful",),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
}


def label_matcher(text: str) -> Matcher | None:
    """`a=b,c!=d,e,!f,g in (x,y),h notin (z)`; None when everything matches; 400 when it cannot be read."""
    tests = [_label_test(part) for part in _SPLIT.split(text) if part.strip()] if text else []
    if not tests:
        return None

    def matches(obj: dict[str, Any]) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _label_test(part: str) -> Callable[[Mapping[str, str]], bool]:
    found = _SET.fullmatch(part)
    if found:
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    part = part.strip()
    for operator, equal in (("!=", False), ("==", True), ("=", True)):
        if operator in part:
            key, value = (side.strip() for side in part.split(operator, 1))
            if not key:
                raise bad_request(f'unable to parse requirement: found "{operator}", expected: identifier')
            if equal:
                return lambda labels: labels.get(key) == value
            return lambda labels: labels.get(key) != value
    if part.startswith("!"):
        key = part[1:].strip()
        return lambda labels: key not in labels
    if re.search(r"[\s()]", part):
        raise bad_request(f"unable to parse requirement: {part}")
    return lambda labels: part in labels


def field_matcher(resource: Resource, text: str) -> Matcher | None:
    """`metadata.name=x,status.phase!=Running`; only the fields that Kubernetes indexes, others are a 400."""
    tests: list[Matcher] = []
    for part in text.split(",") if text else ():
        if not part.strip():
            continue
        equal = "!=" not in part
        path, separator, value = part.partition("=" if equal else "!=")
        path, value = path.strip(), value.lstrip("=").strip()
        if not separator:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        if path not in _COMMON and path not in _FIELDS.get(resource.plural, ()):
            raise bad_request(_unknown_label(resource, path))
        tests.append(_field_test(path, value, equal))
    if not tests:
        return None
    return lambda obj: all(test(obj) for test in tests)


def _unknown_label(resource: Resource, path: str) -> str:
    """As each kind's own conversion of field labels says it."""
    if resource.plural == "jobs":
        return f'field label "{path}" not supported for Job'
    if not resource.group:
        return f"field label not supported: {path}"
    return f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _field_test(path: str, value: str, equal: bool) -> Matcher:
    keys = path.split(".")
    if path == "status.successful":
        keys = ["status", "succeeded"]
    if path == "source":
        keys = ["source", "component"]

    def test(obj: dict[str, Any]) -> bool:
        found: Any = obj
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        text = "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)
        if path == "status.successful" and not text:
            text = "0"
        if path == "spec.unschedulable" and not text:
            text = "false"
        return (text == value) is equal

    return test
