"""`dispatcher check --in-pod MODEL`: one pod as a training would have it, which reads everything and trains nothing.

It shows what only a pod can: whether the image can be pulled, the pod is admitted and scheduled, its credentials can
read storage, configuration and dataset are valid; what a second pod reaches, and does not reach, in the network; and,
with MAX_NODES, whether two pods of one Job reach each other.
The Job has no finalizer and is not managed by the dispatcher; the model's status does not matter. With scoped
credentials it has a Secret as a training's, but one that can only read.

It goes with its caller: deleted at its end, however that comes. While the caller lives the Job's deadline is put off
again and again, so that one that was killed leaves it for a minute and a half at most.
"""

from __future__ import annotations

import json
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dispatcher import factories
from dispatcher.cli.checks import meet, reach
from dispatcher.cli.checks.results import CheckResult
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterError, ClusterUnavailable, ObjectConflict, ObjectNotFound
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.config.settings import Settings
from dispatcher.controller.reconciler import decide
from dispatcher.decisions.verdicts import Ended, Going, Stop
from dispatcher.launch.credentials import secret_of
from dispatcher.launch.gpus import trainer_of
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.request import TrainingRequest
from dispatcher.launch.teams import network_policy_of
from dispatcher.relay.listener import tokens_of

# The names of the lines.
NAME, NETWORK, TEAM = "in a pod", "network of a pod", "network of several nodes"
_LOOK_EVERY = 1.0  # seconds
# Seconds that the Job may run on without word of its caller, and after which its deadline is put off.
_LEASE, _RENEW = 90, 30.0
# Seconds for which its signatures are good: it reads, and then it ends.
_SIGNED = 3600.0
_POLICY = "manifests/components/network-policy"
# What a training has no business with, as `reach` is told: name → [host, port].
FORBIDDEN: Mapping[str, tuple[str, int | str]] = {
    "the cloud's metadata service": ("169.254.169.254", 80),
    "the API server": ("$KUBERNETES_SERVICE_HOST", "$KUBERNETES_SERVICE_PORT"),
    "the kubelet of its node": ("$HOST_IP", 10250),
}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_in_pod(
    settings: Settings, request: TrainingRequest, seconds: float, show: Callable[[str], None]
) -> CheckResult:
    """Run the Job, wait for its end, delete it. show: gets what it waits for. Raises ClusterError, ValueError."""
    try:
        pods = _run(settings, request, check_job(settings, request), seconds, show)
    except _Failed as found:
        return CheckResult(NAME, "failed", str(found))
    nodes = ", ".join(sorted({pod.node or "?" for pod in pods}))
    return CheckResult(
        NAME,
        "ok",
        f"image, Secrets, storage, configuration and dataset of {request.model_container} are fine "
        f"(node {nodes or 'not known'})",
    )


def check_network(
    settings: Settings, request: TrainingRequest, seconds: float, show: Callable[[str], None]
) -> CheckResult:
    """What a training's pod reaches, and what it must not reach. Raises ClusterError, ValueError."""
    needed = _needed(settings)
    try:
        pods = _run(settings, request, network_job(settings, request), seconds, show)
        found = json.loads(next((pod.trainer_end.message for pod in pods), ""))
    except (_Failed, ValueError) as error:
        why = f": {error}" if isinstance(error, _Failed) else ""
        return CheckResult(NETWORK, "warning", f"not known, the image may have no python3{why}")
    if missed := [f"{name} ({host}:{port})" for name, (host, port) in needed.items() if not found.get(name)]:
        return CheckResult(NETWORK, "failed", f"a training does not reach {', '.join(missed)}: {_POLICY} lets it")
    if had := [name for name in (*FORBIDDEN, "token") if found.get(name)]:
        words = ", ".join("a token of the cluster" if name == "token" else name for name in had)
        closes = f"{_POLICY} closes that, if the network plug-in enforces it"
        return CheckResult(NETWORK, "warning", f"a training reaches {words}: {closes}")
    tried = ", ".join(name for name in FORBIDDEN if name in found)
    return CheckResult(NETWORK, "ok", f"a training reaches {', '.join(needed) or 'what it needs'}, and not {tried}")


def check_team(
    settings: Settings, request: TrainingRequest, seconds: float, show: Callable[[str], None]
) -> CheckResult:
    """Whether two pods of one training find and reach each other. Raises ClusterError, ValueError."""
    try:
        pods = _run(settings, request, team_job(settings, request, seconds / 2), seconds, show)
    except _Failed as error:
        return CheckResult(TEAM, "failed", str(error))
    if why := next((pod.trainer_end.message for pod in pods if pod.trainer_end.message), ""):
        known = "the headless Service that the template's subdomain names, model-training of manifests/base, gives it"
        hint = known if "is not known" in why else f"{_POLICY} and manifests/components/teams let them"
        return CheckResult(TEAM, "failed", f"pods of one training do not reach each other, {why}: {hint}")
    nodes = ", ".join(sorted({pod.node or "?" for pod in pods}))
    return CheckResult(TEAM, "ok", f"two pods of one training find and reach each other (node {nodes or 'not known'})")


