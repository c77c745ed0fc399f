"""pydantic's errors → sentences for people: `{path}: {why}`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One `{path}: {why}` for each problem, in the order of the file's fields."""
    return [_sentence(dict(item), model) for item in error.errors(include_url=False)]


def _sentence(item: dict[str, Any], model: type[BaseModel]) -> str:
    location = tuple(item["loc"])
    path = ".".join(str(part) for part in location if part != "[key]")
    kind, context, message = item["type"], item.get("ctx", {}), item["msg"]
    if kind == "extra_forbidden":
        return f"{path}: {_unknown(location, model)}"
    if kind == "missing":
        return f"{path}: is required"
    why = {
        "string_type": "must be text (numbers that are meant as text need quotes)",
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "list_type": "must be a list, like [a, b]",
        "dict_type": "must hold keys and values, like {a: b}",
        "model_type": "must hold keys and values, like {a: b}",
        "string_too_short": "must not be empty",
        "too_short": "must not be empty",
        "too_long": f"has more than {context.get('max_length')} items",
        "string_pattern_mismatch": "must be a name of lower-case letters, digits and underscores",
        "string_too_long": f"is longer than {context.get('max_length')} characters",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "literal_error": f"must be {str(context.get('expected')).replace(chr(39), '')}",
        "value_error": str(context.get("error")),
    }
    return f"{path}: {why.get(kind, message[:1].lower() + message[1:])}{_got(item['input'])}"


def _got(value: object) -> str:
    if isinstance(value, (dict, list)):
        return f"; it is a {'group of keys' if isinstance(value, dict) else 'list'}"
    text = "empty" if value is None else repr(value)
    return f"; it is {text if len(text) <= 60 else text[:57] + '...'}"


def _unknown(location: tuple[Any, ...], model: type[BaseModel]) -> str:
    key = str(location[-1])
    section = model
    for part in location[:-1]:
        section = dict(_fields(section))[part]
    siblings = {name: ".".join([*location[:-1], name]) for name, _ in _fields(section)}
    close = difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)
    if close:
        return f"unknown key; did you mean {siblings[close[0]]}?"
    leaves = {path.rpartition(".")[2]: path for path in _paths(model)}
    elsewhere = difflib.get_close_matches(key, leaves, n=1, cutoff=0.75)
    if elsewhere:
        return f"unknown key; did you mean {leaves[elsewhere[0]]}?"
    nearest = difflib.get_close_matches(key, siblings, n=1, cutoff=0.0)[0]
    return f"unknown key; known here: {', '.join(siblings)}; the nearest is {siblings[nearest]}"


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, annotation in _fields(model):
        yield prefix + name
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _paths(annotation, f"{prefix}{name}.")


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        # A section that may be left out is one of two types.
        inner = [kind for kind in get_args(info.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        yield info.alias or name, inner[0] if inner else info.annotation
