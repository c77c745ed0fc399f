"""`dispatcher status`: what queue, cluster and portal have on each model, side by side. Read-only."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher import factories
from dispatcher.cli.explain import ask_portal, summary_of, workloads_of
from dispatcher.cli.queues import other_readers
from dispatcher.cli.support import container_of
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.pods import Pod
from dispatcher.config.settings import Settings
from dispatcher.controller.node_sizes import NodeSizes
from dispatcher.controller.summaries import Summary, explanation
from dispatcher.decisions.readers import perhaps
from dispatcher.decisions.views.phases import nodes_that_run
from dispatcher.launch.request import MalformedRequest, claimed_model, decode
from dispatcher.web.model_rows import portal_row
from dispatcher.web.request_rows import QueueFacts, look_at
from portal_client.model_ids import MODEL_PREFIX, extract_model_id
from portal_client.statuses import ProcessingStatus
from training_common.text import plain

Found = Mapping[str, Any]


def inspect(settings: Settings, model: str | None) -> Found:
    """One model, or every model with a Job or a visible message. model: `model-123` or `123`.

    Raises QueueError, ClusterError, and InvalidContainerName for a name that no model can have.
    """
    wanted = None if model is None else extract_model_id(container_of(model))
    cluster = KubernetesJobs(settings.namespace)
    portal = factories.open_portal(settings)
    pairs = factories.open_queues(settings)
    seen = [look_at(pair) for pair in pairs]

    waiting = _visible(seen, settings)
    selector = names.SELECTOR if wanted is None else f"{names.SELECTOR},{names.MODEL_ID}={wanted}"
    jobs = {job.model_id: job for job in cluster.list_jobs(selector)}
    pods: defaultdict[str | None, list[Pod]] = defaultdict(list)
    for pod in cluster.list_pods(selector):
        pods[pod.owner_uid].append(pod)
    queued, nodes = workloads_of(cluster, settings), NodeSizes(cluster.list_nodes)
    elsewhere = functools.cache(lambda: perhaps(other_readers(pairs, cluster), cluster.namespace))
    ids = sorted({*waiting, *jobs}) if wanted is None else [wanted]
    models: list[dict[str, Any]] = []
    for model_id in ids:
        says, job = ask_portal(model_id, portal), jobs.get(model_id)
        summary = job and summary_of(cluster, job, pods[job.uid], settings, queued, nodes)
        model_name = f"{MODEL_PREFIX}{model_id}"
        about = summary and _job(summary, says.progress, settings)
        lost = job is None and says.status == ProcessingStatus.PROCESSING.title
        models.append(
            {
                "model": model_name,
                "messages": waiting[model_id],
                "job": about,
                "elsewhere": (elsewhere() if lost else "") or None,
                "portal": portal_row(says),
            }
        )
    if wanted is not None:
        # A portal that is out of reach may know the model.
        models = [
            m for m in models if m["job"] or m["messages"] or m["portal"]["status"] or not m["portal"]["answered"]
        ]
    queues = [_queue(facts, None if wanted is None else f"{MODEL_PREFIX}{wanted}") for facts in seen]
    return {"queue": queues[0], "queues": queues, "models": models}


def _queue(facts: QueueFacts, model: str | None) -> dict[str, Any]:
    """With the entries of its poison queue that are about the model, or with all."""
    entries = [entry for entry in facts.poison if model in (None, claimed_model(entry.original))]
    poison = [{"code": entry.code, "sentence": entry.sentence, "at": entry.poisoned_at} for entry in entries]
    return {"name": facts.name, "about": facts.depth, "poison": poison}


def _visible(seen: Sequence[QueueFacts], settings: Settings) -> Counter[str]:
    """The number of messages by model id, among the first 32 visible ones of each queue."""
    counts: Counter[str] = Counter()
    for message in (message for facts in seen for message in facts.waiting):
        with contextlib.suppress(MalformedRequest):
            counts[decode(message.text, factories.bounds_of(settings)).model_id] += 1
    return counts


def _job(summary: Summary, told: str, settings: Settings) -> dict[str, Any]:
    """told: the portal's message of a training that runs."""
    job, pods = summary.job, summary.pods
    code, sentence = explanation(summary, told, time.time(), factories.limits_of(settings))
    return {
        "name": job.name,
        "phase": summary.phase.value,
        "state": code or summary.phase.title(),
        "sentence": sentence,
        "created": job.metadata.creation_timestamp,
        "reported": job.is_reported,
        "nodes": job.nodes,
        "nodes_running": nodes_that_run(pods),
        "pods": [pod.name for pod in pods],
    }


def as_text(found: Found, model: str | None) -> str:
    """For people: the queues, then four lines for each model."""
    lines = []
    for queue in found["queues"]:
        lines.append(
            f"Queue {queue['name']}: about {queue['about']} messages, {len(queue['poison'])} poison entries shown"
        )
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
            f"  cluster: {_job_line(job)}{'; ' if entry['elsewhere'] else ''}{entry['elsewhere'] or ''}",
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
