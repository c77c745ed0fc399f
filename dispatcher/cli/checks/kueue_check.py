"""What `dispatcher check` says of Kueue, where it resumes the Jobs (KUEUE_QUEUE): its queue, and whether it lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher import factories
from dispatcher.cli.checks.results import Otherwise
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterError, ClusterForbidden
from dispatcher.config.settings import Settings
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.request import DRY_RUN
from training_common.text import one_line

_COMPONENT = "manifests/components/kueue"


def place_shown(cluster: KubernetesJobs) -> str:
    """Without it trainings run all the same; only their place in Kueue's queue is not shown. Raises Otherwise."""
    try:
        found = len(cluster.list_workloads())
    except ClusterError as error:
        raise Otherwise("warning", f"{error}; the place in Kueue's queue is not shown") from None
    return f"list; {found} Workloads"


def local_queue(settings: Settings, cluster: KubernetesJobs) -> str:
    """The LocalQueue as Kueue sees it, and by its word the ClusterQueue. Raises Otherwise, ClusterError."""
    name = f"LocalQueue {settings.kueue_queue} in namespace {cluster.namespace}"
    try:
        found = cluster.get_local_queue(settings.kueue_queue)
    except ClusterForbidden:
        raise Otherwise(
            "warning", f"not known: the Role lacks get on localqueues; {_COMPONENT} has what is needed"
        ) from None
    if found is None:
        raise Otherwise(
            "failed",
            f"there is no {name}, or no Kueue 0.15 or newer: every training would wait for ever; create it "
            f"({_COMPONENT}/localqueue.yaml), or correct KUEUE_QUEUE",
        )
    spec, status = _part(found, "spec"), _part(found, "status")
    belongs = f"{name}, which leads to ClusterQueue {spec.get('clusterQueue')}"
    conditions = status.get("conditions") or []
    active = next((c for c in conditions if isinstance(c, dict) and c.get("type") == "Active"), None)
    if active is None:
        raise Otherwise("failed", f"Kueue has said nothing about {belongs}: does its controller run?")
    if active.get("status") != "True":
        why = one_line(str(active.get("message") or active.get("reason") or "no reason given"))[:300]
        raise Otherwise("failed", f"{belongs}, is not active: {why}. It is its administrator's turn")
    pending, admitted = (status.get(field, 0) for field in ("pendingWorkloads", "admittedWorkloads"))
    return f"{belongs}, is active: {pending} wait, {admitted} are admitted"


def lives(settings: Settings, cluster: KubernetesJobs) -> str:
    """A dry run of a Job that is not suspended: a Kueue that lives suspends it. Raises Otherwise, ClusterError."""
    job = build_job(
        factories.read_template(settings),
        DRY_RUN,
        message_id="dry-run",
        queued_at=0.0,
        defaults=factories.defaults_of(settings),
        kueue=True,
    )
    job["spec"]["suspend"] = False
    job["metadata"]["labels"][names.KUEUE_QUEUE_LABEL] = settings.kueue_queue
    if cluster.create_job(job, dry_run=True).is_suspended:
        return "it answers: a Job of the queue was suspended in a dry run"
    raise Otherwise(
        "failed",
        "it does not look at Jobs of its queue: a dry run of one was not suspended. Is Kueue installed, does it run, "
        "and is batch/job among its integrations? Until then no training starts",
    )


def _part(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = found.get(name)
    return part if isinstance(part, dict) else {}
