"""Notices dispatchers of other namespaces on our queues, and lets them notice us, by each queue's own metadata.

Two of them would each see only its own Jobs, and could train one model twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol

from dispatcher.decisions.readers import Reader, announced, others
from dispatcher.queue.messages import QueueError, QueueForbidden

log = logging.getLogger(__name__)

_EVERY = 60.0  # seconds; one call each, and one more in five minutes


class Annotated(Protocol):
    """A queue's metadata; `dispatcher.queue.azure.TrainingQueue`. Both raise QueueError."""

    @property
    def name(self) -> str: ...
    def metadata(self) -> Mapping[str, str]: ...
    def set_metadata(self, metadata: Mapping[str, str]) -> None: ...


@dataclass(eq=False)
class QueueReaders:
    """place: a fingerprint of cluster and namespace, the same for all dispatchers there."""

    queues: Sequence[Annotated]
    place: str
    namespace: str
    _: KW_ONLY
    stopping: threading.Event
    clock: Callable[[], float] = time.time

    _found: dict[str, tuple[Reader, ...]] = field(default_factory=dict, init=False)  # by queue
    _told: frozenset[str] = field(default=frozenset(), init=False)
    _refused: set[str] = field(default_factory=set, init=False)

    @property
    def others(self) -> tuple[Reader, ...]:
        """The namespaces that read any of the queues, each once, those of running dispatchers first."""
        newest: dict[str, Reader] = {}
        for reader in (reader for found in self._found.copy().values() for reader in found):
            if reader.namespace not in newest or newest[reader.namespace].seen < reader.seen:
                newest[reader.namespace] = reader
        return tuple(sorted(newest.values(), key=lambda reader: not reader.is_alive))

    @property
    def running(self) -> int:
        """How many other namespaces' dispatchers have read one of the queues a moment ago."""
        return sum(reader.is_alive for reader in self.others)

    def run(self, alive: Callable[[], None]) -> None:
        while not self.stopping.is_set():
            self.look(alive)
            self.stopping.wait(_EVERY)

    def look(self, alive: Callable[[], None] = lambda: None) -> None:
        """Read the entries, and renew ours. What fails leaves what is known as it is."""
        for queue in self.queues:
            self._look_at(queue)
            alive()  # while storage is silent each queue takes minutes
        self._tell()

    def _look_at(self, queue: Annotated) -> None:
        now = self.clock()
        try:
            metadata = queue.metadata()
            self._found[queue.name] = tuple(others(metadata, self.place, now))
            mine = announced(metadata, self.place, self.namespace, now)
            if mine is not None:
                # Two at once may lose one of two entries: whoever misses its own writes it again a minute later.
                queue.set_metadata(mine)
        except QueueForbidden as error:
            if queue.name not in self._refused:
                log.info("%s; dispatchers of other namespaces on this queue do not learn of this one", error)
            self._refused.add(queue.name)
        except QueueError as error:
            log.debug("%s; who else reads the queue is not known", error)

    def _tell(self) -> None:
        found = frozenset(reader.words(self.namespace) for reader in self.others if reader.is_alive)
        if new := found - self._told:
            log.warning(
                "Dispatchers of %s read this queue, too: neither sees the other's Jobs, and one model may be trained"
                " twice. Give each namespace a queue of its own",
                ", ".join(sorted(new)),
            )
        self._told = found
