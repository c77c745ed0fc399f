"""`dispatcher status`: what queue, cluster and portal have on each model, side by side. Read-only."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher import factories
from dispatcher.cli.support import container_of
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.config.settings import Settings
from dispatcher.controller.kueue_workloads import KueueWorkloads
from dispatcher.decisions import outcome
from dispatcher.decisions.outcome import Ended, Stop
from dispatcher.decisions.phases import description, nodes_that_run
from dispatcher.decisions.phases import phase as phase_of
from dispatcher.launch.request import MalformedRequest, decode
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.poison import parse_entry
from portal_client.client import PortalClient
from portal_client.errors import ModelUnknown, PortalError
from portal_client.model_ids import MODEL_PREFIX, extract_model_id
from training_common.text import plain

Found = Mapping[str, Any]


def inspect(settings: Settings, model: str | None) -> Found:
    """One model, or every model with a Job or a visible message. model: `model-123` or `123`.

    Raises QueueError, ClusterError, and InvalidContainerName for a name that no model can have.
    """
    wanted = None if model is None else extract_model_id(container_of(model))
    cluster = KubernetesJobs(settings.namespace)
    portal = factories.open_portal(settings)
    queue = factories.open_queue(settings, settings.queue_name)
    poisoned = factories.open_queue(settings, settings.poison_queue_name)

    waiting = _visible(queue, settings)
    selector = names.SELECTOR if wanted is None else f"{names.SELECTOR},{names.MODEL_ID}={wanted}"
    jobs = {job.model_id: job for job in cluster.list_jobs(selector)}
    pods = list(cluster.list_pods(selector))
    queued = KueueWorkloads(cluster.list_workloads, every=math.inf) if settings.kueue_queue else None
    ids = sorted({*waiting, *jobs}) if wanted is None else [wanted]
    models: list[dict[str, Any]] = [
        {
            "model": f"{MODEL_PREFIX}{model_id}",
            "messages": waiting[model_id],
            "job": _job(jobs[model_id], pods, settings, queued) if model_id in jobs else None,
            "portal": _portal(model_id, portal),
        }
        for model_id in ids
    ]
    if wanted is not None:
        # A portal that is out of reach may know the model.
        models = [
            m for m in models if m["job"] or m["messages"] or m["portal"]["status"] or not m["portal"]["answered"]
        ]
    entries = [parse_entry(message.text) for message in poisoned.peek()]
    poison = [{"code": entry.code, "sentence": entry.sentence, "at": entry.poisoned_at} for entry in entries]
    return {
        "queue": {"name": settings.queue_name, "about": queue.depth(), "poison": poison},
        "models": models,
    }


def _visible(queue: TrainingQueue, settings: Settings) -> Counter[str]:
    """The number of messages by model id, among the first 32 visible ones."""
    counts: Counter[str] = Counter()
    for message in queue.peek():
        with contextlib.suppress(MalformedRequest):
            counts[decode(message.text, factories.bounds_of(settings)).model_id] += 1
    return counts


def _job(job: Job, pods: Sequence[Pod], settings: Settings, queued: KueueWorkloads | None) -> dict[str, Any]:
    own = [pod for pod in pods if pod.owner_uid == job.uid]
    decided = outcome.decide(job, own, (), time.time(), factories.limits_of(settings))
    phase = phase_of(job, own)
    if isinstance(decided, Ended):
        state, sentence = decided.verdict.code, decided.verdict.sentence
    elif isinstance(decided, Stop):
        state, sentence = "Stopping", decided.verdict.sentence
    else:
        place = queued.progress(job) if queued is not None else None
        state, sentence = phase.title(), place or decided.progress or description(phase, job, own)
    return {
        "name": job.name,
        "phase": phase.value,
        "state": state,
        "sentence": sentence,
        "created": job.metadata.creation_timestamp,
        "reported": job.is_reported,
        "nodes": job.nodes,
        "nodes_running": nodes_that_run(own),
        "pods": [pod.name for pod in own],
    }


def _portal(model_id: str, portal: PortalClient | None) -> dict[str, Any]:
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


def as_text(found: Found, model: str | None) -> str:
    """For people: the queues, then four lines for each model."""
    queue = found["queue"]
    lines = [f"Queue {queue['name']}: about {queue['about']} messages, {len(queue['poison'])} poison entries shown"]
    lines += [f"  poison {entry['at']} {entry['code']}: {entry['sentence']}" for entry in queue["poison"]]
    if not found["models"]:
        lines.append(
            f"{model} is unknown to queue, cluster and portal" if model else "No training Jobs, no visible messages"
        )
    for entry in found["models"]:
        job = entry["job"]
        lines += [
            entry["model"],
            f"  portal:  {entry['portal']['status'] or '-'}: {entry['portal']['message'] or '-'}",
            f"  cluster: {_job_line(job)}",
            f"  queue:   {entry['messages'] or 'no'} visible message{'' if entry['messages'] == 1 else 's'}",
        ]
    # Much of it is of other people's making: messages, annotations, entries of the poison queue.
    return "\n".join(plain(line).replace("\n", " ") for line in lines)


def _job_line(job: Mapping[str, Any] | None) -> str:
    if job is None:
        return "no Job"
    reported = "reported" if job["reported"] else "not yet reported"
    where = f" on {job['nodes']} nodes" if job["nodes"] > 1 else ""
    return f"Job {job['name']}{where} since {job['created']}: {job['state']}, {reported}: {job['sentence']}"
