"""`dispatcher wait MODEL`, `submit --wait` and `--follow`, `logs` and `retry`: to the end of one training, and again.

What is out of reach for a while is said once, and tried again: a training does not end for that.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator

import click

from dispatcher import factories
from dispatcher.cli.explain import ask_portal, inspect
from dispatcher.cli.queues import queue_option, queue_to_send_to
from dispatcher.cli.support import (
    EXIT_FAILED,
    EXIT_UNAVAILABLE,
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
from dispatcher.cluster.errors import ClusterError, ObjectInvalid, ObjectNotFound
from dispatcher.cluster.pods import Pod, oldest_first
from dispatcher.config.settings import Settings
from dispatcher.decisions.views.without_job import UNKNOWN
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import QueueError
from portal_client.errors import PortalError
from portal_client.model_ids import InvalidContainerName, extract_model_id
from training_common.text import plain

EXIT_TIMEOUT = 75
_EVERY = 2.0
# Of `explain`: nothing more comes of these by itself. What is not requested may be on its way for a moment.
_ENDS = {"completed": 0, "failed": EXIT_FAILED, "refused": EXIT_FAILED, "foreign": EXIT_FAILED, UNKNOWN: EXIT_FAILED}
_UNREQUESTED = 60.0


def named(model: str) -> str:
    try:
        return container_of(model)
    except InvalidContainerName as error:
        fail(EXIT_USAGE, str(error))


def to_the_end(settings: Settings, name: str, timeout: float | None, follow: bool = False, message_id: str = "") -> int:
    """Print where the training stands whenever that changes; the exit code. message_id: of the request that is meant:
    an older training of the model is not its end.
    """
    said, began, followed = "", time.monotonic(), set[str]()
    unreachable: int | None = None
    while True:
        try:
            found, unreachable = inspect(settings, name), None
            stands = found["standing"]
            ours = not message_id or found["message_id"] in (None, message_id)
            line = f"{name}: {stands['phase']}: {stands['sentence']}"
            code = _ENDS.get(stands["phase"]) if ours else None
            if stands["phase"] == "refused" and message_id:
                code = EXIT_FAILED if message_id in {entry["message_id"] for entry in found["poison"]} else None
            if stands["phase"] == "not requested" and time.monotonic() - began > _UNREQUESTED:
                code = EXIT_FAILED
            if not ours:
                line = f"{name}: an earlier training of the model is {stands['phase']}; this request comes after it"
        except (QueueError, ClusterError, PortalError) as error:
            line, code, unreachable = f"{name}: not known for now: {error}", None, EXIT_UNAVAILABLE
        if line != said:
            click.echo(plain(line).replace("\n", " "))
            said = line
        if code is not None:
            return code
        if timeout is not None and time.monotonic() - began > timeout:
            why = "what was asked is still out of reach" if unreachable else "it goes on"
            click.echo(f"dispatcher: {timeout:.0f} seconds are over, and {name} has not ended; {why}", err=True)
            return unreachable or EXIT_TIMEOUT
        if follow and unreachable is None and stands["phase"] == "running" and ours:
            _follow(KubernetesJobs(settings.namespace), name, followed)
        time.sleep(_EVERY)


def _follow(cluster: KubernetesJobs, name: str, followed: set[str]) -> None:
    """Print the log of its newest pod until that ends; each pod's once."""
    try:
        pods = [pod for pod in _pods(cluster, name) if pod.runs and pod.uid not in followed]
        for pod in pods[-1:]:
            followed.add(pod.uid)
            for text in _lines(cluster, pod.name, follow=True):
                click.echo(text)
    except ClusterError as error:
        click.echo(f"{name}: its log is not to be had: {error}", err=True)


def _pods(cluster: KubernetesJobs, name: str) -> list[Pod]:
    """Of its Job, or of one that is gone but for its pods; the oldest first. Raises ClusterError."""
    return oldest_first(cluster.list_pods(f"{names.SELECTOR},{names.MODEL_ID}={extract_model_id(name)}"))


def _lines(cluster: KubernetesJobs, pod: str, container: str = names.TRAINER_CONTAINER, *, follow: bool = False,
           tail: int | None = None) -> Iterator[str]:  # fmt: skip
    """Raises ClusterError."""
    rest = b""
    for piece in cluster.pod_log(pod, container, follow=follow, tail=tail):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield plain(line.decode("utf-8", "replace"))
    if rest:
        yield plain(rest.decode("utf-8", "replace"))


@click.command(epilog=examples("dispatcher wait model-123", "dispatcher wait model-123 --timeout 3600"))
@click.argument("model")
@click.option("--timeout", type=click.IntRange(1), help="Seconds; then exit code 75. The training goes on.")
@click.pass_obj
def wait(environ: Environment, model: str, timeout: int | None) -> None:
    """Wait until the training of MODEL has ended, and say where it stands: 0 where it completed, 1 where it failed."""
    sys.exit(to_the_end(settings_for_printing(environ), named(model), timeout))


