"""What the largest node has of each resource, read where a training asks for more and where that is allowed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from dispatcher.cluster.errors import ClusterError, ClusterForbidden
from dispatcher.cluster.objects import Node, plain_number

log = logging.getLogger(__name__)

# Seconds for which a list is good: of thousands of nodes it is megabytes; and until a refused one is tried again.
_EVERY, _REFUSED = 600.0, 3600.0


@dataclass(eq=False)
class NodeSizes:
    """Thread-safe. list_nodes: raises ClusterError; the right is optional, so nothing is known then."""

    list_nodes: Callable[[], Iterable[Node]]
    monotonic: Callable[[], float] = time.monotonic

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _due: float = field(default=float("-inf"), init=False)
    _known: Mapping[str, int] = field(default_factory=dict, init=False)

    def largest(self) -> Mapping[str, int]:
        """Resource → the most that a single node has to give. One thread lists; the others use what is known."""
        with self._guard:
            now = self.monotonic()
            if now < self._due:
                return self._known
            self._due = now + _EVERY
        known: dict[str, int] = {}
        try:
            for node in self.list_nodes():
                for resource, amount in node.status.allocatable.items():
                    known[resource] = max(known.get(resource, 0), plain_number(amount) or 0)
        except ClusterError as error:
            log.debug("%s; how large the nodes are is not known", error)
            known = {}
            if isinstance(error, ClusterForbidden):
                self._due = now + _REFUSED
        self._known = known
        return known
