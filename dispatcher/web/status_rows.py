"""What the status page shows: Jobs + pods + queue + refusals + progress → rows of plain JSON. Pure.

There may be ten thousand Jobs: they are put in order, counted and filtered by what is known of each anyhow, and only
those that are sent become rows.

Any text in a row may come from somebody else: it is data, and whoever shows it shows it as text. Times are RFC 3339
and none depends on now, so that the same world gives the same rows, and a page that has them need not fetch them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod, oldest_first
from dispatcher.controller.summaries import Seen, Summary, explanation, standing_of, summarise
from dispatcher.controller.trends import Trend
from dispatcher.decisions import disruptions, teams
from dispatcher.decisions.views.phases import Phase, nodes_that_run
from dispatcher.decisions.views.standing import Standing
from dispatcher.decisions.waiting import Limits
from dispatcher.intake.refusals import Refusal
from dispatcher.launch.request import Bounds
from dispatcher.web.request_rows import (
    ON_THE_QUEUE,
    REFUSED,
    QueueFacts,
    Row,
    epoch,
    message_row,
    refused_rows,
    time_in,
)
from portal_client import progress_text
from training_common.redaction import REDACTED, redact
from training_common.times import rfc3339

SECTIONS = ("running", "waiting", "ended", "refused")

_SECTION_OF = {
    **dict.fromkeys((Phase.RUNNING, Phase.STOPPING), "running"),
    **dict.fromkeys((Phase.LAUNCHING, Phase.QUEUED, Phase.WAITING), "waiting"),
    **dict.fromkeys((Phase.REPORTING, Phase.COMPLETED, Phase.FAILED), "ended"),
}


@dataclass(frozen=True)
class PortalProgress:
    """A running model's last progress message. at: epoch seconds; losses: (training epoch, loss), the oldest first."""

    message: str
    at: float
    losses: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class World:
    """All that is known at one moment. jobs: in the cache; summaries: by name; ended: of those that left the cache.

    A summary is the reconciler's, which reads Events and Workloads; one that is behind its Job is made anew without.
    progress: by the Job's uid.
    """

    jobs: Sequence[Seen] = ()
    queue: QueueFacts = field(default_factory=QueueFacts)
    refusals: Sequence[Refusal] = ()
    progress: Mapping[str, PortalProgress] = field(default_factory=dict)
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    ended: Sequence[Summary] = ()


@dataclass(frozen=True)
class Rules:
    """The settings that rows depend on."""

    limits: Limits
    bounds: Bounds


@dataclass(frozen=True)
class Page:
    """What is asked for: rows that hold every word of `query`, of each section `limit` from `offsets` (0) on."""

    query: str = ""
    limit: int = 100
    offsets: Mapping[str, int] = field(default_factory=dict)


class Sections:
    """A world in order: running and waiting the oldest first, ended and refused the newest first.

    now: epoch seconds. phases: the number of Jobs and requests in each; gpus_in_use: held by trainings.
    """

    def __init__(self, world: World, rules: Rules, now: float) -> None:
        self._progress, self._rules, self._now = world.progress, rules, now
        by_phase: dict[Phase, list[Summary]] = {phase: [] for phase in Phase}
        for seen in world.jobs:
            summary = world.summaries.get(seen[0].metadata.name)
            if summary is None or summary.seen != seen:
                if not seen[0].is_managed:
                    continue
                summary = summarise(seen[0], seen[1:])
            by_phase[summary.phase].append(summary)
        for summary in world.ended:
            by_phase[summary.phase].append(summary)
        self._jobs: dict[str, list[Summary]] = {name: [] for name in SECTIONS}
        for phase, those in by_phase.items():
            self._jobs[_SECTION_OF[phase]] += those
        for name, those in self._jobs.items():
            those.sort(key=lambda job: (job.at, job.seen[0].metadata.name), reverse=name == "ended")
        # Requests with a Job come first: they were taken from the queue before those that are still there.
        self._requests: dict[str, list[Row]] = {
            "waiting": [message_row(message, rules.bounds) for message in world.queue.waiting],
            "refused": refused_rows(world.refusals, world.queue.poison),
        }
        count = {str(phase): len(those) for phase, those in by_phase.items()}
        count |= {ON_THE_QUEUE: len(self._requests["waiting"]), REFUSED: len(self._requests["refused"])}
        self.phases = {phase: number for phase, number in count.items() if number}
        self.gpus_in_use = sum(job.gpus_in_use for name in ("running", "waiting") for job in self._jobs[name])

    def shown(self, page: Page) -> tuple[dict[str, Any], list[Job]]:
        """Each section as {total, matching, offset, rows}, and the Jobs that run among those rows.

        offset: of the first row that is there. Where there are none so far on, these are the last page's.
        """
        words = page.query.casefold().split()
        found: dict[str, Any] = {}
        running: list[Job] = []
        for name in SECTIONS:
            jobs, requests = self._jobs[name], self._requests.get(name, [])
            total = len(jobs) + len(requests)
            if words:
                jobs = self._matching(jobs, words)
                requests = [row for row in requests if _all_in(words, row_text(row))]
            matching = len(jobs) + len(requests)
            last = (matching - 1) // page.limit * page.limit if page.limit and matching else 0
            offset = min(page.offsets.get(name, 0), last)
            end = offset + page.limit
            here = jobs[offset:end]
            beyond = requests[max(0, offset - len(jobs)) : max(0, end - len(jobs))]
            rows = [*map(self._row, here), *beyond]
            found[name] = {"total": total, "matching": matching, "offset": offset, "rows": rows}
            running += [summary.job for summary in here if summary.phase is Phase.RUNNING]
        return found, running

    def _row(self, summary: Summary) -> Row:
        progress = self._progress.get(summary.job.uid)
        code, sentence = self.explanation(summary)
        return job_row(summary, code, redact(sentence), progress)

    def explanation(self, summary: Summary) -> tuple[str | None, str]:
        """(code or None, sentence)."""
        return explanation(summary, self._told(summary), self._now, self._rules.limits)

    def _told(self, summary: Summary) -> str:
        progress = self._progress.get(summary.job.uid)
        return progress.message if progress else ""

    def standing(self, name: str) -> tuple[Summary, Standing] | None:
        """The Job of this name with where it stands; None where there is none."""
        found = next((s for those in self._jobs.values() for s in those if s.seen[0].metadata.name == name), None)
        return None if found is None else (found, standing_of(found, self._told(found), self._now, self._rules.limits))

    def _matching(self, jobs: Sequence[Summary], words: Sequence[str]) -> list[Summary]:
        # Hiding takes text away and puts this word there: nearly all that do not match are told before it.
        plain = [word for word in words if word not in _HIDDEN and _HIDDEN not in word]
        return [summary for summary in jobs if self._holds(summary, words, plain)]

    def _holds(self, summary: Summary, words: Sequence[str], plain: Sequence[str]) -> bool:
        """Whether its row has every word. Nobody finds by the filter what the row does not show."""
        code, sentence = self.explanation(summary)
        metadata = summary.seen[0].metadata
        notes = summary.seen[0].annotations
        named = "\n".join(
            (
                *(metadata.name, summary.phase, code or "", summary.dataset or ""),
                *(notes.run_id or "", notes.message_id or "", summary.seen[0].labels.queue or ""),
                *(f"{pod.spec.node_name or ''}\n{pod.metadata.name}" for pod in _newest(summary)),
            )
        ).casefold()
        text = f"{named}\n{sentence.casefold()}"
        for word in plain:
            if word not in text:
                return False
        return _all_in(words, named) or _all_in(words, f"{named}\n{_hidden(sentence)}")


