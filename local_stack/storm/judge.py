"""Was every request treated right? What portal, queues and cluster hold at the end, against the plan. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from local_stack.portal.client import Model
from local_stack.portal.history import Entry
from local_stack.storm.plan import Ending, Request
from local_stack.storm.record import SeenJob

LOST, DOUBLED, WRONG = "lost", "doubled", "wrong"
_TERMINAL = ("Completed", "Failed")
_QUOTED = "Kubernetes failed the training job"


@dataclass
class Evidence:
    """What there is in the end.

    jobs: every one that ever was, by uid. started: uids of those that had a pod → model id. disrupted: ids of models
    that lost a pod to the cluster, ended or not. poison: the entries' JSON. on_queue: number of messages left.
    """

    models: Mapping[str, Model]
    jobs: Mapping[str, SeenJob]
    started: Mapping[str, str]
    disrupted: set[str]
    poison: Sequence[Mapping[str, Any]]
    on_queue: int


@dataclass(frozen=True)
class Finding:
    """kind: lost, doubled or wrong. request: None where it belongs to none."""

    kind: str
    request: Request | None
    sentence: str


@dataclass
class Verdicts:
    """outcomes: of the reported Jobs, by code. repaired: terminal statuses that a late Processing covered for a while.

    repeated: poison entries that were written a second time (a crash between that and the deletion).
    """

    findings: list[Finding] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    repeated: int = 0

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)


def judge(requests: Sequence[Request], seen: Evidence) -> Verdicts:
    """Every deviation from the plan, each as a sentence."""
    verdicts = Verdicts()
    jobs_of: dict[str, list[SeenJob]] = defaultdict(list)
    for job in seen.jobs.values():
        jobs_of[job.name.removeprefix("model-")].append(job)
        if job.reported is not None:
            verdicts.outcomes[str(job.reported.get("code"))] += 1
    entries: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in seen.poison:
        entries[str(entry.get("message_id"))].append(entry)
    for request in requests:
        found = [*_poison(request, entries, verdicts)]
        if request.model_id:
            found += _portal(request, seen, jobs_of[request.model_id], verdicts)
            found += _cluster(request, jobs_of[request.model_id], seen.started)
        verdicts.findings += [Finding(kind, request, sentence) for kind, sentence in found]
    known = {message for request in requests for message in request.ids}
    for strange in set(entries) - known:
        verdicts.findings.append(Finding(WRONG, None, f"The poison queue has a message {strange} that nobody sent"))
    if seen.on_queue:
        verdicts.findings.append(Finding(LOST, None, f"{seen.on_queue} messages are left on the queue"))
    return verdicts


def _poison(
    request: Request, entries: Mapping[str, Sequence[Mapping[str, Any]]], verdicts: Verdicts
) -> list[tuple[str, str]]:
    found = []
    for message in request.ids:
        there = entries.get(message, ())
        codes = {str(entry.get("code")) for entry in there}
        verdicts.repeated += max(0, len(there) - 1)
        # One that the portal shows as Failed may be missing: a crash came between that and its entry.
        if request.kind.poison and not there and not request.kind.ending:
            found.append(
                (LOST, f"message {message} should be on the poison queue as {request.kind.poison}, and is not")
            )
        elif codes - {request.kind.poison}:
            right = f"only {request.kind.poison} would be right" if request.kind.poison else "it is a good message"
            found.append((WRONG, f"message {message} is on the poison queue as {', '.join(sorted(codes))}; {right}"))
    return found


def _portal(request: Request, seen: Evidence, jobs: Sequence[SeenJob], verdicts: Verdicts) -> list[tuple[str, str]]:
    model = seen.models.get(request.model_id)
    if request.kind.initial is None:
        return [] if model is None else [(WRONG, "the portal has a model that it did not know")]
    if model is None:
        return [(LOST, "the portal has no such model")]
    if not request.kind.is_told:
        touched = [entry for entry in model.history if entry.by == "api"]
        return [(WRONG, "its status forbids a training, and yet one was reported")] if touched else []
    found = [*_overwritten(model.history, verdicts)]
    right = [ending for ending in (request.kind.ending,) if ending]
    if request.model_id in seen.disrupted:
        right += [ending for ending in (request.kind.disrupted,) if ending]
        # A node that is removed takes its ended pods along: only the Job's condition is left to quote.
        right += [Ending(ending.status, _QUOTED) for ending in right if ending.status == "Failed"]
    # A portal that denies every word gets the code alone.
    codes = {str(job.reported.get("code")) for job in jobs if job.reported} | ({request.kind.poison} - {""})
    right += [Ending(ending.status, f"(?:{'|'.join(codes)})$") for ending in right if codes]
    if model.status not in _TERMINAL:
        found.append((LOST, f"its status stays {model.status} ({model.message!r})"))
    elif not any(_is(ending, model) for ending in right):
        wanted = " or ".join(f"{ending.status} ({ending.sentence})" for ending in right)
        found.append((WRONG, f"its status is {model.status} ({model.message!r}); {wanted} would be right"))
    return found


def _is(ending: Ending, model: Model) -> bool:
    return model.status == ending.status and re.match(f"(?:{ending.sentence})", model.message) is not None


def _overwritten(history: Sequence[Entry], verdicts: Verdicts) -> list[tuple[str, str]]:
    """A terminal status stays until somebody sets Reconfigure at the portal."""
    found = []
    terminal: Entry | None = None
    covered = False
    for entry in history:
        if entry.by != "api":
            terminal, covered = None, False
        elif terminal is None:
            terminal = entry if entry.status in _TERMINAL else None
        elif entry.status == terminal.status:
            verdicts.repaired += covered
            covered = False
        elif entry.status in _TERMINAL:
            found.append((WRONG, f"{terminal.status} was overwritten by {entry.status} ({entry.message!r})"))
            terminal, covered = entry, False
        else:
            covered = True
    if covered and terminal is not None:
        found.append((WRONG, f"{terminal.status} was overwritten by {history[-1].status} for good"))
    return found


def _cluster(request: Request, jobs: Sequence[SeenJob], started: Mapping[str, str]) -> list[tuple[str, str]]:
    found = []
    runs: Counter[str] = Counter(job.message_id for job in jobs if job.uid in started)
    # A Job that came and went between two lists: its pod was seen, its message was not.
    unseen = {uid for uid, model_id in started.items() if model_id == request.model_id} - {job.uid for job in jobs}
    trained = len(runs) + len(unseen)
    for message, count in runs.items():
        if count > 1:
            found.append((DOUBLED, f"message {message} was trained {count} times"))
        if message not in request.ids:
            found.append((WRONG, f"it was trained for a message {message} that is not its own"))
    if trained > request.kind.runs:
        found.append((DOUBLED, f"{trained} of its messages were trained; {request.kind.runs} would be right"))
    elif trained < request.kind.runs:
        found.append((LOST, f"{trained} of its messages were trained; {request.kind.runs} would be right"))
    for job in jobs:
        if job.finalizer and not job.gone:
            found.append((LOST, f"its Job {job.name} ({job.uid}) still has our finalizer"))
        elif job.launched and job.reported is None and not job.deleting:
            found.append((LOST, f"its Job {job.name} ({job.uid}) was never marked as reported"))
    return found
