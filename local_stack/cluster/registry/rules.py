"""What a deletion can ask for, and the registry's rules for single kinds (pure)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from local_stack.cluster.registry import errors
from local_stack.cluster.registry.causes import Causes
from local_stack.cluster.registry.objects import Obj

_POD_MUTABLE = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")


@dataclass(frozen=True)
class DeleteOptions:
    """What a DELETE asks for. `grace` in seconds; `policy` is Background, Foreground, Orphan or ""."""

    grace: int | None = None
    policy: str = ""
    uid: str = ""
    version: str = ""
    dry_run: bool = False


def changed_pod_causes(old: Obj, new: Obj) -> Causes:
    """What a pod's update may not change in its spec."""

    def fixed(spec: Obj) -> Obj:
        kept = {key: value for key, value in spec.items() if key not in _POD_MUTABLE}
        kept["containers"] = [{**c, "image": None} for c in spec.get("containers") or ()]
        return kept

    causes = Causes()
    if fixed(old) != fixed(new):
        causes.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)",
        )
    return causes


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
