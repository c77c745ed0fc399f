"""The few requests that kubectl sends as protobuf (`create secret`, `create job`, `auth can-i`), turned into JSON.

Only the fields that those commands fill are known; others are dropped. Field numbers are those of Kubernetes'
generated.proto files. A table entry is a JSON name and a type: "str", "bytes", "int", "bool", a message's name, and
before it "*" for a list or "%" for a map with text keys.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from local_stack.cluster.registry.errors import ApiError

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "ObjectMeta": {
        1: ("name", "str"),
        2: ("generateName", "str"),
        3: ("namespace", "str"),
        11: ("labels", "%str"),
        12: ("annotations", "%str"),
    },
    "Secret": {1: ("metadata", "ObjectMeta"), 2: ("data", "%bytes"), 3: ("type", "str"), 4: ("stringData", "%str")},
    "ConfigMap": {1: ("metadata", "ObjectMeta"), 2: ("data", "%str"), 3: ("binaryData", "%bytes")},
    "Namespace": {1: ("metadata", "ObjectMeta")},
    "ServiceAccount": {1: ("metadata", "ObjectMeta")},
    "Quantity": {1: ("string", "str")},
    "ResourceQuota": {1: ("metadata", "ObjectMeta"), 2: ("spec", "ResourceQuotaSpec")},
    "ResourceQuotaSpec": {1: ("hard", "%Quantity")},
    "SelfSubjectAccessReview": {1: ("metadata", "ObjectMeta"), 2: ("spec", "ReviewSpec")},
    "ReviewSpec": {1: ("resourceAttributes", "ReviewAttributes")},
    "ReviewAttributes": {
        1: ("namespace", "str"),
        2: ("verb", "str"),
        3: ("group", "str"),
        4: ("version", "str"),
        5: ("resource", "str"),
        6: ("subresource", "str"),
        7: ("name", "str"),
    },
    "Job": {1: ("metadata", "ObjectMeta"), 2: ("spec", "JobSpec")},
    "JobSpec": {
        1: ("parallelism", "int"),
        2: ("completions", "int"),
        3: ("activeDeadlineSeconds", "int"),
        6: ("template", "PodTemplateSpec"),
        7: ("backoffLimit", "int"),
    },
    "PodTemplateSpec": {1: ("metadata", "ObjectMeta"), 2: ("spec", "PodSpec")},
    "PodSpec": {2: ("containers", "*Container"), 3: ("restartPolicy", "str")},
    "Container": {1: ("name", "str"), 2: ("image", "str"), 3: ("command", "*str"), 4: ("args", "*str")},
    "Eviction": {1: ("metadata", "ObjectMeta"), 2: ("deleteOptions", "DeleteOptions")},
    "DeleteOptions": {1: ("gracePeriodSeconds", "int"), 4: ("propagationPolicy", "str"), 5: ("dryRun", "*str")},
}


def to_object(data: bytes) -> dict[str, Any]:
    """The object in a protobuf request body; 415 for kinds that are not known here."""
    if not data.startswith(_MAGIC):
        raise _refusal("without its envelope")
    envelope = dict(_fields(data[len(_MAGIC) :]))
    kinds = {number: value.decode() for number, value in _fields(envelope[1])}
    kind = kinds.get(2, "")
    if kind not in _MESSAGES:
        raise _refusal(f"for {kind or 'an unnamed kind'}")
    return {"apiVersion": kinds.get(1, ""), "kind": kind, **_message(kind, envelope.get(2, b""))}


def _refusal(what: str) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the stand-in cluster reads no protobuf {what}; with kubectl, write the object as a file first: "
        "--dry-run=client -o yaml | kubectl create -f -",
    )


def _message(name: str, data: bytes) -> dict[str, Any]:
    table = _MESSAGES[name]
    found: dict[str, Any] = {}
    for number, raw in _fields(data):
        if number not in table:
            continue
        key, kind = table[number]
        if kind[0] == "*":
            found.setdefault(key, []).append(_value(kind[1:], raw))
        elif kind[0] == "%":
            entry = dict(_fields(raw))
            found.setdefault(key, {})[entry.get(1, b"").decode()] = _value(kind[1:], entry.get(2, b""))
        else:
            found[key] = _value(kind, raw)
    return {key: value for key, value in found.items() if value not in ("", {})}


def _value(kind: str, raw: Any) -> Any:
    match kind:
        case "str":
            return raw.decode()
        case "bytes":
            return base64.b64encode(raw).decode()
        case "int":
            return raw
        case "bool":
            return bool(raw)
        case "Quantity":
            return _message(kind, raw).get("string", "0")
    return _message(kind, raw)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one message: int for varints, bytes for the length-delimited."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(data, at)
            yield number, data[at : at + length]
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise _refusal("in this encoding")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _refusal("that ends in the middle")
