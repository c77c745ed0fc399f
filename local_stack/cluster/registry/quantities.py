"""Kubernetes quantities ("500m", "24Mi", "1") and what a pod asks for (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_PATTERN = re.compile(r"([+-]?[0-9.]+)(|[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)")
_SCALE = {
    "": 1.0,
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
}
_SCALE |= {f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGTPE")}


@lru_cache(maxsize=1024)
def quantity(text: str) -> float:
    """The number that a quantity stands for; ValueError when it is none."""
    found = _PATTERN.fullmatch(text)
    if not found:
        raise ValueError(text)
    number, suffix = found.groups()
    if suffix in _SCALE:
        return float(number) * _SCALE[suffix]
    return float(number + suffix)


def shown(number: float) -> str:
    """A number as a quantity, in the plain form that quota messages use."""
    return str(int(number)) if number == int(number) else f"{int(number * 1000)}m"


def pod_requests(spec: Mapping[str, Any]) -> dict[str, float]:
    """What the scheduler counts: all that run at once, or the largest init container where that is more.

    A limit without a request counts as the request. An init container with restartPolicy Always is a native sidecar:
    it goes on beside those after it (Kubernetes' concepts, "Sidecar Containers").
    """
    beside: dict[str, float] = {}
    most: dict[str, float] = {}
    for container in spec.get("initContainers") or ():
        wanted = _wanted(container)
        for name, amount in wanted.items():
            most[name] = max(most.get(name, 0.0), beside.get(name, 0.0) + amount)
            if container.get("restartPolicy") == "Always":
                beside[name] = beside.get(name, 0.0) + amount
    for container in spec.get("containers") or ():
        for name, amount in _wanted(container).items():
            beside[name] = beside.get(name, 0.0) + amount
    return {name: max(most.get(name, 0.0), beside.get(name, 0.0)) for name in {**beside, **most}}


def _wanted(container: Mapping[str, Any]) -> dict[str, float]:
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: quantity(str(value)) for name, value in merged.items()}


def pod_limits(spec: Mapping[str, Any]) -> dict[str, float]:
    """The sum of the limits of the containers that run at once."""
    total: dict[str, float] = {}
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        limits = (container.get("resources") or {}).get("limits") or {}
        for name, value in limits.items():
            total[name] = total.get(name, 0.0) + quantity(str(value))
    return total


def qos_class(spec: Mapping[str, Any]) -> str:
    """BestEffort, Burstable or Guaranteed; only cpu and memory count."""
    named = False
    guaranteed = True
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            named = named or name in limits or name in requests
            guaranteed = guaranteed and name in limits and requests.get(name, limits[name]) == limits[name]
    if not named:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
