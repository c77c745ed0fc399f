"""`dispatcher check --in-pod MODEL`: one pod as a training would have it, which reads everything and trains nothing.

It shows what only a pod can: whether the image can be pulled, the pod is admitted and scheduled, its Secrets exist, its
identity can read storage, and configuration and dataset are valid. The Job has no finalizer and is not managed by the
dispatcher; the model's status does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dispatcher import factories
from dispatcher.cli.check import CheckResult
from dispatcher.cluster import names, objects
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ObjectConflict, ObjectNotFound
from dispatcher.config.settings import Settings
from dispatcher.controller.reconciler import decide
from dispatcher.decisions.outcome import Ended, Going, Stop
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.request import TrainingRequest

# The name of its line.
NAME = "in a pod"
_LOOK_EVERY = 1.0  # seconds


def check_in_pod(
    settings: Settings, request: TrainingRequest, seconds: float, show: Callable[[str], None]
) -> CheckResult:
    """Run the Job, wait for its end, delete it. show: gets what it waits for. Raises ClusterError, ValueError."""
    cluster = KubernetesJobs(settings.namespace)
    job = cluster.create_job(check_job(settings, request, seconds))
    name, shown = objects.name_of(job), ""
    show(f"Job {name} is created")
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            live = cluster.get_job(name)
            if live is None:
                return CheckResult(NAME, "failed", f"the Job {name} was deleted before it ended")
            pods = cluster.list_pods(f"{names.POD_OF}={objects.uid_of(job)}").items
            match decide(cluster, live, pods, time.time(), factories.limits_of(settings)):
                case Ended(completed=True):
                    nodes = ", ".join(sorted({(pod.get("spec") or {}).get("nodeName") or "?" for pod in pods}))
                    return CheckResult(
                        NAME,
                        "ok",
                        f"image, Secrets, storage, configuration and dataset of {request.model_container} are fine "
                        f"(node {nodes or 'not known'})",
                    )
                case Ended(verdict=verdict) | Stop(verdict=verdict):
                    return CheckResult(NAME, "failed", f"{verdict.code}: {verdict.sentence}")
                case Going(progress=progress):
                    if progress and progress != shown:
                        shown = progress
                        show(progress)
            time.sleep(_LOOK_EVERY)
        return CheckResult(NAME, "failed", f"it did not end in time; at last: {shown or 'it was running'}")
    finally:
        # A crash here: the Job ends by its deadline, and Kubernetes removes it.
        try:
            cluster.delete_job(name, objects.uid_of(job))
        except (ObjectNotFound, ObjectConflict):
            show(f"Job {name} is gone already")


def check_job(settings: Settings, request: TrainingRequest, seconds: float) -> dict[str, Any]:
    """The Job of a training of this request, without what makes it the dispatcher's. Raises ValueError."""
    job = build_job(
        factories.read_template(settings),
        request,
        message_id="check",
        queued_at=time.time(),
        defaults=factories.defaults_of(settings),
    )
    metadata, spec = job["metadata"], job["spec"]
    metadata["generateName"] = "training-check-"
    for key in ("name", "finalizers", "annotations"):
        metadata.pop(key)
    # The pod keeps MANAGED_BY: network policies select trainings by it.
    for labels in (metadata["labels"], spec["template"]["metadata"]["labels"]):
        del labels[names.MODEL_ID]
    del metadata["labels"][names.MANAGED_BY]
    spec["backoffLimit"] = 0
    spec["activeDeadlineSeconds"] = spec["ttlSecondsAfterFinished"] = int(seconds)
    spec["suspend"] = bool(settings.kueue_queue)
    if settings.kueue_queue:
        metadata["labels"][names.KUEUE_QUEUE_LABEL] = settings.kueue_queue
    trainer = next(c for c in spec["template"]["spec"]["containers"] if c["name"] == names.TRAINER_CONTAINER)
    trainer["args"] = ["validate"]
    return job
