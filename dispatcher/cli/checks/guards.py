"""Tries what stands between trainings, and between a thief and the cluster: writes that have to be refused, the
signatures for storage, the relay. Everything is a dry run or a read.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any

from dispatcher import factories
from dispatcher.cli.checks.results import Otherwise
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterForbidden, ObjectInvalid, QuotaExceeded
from dispatcher.config.settings import Settings
from dispatcher.launch.gpus import trainer_of
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.request import DRY_RUN
from dispatcher.relay.listener import tokens_of
from dispatcher.storage.errors import StorageError
from portal_client.client import PortalClient
from portal_client.errors import PortalError, PortalUnauthorized, PortalUnavailable

_NO_MODEL, _NO_RUN = "dispatcher-check", "check"
# A Secret that is no training's, and need not exist: the policies look at names alone.
_ANOTHER = "dispatcher-check-another"
_APPLY = "apply manifests/components/admission-policy, which overlays/production has"

_Job = dict[str, Any]


def _pod(job: _Job) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def _add_volume(job: _Job, kind: str, source: Mapping[str, Any]) -> None:
    _pod(job)["volumes"] = [*_pod(job).get("volumes", ()), {"name": "dispatcher-check", kind: dict(source)}]


def _unlabel(job: _Job) -> None:
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        del metadata["labels"][names.MANAGED_BY]


# What somebody with the dispatcher's token would rather start than a training: words for it → the change of a good Job.
_EVASIONS: Mapping[str, Callable[[_Job], object]] = {
    # Of a domain that nobody can have (RFC 2606).
    "another image": lambda job: trainer_of(job).update(image="registry.invalid/another:1"),
    "another Secret": lambda job: _add_volume(job, "secret", {"secretName": _ANOTHER}),
    "another Secret in a variable": lambda job: trainer_of(job).update(envFrom=[{"secretRef": {"name": _ANOTHER}}]),
    "another service account": lambda job: _pod(job).update(serviceAccountName="default"),
    "the service account's token": lambda job: _pod(job).update(automountServiceAccountToken=True),
    "a token as a volume": lambda job: _add_volume(
        job, "projected", {"sources": [{"serviceAccountToken": {"path": "token"}}]}
    ),
    "files of the node": lambda job: _add_volume(job, "hostPath", {"path": "/"}),
    "the node's network": lambda job: _pod(job).update(hostNetwork=True),
    "no label of ours": _unlabel,
    "no finalizer": lambda job: job["metadata"].pop("finalizers"),
}


def refuse_evasions(settings: Settings, cluster: KubernetesJobs) -> str:
    """Dry runs of what the admission policies have to refuse. Raises Otherwise where one is accepted, ClusterError."""
    if not settings.scoped:
        raise Otherwise(
            "skipped", "not tried: with CREDENTIALS=shared every training holds what a stolen token could use"
        )
    job, accepted = _training(settings), []
    for words, change in _EVASIONS.items():
        evil = copy.deepcopy(job)
        change(evil)
        try:
            cluster.create_job(evil, dry_run=True)
        except QuotaExceeded:
            accepted.append(words)  # Kubernetes looks at quotas last
        except ObjectInvalid:
            continue
        else:
            accepted.append(words)
    for words, secret in _evil_secrets(job).items():
        try:
            cluster.apply_secret(secret, dry_run=True)
        except ObjectInvalid:
            continue
        else:
            accepted.append(words)
    networks = _evil_networks(job) if settings.max_nodes > 1 and settings.team_network_policy else {}
    for words, policy in networks.items():
        try:
            cluster.create_network_policy(policy, dry_run=True)
        except (ObjectInvalid, ClusterForbidden):
            continue
        else:
            accepted.append(words)
    if accepted:
        raise Otherwise(
            "warning",
            f"the API server accepts {', '.join(accepted)} in namespace {cluster.namespace}: whoever steals the "
            f"dispatcher's token may have that; {_APPLY}",
        )
    return (
        f"{len(_EVASIONS)} Jobs and {len(_evil_secrets(job))} Secrets that a stolen token might be used for are refused"
    )


def _training(settings: Settings) -> _Job:
    """A Job of the template, as good as any."""
    template, defaults = factories.read_template(settings), factories.defaults_of(settings)
    return build_job(template, DRY_RUN, message_id="dry-run", queued_at=0.0, defaults=defaults)


def _evil_secrets(job: _Job) -> dict[str, dict[str, Any]]:
    metadata = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": "none"}

    def secret(name: str, kind: str, **more: Any) -> dict[str, Any]:
        about = {"name": name, "labels": metadata["labels"], "ownerReferences": [owner], **more}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": kind, "data": {}}

    of_account = {"kubernetes.io/service-account.name": "default"}
    return {
        "a Secret that Kubernetes fills with a token": secret(
            metadata["name"], "kubernetes.io/service-account-token", annotations=of_account
        ),
        "a Secret that is no training's": secret(_ANOTHER, "Opaque"),
    }


def _evil_networks(job: _Job) -> dict[str, dict[str, Any]]:
    metadata = {"name": _ANOTHER, "labels": job["metadata"]["labels"]}
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
    return {"a NetworkPolicy that opens trainings to everybody": policy}


def try_signature(settings: Settings) -> str:
    """Make a signature for a container, and use it. Raises Otherwise, ValueError."""
    if not settings.scoped:
        raise Otherwise("skipped", "none is made: CREDENTIALS=shared")
    storage = factories.open_signatures(settings)
    try:
        storage.try_out()
    except StorageError as error:
        raise Otherwise("failed", str(error)) from None
    days = storage.longest / 86400
    return f"{storage.address} takes what is signed for one container, for up to {days:.0f} days"


def ask_relay(settings: Settings) -> str:
    """Ask the relay of this very pod, with a token of a run that there is not. Raises Otherwise."""
    if not settings.scoped:
        raise Otherwise("skipped", "not asked: CREDENTIALS=shared")
    host = settings.relay_host if settings.relay_host not in ("", "::", "0.0.0.0") else "127.0.0.1"  # noqa: S104
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.relay_listens_on}"
    token = tokens_of(settings).make(_NO_MODEL, _NO_RUN)
    relay = PortalClient(address, token, settings.api_auth_method, timeout=10.0)
    try:
        relay.get_model_status(_NO_MODEL)
    except PortalUnauthorized:
        sentence = (
            "does not take a token of these settings: the dispatcher that runs there has another RELAY_KEY or API_KEY"
        )
        raise Otherwise("failed", f"{address} {sentence}") from None
    except PortalUnavailable as error:
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise Otherwise("skipped", f"not asked: {address} is the relay only in the dispatcher's pod") from None
        raise Otherwise("failed", str(error)) from None
    except PortalError as error:
        if error.status_code != 410:  # of a run that is over, or never was
            raise Otherwise("failed", str(error)) from None
    finally:
        relay.close()
    return f"{address} answers and knows its tokens; trainings call it {settings.relay_url}"
