"""Where each unreported Job is, in a few numbers: worked out when it changes, so that counting them all is cheap."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from sys import intern

import msgspec
from msgspec.structs import replace

from dispatcher.cluster import objects
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import outcome
from dispatcher.decisions.verdicts import Going, Holder, Outcome, stop_verdict
from dispatcher.decisions.views import phases
from dispatcher.decisions.views.phases import DESCRIPTIONS, ENDED, Phase
from dispatcher.decisions.views.standing import Standing, standing
from dispatcher.decisions.waiting import Limits

Seen = tuple[Job, *tuple[Pod, ...]]
"""A Job and its pods as they were at one moment."""


class Summary(msgspec.Struct, frozen=True, gc=False):
    """Times are epoch seconds, None where there is none: in its phase, past its limit, launched and unacknowledged.

    seen: what it was made from; at: since when it is in its phase, or was created; gpus: asked for, on all its nodes
    together, None where that is no number. sentence: what was decided about it, or what it waits for, "" where that
    needs no words; None: not decided yet. holder: who keeps it waiting; until: when it is stopped with `then`.
    """

    phase: Phase
    since: float | None
    overdue_since: float | None
    unacknowledged_since: float | None
    seen: Seen
    at: float
    gpus: int | None
    dataset: str | None
    code: str | None = None
    sentence: str | None = None
    holder: str | None = None
    until: float | None = None
    then: str | None = None

    @property
    def job(self) -> Job:
        return self.seen[0]

    @property
    def pods(self) -> tuple[Pod, ...]:
        return self.seen[1:]

    @property
    def gpus_in_use(self) -> int:
        """Of a training on several nodes that has lost one, those of the others: they wait with their GPUs."""
        if self.phase in (Phase.RUNNING, Phase.STOPPING):
            return self.gpus or 0
        if self.phase is Phase.WAITING and self.job.nodes > 1:
            return (self.job.gpus or 0) * phases.nodes_that_run(self.pods)
        return 0

    def after(self, decided: Outcome) -> Summary:
        """With what was decided. Ten thousand that wait for the same share one sentence."""
        if isinstance(decided, Going):
            then = decided.verdict and decided.verdict.code
            until = decided.check_at if then else None
            said = intern(decided.progress or "")
            return replace(self, code=None, sentence=said, holder=decided.holder, until=until, then=then)
        return replace(self, code=decided.verdict.code, sentence=intern(decided.verdict.sentence))


def summarise(job: Job, pods: Sequence[Pod]) -> Summary:
    phase = phases.phase(job, pods)
    since = phases.since(phase, job, pods)
    unacknowledged = phase in (Phase.QUEUED, Phase.WAITING, Phase.RUNNING) and not job.is_acknowledged
    return Summary(
        phase,
        since,
        phases.overdue_since(phase, job),
        objects.timestamp(job.annotations.launched_at) if unacknowledged else None,
        (job, *pods),
        since or job.created_at or 0.0,
        None if job.gpus is None else job.gpus * job.nodes,
        job.dataset,
        *(_reported(job) if phase in ENDED else ()),
    )


def explanation(summary: Summary, told: str, now: float, limits: Limits) -> tuple[str | None, str]:
    """(code or None, sentence): where a training stands, in the words of `status`, `explain`, `list` and the page.

    told: the portal's last message of a training that runs, "" where it is not known.
    """
    phase = summary.phase
    if phase is Phase.RUNNING:
        return None, told or phases.description(phase, summary.job, summary.pods)
    if phase is Phase.LAUNCHING:
        return None, DESCRIPTIONS[phase]
    if phase is Phase.STOPPING and (stopped := stop_verdict(summary.job)):
        return stopped.code, stopped.sentence
    summary = _decided(summary, now, limits)
    return summary.code, summary.sentence or phases.description(phase, summary.job, summary.pods)


def standing_of(summary: Summary, told: str, now: float, limits: Limits) -> Standing:
    """`explanation`, with who holds it, until when, and what to do next."""
    summary = _decided(summary, now, limits)
    code, sentence = explanation(summary, told, now, limits)
    return standing(
        summary.phase,
        code,
        sentence,
        since=summary.since,
        holder=summary.holder,
        until=summary.until,
        then=summary.then,
        deadline=summary.overdue_since,
    )


def _decided(summary: Summary, now: float, limits: Limits) -> Summary:
    """As it is, where that was decided; else by what Job and pods show."""
    if summary.sentence is not None:
        return summary
    return summary.after(outcome.decide(summary.job, summary.pods, (), now, limits))


def _reported(job: Job) -> tuple[str | None, str]:
    report = job.report
    if "code" in report and "sentence" in report:
        return str(report["code"]), str(report["sentence"])
    return None, "Reported; the record of it cannot be read"  # somebody else wrote the annotation


class Summaries:
    """By the Job's name. Thread-safe. The reconciler writes them: they are as fresh as its last look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Summary] = {}

    def note(self, name: str, summary: Summary) -> None:
        with self._lock:
            self._known[name] = summary

    def waits(self, name: str, sentence: str) -> None:
        """The Job waits for something that only its Workload shows."""
        with self._lock:
            if (known := self._known.get(name)) is not None:
                self._known[name] = replace(known, sentence=sentence, holder=Holder.KUEUE)

    def forget(self, name: str) -> None:
        with self._lock:
            self._known.pop(name, None)

    def get(self, name: str) -> Summary | None:
        with self._lock:
            return self._known.get(name)

    def all(self) -> dict[str, Summary]:
        with self._lock:
            return dict(self._known)