_HIDDEN = REDACTED.casefold()


@lru_cache(maxsize=2048)
def _hidden(sentence: str) -> str:
    return redact(sentence).casefold()


def row_text(row: Row) -> str:
    return "\n".join(value for value in row.values() if isinstance(value, str)).casefold()


def _all_in(words: Iterable[str], text: str) -> bool:
    return all(word in text for word in words)


def _newest(summary: Summary) -> Sequence[Pod]:
    """Its newest pod, if it has one; on several nodes the newest of each, in their order."""
    if len(summary.seen) < 3:
        return summary.seen[1:]
    pods = oldest_first(summary.pods)
    return list(teams.newest(summary.job, pods).values()) if summary.job.nodes > 1 else pods[-1:]


def job_row(summary: Summary, code: str | None, sentence: str, progress: PortalProgress | None) -> Row:
    """One Job as a row."""
    job, pods = summary.job, summary.pods
    current = _newest(summary)
    # Of Jobs that ended before this process began only the metadata are known.
    whole = bool(job.spec.template.spec.containers)
    return {
        "model": job.name,
        "phase": str(summary.phase),
        "code": code,
        "sentence": sentence,
        "since": epoch(summary.at),
        "queued_at": time_in(job.annotations.queued_at),
        "created_at": time_in(job.metadata.creation_timestamp),
        "started_at": _started(pods),
        "ended_at": time_in(job.ended.last_transition_time) if job.ended else None,
        "gpus": summary.gpus if whole else None,
        "nodes": job.nodes if whole else None,
        "nodes_running": nodes_that_run(pods),
        "node": ", ".join(dict.fromkeys(pod.node for pod in current if pod.node)) or None,
        "pod": ", ".join(pod.name for pod in current) or None,
        "attempts": _attempts(job, pods) if whole else None,
        "disruptions": len(disruptions.recorded(job)) + len(disruptions.unrecorded(job, pods)),
        "dataset": summary.dataset,
        "run_id": job.annotations.run_id,
        "message_id": job.annotations.message_id,
        "queue": job.labels.queue,
        "progress": _progress(progress),
    }


def trends_row(since: float, hours: Sequence[Trend]) -> Row:
    """since: from when on they tell of all trainings (epoch seconds)."""
    failed = sum((Counter(hour.failed) for hour in hours), Counter[str]())
    return {
        "since": max(hours[0].began, rfc3339(max(0.0, since))),
        "launched": sum(hour.launched for hour in hours),
        "completed": sum(hour.completed for hour in hours),
        "failed": failed.total(),
        "codes": dict(sorted(failed.items(), key=lambda entry: (-entry[1], entry[0]))),
        "hours": [
            {
                "began": hour.began,
                "launched": hour.launched,
                "completed": hour.completed,
                "failed": sum(hour.failed.values()),
            }
            for hour in hours
        ],
    }


def _attempts(job: Job, pods: Sequence[Pod]) -> int:
    """On several nodes Kubernetes counts pods, which may have ended in one incident."""
    if job.nodes == 1:
        return job.status.active + job.status.failed + job.status.succeeded
    return teams.attempts(pods) + any(pod.phase != "Failed" for pod in pods)


def _started(pods: Sequence[Pod]) -> str | None:
    """When a trainer first ran, as far as its pods are still in the cache."""
    begun = (pod.trainer_state.running or pod.trainer_end for pod in pods)
    return min(filter(None, (time_in(state.started_at) for state in begun)), default=None)


def _progress(progress: PortalProgress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    found = progress_text.parse(progress.message)
    losses = [list(point) for point in progress.losses]
    known: dict[str, Any] = {"done": None, "losses": losses, "heard_at": rfc3339(progress.at)}
    if found is None:
        return known if losses else None
    return known | {"epoch": found.epoch, "epochs": found.epochs, "done": round(found.done, 4)}
