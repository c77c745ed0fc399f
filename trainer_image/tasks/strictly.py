"""Dataclasses from JSON that may be a stranger's: `custom.params`, and what a model's description holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from trainer_image.errors import ConfigInvalid

T = TypeVar("T")
_STRICTLY = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
# The sizes of a layer, of which the model's tensors show how large it really is; and shares, such as a dropout's.
Size = Annotated[int, Field(ge=1, le=2**24)]
Share = Annotated[float, Field(ge=0, le=1)]
Labels = Annotated[tuple[str, ...], Field(min_length=1)]


def checked_params(kind: type[T], given: Mapping[str, Any]) -> T:
    """`custom.params` as this dataclass: its fields' types, bounds (`Annotated[int, Field(ge=1)]`) and defaults.

    Raises ConfigInvalid, which names the parameter, for one that is unknown, missing or of another kind, and for what
    `__post_init__` raises as ValueError.
    """
    try:
        return _strictly(kind, dict(given))
    except ValidationError as error:
        *_, last = error.errors()
        name = ".".join(map(str, ("custom", "params", *last["loc"][1:])))
        if last["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            # Those of a dataclass within it are not at hand.
            known = ", ".join(kind.__dataclass_fields__) if len(last["loc"]) == 2 else ""  # type: ignore[attr-defined]
            said = f"unknown; known are {known}" if known else "unknown"
            raise ConfigInvalid(f"Invalid configuration: {name}: {said}") from None
        said = last["msg"].removeprefix("Value error, ").rstrip(".")
        held = "" if last["type"] in ("missing", "missing_argument", "value_error") else f"; it is {last['input']!r}"
        raise ConfigInvalid(f"Invalid configuration: {name}: {said[:1].lower()}{said[1:]}{held}") from None


def restored(kind: type[T], value: Any) -> T:
    """The dataclass, and those within it, of which `asdict` made this JSON; or another type, `tuple[str, ...]` say.

    Raises ValueError for any other JSON: it is a stranger's. What the fields are annotated with is checked (bounds that
    no tensor of the model shows: `Annotated[int, Field(ge=1, le=64)]`), and what `__post_init__` raises is told.
    """
    try:
        return _strictly(kind, value)
    except ValidationError as error:
        *_, last = error.errors()
        place = ".".join(map(str, last["loc"][1:]))
        raise ValueError(f"{kind.__name__}: {last['msg'].lower()}" + (f" '{place}'" if place else "")) from None


def _strictly(kind: type[T], value: Any) -> T:
    """Raises pydantic's ValidationError, whose places begin with the 0 of a tuple around the value."""
    # In a tuple, because pydantic takes no configuration beside a dataclass itself; as JSON, because strictly it takes
    # no list for a tuple otherwise.
    [made] = TypeAdapter(tuple[kind], config=_STRICTLY).validate_json(json.dumps([value]))  # type: ignore[valid-type]
    return cast("T", made)
