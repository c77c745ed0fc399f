"""`dispatcher check`: tries everything that `run` will need, one by one, with a sentence for each."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dispatcher import factories
from dispatcher.cli.checks import clock_skew, guards, kueue_check
from dispatcher.cli.checks.results import CheckResult, Otherwise, Result
from dispatcher.cli.queues import other_readers
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.connection import NAMESPACE_FILE
from dispatcher.cluster.errors import ClusterError
from dispatcher.config.parsers import poison_name
from dispatcher.config.placeholders import placeholders
from dispatcher.config.settings import Settings
from dispatcher.decisions.pauses import pause_of, pauses_of_queues
from dispatcher.intake.first_answers import known_models, prove_portal
from dispatcher.launch.creation import Creation
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.job_template import ordinary_sidecars
from dispatcher.launch.request import DRY_RUN
from dispatcher.launch.teams import network_policy_of
from dispatcher.queue.messages import QueueError
from portal_client.errors import PortalError
from training_common.times import rfc3339

# What the Role must allow; manifests/base/role.yaml is held equal to it by a test.
NEEDED = (
    ("jobs", ("create", "get", "list", "watch", "patch", "delete")),
    ("pods", ("list", "watch", "delete")),
    ("events", ("create", "list")),
)
# What it should allow as well: without it nobody can pause this dispatcher. On one object, by its name.
WANTED = (("configmaps", ("get", "patch")),)
# What it must allow as well with CREDENTIALS=scoped; manifests/components/scoped-credentials adds it.
NEEDED_WITH_SCOPED = (("secrets", ("create", "patch")),)
# What it must allow as well with MAX_NODES, unless TEAM_NETWORK_POLICY=off; manifests/components/teams adds it.
NEEDED_WITH_TEAMS = (("networkpolicies", ("create",)),)
_GRANTED_BY = {"secrets": "manifests/components/scoped-credentials", "networkpolicies": "manifests/components/teams"}
# What it should allow as well where Kueue resumes the Jobs; manifests/components/kueue adds it.
WANTED_WITH_KUEUE = (("workloads", ("list",)), ("localqueues", ("get",)))

# The line that `--in-pod` replaces.
BLOBS = "blobs"


def run_checks(settings: Settings) -> Iterator[CheckResult]:
    """Yield each result as soon as it is known. Leaves nothing behind."""
    several = f"queues {', '.join(settings.queues)}" if len(settings.queues) > 1 else f"queue {settings.queues[0]}"
    yield CheckResult("settings", "ok", f"{several}, template {settings.job_template}")
    if said := where_it_runs():
        yield CheckResult("pod", "ok", said)
    yield _try("job template", _template, settings)
    yield _try("placeholders", _placeholders, settings)
    skews: dict[str, float | None] = {}
    for name in settings.queues:
        yield _try(f"queue {name}", _queue, settings, name, skews)
        yield _try(f"queue {poison_name(name)}", _queue, settings, poison_name(name), skews)
    cluster, why = _connect(settings)
    yield _try("portal", _portal, settings, cluster, skews)
    if cluster is None:
        yield CheckResult("cluster", "failed", why)
    else:
        yield _try("cluster", _cluster, cluster, skews)
        teams = settings.max_nodes > 1
        more = (
            *(NEEDED_WITH_SCOPED if settings.scoped else ()),
            *(NEEDED_WITH_TEAMS if teams and settings.team_network_policy else ()),
        )
        for resource, verbs in (*NEEDED, *more):
            yield _try(f"permissions on {resource}", _permissions, cluster, resource, verbs)
        yield _try("switch of pause", _switch, cluster)
        yield _try("sizes of nodes", _nodes, cluster)
        yield _try("readers of the queue", _readers, settings, cluster)
        if settings.kueue_queue:
            yield _try("permissions on workloads", _kueue, cluster)
            yield _try("queue of Kueue", kueue_check.local_queue, settings, cluster)
            yield _try("Kueue", kueue_check.lives, settings, cluster)
        accepted = _try("job template at the API server", _dry_run, settings, cluster)
        yield accepted
        if accepted.result != "failed":
            if teams:
                yield _try("trainings on several nodes", _teams, settings, cluster)
            yield _try("admission policies", guards.refuse_evasions, settings, cluster)
        else:
            why = "not tried: where the template is refused, so is everything else"
            yield CheckResult("admission policies", "skipped", why)
    yield _try("signatures for storage", guards.try_signature, settings)
    yield _try("relay", guards.ask_relay, settings)
    for place, skew in skews.items():
        yield _try(f"clock of the {place}", _clock, place, skew)
    yield CheckResult(
        BLOBS,
        "skipped",
        "not used by the dispatcher; `dispatcher check --in-pod MODEL` tries them in a pod, as a training would",
    )


def where_it_runs(namespace_file: Path = NAMESPACE_FILE) -> str:
    """Which pod's settings these are, and the command for the newest pod; "" outside of a cluster.

    `kubectl exec deploy/...` picks a pod that is ready: while a roll-out stands still, one of those that work.
    """
    try:
        namespace = namespace_file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    newest = (
        f"kubectl -n {namespace} get pods -l app.kubernetes.io/name=training-dispatcher"
        " --sort-by=.metadata.creationTimestamp -o name | tail -n 1"
    )
    return (
        f"all this is said of {socket.gethostname()} and its settings; while a rollout stands still, ask the newest"
        f' pod: kubectl -n {namespace} exec "$({newest})" -- dispatcher check'
    )


def _connect(settings: Settings) -> tuple[KubernetesJobs | None, str]:
    """The cluster, or why there is no way to one."""
    try:
        return KubernetesJobs(settings.namespace), ""
    except ClusterError as error:
        return None, str(error)


def _try(name: str, check: Callable[..., str], *arguments: object) -> CheckResult:
    try:
        return CheckResult(name, "ok", check(*arguments))
    except Otherwise as found:
        return CheckResult(name, found.result, str(found))
    except (QueueError, PortalError, ClusterError, ValueError, OSError) as error:
        return CheckResult(name, "failed", str(error))


def _template(settings: Settings) -> str:
    beside = ordinary_sidecars(factories.read_template(settings))
    if beside:
        raise Otherwise(
            "warning",
            f"{settings.job_template} can be completed; nothing ends {', '.join(beside)} when the trainer has ended,"
            " and its GPU is held for a minute more: make it a native sidecar, an entry of initContainers with"
            " restartPolicy: Always",
        )
    return f"{settings.job_template} can be completed"


def _placeholders(settings: Settings) -> str:
    if found := list(placeholders(settings, os.environ, factories.read_template(settings))):
        raise Otherwise("warning", "; ".join(found))
    return "none is left"


def _queue(settings: Settings, name: str, skews: dict[str, float | None]) -> str:
    queue = factories.open_queue(settings, name)
    try:
        began = time.time()
        depth = queue.depth()
        skews["storage account"] = clock_skew.skew(queue.server_date, began, time.time())
        queue.try_rights()
        return f"about {depth} messages; may send, update and delete"
    finally:
        queue.close()


def _portal(settings: Settings, cluster: KubernetesJobs | None, skews: dict[str, float | None]) -> str:
    portal = factories.open_portal(settings)
    if portal is None:
        raise Otherwise("skipped", "not asked: STATUS_TRACKING=off")
    if not settings.api_key:
        raise Otherwise("failed", "API_KEY not configured: no message would be received")
    began = time.time()
    try:
        known = known_models(cluster) if cluster is not None else []
        if not prove_portal(portal, known):
            raise Otherwise(
                "warning",
                f"{settings.api_base_url} does not refuse the key, and says nothing by which it can be known: a portal"
                " that is as it should be, a wrong path in API_BASE_URL and a portal that is being rolled out look"
                " alike here, where no Job has a model that it could be asked for. Until it has answered for some"
                " model, such an answer counts as an outage",
            )
    finally:
        skews["portal"] = clock_skew.skew(portal.server_date, began, time.time())
        portal.close()
    of = f"; it was asked for model {known[0]}, which was trained here" if known else ""
    return (
        f"{settings.api_base_url} accepts the key and reads models{of}. Not tried: writing a status, which the key may"
        " not be allowed to"
    )


def _cluster(cluster: KubernetesJobs, skews: dict[str, float | None]) -> str:
    began = time.time()
    jobs = sum(1 for _ in cluster.list_metadata("jobs", names.SELECTOR))
    skews["API server"] = clock_skew.skew(cluster.server_date, began, time.time())
    return f"{jobs} training Jobs in namespace {cluster.namespace}"


def _permissions(cluster: KubernetesJobs, resource: str, verbs: tuple[str, ...]) -> str:
    where = _GRANTED_BY.get(resource, "manifests/base/role.yaml")
    _need(cluster, resource, verbs, "failed", f"; {where} has what is needed")
    return ", ".join(verbs)


def _kueue(cluster: KubernetesJobs) -> str:
    resource, verbs = WANTED_WITH_KUEUE[0]
    effect = ": the place in Kueue's queue is not shown; manifests/components/kueue has what is needed"
    _need(cluster, resource, verbs, "warning", effect)
    return kueue_check.place_shown(cluster)


def _switch(cluster: KubernetesJobs) -> str:
    """Without it all works but `dispatcher pause`. A pause is a warning: it is why nothing is launched."""
    [(resource, verbs)] = WANTED
    effect = ": `dispatcher pause` does not reach this dispatcher; manifests/base/role.yaml has what is needed"
    _need(cluster, resource, verbs, "warning", effect, names.PAUSE)
    data = cluster.get_config_map(names.PAUSE)
    if data is None:
        raise Otherwise(
            "warning",
            f"there is no ConfigMap {names.PAUSE} in namespace {cluster.namespace}, so that nobody can pause: apply "
            "manifests/base/pause.yaml",
        )
    if (found := pause_of(data)) is not None:
        raise Otherwise("warning", f"no message is received: the intake is {found.sentence}")
    if queues := pauses_of_queues(data):
        each = "; ".join(f"the queue {queue} is {pause.sentence}" for queue, pause in queues.items())
        raise Otherwise("warning", f"not all messages are received: {each}")
    return "not paused"


def _nodes(cluster: KubernetesJobs) -> str:
    """An optional right, and one for the whole cluster."""
    if not cluster.may("list", "nodes"):
        raise Otherwise(
            "skipped",
            "not known: the right to list nodes is optional, manifests/components/node-sizes has it; without it nobody"
            " who asks for more GPUs than any node has is told how many the largest one has",
        )
    return "may be listed"


def _readers(settings: Settings, cluster: KubernetesJobs) -> str:
    found = other_readers(factories.open_queues(settings), cluster)
    if running := [reader.words(cluster.namespace) for reader in found if reader.is_alive]:
        raise Otherwise(
            "warning",
            f"dispatchers of {', '.join(running)} read queue {', '.join(settings.queues)}, too: neither sees the"
            " other's Jobs, and one model may be trained twice; give each namespace a queue of its own",
        )
    past = [f"{reader.words(cluster.namespace)} until {rfc3339(reader.seen)}" for reader in found]
    return f"namespace {cluster.namespace} alone" + (f"; before, also {', '.join(past)}" if past else "")


def _need(
    cluster: KubernetesJobs, resource: str, verbs: tuple[str, ...], result: Result, effect: str, name: str = ""
) -> None:
    """effect: the rest of the sentence, for a verb that we may not use; name: of the one object that is meant."""
    if missing := ", ".join(verb for verb in verbs if not cluster.may(verb, resource, name)):
        raise Otherwise(result, f"the Role lacks {missing} on {resource} in namespace {cluster.namespace}{effect}")


def _clock(place: str, skew: float | None) -> str:
    if skew is None:
        raise Otherwise("skipped", f"not known: the {place} sent no time")
    if clock_skew.matters(skew):
        raise Otherwise("warning", clock_skew.sentence(place, skew))
    return f"within {clock_skew.TOLERATED:.0f} seconds of ours"


def _teams(settings: Settings, cluster: KubernetesJobs) -> str:
    """Dry runs of the largest training that may be asked for, and of its network. Raises ClusterError."""
    request = replace(DRY_RUN, nodes=settings.max_nodes)
    template, defaults = factories.read_template(settings), factories.defaults_of(settings)
    job = build_job(template, request, message_id="dry-run", queued_at=0.0, defaults=defaults)
    accepted = cluster.create_job(job, dry_run=True)
    words = "is"
    if settings.team_network_policy:
        cluster.create_network_policy(network_policy_of(accepted), dry_run=True)
        words = "and its NetworkPolicy are"
    return f"a Job for {settings.max_nodes} nodes {words} accepted by dry runs; whether pods meet shows --in-pod"


def _dry_run(settings: Settings, cluster: KubernetesJobs) -> str:
    defaults, queue = factories.defaults_of(settings), settings.kueue_queue
    made = Creation(cluster, factories.read_template(settings), defaults, kueue_queue=queue).probe_template()
    found = None if made is None else made.labels.kueue_queue
    if found is not None and not queue:
        raise Otherwise(
            "warning",
            f"accepted by a dry run; Kueue would queue it in {found} by itself, and Jobs are held back for it until the"
            f" portal was told: set KUEUE_QUEUE={found}, so that this rests on no dry run",
        )
    return "accepted by a dry run"
