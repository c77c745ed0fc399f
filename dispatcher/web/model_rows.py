"""One model as plain JSON, for its own page and for `dispatcher explain`: where it stands, and its timeline. Pure.

Times are RFC 3339, None where nothing shows them, and none depends on now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event, timestamp
from dispatcher.cluster.pods import Pod
from dispatcher.controller.summaries import Summary
from dispatcher.decisions.containers import awaited
from dispatcher.decisions.views import timeline
from dispatcher.decisions.views.standing import Standing
from dispatcher.decisions.views.timeline import Step
from dispatcher.decisions.views.without_job import PortalWord, Trace
from dispatcher.queue.poison import PoisonEntry
from dispatcher.web.request_rows import Row
from training_common.redaction import redact
from training_common.times import rfc3339


def told(stands: Standing, summary: Summary | None = None, events: Iterable[Event] = ()) -> Row:
    """summary: of its Job, None where there is none; events: of its pods, for how long an image took."""
    job = summary.job if summary else None
    pods = summary.pods if summary else ()
    steps = [] if job is None else [_step_row(step, job) for step in timeline.steps(job, pods, events)]
    spent = timeline.gpu_seconds(job, pods) if job is not None and job.is_finished and job.gpus and pods else None
    return {
        "standing": {
            **asdict(stands),
            "sentence": redact(stands.sentence),
            "since": _when(stands.since),
            "until": _when(stands.until),
        },
        "message_id": None if job is None else job.annotations.message_id,
        "steps": steps,
        "gpu_seconds": None if spent is None else asdict(spent),
    }


def _step_row(step: Step, job: Job) -> Row:
    return {
        "name": step.name,
        "title": step.title,
        "began": _when(step.began),
        "ended": _when(step.ended),
        "lasts": step.lasts,
        "seconds": step.seconds,
        "attempt": step.attempt,
        "node_index": step.index if job.nodes > 1 else None,
        "node": step.node,
        "note": redact(step.note),
    }


def pod_row(pod: Pod) -> Row:
    running, ended = pod.trainer_state.running, pod.trainer_end
    return {
        "name": pod.name,
        "index": pod.index,
        "phase": pod.phase,
        "node": pod.node,
        "created_at": pod.metadata.creation_timestamp,
        "started_at": running.started_at if running else ended.started_at,
        "finished_at": ended.finished_at,
        "exit_code": ended.exit_code,
        "reason": ended.reason or awaited(pod).reason or None,
    }


def portal_row(word: PortalWord) -> Row:
    return {**asdict(word), "message": redact(word.message)}


def message_trace(rows: Sequence[Row]) -> Trace | None:
    """The first of a model's rows of messages."""
    return Trace(rows[0]["sentence"], rows[0]["code"], timestamp(rows[0]["since"])) if rows else None


def poison_trace(entries: Sequence[PoisonEntry]) -> Trace | None:
    """The last of a model's entries of the poison queues, each of which has its own order."""
    if not entries:
        return None
    *_, last = sorted(entries, key=lambda entry: timestamp(entry.poisoned_at) or 0.0)
    return Trace(last.sentence, last.code, timestamp(last.poisoned_at), last.message_id)


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)