@click.command(
    epilog=examples(
        "dispatcher logs model-123 -f",
        "dispatcher logs model-123 --attempt 1",
        "dispatcher logs model-123 --dispatcher",
    )
)
@click.argument("model")
@click.option("-f", "--follow", is_flag=True, help="Go on until the pod ends.")
@click.option("--attempt", type=click.IntRange(1), help="Of which pod, from 1; by default the newest.")
@click.option("--tail", type=click.IntRange(0), help="Only so many lines from the end.")
@click.option(
    "--dispatcher", "of_dispatcher", is_flag=True, help="Every replica's lines about it, in place of the pod's."
)
@click.option("--dispatcher-namespace", default="training-system", show_default=True, help="Where the replicas are.")
@click.pass_obj
def logs(
    environ: Environment,
    model: str,
    follow: bool,
    attempt: int | None,
    tail: int | None,
    of_dispatcher: bool,
    dispatcher_namespace: str,
) -> None:
    """Print what the trainer of MODEL has written. It needs `get` on pods/log, which the dispatcher lacks."""
    settings, name = settings_for_printing(environ), named(model)
    try:
        with outside_calls():
            if of_dispatcher:
                _of_replicas(KubernetesJobs(dispatcher_namespace), name, tail)
                return
            cluster = KubernetesJobs(settings.namespace)
            pods = _pods(cluster, name)
            if not pods:
                fail(EXIT_FAILED, f"{name} has no pod (any more); `dispatcher explain {name}` says where it stands")
            if attempt is not None and attempt > len(pods):
                fail(EXIT_FAILED, f"{name} has {len(pods)} pods, and no number {attempt}")
            for line in _lines(cluster, pods[(attempt or 0) - 1].name, follow=follow, tail=tail):
                click.echo(line)
    except BrokenPipeError:
        sys.exit(0)


def _of_replicas(cluster: KubernetesJobs, name: str, tail: int | None) -> None:
    """Each replica's lines that name the model, with the pod in front. Raises ClusterError."""
    about = _mentions(name)
    replicas = oldest_first(cluster.list_pods("app.kubernetes.io/name=training-dispatcher"))
    if not replicas:
        fail(EXIT_FAILED, f"No dispatcher runs in namespace {cluster.namespace}; --dispatcher-namespace names another")
    for pod in replicas:
        try:
            for line in _lines(cluster, pod.name, "dispatcher", tail=tail):
                if about(line):
                    click.echo(f"{pod.name} {line}")
        except (ObjectInvalid, ObjectNotFound) as error:  # it has not started, or is gone meanwhile
            click.echo(f"{pod.name}: no log: {error}", err=True)


def _mentions(name: str) -> Callable[[str], bool]:
    """Whether a line is about the model: its container, or its id as `Model 123` or the JSON field says it."""
    model_id = extract_model_id(name)
    either = "|".join((re.escape(name), rf"[Mm]odel {re.escape(model_id)}", rf'"model": "{re.escape(model_id)}"'))
    found = re.compile(rf"(?<![\w-])(?:{either})(?![\w-])|(?<=\"model\": \"){re.escape(model_id)}(?=\")")
    return lambda line: found.search(line) is not None


@click.command(epilog=examples("dispatcher retry model-123", "dispatcher retry model-123 && dispatcher wait model-123"))
@click.argument("model")
@queue_option("Of QUEUE_NAMES: another than the one that the training came from.")
@click.pass_obj
def retry(environ: Environment, model: str, queue: str | None) -> None:
    """Send the request of the last training of MODEL once more, to the same queue; prints the message's id.

    The model has to be Created or Reconfigure at the portal, which only its users set there.
    """
    settings, name = settings_for_printing(environ), named(model)
    with outside_calls("Nothing was sent"):
        portal = ask_portal(extract_model_id(name), factories.open_portal(settings))
        if not portal.answered:
            fail(
                EXIT_UNAVAILABLE,
                f"The portal does not say whether {name} may start: {portal.message}. Nothing was sent",
            )
        if not portal.may_start and settings.status_tracking:
            shown = portal.status or "unknown"
            fail(EXIT_FAILED, f"{name} is {shown} at the portal: set it to Reconfigure there first. Nothing was sent")
        cluster = KubernetesJobs(settings.namespace)
        request = cluster.get_request(name)
        if request is None:
            advice = f"`dispatcher submit {name}` sends a new one, `dispatcher poison requeue` one that was refused"
            fail(EXIT_FAILED, f"There is no Job {name} any more to take its request from: {advice}. Nothing was sent")
        click.echo(_queue_of(settings, cluster, name, queue).send(request))


def _queue_of(settings: Settings, cluster: KubernetesJobs, name: str, queue: str | None) -> TrainingQueue:
    """The queue that the Job's request came from, or the one that is named instead. Raises ClusterError."""
    job = cluster.get_job(name)
    came_from = (job.labels.queue if job is not None else None) or settings.queues[0]
    if queue is None and came_from not in settings.queues:
        known = ", ".join(settings.queues)
        fail(EXIT_FAILED, f"{name} came from queue {came_from}, which is not read here any more: --queue says which of "
             f"{known} it goes to. Nothing was sent")  # fmt: skip
    return queue_to_send_to(settings, queue or came_from)
