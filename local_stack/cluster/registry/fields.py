"""Which fields the served kinds have, and of which type: what the API server's decoder knows.

`fields.json` holds, for each type, field name → type: "str", "int", "bool", "float", "object" (anything),
"qty" (a quantity: text or number), a type's name, or one of these after "[" (list) or "{" (map with text keys).
It follows the published OpenAPI description of Kubernetes 1.36.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from local_stack.cluster.registry.errors import bad_request

_TABLE = json.loads(Path(__file__).with_name("fields.json").read_text())
_ROOTS: dict[str, str] = _TABLE["roots"]
_TYPES: dict[str, dict[str, str]] = _TABLE["types"]
_GO_TYPES = {"str": "string", "int": "int32", "bool": "bool", "float": "float64"}


class WrongTypeError(Exception):
    """A value of a type that its field cannot hold; the text is the decoder's."""


def decode(kind: str, version: str, obj: dict[str, Any], mode: str) -> list[str]:
    """Check types, drop unknown fields, turn quantities into text; change `obj` in place.

    `mode` is the request's fieldValidation: "Strict" makes unknown fields a 400, otherwise they are returned as
    warnings ("Warn") or forgotten ("Ignore").
    """
    root = _ROOTS.get(kind)
    if root is None:
        return []
    unknown: list[str] = []
    try:
        _object(root, obj, "", unknown)
    except WrongTypeError as why:
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}') from None
    found = [f'unknown field "{path}"' for path in unknown]
    if found and mode == "Strict":
        raise bad_request(
            f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: ' + ", ".join(found)
        )
    return found if mode == "Warn" else []


def _object(name: str, obj: dict[str, Any], path: str, unknown: list[str]) -> None:
    fields = _TYPES[name]
    surplus = None
    for key, value in obj.items():
        declared = fields.get(key)
        if declared is None:
            surplus = [*(surplus or ()), key]
            unknown.append(f"{path}{key}")
        elif value is not None:
            checked = _value(declared, value, path + key, name, unknown)
            if checked is not value:
                obj[key] = checked
    for key in surplus or ():
        del obj[key]


def _value(declared: str, value: Any, path: str, owner: str, unknown: list[str]) -> Any:
    kind = type(value)
    match declared:
        case "str":
            fits = kind is str
        case "int":
            fits = kind is int
        case "bool":
            fits = kind is bool
        case "object":
            return value
        case "qty":
            if kind in (int, float):
                return str(value)
            fits = kind is str
        case "float":
            fits = kind in (int, float)
        case _:
            return _nested(declared, value, path, owner, unknown)
    if not fits:
        raise _wrong(value, path, owner, _GO_TYPES.get(declared, "resource.Quantity"))
    return value


def _nested(declared: str, value: Any, path: str, owner: str, unknown: list[str]) -> Any:
    inner = declared[1:]
    if declared[0] == "[":
        if not isinstance(value, list):
            raise _wrong(value, path, owner, f"[]v1.{inner.removeprefix('V1')}" if inner != "str" else "[]string")
        for at, item in enumerate(value):
            if item is not None:
                value[at] = _value(inner, item, f"{path}[{at}]", owner, unknown)
    elif declared[0] == "{":
        if not isinstance(value, dict):
            raise _wrong(value, path, owner, "map[string]string")
        for key, item in value.items():
            if item is not None:
                value[key] = _value(inner, item, path, owner, unknown)
    elif not isinstance(value, dict):
        raise _wrong(value, path, owner, f"v1.{declared.removeprefix('V1')}")
    else:
        _object(declared, value, path + ".", unknown)
    return value


def _wrong(value: Any, path: str, owner: str, wanted: str) -> WrongTypeError:
    found = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    plain = "".join(part.split("]", 1)[-1] for part in path.split("["))
    return WrongTypeError(
        f"json: cannot unmarshal {found[type(value)]} into Go struct field "
        f"{owner.removeprefix('V1')}.{plain} of type {wanted}"
    )
