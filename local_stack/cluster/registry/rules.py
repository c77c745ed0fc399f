"""What a deletion can ask for, and what becomes of a Secret's stringData (pure)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from local_stack.cluster.registry import errors
from local_stack.cluster.registry.objects import Obj


@dataclass(frozen=True)
class DeleteOptions:
    """What a DELETE asks for. `grace` in seconds; `policy` is Background, Foreground, Orphan or ""."""

    grace: int | None = None
    policy: str = ""
    uid: str = ""
    version: str = ""


def fold_string_data(secret: Obj) -> None:
    """Turn `stringData` into base64 under `data`, in place; 400 for data that is no base64."""
    data = dict(secret.get("data") or {})
    for key, value in (secret.pop("stringData", None) or {}).items():
        data[key] = base64.b64encode(value.encode()).decode()
    for value in data.values():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise errors.bad_request(
                'Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0'
            ) from None
    if data:
        secret["data"] = data
    secret.setdefault("type", "Opaque")
