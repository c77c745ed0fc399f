"""What `kubectl` asks before it works: versions, groups, resources and the outline of an OpenAPI description."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from local_stack.cluster.registry.resources import GROUPS, RESOURCES, resource_list

_VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2",
    "platform": "linux/amd64",
}


def discover(path: str) -> dict[str, Any] | None:
    """The document at a path that names no object; None when there is none."""
    parts = path.strip("/").split("/")
    match parts:
        case ["version"]:
            return _VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["api", "v1"]:
            return resource_list("")
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in GROUPS]}
        case ["apis", group] if group in GROUPS:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
        case ["apis", group, version] if GROUPS.get(group) == version:
            return resource_list(group)
        case ["openapi", "v3"]:
            served = [f"apis/{group}/{version}" for group, version in GROUPS.items()]
            paths = {path: f"/openapi/v3/{path}" for path in served}
            paths["api/v1"] = "/openapi/v3/api/v1"
            return {"paths": {key: {"serverRelativeURL": value} for key, value in paths.items()}}
        case ["openapi", "v3", *rest]:
            return _openapi("/" + "/".join(rest))
    return None


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/{GROUPS[name]}", "version": GROUPS[name]}
    return {"name": name, "versions": [version], "preferredVersion": version}


@lru_cache
def _openapi(prefix: str) -> dict[str, Any] | None:
    """Enough for kubectl to see that the server validates fields itself (`fieldValidation`)."""
    group = prefix.split("/")[2] if prefix.startswith("/apis/") else ""
    if prefix != (f"/apis/{group}/{GROUPS.get(group)}" if group else "/api/v1"):
        return None
    paths = {}
    for resource in RESOURCES.values():
        if resource.group != group:
            continue
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        paths[f"{prefix}{scope}/{resource.plural}/{{name}}"] = {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": {
                    "group": resource.group,
                    "version": resource.version,
                    "kind": resource.kind,
                },
            }
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": paths,
        "components": {"schemas": {}},
    }
