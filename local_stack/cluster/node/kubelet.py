"""What a pod's worker asks of its node, so that neither has to know the other's file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from local_stack.cluster.node.images import Images
from local_stack.cluster.node.pod_status import PodState
from local_stack.cluster.node.processes import Undertaker
from local_stack.cluster.registry.objects import Key, Obj
from local_stack.cluster.registry.store import Store


@dataclass(frozen=True)
class Waits:
    """In seconds: `retry` between attempts while a Secret or a good image name is missing.

    `pull` before an image is pulled again, `crash` before a container is restarted; both double each time. `sync` until
    a changed Secret or ConfigMap shows in the volumes of pods that run, which takes a kubelet a minute or so.
    """

    retry: float = 1.0
    pull: float = 10.0
    crash: float = 10.0
    sync: float = 0.5


class Kubelet(Protocol):
    """A node. `claims`: the folder of its persistent volumes; `answering`: not set while the node is lost."""

    store: Store
    images: Images
    undertaker: Undertaker
    waits: Waits
    claims: Path
    answering: asyncio.Event

    def event(self, pod: Obj, kind: str, reason: str, message: str, *, part: str = "") -> None:
        """Record an Event of this kubelet; `part` names a container."""

    def write_status(self, key: Key, uid: str, state: PodState) -> None:
        """Write the pod's state, now or when the node answers again."""

    def remove_object(self, key: Key, uid: str) -> None:
        """Remove a deleted pod's object for good."""

    def take_rejection(self) -> tuple[str, str] | None:
        """(reason, message) when the pod is to be refused on this node."""

    def next_address(self) -> str:
        """An IP address for the pod."""
