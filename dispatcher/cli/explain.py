"""`dispatcher explain MODEL`: where one training stands, who holds it, what to do next, and how it came there.

Read-only. Whatever there is of the model is looked at: its Job with pods and Events, its messages, its entries of the
poison queue, and the portal. What none of them shows is said to be not known.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click
from msgspec.structs import replace

from dispatcher import factories
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
from dispatcher.controller.summaries import Summary, standing_of, summarise
from dispatcher.decisions import timeline
from dispatcher.decisions.pauses import pause_of
from dispatcher.decisions.phases import ENDED
from dispatcher.decisions.waiting import Holder
from dispatcher.launch.request import claimed_model
from dispatcher.queue.poison import parse_entry
from dispatcher.web.request_rows import message_row
from dispatcher.web.status_rows import step_row
from portal_client.client import PortalClient
from portal_client.errors import ModelUnknown, PortalError
from portal_client.messages import AGAIN
from portal_client.model_ids import InvalidContainerName, extract_model_id
from portal_client.statuses import ProcessingStatus
from training_common.text import plain
from training_common.times import rfc3339

Found = dict[str, Any]


def summary_of(
    cluster: KubernetesJobs, job: Job, pods: Sequence[Pod], settings: Settings, queued: KueueWorkloads | None
) -> Summary:
    """What the page's row is made from, as fresh as the API server has it. Raises ClusterError."""
    summary = summarise(job, pods)
    if summary.phase in ENDED:
        return summary
    summary = summary.after(reconciler.decide(cluster, job, pods, time.time(), factories.limits_of(settings)))
    place = queued.progress(job) if queued is not None else None
    return replace(summary, sentence=place, holder=Holder.KUEUE) if place else summary


def workloads_of(cluster: KubernetesJobs, settings: Settings) -> KueueWorkloads | None:
    """Kueue's, listed once, where it is used."""
    return KueueWorkloads(cluster.list_workloads, every=math.inf) if settings.kueue_queue else None


def ask_portal(model_id: str, portal: PortalClient | None) -> dict[str, Any]:
    """answered: whether the portal answered for this model, even if only that it has none of that name."""
    if portal is None:
        return {"status": "", "message": "not asked: STATUS_TRACKING=off", "answered": True}
    try:
        answer = portal.get_model_status(model_id)
    except ModelUnknown:
        return {"status": "", "message": "the portal has no such model", "answered": True}
    except PortalError as error:
        return {"status": "", "message": str(error), "answered": False}
    return {"status": answer.status.title, "message": answer.message, "answered": True}


def told(portal: Mapping[str, Any]) -> str:
    """The message of a training that runs; that of an earlier status says nothing of it."""
    return str(portal["message"]) if portal["status"] == ProcessingStatus.PROCESSING.title else ""


def inspect(settings: Settings, name: str) -> Found:
    """All that is known of the container `name`. Raises QueueError and ClusterError."""
    model_id = extract_model_id(name)
    cluster = KubernetesJobs(settings.namespace)
    job = cluster.get_job(name)
    portal = ask_portal(model_id, factories.open_portal(settings))
    queue, poisoned = (factories.open_queue(settings, q) for q in (settings.queue_name, settings.poison_queue_name))
    visible = queue.peek()
    rows = [message_row(m, factories.bounds_of(settings)) for m in visible if claimed_model(m.text) == name]
    entries = [entry for m in poisoned.peek() if claimed_model((entry := parse_entry(m.text)).original) == name]
    found: Found = {"model": name, "portal": portal, "messages": rows, "steps": [], "gpu_seconds": None}
    found["message_id"] = None  # of the training that is told
    found["poison"] = [
        {"message_id": e.message_id, "code": e.code, "sentence": e.sentence, "at": e.poisoned_at} for e in entries
    ]
    if job is not None and job.is_managed:
        pods = [pod for pod in cluster.list_pods(f"{names.POD_OF}={job.uid}") if pod.owner_uid == job.uid]
        events = [event for pod in pods for event in cluster.list_events(pod.uid)]
        summary = summary_of(cluster, job, pods, settings, workloads_of(cluster, settings))
        stands = standing_of(summary, told(portal), time.time(), factories.limits_of(settings))
        found["standing"] = {**asdict(stands), "since": _when(stands.since), "until": _when(stands.until)}
        found["message_id"] = job.annotations.message_id
        found["steps"] = [step_row(step, job) for step in timeline.steps(job, pods, events)]
        if job.is_finished and job.gpus and pods:
            found["gpu_seconds"] = asdict(timeline.gpu_seconds(job, pods))
        return found
    depth = queue.depth()
    with contextlib.suppress(ClusterError):  # who may not read it sees the rest
        found["paused"] = (paused := pause_of(cluster.get_config_map(names.PAUSE) or {})) and paused.sentence
    found["standing"] = _without_job(found, job, cluster.namespace, max(0, depth - len(visible)), depth > len(visible))
    return found


