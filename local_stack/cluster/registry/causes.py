"""Why the API server refuses an object, field by field.

Source of the wording: k8s.io/apimachinery/pkg/util/validation/field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cause:
    """One field's fault: `reason` such as FieldValueInvalid, `message` without the field's path."""

    field: str
    reason: str
    message: str


class Causes(list[Cause]):
    """All faults of one object, in the order in which they are found."""

    def invalid(self, field: str, value: object, why: str) -> None:
        """`field: Invalid value: value: why`."""
        self.append(Cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}"))

    def required(self, field: str, why: str = "") -> None:
        """`field: Required value[: why]`."""
        self.append(Cause(field, "FieldValueRequired", "Required value" + (f": {why}" if why else "")))

    def one_of(self, field: str, value: object, supported: Sequence[str]) -> None:
        """`field: Unsupported value: "x": supported values: "a", "b"`, unless it is one of them."""
        if value not in supported:
            words = ", ".join(_shown(word) for word in supported)
            text = f"Unsupported value: {_shown(value)}: supported values: {words}"
            self.append(Cause(field, "FieldValueNotSupported", text))

    def forbidden(self, field: str, why: str) -> None:
        """`field: Forbidden: why`."""
        self.append(Cause(field, "FieldValueForbidden", f"Forbidden: {why}"))

    def duplicate(self, field: str, value: object) -> None:
        """`field: Duplicate value: "x"`."""
        self.append(Cause(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}"))

    def not_found(self, field: str, value: object) -> None:
        """`field: Not found: "x"`."""
        self.append(Cause(field, "FieldValueNotFound", f"Not found: {_shown(value)}"))

    def too_many(self, field: str, items: Sequence[Any], most: int) -> None:
        """`field: Too many: 300: must have at most 255 items`, if there are more than `most`."""
        if len(items) > most:
            self.append(Cause(field, "FieldValueTooMany", f"Too many: {len(items)}: must have at most {most} items"))

    def not_negative(self, path: str, spec: Mapping[str, Any], names: Iterable[str]) -> None:
        """Of these numbers of `spec`, those that are there and less than 0."""
        for name in names:
            if spec.get(name) is not None and spec[name] < 0:
                self.invalid(f"{path}.{name}", spec[name], "must be greater than or equal to 0")


def _shown(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
