"""What became of one training, step by step, from its message to now; and the GPU seconds that it took. Pure.

Times are the objects' own: of annotations, conditions, container states, and the trainer's last words. What none of
them shows is None, and never made up. Clocks of several machines are compared, so nothing is decided by it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dispatcher.cluster import objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod, oldest_first
from dispatcher.decisions import disruptions, kueue, pod_failure, teams

# Names of steps in their order, which are labels of a metric; and what the trainer says of its run, inside `run`.
STEPS = (
    "queue",
    "launch",
    "suspended",
    "pod",
    "schedule",
    "prepare",
    "run",
    "download",
    "training",
    "upload",
    "report",
)
_OF_TRAINER = ("download", "training", "upload")
TITLES = {
    "queue": "on the queue",
    "launch": "being launched",
    "suspended": "suspended, until Kueue or a person resumed it",
    "pod": "without a pod",
    "schedule": "waiting for a node",
    "prepare": "image, volumes and init containers",
    "run": "the trainer",
    "download": "download",
    "training": "training",
    "upload": "upload",
    "report": "until it was reported",
}
# Seconds without a pod that are not worth a line.
_AT_ONCE = 2.0
_PULLED = re.compile(r"Successfully pulled image .* in ([0-9][0-9a-z.]*)")


@dataclass(frozen=True)
class Step:
    """began, ended: epoch seconds, None where nothing shows it; lasts: it is going on now. seconds: how long it took.

    attempt: from 1, of which pod it is; index: which node of a team, from 0; node: where; note: how it ended.
    """

    name: str
    began: float | None
    ended: float | None = None
    lasts: bool = False
    seconds: float | None = None
    attempt: int | None = None
    index: int | None = None
    node: str | None = None
    note: str = ""

    @property
    def title(self) -> str:
        return TITLES[self.name]


@dataclass(frozen=True)
class GpuSeconds:
    """GPUs times the seconds for which pods held them. last: of the last attempt; retries: of those before it."""

    last: float = 0.0
    retries: float = 0.0


def steps(job: Job, pods: Sequence[Pod], events: Iterable[Event] = ()) -> list[Step]:
    """In the order in which they began; a team's by node within an attempt. pods: all that are known of this Job.

    events: of its pods, for how long an image took.
    """
    ordered = oldest_first(pods)
    note, over = job.annotations, job.is_finished or job.is_deleting
    queued, launched = objects.timestamp(note.queued_at), objects.timestamp(note.launched_at)
    found = [_step("queue", queued, job.created_at)] if queued is not None else []
    found.append(_step("launch", job.created_at, launched, lasts=launched is None and not over))
    if launched is None:
        return found
    resumed = None if job.is_suspended else job.changed_at("Suspended", "False") or job.started_at
    if kueue.waits_in_queue(job) or job.is_suspended or (job.labels.kueue_queue and resumed is not None):
        found.append(_step("suspended", launched, resumed, lasts=job.is_suspended and not over))
    pulled = _pulls(events)
    wanted = resumed if resumed is not None else job.started_at
    for number, pod in _numbered(job, ordered):
        before = [teams.ended_at(other) for other in ordered if other.index == pod.index and other is not pod]
        earlier = [end for end in before if pod.created_at is not None and end <= pod.created_at]
        found += _without_pod(max(earlier, default=wanted if number == 1 else None), pod, number)
        found += _of_pod(job, pod, number, pulled.get(pod.name, ""))
    last = max((end for pod in ordered if math.isfinite(end := teams.ended_at(pod))), default=wanted)
    if not (over or job.is_suspended or job.is_reported) and all(pod.is_over for pod in ordered):
        found.append(_step("pod", last, None, lasts=True))
    if over or job.is_reported:
        reported = objects.timestamp(note.reported_at)
        ended = job.ended.since if job.ended else job.gone_at
        found.append(
            _step("report", ended, reported, lasts=not job.is_reported, note=str(job.report.get("portal", "")))
        )
    return found


def gpu_seconds(job: Job, pods: Sequence[Pod]) -> GpuSeconds:
    """As far as its pods are known, from the node that was found to their end; of a Job that has ended."""
    last: dict[int | None, Pod] = {pod.index: pod for pod in oldest_first(pods)}
    newest = {pod.uid for pod in last.values()}
    held = [(pod.uid in newest, _held(pod) * (job.gpus or 0)) for pod in pods]
    return GpuSeconds(sum(s for is_last, s in held if is_last), sum(s for is_last, s in held if not is_last))


def trainer_seconds(pod: Pod) -> dict[str, float]:
    """What its trainer says of its own steps, as far as that can be true; nothing of an older trainer, or another."""
    try:
        word = json.loads(pod.trainer_end.message or "null")
    except (ValueError, RecursionError):
        return {}
    said = word.get("seconds") if isinstance(word, dict) else None
    found = {name: said.get(name) for name in _OF_TRAINER} if isinstance(said, dict) else {}
    began, ended = _times_of_trainer(pod)
    most = ended - began + 2 if began is not None and ended is not None else 0.0
    true = {
        name: float(s) for name, s in found.items() if isinstance(s, int | float) and not isinstance(s, bool) and s >= 0
    }
    return true if sum(true.values()) <= most else {}


def _of_pod(job: Job, pod: Pod, number: int, pulled: str) -> list[Step]:
    scheduled = pod.changed_at("PodScheduled")
    began, ended = _times_of_trainer(pod)
    over = pod.is_over or pod.is_deleting
    end = teams.ended_at(pod) if over else math.inf
    gone = end if math.isfinite(end) else None
    placed = scheduled or (gone if began is None else None)
    found = [_step("schedule", pod.created_at, placed, lasts=not (scheduled or over))]
    if scheduled or began:
        found.append(_step("prepare", scheduled, began or gone, lasts=not (began or over), note=pulled))
    if began is not None:
        found.append(_step("run", began, ended or gone, lasts=pod.runs and not over))
    found[-1] = replace(found[-1], note=_end_of(job, pod) or found[-1].note)
    found += [Step(name, None, seconds=seconds) for name, seconds in trainer_seconds(pod).items()]
    return [replace(step, attempt=number, index=pod.index, node=pod.node) for step in found]


def _end_of(job: Job, pod: Pod) -> str:
    if not (pod.has_ended or pod.is_over):
        return ""
    if pod.phase == "Succeeded" or pod.trainer_end.exit_code == 0:
        return "ended with exit code 0"
    verdict = pod_failure.explain(pod)
    taken = pod.uid in disruptions.recorded(job) or pod_failure.disruption(pod) is not None
    return f"{verdict.code}{', which costs no attempt' if taken else ''}: {verdict.sentence.split('. ')[0].rstrip('.')}"


def _times_of_trainer(pod: Pod) -> tuple[float | None, float | None]:
    running, end = pod.trainer_state.running, pod.trainer_end
    began = objects.timestamp(running.started_at if running else end.started_at)
    return began, objects.timestamp(end.finished_at)


def _without_pod(since: float | None, pod: Pod, number: int) -> list[Step]:
    made = pod.created_at
    if since is None or made is None or made - since < _AT_ONCE:
        return []
    return [replace(_step("pod", since, made), attempt=number, index=pod.index)]


def _numbered(job: Job, ordered: Sequence[Pod]) -> list[tuple[int, Pod]]:
    """Each pod with the number of its node's attempt; sorted by that, then by node."""
    count: dict[int | None, int] = {}
    found = []
    for pod in ordered:
        count[pod.index] = count.get(pod.index, 0) + 1
        found.append((count[pod.index], pod))
    return sorted(found, key=lambda entry: (entry[0], entry[1].index or 0)) if job.nodes > 1 else found


def _pulls(events: Iterable[Event]) -> dict[str, str]:
    """By the pod's name, as its Events' names begin: how long its last image took."""
    found = {}
    for event in sorted(events, key=lambda event: event.seen_at):
        if event.reason == "Pulled" and (pulled := _PULLED.search(event.message)):
            found[event.name.rpartition(".")[0]] = f"image pulled in {pulled[1]}"
    return found


def _held(pod: Pod) -> float:
    began, end = pod.changed_at("PodScheduled") or _times_of_trainer(pod)[0], teams.ended_at(pod)
    return max(0.0, end - began) if began is not None and math.isfinite(end) else 0.0


def _step(name: str, began: float | None, ended: float | None, *, lasts: bool = False, note: str = "") -> Step:
    seconds = None if began is None or ended is None else max(0.0, ended - began)
    return Step(name, began, ended, lasts, seconds, note=note)
