"""What the status page shows: Jobs + pods + queue + refusals + progress → rows of plain JSON. Pure.

Any text in a row may come from somebody else: it is data, and whoever shows it shows it as text. Times are RFC 3339
and none depends on now, so that the same world gives the same rows, and a page that has them need not fetch them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.cluster import objects
from dispatcher.cluster.objects import Job, Pod
from dispatcher.decisions import disruptions, outcome
from dispatcher.decisions.outcome import Ended, Going, Stop
from dispatcher.decisions.phases import DESCRIPTIONS, Phase, since
from dispatcher.decisions.phases import phase as phase_of
from dispatcher.decisions.waiting import Limits
from dispatcher.intake.refusals import Refusal
from dispatcher.launch.request import Bounds
from dispatcher.web.request_rows import QueueFacts, Row, epoch, message_row, refused_rows, time_in
from portal_client import progress_text
from training_common.redaction import redact
from training_common.times import rfc3339

SECTIONS = ("running", "waiting", "ended", "refused")

Sections = dict[str, list[Row]]

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
    """All that is known at one moment. jobs: each with its pods; progress, waiting_for: by the Job's uid.

    waiting_for: what a Job waits for according to the reconciler, which reads Events and Workloads; this does not.
    """

    jobs: Sequence[tuple[Job, Sequence[Pod]]]
    queue: QueueFacts = field(default_factory=QueueFacts)
    refusals: Sequence[Refusal] = ()
    progress: Mapping[str, PortalProgress] = field(default_factory=dict)
    waiting_for: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """The settings that rows depend on."""

    limits: Limits
    bounds: Bounds


def sections(world: World, rules: Rules, now: float) -> Sections:
    """Every row by its section; running and waiting the oldest first, ended and refused the newest first."""
    found: Sections = {name: [] for name in SECTIONS}
    for job, pods in world.jobs:
        phase = phase_of(job, pods)
        found[_SECTION_OF[phase]].append(job_row(phase, job, pods, world, rules, now))
    for name in ("running", "waiting"):
        found[name].sort(key=lambda row: (row["since"] or "", row["model"]))
    # Requests with a Job come first: they were taken from the queue before those that are still there.
    found["waiting"] += [message_row(message, rules.bounds) for message in world.queue.waiting]
    found["ended"].sort(key=lambda row: (row["since"] or "", row["model"]), reverse=True)
    found["refused"] = refused_rows(world.refusals, world.queue.poison)
    return found


def shown(found: Sections, query: str = "", limit: int | None = None) -> dict[str, Any]:
    """Each section as {total, matching, rows: the first `limit` rows whose texts hold every word of `query`}."""
    wanted = query.casefold().split()
    matching = {name: [row for row in rows if _holds(row, wanted)] if wanted else rows for name, rows in found.items()}
    return {
        name: {"total": len(found[name]), "matching": len(rows), "rows": rows[:limit]}
        for name, rows in matching.items()
    }


def phases(found: Sections) -> dict[str, int]:
    """The number of rows in each phase, of Jobs and of requests without one."""
    return dict(Counter(row["phase"] for rows in found.values() for row in rows))


def gpus_in_use(found: Sections) -> int:
    return sum(row["gpus"] or 0 for row in found["running"])


def job_row(phase: Phase, job: Job, pods: Sequence[Pod], world: World, rules: Rules, now: float) -> Row:
    """One Job as a row. pods: all that are known of this very Job."""
    ordered = objects.oldest_first(pods)
    current = ordered[-1] if ordered else None
    uid = job.uid
    progress = world.progress.get(uid)
    waits_for = world.waiting_for.get(uid, "")
    code, sentence = _explanation(phase, job, pods, progress, waits_for, rules, now)
    return {
        "model": job.name,
        "phase": str(phase),
        "code": code,
        "sentence": redact(sentence),
        "since": epoch(since(phase, job, pods) or 0.0) or time_in(job.metadata.creation_timestamp),
        "queued_at": time_in(job.annotations.queued_at),
        "created_at": time_in(job.metadata.creation_timestamp),
        "started_at": _started(ordered),
        "ended_at": time_in(job.ended.last_transition_time) if job.ended else None,
        "gpus": job.gpus,
        "node": current.node if current else None,
        "pod": current.name if current else None,
        "attempts": job.status.active + job.status.failed + job.status.succeeded,
        "disruptions": len(disruptions.recorded(job)) + len(disruptions.unrecorded(job, pods)),
        "dataset": job.dataset,
        "run_id": job.annotations.run_id,
        "message_id": job.annotations.message_id,
        "progress": _progress(progress),
    }


def _explanation(
    phase: Phase,
    job: Job,
    pods: Sequence[Pod],
    progress: PortalProgress | None,
    waits_for: str,
    rules: Rules,
    now: float,
) -> tuple[str | None, str]:
    """(code or None, sentence)."""
    if phase in (Phase.COMPLETED, Phase.FAILED):
        return _reported(job)
    if phase is Phase.LAUNCHING:
        return None, DESCRIPTIONS[phase]
    if phase is Phase.RUNNING:
        return None, progress.message if progress and progress.message else DESCRIPTIONS[phase]
    if phase is Phase.STOPPING and (stopped := outcome.stop_verdict(job)):
        return stopped.code, stopped.sentence
    match outcome.decide(job, pods, (), now, rules.limits):
        case Ended(verdict=verdict) | Stop(verdict=verdict):
            return verdict.code, verdict.sentence
        case Going(progress=seen):
            # Only the reconciler knows the place in Kueue's queue; the state of a pod is fresher here.
            known = (waits_for, seen) if phase is Phase.QUEUED else (seen, waits_for)
            return None, known[0] or known[1] or DESCRIPTIONS[phase]


def _reported(job: Job) -> tuple[str | None, str]:
    report = job.report
    if "code" in report and "sentence" in report:
        return str(report["code"]), str(report["sentence"])
    return None, "Reported; the record of it cannot be read"  # somebody else wrote the annotation


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


def _holds(row: Row, words: Sequence[str]) -> bool:
    text = "\n".join(value for value in row.values() if isinstance(value, str)).casefold()
    return all(word in text for word in words)
