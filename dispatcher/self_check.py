"""`dispatcher check`: everything that `run` will need, tried one by one, with a sentence each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dispatcher import app, names
from dispatcher.azure_queue import QueueError
from dispatcher.kubernetes_jobs import ClusterError, KubernetesJobs
from dispatcher.launcher import Launcher
from dispatcher.settings import Settings
from portal_client.errors import ModelUnknown, PortalError

# What the Role must allow; manifests/base/role.yaml is held equal to it by a test.
NEEDED = (
    ("jobs", ("create", "get", "list", "watch", "patch", "delete")),
    ("pods", ("list", "watch", "delete")),
    ("events", ("create", "list")),
)

# No model has this id; any answer but "unauthorized" proves that the key is accepted.
_NO_MODEL = "dispatcher-check"


@dataclass(frozen=True)
class CheckResult:
    """One line of `dispatcher check`."""

    name: str
    passed: bool
    sentence: str


def run_checks(settings: Settings) -> Iterator[CheckResult]:
    """Yield each result as soon as it is there. Nothing is changed anywhere."""
    yield CheckResult("settings", True, f"queue {settings.queue_name}, template {settings.job_template}")
    yield _try("job template", lambda: _template(settings))
    for name in (settings.queue_name, settings.poison_queue_name):
        yield _try(f"queue {name}", lambda name=name: _queue(settings, name))  # type: ignore[misc]
    yield _try("portal", lambda: _portal(settings))
    try:
        cluster = KubernetesJobs(settings.namespace)
    except ClusterError as error:
        yield CheckResult("cluster", False, str(error))
        return
    yield _try("cluster", lambda: _cluster(cluster))
    for resource, verbs in NEEDED:
        yield _try(f"permissions on {resource}", lambda r=resource, v=verbs: _permissions(cluster, r, v))  # type: ignore[misc]
    yield _try("job template at the API server", lambda: _dry_run(settings, cluster))


def _try(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, True, check())
    except (QueueError, PortalError, ClusterError, ValueError, OSError, _Wrong) as error:
        return CheckResult(name, False, str(error))


class _Wrong(Exception):
    """A check that was carried out and found something wrong."""


def _template(settings: Settings) -> str:
    app.read_template(settings)
    return f"{settings.job_template} can be completed"


def _queue(settings: Settings, name: str) -> str:
    queue = app.open_queue(settings, name)
    try:
        return f"about {queue.depth()} messages"
    finally:
        queue.close()


def _portal(settings: Settings) -> str:
    portal = app.open_portal(settings)
    if portal is None:
        return "not asked: STATUS_TRACKING=off"
    if not settings.api_key:
        raise _Wrong("API_KEY not configured: no message would be taken")
    try:
        portal.get_model_status(_NO_MODEL)
    except ModelUnknown:
        pass
    finally:
        portal.close()
    return f"{settings.api_base_url} accepts the key"


def _cluster(cluster: KubernetesJobs) -> str:
    jobs = cluster.list_jobs(names.SELECTOR).items
    return f"{len(jobs)} training Jobs in namespace {cluster.namespace}"


def _permissions(cluster: KubernetesJobs, resource: str, verbs: tuple[str, ...]) -> str:
    missing = [verb for verb in verbs if not cluster.may(verb, resource)]
    if missing:
        raise _Wrong(
            f"the Role lacks {', '.join(missing)} on {resource} in namespace {cluster.namespace}; "
            "manifests/base/role.yaml has what is needed"
        )
    return ", ".join(verbs)


def _dry_run(settings: Settings, cluster: KubernetesJobs) -> str:
    template = app.read_template(settings)
    Launcher(cluster, None, template, app.defaults_of(settings), put_budget=0.0).probe_template()
    return "accepted by a dry run"
