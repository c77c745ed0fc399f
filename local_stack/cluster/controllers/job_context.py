"""What the Job controller's passes share."""

from __future__ import annotations

from dataclasses import dataclass, field

from local_stack.cluster.controllers.work_queue import WorkQueue
from local_stack.cluster.registry.events import Recorder
from local_stack.cluster.registry.writes import Registry

# Seconds between a pod's change and its Job's, so that changes of several pods become one.
BATCH = 0.05


@dataclass
class Failures:
    """Failures since the last success, for the wait before the next pod. `last`: monotonic seconds."""

    count: int = 0
    last: float = 0.0


@dataclass
class Controller:
    """What every pass shares. `backoff` in seconds; `failures` and `refusals` by the Job's uid."""

    registry: Registry
    queue: WorkQueue
    recorder: Recorder
    backoff: float
    failures: dict[str, Failures] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)

    def forget(self, uid: str) -> None:
        """The Job is gone."""
        self.failures.pop(uid, None)
        self.refusals.pop(uid, None)
