"""`dispatcher explain MODEL`: where one training stands, who holds it, what to do next, and how it came there.

Read-only. Whatever there is of the model is looked at: its Job with pods and Events, its messages, its entries of the
poison queue, and the portal. What none of them shows is said to be not known.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from msgspec.structs import replace

from dispatcher import factories
from dispatcher.cli.queues import other_readers
from dispatcher.cli.support import (
    EXIT_FAILED,
    EXIT_USAGE,
    Environment,
    container_of,
    examples,
    fail,
    outside_calls,
    settings_for_printing,
)
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterError
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import timestamp
from dispatcher.cluster.pods import Pod
from dispatcher.config.settings import Settings
from dispatcher.controller import reconciler
from dispatcher.controller.kueue_workloads import KueueWorkloads
from dispatcher.controller.node_sizes import NodeSizes
from dispatcher.controller.summaries import Summary, standing_of, summarise
from dispatcher.decisions.pauses import pause_of
from dispatcher.decisions.readers import perhaps
from dispatcher.decisions.verdicts import Holder
from dispatcher.decisions.views import without_job
from dispatcher.decisions.views.phases import ENDED
from dispatcher.decisions.views.without_job import NOT_TRACKED, UNKNOWN, PortalWord, Traces, heard
from dispatcher.launch.request import claimed_model
from dispatcher.queue.messages import QueueError
from dispatcher.queue.poison import PoisonEntry
from dispatcher.web.model_rows import message_trace, poison_trace, portal_row, told
from dispatcher.web.request_rows import Row, look_at, message_row, together
from portal_client.client import PortalClient
from portal_client.errors import PortalError
from portal_client.model_ids import InvalidContainerName, extract_model_id
from portal_client.statuses import ProcessingStatus
from training_common.text import plain

Found = dict[str, Any]


def summary_of(
    cluster: KubernetesJobs,
    job: Job,
    pods: Sequence[Pod],
    settings: Settings,
    queued: KueueWorkloads | None,
    nodes: NodeSizes,
) -> Summary:
    """What the page's row is made from, as fresh as the API server has it. Raises ClusterError."""
    summary = summarise(job, pods)
    if summary.phase in ENDED:
        return summary
    limits = factories.limits_of(settings)
    summary = summary.after(reconciler.decide(cluster, job, pods, time.time(), limits, nodes=nodes))
    place = queued.progress(job) if queued is not None else None
    return replace(summary, sentence=place, holder=Holder.KUEUE) if place else summary


def workloads_of(cluster: KubernetesJobs, settings: Settings) -> KueueWorkloads | None:
    """Kueue's, listed once, where it is used."""
    return KueueWorkloads(cluster.list_workloads, every=math.inf) if settings.kueue_queue else None


def ask_portal(model_id: str, portal: PortalClient | None) -> PortalWord:
    """Asked once."""
    if portal is None:
        return NOT_TRACKED
    try:
        return heard(portal.get_model_status(model_id))
    except PortalError as error:
        return heard(error)


def inspect(settings: Settings, name: str) -> Found:
    """All that is known of the container `name`. Raises ClusterError, and QueueError where it has no Job."""
    model_id = extract_model_id(name)
    cluster = KubernetesJobs(settings.namespace)
    job = cluster.get_job(name)
    portal = ask_portal(model_id, factories.open_portal(settings))
    try:
        queued = _on_the_queues(settings, name)
    except QueueError as error:
        if job is None or not job.is_managed:
            raise
        queued = _Queued(problem=str(error))  # a Job is understood without them
    found: Found = {
        "model": name,
        "portal": portal_row(portal),
        "messages": queued.rows,
        "poison": [
            {"message_id": e.message_id, "code": e.code, "sentence": e.sentence, "at": e.poisoned_at, "queue": e.queue}
            for e in queued.entries
        ],
        "queue_problem": queued.problem,
        "queues": list(settings.queues),
        "queue": next((row["queue"] for row in queued.rows), next((e.queue for e in queued.entries), None)),
    }
    if job is not None and job.is_managed:
        pods = [pod for pod in cluster.list_pods(f"{names.POD_OF}={job.uid}") if pod.owner_uid == job.uid]
        events = [event for pod in pods for event in cluster.list_events(pod.uid)]
        queued_by = workloads_of(cluster, settings)
        summary = summary_of(cluster, job, pods, settings, queued_by, NodeSizes(cluster.list_nodes))
        stands = standing_of(summary, portal.progress, time.time(), factories.limits_of(settings))
        found["queue"] = job.labels.queue or settings.queues[0]
        return found | told(stands, summary, events)
    elsewhere = ""
    if portal.status == ProcessingStatus.PROCESSING.title:
        elsewhere = perhaps(other_readers(factories.open_queues(settings), cluster), cluster.namespace)
    traces = Traces(
        name,
        cluster.namespace,
        portal,
        message_trace(queued.rows),
        poison_trace(queued.entries),
        _paused(cluster, (queued.rows[0]["queue"] or "") if queued.rows else ""),
        queued.hidden,
        foreign=job is not None,
        elsewhere=elsewhere,
    )
    return found | told(without_job.standing(traces))


