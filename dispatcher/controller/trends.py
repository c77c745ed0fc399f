"""How many trainings were launched, and how they ended, in each of the last 24 hours: by the times that Jobs tell.

A Job's annotations say when it was launched, when it was reported and as what. So every replica counts the same, and a
process that begins later counts what the cluster still has.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions import codes
from training_common.times import rfc3339

HOURS = 24
_HOUR = 3600.0
_LAUNCHED = "launched"


@dataclass(frozen=True)
class Trend:
    """One hour. began: RFC 3339; failed: by code."""

    began: str
    launched: int
    completed: int
    failed: dict[str, int]


class Trends:
    """Thread-safe. Bounded: a number for each code of each hour, however many trainings there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hours: dict[str, Counter[str]] = {}  # by the first letters of a time: "2026-01-31T12"

    def add(self, job: KubeObject, now: float, times: int = 1) -> None:
        """Count a Job that was reported. now: epoch seconds; times: -1: it was counted before."""
        notes = job.annotations
        self._count(now, (notes.launched_at, _LAUNCHED, times), (notes.reported_at, _end(job), times))

    def add_gone(self, job: KubeObject, code: str, now: float) -> None:
        """Count a Job that is reported now and has left nothing that would say so."""
        self._count(now, (job.annotations.launched_at, _LAUNCHED, 1), (rfc3339(now), codes.label_of(code), 1))

    def merge(self, other: Self) -> None:
        with self._lock:
            for hour, counts in other._hours.items():
                self._hours.setdefault(hour, Counter()).update(counts)

    def latest(self, unreported: Iterable[KubeObject], now: float) -> list[Trend]:
        """The last 24 hours of the clock, the oldest first; the last one is not over. now: epoch seconds.

        unreported: the Jobs that go on: when they were launched is counted for good once they are reported.
        """
        launched = Counter(_hour(job.annotations.launched_at) for job in unreported)
        found = []
        with self._lock:
            for began in reversed(_times(int(now // _HOUR))[1:]):
                ended = +self._hours.get(_hour(began), Counter())
                launches = ended.pop(_LAUNCHED, 0) + launched[_hour(began)]
                completed = ended.pop(codes.COMPLETED, 0)
                found.append(Trend(began, launches, completed, dict(ended)))
        return found

    def _count(self, now: float, *found: tuple[str | None, str, int]) -> None:
        """Only what is of the last day: anybody may have written an annotation, and anything into it."""
        known = {_hour(time) for time in _times(int(now // _HOUR))}
        with self._lock:
            for time, what, times in found:
                if (hour := _hour(time)) in known:
                    self._hours.setdefault(hour, Counter())[what] += times
            if len(self._hours) > len(known):
                self._hours = {hour: counts for hour, counts in self._hours.items() if hour in known}


@lru_cache(maxsize=4)
def _times(hour: int) -> tuple[str, ...]:
    """When the hours began that are counted, the latest first. One more than is shown: who writes has another clock."""
    return tuple(rfc3339((hour - number) * _HOUR) for number in range(-1, HOURS))


def _hour(time: str | None) -> str:
    return (time or "")[:13]


def _end(job: KubeObject) -> str:
    report = job.report
    if report.get("status") == "Completed":
        return codes.COMPLETED
    code = codes.label_of(str(report.get("code")))
    return codes.OTHER if code == codes.COMPLETED else code