def _without_job(found: Found, job: Job | None, namespace: str, hidden: int, unseen: bool) -> Found:
    portal, name = found["portal"], found["model"]
    status = portal["status"]

    def says(phase: str, sentence: str, advice: str, **more: Any) -> Found:
        known = {"code": None, "holder": None, "since": None, "until": None, "then": None}
        return {"phase": phase, "sentence": sentence, "advice": advice, **known, **more}

    if job is not None:
        sentence = f"A Job {name} in namespace {namespace} has the name, and no dispatcher has made it"
        return says(
            "foreign", sentence, f"Look whose it is: `kubectl -n {namespace} describe job {name}`; then remove it"
        )
    if found["messages"]:
        row = found["messages"][0]
        since = {"since": row["since"], "code": row["code"], "holder": str(Holder.DISPATCHER)}
        if status and status not in _MAY_START:
            sentence = f"{row['sentence']}; it will be rejected then: the model is {status} at the portal"
            return says("on the queue", sentence, f"{AGAIN}, unless its training is wanted as it ended", **since)
        if found.get("paused"):
            since["holder"] = str(Holder.PERSON)
            sentence = f"{row['sentence']}: the intake is {found['paused']}"
            return says("on the queue", sentence, "`dispatcher resume`, once what it was paused for is done", **since)
        if not portal["answered"]:
            since["holder"] = str(Holder.PORTAL)
            sentence = f"{row['sentence']}: requests wait while the portal is out of reach: {portal['message']}"
            return says("on the queue", sentence, "`dispatcher check` says what is wrong with the portal", **since)
        advice = (
            "Wait. If it stays: /readyz and `dispatcher check` say why no request is taken (MAX_ACTIVE_JOBS, an outage)"
        )
        return says("on the queue", row["sentence"], advice, **since)
    if found["poison"] and status not in ("Processing", "Completed"):
        entry = found["poison"][-1]
        advice = f"Mend what it names, then `dispatcher poison requeue {entry['message_id']}`, or send a new request"
        return says("refused", entry["sentence"], advice, code=entry["code"], since=entry["at"])
    if not portal["answered"]:
        return says("not known", f"There is no Job and no visible message, and the portal is out of reach: "
                    f"{portal['message']}", "`dispatcher check` says what is wrong with the portal")  # fmt: skip
    if status in ("Completed", "Failed"):
        sentence = (
            f"{status} at the portal: {portal['message'] or 'no message'}. Its Job is gone (TTL_AFTER_REPORT_SECONDS)"
        )
        advice = "Nothing: the model is published" if status == "Completed" else AGAIN
        return says(status.lower(), f"{sentence}, and with it the times of its training", advice)
    if status == "Processing":
        sentence = (
            f"Processing at the portal, and no Job in namespace {namespace}: perhaps another dispatcher's, of another"
        )
        advice = (
            "Look in all namespaces before it is trained twice: `kubectl get jobs -A -l training-dispatcher/model-id"
        )
        sentence += " namespace or cluster, or its Job was removed by hand"
        return says(
            "elsewhere", sentence, f"{advice}={extract_model_id(name)}`. Only where there is none: {_low(AGAIN)}"
        )
    if status:
        where = " of those that can be seen" if unseen else ""
        sentence = f"{status} at the portal, without a Job, and no message{where} is for it"
        if hidden:
            sentence += (
                f"; about {hidden} cannot be seen: they are being received, wait to be tried again, or lie behind"
            )
        return says("not requested", sentence, f"Look again in a minute, then send it: `dispatcher submit {name}`")
    sentence = f"Neither portal, queue nor cluster (namespace {namespace}) know {name}"
    return says(
        "unknown", f"{sentence}: {portal['message']}", "Look at the name: `dispatcher list` has those that are known"
    )


_MAY_START = tuple(status.title for status in ProcessingStatus if status.may_start)


def _low(text: str) -> str:
    return text[:1].lower() + text[1:]


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


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
    portal = found["portal"]
    lines.append(f"  portal:    {portal['status'] or '-'}: {portal['message'] or '-'}")
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
    if found["standing"]["phase"] == "unknown":
        sys.exit(EXIT_FAILED)
