"""Where each unreported Job is, in a few numbers: worked out when it changes, so that counting them all is cheap."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.cluster import objects
from dispatcher.cluster.objects import Job, Pod
from dispatcher.decisions import phases
from dispatcher.decisions.phases import Phase


@dataclass(frozen=True, slots=True)
class Summary:
    """Times are epoch seconds, None where there is none: in its phase, past its limit, launched and unacknowledged."""

    phase: Phase
    since: float | None
    overdue_since: float | None
    unacknowledged_since: float | None


def summarise(job: Job, pods: Sequence[Pod]) -> Summary:
    phase = phases.phase(job, pods)
    unacknowledged = phase in (Phase.QUEUED, Phase.WAITING, Phase.RUNNING) and not job.is_acknowledged
    return Summary(
        phase,
        phases.since(phase, job, pods),
        phases.overdue_since(phase, job),
        objects.timestamp(job.annotations.launched_at) if unacknowledged else None,
    )


class Summaries:
    """By the Job's name. Thread-safe. The reconciler writes them: they are as fresh as its last look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Summary] = {}

    def note(self, name: str, summary: Summary) -> None:
        with self._lock:
            self._known[name] = summary

    def forget(self, name: str) -> None:
        with self._lock:
            self._known.pop(name, None)

    def all(self) -> dict[str, Summary]:
        with self._lock:
            return dict(self._known)
