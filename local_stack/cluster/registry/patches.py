"""JSON merge patch, strategic merge patch and JSON patch, without changing what they are given (pure).

Sources: RFC 7386, RFC 6902, and Kubernetes' patchMergeKey tags for the lists that Jobs and pods have.
"""

from __future__ import annotations

from typing import Any

import jsonpatch
import jsonpointer

from local_stack.cluster.registry.errors import ApiError, bad_request

# Lists without an entry here are atomic: a patch replaces them whole.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "conditions": "type",
    "ownerReferences": "uid",
    "imagePullSecrets": "name",
    "secrets": "name",
    "hostAliases": "ip",
    "addresses": "type",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}
_PRIMITIVE_LISTS = {"finalizers"}


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def strategic_patch(target: Any, patch: Any) -> Any:
    """Kubernetes' strategic merge: as a merge patch, but the lists of MERGE_KEYS merge by their key."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$setElementOrder/") or key == "$patch":
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", 1)[1]
            merged[name] = [item for item in merged.get(name) or [] if item not in value]
            if not merged[name]:
                del merged[name]
        elif key == "$retainKeys":
            merged = {name: kept for name, kept in merged.items() if name in value}
        elif value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = _strategic_list(key, merged.get(key) or [], value)
        else:
            merged[key] = strategic_patch(merged.get(key), value)
    return merged


def _strategic_list(name: str, target: list[Any], patch: list[Any]) -> list[Any]:
    if name in _PRIMITIVE_LISTS:
        return target + [item for item in patch if item not in target]
    merge_key = MERGE_KEYS.get(name)
    if merge_key is None or not all(isinstance(item, dict) for item in patch):
        return [strategic_patch(None, item) for item in patch]
    if any(item.get("$patch") == "replace" and merge_key not in item for item in patch):
        return [item for item in patch if "$patch" not in item]
    merged = list(target)
    for item in patch:
        if merge_key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {merge_key}")
        at = next((n for n, old in enumerate(merged) if old.get(merge_key) == item[merge_key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del merged[at]
        elif at is None:
            merged.append(strategic_patch(None, item))
        else:
            merged[at] = strategic_patch(merged[at], item)
    return merged


def json_patch(target: dict[str, Any], operations: Any) -> dict[str, Any]:
    """RFC 6902. An operation that cannot be applied, or a failed test, is a 422."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    try:
        patched: dict[str, Any] = jsonpatch.apply_patch(target, operations)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, KeyError, TypeError) as why:
        raise ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {}) from why
    return patched
