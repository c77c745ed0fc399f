"""What the status page shows: Jobs + pods + queue + refusals + progress → rows of plain JSON. Pure.

Everything in a row may be somebody else's text: it is data, and whoever shows it shows it as text. Times are RFC 3339
and none says "now", so that the same world gives the same rows and a page that has them need not fetch them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.redaction import redact
from common.times import rfc3339
from dispatcher.cluster import names, objects
from dispatcher.cluster.objects import KubeObject
from dispatcher.decisions import disruptions, outcome
from dispatcher.decisions.outcome import Ended, Going, Stop
from dispatcher.decisions.phases import Phase, phase, since
from dispatcher.decisions.waiting import Limits
from dispatcher.intake.refusals import Refusal
from dispatcher.launch.request import Bounds
from dispatcher.web.request_rows import QueueFacts, Row, epoch, message_row, refused_rows, time_in
from portal_client import progress_text

SECTIONS = ("running", "waiting", "ended", "refused")

Sections = dict[str, list[Row]]

_SECTION_OF = {
    Phase.LAUNCHING: "waiting",
    Phase.QUEUED: "waiting",
    Phase.WAITING: "waiting",
    Phase.RUNNING: "running",
    Phase.STOPPING: "running",
    Phase.REPORTING: "ended",
    Phase.COMPLETED: "ended",
    Phase.FAILED: "ended",
}


@dataclass(frozen=True)
class Heard:
    """What the portal last said of a running model. at: epoch seconds; losses: (epoch, loss), the oldest first."""

    message: str
    at: float
    losses: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class World:
    """All that is known at one moment. jobs: each with its pods; heard, said: by the Job's uid.

    said: what a waiting Job waits for as the reconciler found out, who asks for Events and Workloads; this does not.
    """

    jobs: Sequence[tuple[KubeObject, Sequence[KubeObject]]]
    queue: QueueFacts = field(default_factory=QueueFacts)
    refusals: Sequence[Refusal] = ()
    heard: Mapping[str, Heard] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """The settings that rows depend on."""

    limits: Limits
    bounds: Bounds
    gpu_resource: str = names.GPU_RESOURCE


def sections(world: World, rules: Rules, now: float) -> Sections:
    """Every row by its section; running and waiting the oldest first, ended and refused the newest first."""
    found: Sections = {name: [] for name in SECTIONS}
    for job, pods in world.jobs:
        row = job_row(job, pods, world, rules, now)
        found[_SECTION_OF[Phase(row["phase"])]].append(row)
    for name in ("running", "waiting"):
        found[name].sort(key=lambda row: (row["since"] or "", row["model"]))
    # What has a Job comes first: it was taken from the queue before what still lies there.
    found["waiting"] += [message_row(message, rules.bounds) for message in world.queue.waiting]
    found["ended"].sort(key=lambda row: (row["since"] or "", row["model"]), reverse=True)
    found["refused"] = refused_rows(world.refusals, world.queue.poison)
    return found


def shown(found: Sections, query: str = "", limit: int | None = None) -> dict[str, Any]:
    """Each section as {total, matching, rows}: of the rows that hold `query` in any text, the first `limit`."""
    wanted = query.casefold().split()
    answer: dict[str, Any] = {}
    for name, rows in found.items():
        matching = [row for row in rows if _holds(row, wanted)] if wanted else rows
        answer[name] = {"total": len(rows), "matching": len(matching), "rows": matching[:limit]}
    return answer


def phases(found: Sections) -> dict[str, int]:
    """How many rows there are of each phase, Jobs' and others'."""
    return dict(Counter(row["phase"] for rows in found.values() for row in rows))


def gpus_in_use(found: Sections) -> int:
    return sum(row["gpus"] or 0 for row in found["running"])


def job_row(job: KubeObject, pods: Sequence[KubeObject], world: World, rules: Rules, now: float) -> Row:
    """One Job as a row. pods: all that are known of this very Job."""
    ordered = sorted(pods, key=lambda pod: objects.meta(pod).get("creationTimestamp") or "")
    current = ordered[-1] if ordered else None
    uid = objects.uid_of(job)
    what = phase(job, pods)
    heard = world.heard.get(uid)
    code, sentence = _word(job, pods, what, heard, world.said.get(uid, ""), rules, now)
    status = job.get("status") or {}
    return {
        "model": objects.name_of(job),
        "phase": str(what),
        "code": code,
        "sentence": redact(sentence),
        "since": epoch(since(what, job, pods) or 0.0) or time_in(objects.meta(job).get("creationTimestamp")),
        "queued_at": time_in(objects.annotation(job, names.QUEUED_AT)),
        "created_at": time_in(objects.meta(job).get("creationTimestamp")),
        "started_at": _started(ordered),
        "ended_at": _ended(job),
        "gpus": _gpus(job, rules.gpu_resource),
        "node": ((current or {}).get("spec") or {}).get("nodeName"),
        "pod": objects.name_of(current) if current else None,
        "attempts": sum(status.get(count) or 0 for count in ("active", "failed", "succeeded")),
        "disruptions": len(disruptions.recorded(job)) + len(disruptions.unrecorded(job, pods)),
        "dataset": _dataset(job),
        "run_id": objects.annotation(job, names.RUN_ID),
        "message_id": objects.annotation(job, names.MESSAGE_ID),
        "progress": _progress(heard),
    }


def _word(
    job: KubeObject,
    pods: Sequence[KubeObject],
    what: Phase,
    heard: Heard | None,
    said: str,
    rules: Rules,
    now: float,
) -> tuple[str | None, str]:
    """(code or None, sentence)."""
    if what in (Phase.COMPLETED, Phase.FAILED):
        return _reported(job)
    if what is Phase.LAUNCHING:
        return None, "Created; it starts when the portal has been told"
    if what is Phase.RUNNING:
        return None, heard.message if heard and heard.message else "The trainer runs"
    if what is Phase.STOPPING and (stopped := outcome.stop_verdict(job)):
        return stopped.code, stopped.sentence
    match outcome.decide(job, pods, (), now, rules.limits):
        case Ended(verdict=verdict) | Stop(verdict=verdict):
            return verdict.code, verdict.sentence
        case Going(progress=progress):
            # Kueue's place in the queue is the reconciler's to know; a pod's state is fresher here.
            known = (said, progress) if what is Phase.QUEUED else (progress, said)
            return None, known[0] or known[1] or _UNEXPLAINED.get(what, "")


_UNEXPLAINED = {
    Phase.WAITING: "No pod yet",
    Phase.QUEUED: "Suspended",
    Phase.STOPPING: "Its pods are being ended",
    Phase.REPORTING: "Ended; what its pods last said is awaited",
}


def _reported(job: KubeObject) -> tuple[str | None, str]:
    told = objects.report_of(job)
    if "code" in told and "sentence" in told:
        return str(told["code"]), str(told["sentence"])
    return None, "Reported; what was said cannot be read"  # somebody else wrote it


def _started(pods: Sequence[KubeObject]) -> str | None:
    """When a trainer first ran, as far as its pods are still known."""
    times = []
    for pod in pods:
        state = objects.trainer_state(pod)
        times.append(time_in((state.get("running") or state.get("terminated") or {}).get("startedAt")))
    return min(filter(None, times), default=None)


def _ended(job: KubeObject) -> str | None:
    ended = objects.condition(job, "Complete") or objects.condition(job, "Failed") or {}
    return time_in(ended.get("lastTransitionTime"))


def _gpus(job: KubeObject, resource: str) -> int | None:
    """None where the Job does not say it as a plain number."""
    resources = objects.trainer_container(objects.pod_template(job)).get("resources") or {}
    amount = str((resources.get("limits") or resources.get("requests") or {}).get(resource, 0))
    return int(amount) if amount.isascii() and amount.isdigit() and len(amount) < 10 else None


def _dataset(job: KubeObject) -> str | None:
    """The one variable that is read: the others may hold what nobody is to see."""
    for variable in objects.trainer_container(objects.pod_template(job)).get("env") or ():
        if variable.get("name") == "DATASET_CONTAINER":
            value = variable.get("value")
            return None if value is None else str(value)
    return None


def _progress(heard: Heard | None) -> dict[str, Any] | None:
    if heard is None:
        return None
    found = progress_text.parse(heard.message)
    losses = [list(point) for point in heard.losses]
    if found is None:
        return {"done": None, "losses": losses, "heard_at": rfc3339(heard.at)} if losses else None
    return {
        "epoch": found.epoch,
        "epochs": found.epochs,
        "done": round(found.done, 4),
        "losses": losses,
        "heard_at": rfc3339(heard.at),
    }


def _holds(row: Row, words: Sequence[str]) -> bool:
    text = "\n".join(value for value in row.values() if isinstance(value, str)).casefold()
    return all(word in text for word in words)