def _needed(settings: Settings) -> dict[str, tuple[str, int]]:
    """What a training has to reach: name → (host, port)."""
    urls = {"the relay": settings.relay_url if settings.scoped else ""}
    if settings.scoped:
        urls["storage"] = factories.open_signatures(settings).address
    elif settings.status_tracking:
        urls["the portal"] = settings.api_base_url
    parts = {name: urlsplit(url) for name, url in urls.items() if url}
    return {
        name: (part.hostname or "", part.port or (443 if part.scheme == "https" else 80))
        for name, part in parts.items()
    }


class _Failed(Exception):
    """The Job did not complete; the text says why."""


def _run(
    settings: Settings, request: TrainingRequest, wanted: dict[str, Any], seconds: float, show: Callable[[str], None]
) -> list[Pod]:
    """Create the Job, wait until it has completed, delete it. Returns its pods. Raises _Failed, ClusterError."""
    cluster = KubernetesJobs(settings.namespace)
    name, shown = wanted["metadata"]["name"], [""]
    until = time.monotonic() + seconds
    lease, exists = _Lease(cluster), True
    try:
        try:
            job = cluster.create_job(wanted)
        except ClusterError as error:
            exists = isinstance(error, ClusterUnavailable) and error.ambiguous
            raise
        show(f"Job {name} is created")
        if job.nodes > 1 and settings.team_network_policy:
            cluster.create_network_policy(network_policy_of(job))
        if settings.scoped:
            # It waits for no resume: killed before that it would stay. A pod that is quicker waits half a second.
            cluster.apply_secret(secret_of(job, request.model_id, _readable(settings, request)))
        while time.monotonic() < until:
            live = cluster.get_job(name)
            if live is None:
                raise _Failed(f"the Job {name} was deleted before it ended")
            lease.renew(live)
            pods = list(cluster.list_pods(f"{names.POD_OF}={job.uid}"))
            match decide(cluster, live, pods, time.time(), factories.limits_of(settings)):
                case Ended(completed=True):
                    return pods
                case Ended(verdict=verdict) | Stop(verdict=verdict):
                    raise _Failed(f"{verdict.code}: {verdict.sentence}")
                case Going(progress=progress):
                    if progress and progress not in shown:
                        show(progress)
                    shown += [progress] if progress and progress != shown[-1] else []
            _end_with_caller()
            time.sleep(_LOOK_EVERY)
        raise _Failed(f"it did not end in time; at last: {shown[-1] or 'it was running'}")
    finally:
        with _uninterrupted():
            if exists:
                _remove(cluster, name, show)


def _end_with_caller() -> None:
    """Ends the process, and with it the Job, when nobody reads what it prints any more: nobody sends a signal then.

    So it is with `kubectl exec` whose terminal is closed, where the container runtime closes the streams.
    """
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or none of the system's
            poll.register(stream.fileno(), 0)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        raise SystemExit(128 + signal.SIGHUP)


def _readable(settings: Settings, request: TrainingRequest) -> dict[str, str]:
    """The files of its Secret, which goes with the Job: it may read, and speak for no run that there is."""
    storage, until = factories.open_signatures(settings), time.time() + _SIGNED
    files = {
        "API_KEY": tokens_of(settings).make(request.model_id, "check"),
        "MODEL_URL": storage.sas(request.model_container, write=False, until=until),
    }
    if request.dataset_container is not None:
        files["DATASET_URL"] = storage.sas(request.dataset_container, write=False, until=until)
    return files


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
    for volume in spec["template"]["spec"].get("volumes") or ():
        if volume["name"] == names.CREDENTIALS_VOLUME:
            volume["secret"]["secretName"] = metadata["name"]
    trainer_of(job)["args"] = ["validate"]
    return job


def network_job(settings: Settings, request: TrainingRequest) -> dict[str, Any]:
    """The Job whose pod tries what it reaches, in place of the trainer and without a GPU. Raises ValueError."""
    job = check_job(settings, replace(request, gpus=0))
    trainer = trainer_of(job)
    trainer["command"] = ["python3", "-c", Path(reach.__file__).read_text(encoding="utf-8")]
    trainer["args"] = [json.dumps({**_needed(settings), **FORBIDDEN})]
    trainer["env"].append({"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}})
    return job


def team_job(settings: Settings, request: TrainingRequest, seconds: float) -> dict[str, Any]:
    """The Job whose two pods look for each other for so long, without a GPU. Raises ValueError."""
    job = check_job(settings, replace(request, gpus=0, nodes=2))
    trainer, name = trainer_of(job), job["metadata"]["name"]
    trainer["command"] = ["python3", "-c", Path(meet.__file__).read_text(encoding="utf-8")]
    trainer["args"] = [f"{seconds:.0f}"]
    domain = job["spec"]["template"]["spec"]["subdomain"]
    names_of = {"MASTER_ADDR": f"{name}-0.{domain}", "OTHER_ADDR": f"{name}-1.{domain}"}
    others = [entry for entry in trainer["env"] if entry["name"] not in names_of]
    trainer["env"] = [*others, *({"name": name, "value": value} for name, value in names_of.items())]
    return job