@dataclass(frozen=True)
class _Queued:
    """What the queues show of one model. hidden: how many messages, whose ever, cannot be seen."""

    rows: Sequence[Row] = ()
    entries: Sequence[PoisonEntry] = ()
    hidden: int = 0
    problem: str = ""


def _on_the_queues(settings: Settings, name: str) -> _Queued:
    """Raises QueueError."""
    queues = together([look_at(pair) for pair in factories.open_queues(settings)])
    rows = [message_row(m, factories.bounds_of(settings)) for m in queues.waiting if claimed_model(m.text) == name]
    entries = [entry for entry in queues.poison if claimed_model(entry.original) == name]
    return _Queued(rows, entries, max(0, (queues.depth or 0) - len(queues.waiting)))


def _paused(cluster: KubernetesJobs, queue: str) -> str:
    try:
        data = cluster.get_config_map(names.PAUSE)
    except ClusterError:  # who may not read it sees the rest
        return ""
    pause = pause_of(data) or (pause_of(data, queue) if queue else None)
    return pause.sentence if pause else ""


def span(seconds: float) -> str:
    """`3 s`, `4 min 10 s`, `1 h 02 min`, `2 d 3 h`."""
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def as_text(found: Found, now: float) -> str:
    """For people. now: epoch seconds."""
    stands = found["standing"]
    code = f" ({stands['code']})" if stands["code"] else ""
    lines = [f"{found['model']}: {stands['phase']}{code}: {stands['sentence']}"]
    if stands["holder"]:
        lines.append(f"  held by:   {stands['holder']}")
    lines.append(f"  since:     {_since(stands['since'], now)}")
    if stands["until"]:
        left = _epoch(stands["until"]) - now
        when = f"for {span(left)} more" if left > 0 else "no longer: it is about to be stopped"
        lines.append(f"  tolerated: until about {stands['until']} ({when}); then Failed with {stands['then']}")
    if found["queue"] and len(found["queues"]) > 1:
        lines.append(f"  queue:     {found['queue']}")
    portal = found["portal"]
    lines.append(f"  portal:    {portal['status'] or '-'}: {portal['message'] or '-'}")
    if found["queue_problem"]:
        lines.append(f"  queues:    not known: {found['queue_problem']}")
    lines.append(f"  next:      {stands['advice']}")
    lines += [
        f"  poison:    {e['at']} {e['code']}: {e['sentence']}" for e in found["poison"] if e["code"] != stands["code"]
    ]
    if found["steps"]:
        lines += ["", "Timeline (UTC)"]
    attempt = None
    for step in found["steps"]:
        if step["attempt"] != attempt and step["attempt"] is not None:
            lines.append(f"  attempt {step['attempt']}")
        attempt = step["attempt"]
        lines.append(_line(step, now))
    if found["gpu_seconds"]:
        used = found["gpu_seconds"]
        lines.append(f"GPU seconds: {used['last']:.0f} by the last attempt, {used['retries']:.0f} by those before it")
    # Much of it is of other people's making: messages, annotations, entries of the poison queue.
    return "\n".join(plain(line).replace("\n", " ") for line in lines)


def _line(step: Found, now: float) -> str:
    if step["seconds"] is not None:
        took = span(step["seconds"])
    elif step["lasts"] and step["began"]:
        took = f"{span(now - _epoch(step['began']))} so far"
    else:
        took = "time not known"
    inside = step["attempt"] is not None
    where = f" [node {step['node_index'] + 1}]" if step["node_index"] is not None else ""
    on = f" on {step['node']}" if step["node"] and step["name"] == "run" else ""
    note = f"; {step['note']}" if step["note"] else ""
    began = (step["began"] or "")[:19].replace("T", " ")
    return f"  {began:19}  {'  ' if inside else ''}{step['title']}{where}{on}: {took}{note}"


def _since(text: str | None, now: float) -> str:
    seconds = None if text is None else _epoch(text)
    return "not known" if seconds is None or math.isnan(seconds) else f"{text} ({span(now - seconds)} ago)"


def _epoch(text: str) -> float:
    seconds = timestamp(text)
    return math.nan if seconds is None else seconds


@click.command(epilog=examples("dispatcher explain model-123", "dispatcher explain 123 --json"))
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def explain(environ: Environment, model: str, as_json: bool) -> None:
    """Say where the training of MODEL stands, who holds it, until when, what to do next, and how it came there."""
    settings = settings_for_printing(environ)
    try:
        name = container_of(model)
    except InvalidContainerName as error:
        fail(EXIT_USAGE, str(error))
    with outside_calls():
        found = inspect(settings, name)
    click.echo(json.dumps(found, indent=2) if as_json else as_text(found, time.time()))
    if found["standing"]["phase"] == UNKNOWN:
        sys.exit(EXIT_FAILED)
