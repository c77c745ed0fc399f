"""Tables for `kubectl get`: the server's columns for Jobs, pods, Events and nodes, name and age for the rest."""

from __future__ import annotations

import time
from typing import Any

from local_stack.cluster.registry.objects import Obj, seconds_of
from local_stack.cluster.registry.resources import Resource

_COLUMNS: dict[str, list[str]] = {
    "jobs": ["Name", "Status", "Completions", "Duration", "Age"],
    "pods": ["Name", "Ready", "Status", "Restarts", "Age", "IP*", "Node*"],
    "events": ["Last Seen", "Type", "Reason", "Object", "Message"],
    "nodes": ["Name", "Status", "Roles", "Age", "Version"],
    "namespaces": ["Name", "Status", "Age"],
    "secrets": ["Name", "Type", "Data", "Age"],
    "configmaps": ["Name", "Data", "Age"],
    "leases": ["Name", "Holder", "Age"],
}


def table(resource: Resource, objects: list[Obj], version: str, proceed: str = "") -> Obj:
    """A meta.k8s.io/v1 Table of these objects; `proceed` is the continue token."""
    names = _COLUMNS.get(resource.plural, ["Name", "Age"])
    columns = [
        {
            "name": name.rstrip("*"),
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": name.rstrip("*"),
            "priority": 1 if name.endswith("*") else 0,
        }
        for name in names
    ]
    meta: Obj = {"resourceVersion": version}
    if proceed:
        meta["continue"] = proceed
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns,
        "rows": [_row(resource, obj) for obj in objects],
    }


def _row(resource: Resource, obj: Obj) -> Obj:
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
    return {"cells": _cells(resource.plural, obj), "object": partial}


def _cells(plural: str, obj: Obj) -> list[Any]:
    meta, status = obj["metadata"], obj.get("status") or {}
    name, age = meta["name"], _age(meta.get("creationTimestamp"))
    match plural:
        case "jobs":
            wanted = obj["spec"].get("completions") or 1
            began, over = status.get("startTime"), status.get("completionTime")
            length = _short(seconds_of(over) - seconds_of(began)) if began and over else _age(began)
            return [name, _job_word(obj), f"{status.get('succeeded', 0)}/{wanted}", length if began else "", age]
        case "pods":
            containers = status.get("containerStatuses") or []
            ready = f"{sum(c['ready'] for c in containers)}/{len(obj['spec']['containers'])}"
            restarts = sum(c.get("restartCount", 0) for c in containers)
            node = obj["spec"].get("nodeName", "<none>")
            return [name, ready, _pod_word(obj), str(restarts), age, status.get("podIP", "<none>"), node]
        case "events":
            about = obj["involvedObject"]
            seen = obj.get("lastTimestamp") or meta.get("creationTimestamp")
            what = f"{about['kind'].lower()}/{about['name']}"
            return [_age(seen), obj.get("type", ""), obj.get("reason", ""), what, obj.get("message", "")]
        case "nodes":
            answers = any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])
            version = status["nodeInfo"]["kubeletVersion"]
            return [name, "Ready" if answers else "NotReady", "<none>", age, version]
        case "namespaces":
            return [name, status.get("phase", ""), age]
        case "secrets":
            return [name, obj.get("type", ""), len(obj.get("data") or {}), age]
        case "configmaps":
            return [name, len(obj.get("data") or {}), age]
        case "leases":
            return [name, (obj.get("spec") or {}).get("holderIdentity", ""), age]
    return [name, age]


def _job_word(job: Obj) -> str:
    conditions = {c["type"] for c in job["status"].get("conditions") or () if c["status"] == "True"}
    for word in ("Complete", "Failed"):
        if word in conditions:
            return word
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for word in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if word in conditions:
            return word
    return "Running"


def _pod_word(pod: Obj) -> str:
    status = pod["status"]
    word = status.get("reason") or status.get("phase", "")
    for container in status.get("containerStatuses") or ():
        for kind in ("waiting", "terminated"):
            reason = (container["state"].get(kind) or {}).get("reason")
            if reason and word != "Evicted":
                word = reason
    if pod["metadata"].get("deletionTimestamp") and word not in ("Completed", "Error"):
        word = "Terminating"
    return str(word)


def _age(stamp: str | None) -> str:
    return _short(time.time() - seconds_of(stamp)) if stamp else "<unknown>"


def _short(seconds: float) -> str:
    seconds = max(0, int(seconds))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 7200:
        return f"{seconds // 60}m"
    if seconds < 172800:
        return f"{seconds // 3600}h"
    return f"{seconds // 86400}d"
