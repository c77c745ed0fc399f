"""Pods' addresses, and the name server's part: a pod of a Job with a subdomain can be reached by its host name (pure).

There is one network, this machine's loopback, of which Linux lets every address be bound. Each such pod has one of its
own, by its Job and index, so that a replacement has its predecessor's; and where a variable of a container is the host
name of one of the Job's pods, the container gets the address, also before that pod is there.
"""

from __future__ import annotations

import re
from typing import Any

from local_stack.cluster.registry.objects import Obj

# 127.1.0.0 to 127.253.255.255; below are what people write by hand, above is room for the indexes of the last Job.
_FIRST, _RANGE = 1 << 16, 253 << 16


def address_of(pod: Obj) -> str | None:
    """The loopback address of a Job's pod with a subdomain; None for any other pod."""
    host = _host(pod)
    return None if host is None else _address(pod, host[1])


def resolved(pod: Obj, text: str) -> str:
    """`text`, or the address where it is exactly the host name of a pod of the same Job."""
    host = _host(pod)
    if host is None:
        return text
    found = re.fullmatch(rf"{re.escape(host[0])}-(0|[1-9][0-9]{{0,5}})\.{re.escape(pod['spec']['subdomain'])}", text)
    return _address(pod, int(found[1])) if found else text


def _host(pod: Obj) -> tuple[str, int] | None:
    """(the Job's part of the host names, the pod's index)."""
    found = re.fullmatch(r"(.+)-([0-9]{1,6})", pod["spec"].get("hostname") or "")
    return (found[1], int(found[2])) if found and pod["spec"].get("subdomain") and _owner(pod) else None


def _owner(pod: Obj) -> str:
    owners: list[dict[str, Any]] = pod["metadata"].get("ownerReferences") or []
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _address(pod: Obj, index: int) -> str:
    number = _FIRST + int(_owner(pod)[:8], 16) % _RANGE + index
    return f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
