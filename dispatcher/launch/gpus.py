"""What a container asks for its GPUs by: an extended resource, whatever its name, or claims. Pure.

Whole ones are `nvidia.com/gpu`; parts of one are `nvidia.com/mig-1g.5gb` (MIG) or `nvidia.com/gpu.shared` (shared in
turns); other makers have their own. With dynamic resource allocation a container names claims, whose devices are
described elsewhere: they have no number that a message could change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dispatcher.cluster import names

# Extended resources that are GPUs or what stands for one, by the last part of their names; and that are something else.
_GPU = re.compile(r"gpu|^mig-|^i915|^xe$|gaudi|neuron|tpu|npu|accelerator")
# What a scheduler for shared GPUs (HAMi, Volcano, Koordinator) counts beside their number: `nvidia.com/gpumem`.
_SHARE = re.compile(r"mem|core|percent|ratio")
_OTHER = re.compile(r"rdma|hca|efa|infiniband|roce|sriov|vf|nic|fuse|kvm|tun|fpga|hugepages|pod-eni|ipv4")


def trainer_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """The container of the trainer in a Job, or in a template that was checked; not a copy."""
    return trainer_of_pod(job["spec"]["template"]["spec"])


def trainer_of_pod(pod_spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same in the pod's spec."""
    containers: list[dict[str, Any]] = pod_spec["containers"]
    return next(c for c in containers if c.get("name") == names.TRAINER_CONTAINER)


def kinds(container: Mapping[str, Any], configured: str) -> list[str]:
    """The extended resources in the container's limits and requests that are GPUs. configured: GPU_RESOURCE.

    One with a name that says nothing is a GPU where there is no other; how much of a GPU is none beside their number.
    """
    extended = _extended(container)
    found = [key for key in extended if key == configured or _GPU.search(_last(key))]
    whole = [key for key in found if key == configured or not _SHARE.search(_last(key))]
    unknown = [key for key in extended if not _OTHER.search(_last(key))]
    return whole or found or (unknown if len(unknown) == 1 else [])


def shares(container: Mapping[str, Any], configured: str) -> list[str]:
    """The extended resources that say how much of each of its GPUs it gets: without a GPU they mean nothing."""
    return [key for key in _extended(container) if key != configured and _SHARE.search(_last(key))]


def _extended(container: Mapping[str, Any]) -> list[str]:
    resources = container.get("resources") or {}
    amounts = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return [key for key, amount in amounts.items() if "/" in key and str(amount) != "0"]


def resource(container: Mapping[str, Any], configured: str) -> str:
    """The extended resource that a message's number of GPUs means."""
    return next(iter(kinds(container, configured)), configured)


def claims(container: Mapping[str, Any]) -> int:
    """How many GPUs the container has by claims: at least one each; 0 where it counts them in a resource."""
    return len((container.get("resources") or {}).get("claims") or ())


def promised(container: Mapping[str, Any], configured: str) -> int:
    """How many GPUs the container will have: a trainer that sees none then knows that something is wrong."""
    limits = (container.get("resources") or {}).get("limits") or {}
    counted = str(limits.get(resource(container, configured), 0))
    number = int(counted) if counted.isascii() and counted.isdigit() else 0
    return number or claims(container)


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower()
