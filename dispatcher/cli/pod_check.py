"""`dispatcher check --in-pod MODEL`: one pod as a training would have it, which reads everything and trains nothing.

It shows what only a pod can: whether the image can be pulled, the pod is admitted and scheduled, its Secrets exist, its
identity can read storage, and configuration and dataset are valid. The Job has no finalizer and is not managed by the
dispatcher; the model's status does not matter.

It goes with its caller: deleted at its end, however that comes. While the caller lives the Job's deadline is put off
again and again, so that one that was killed leaves it for a minute and a half at most.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dispatcher import factories
from dispatcher.cli.check import CheckResult
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterError, ClusterUnavailable, ObjectConflict, ObjectNotFound
from dispatcher.cluster.jobs import Job
from dispatcher.config.settings import Settings
from dispatcher.controller.reconciler import decide
from dispatcher.decisions.outcome import Ended, Going, Stop
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.request import TrainingRequest

# The name of its line.
NAME = "in a pod"
_LOOK_EVERY = 1.0  # seconds
# Seconds that the Job may run on without word of its caller, and after which its deadline is put off.
_LEASE, _RENEW = 90, 30.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_in_pod(
    settings: Settings, request: TrainingRequest, seconds: float, show: Callable[[str], None]
) -> CheckResult:
    """Run the Job, wait for its end, delete it. show: gets what it waits for. Raises ClusterError, ValueError."""
    cluster = KubernetesJobs(settings.namespace)
    wanted = check_job(settings, request)
    name, shown = wanted["metadata"]["name"], ""
    until = time.monotonic() + seconds
    lease, exists = _Lease(cluster), True
    try:
        try:
            job = cluster.create_job(wanted)
        except ClusterError as error:
            exists = isinstance(error, ClusterUnavailable) and error.ambiguous
            raise
        show(f"Job {name} is created")
        while time.monotonic() < until:
            live = cluster.get_job(name)
            if live is None:
                return CheckResult(NAME, "failed", f"the Job {name} was deleted before it ended")
            lease.renew(live)
            pods = list(cluster.list_pods(f"{names.POD_OF}={job.uid}"))
            match decide(cluster, live, pods, time.time(), factories.limits_of(settings)):
                case Ended(completed=True):
                    nodes = ", ".join(sorted({pod.node or "?" for pod in pods}))
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
        with _uninterrupted():
            if exists:
                _remove(cluster, name, show)


class _Lease:
    """The Job's deadline, which counts from its start: put off while somebody waits for it."""

    def __init__(self, cluster: KubernetesJobs) -> None:
        self._cluster = cluster
        self._started: float | None = None  # when it was first seen to have started, by our own clock
        self._renewed = 0.0

    def renew(self, live: Job) -> None:
        """A failure is left to the next time."""
        now = time.monotonic()
        if self._started is None and live.status.start_time:
            self._started = self._renewed = now
        if self._started is None or live.is_finished or now - self._renewed < _RENEW:
            return
        deadline = int(now - self._started) + _LEASE
        patch = {"metadata": {"uid": live.uid}, "spec": {"activeDeadlineSeconds": deadline}}
        with suppress(ClusterError):
            self._cluster.patch_job(live.name, patch)
            self._renewed = now


def _remove(cluster: KubernetesJobs, name: str, show: Callable[[str], None]) -> None:
    """Delete the Job, also where its creation was not heard to have succeeded."""
    try:
        job = cluster.get_job(name)
        if job is None:
            show(f"Job {name} is gone already")
        else:
            cluster.delete_job(name, job.uid)
    except (ObjectNotFound, ObjectConflict):
        show(f"Job {name} is gone already")
    except ClusterError as error:
        show(f"Job {name} is not deleted: {error}. It ends within {_LEASE} seconds, and Kubernetes removes it then")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C waits until this is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_job(settings: Settings, request: TrainingRequest) -> dict[str, Any]:
    """The Job of a training of this request, without what makes it the dispatcher's. Raises ValueError."""
    job = build_job(
        factories.read_template(settings),
        request,
        message_id="check",
        queued_at=time.time(),
        defaults=factories.defaults_of(settings),
    )
    metadata, spec = job["metadata"], job["spec"]
    # Known before it exists, so that it can be removed even if nobody hears of its creation.
    metadata["name"] = f"training-check-{secrets.token_hex(4)}"
    for key in ("finalizers", "annotations"):
        metadata.pop(key)
    # The pod keeps MANAGED_BY: network policies select trainings by it.
    for labels in (metadata["labels"], spec["template"]["metadata"]["labels"]):
        del labels[names.MODEL_ID]
    del metadata["labels"][names.MANAGED_BY]
    spec["backoffLimit"] = 0
    spec["activeDeadlineSeconds"] = spec["ttlSecondsAfterFinished"] = _LEASE
    spec["suspend"] = bool(settings.kueue_queue)
    if settings.kueue_queue:
        metadata["labels"][names.KUEUE_QUEUE_LABEL] = settings.kueue_queue
    trainer = next(c for c in spec["template"]["spec"]["containers"] if c["name"] == names.TRAINER_CONTAINER)
    trainer["args"] = ["validate"]
    return job
