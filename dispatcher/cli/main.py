"""The command line: `dispatcher run | check | render | submit | status | explain | cancel | pause | poison | ...`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click import shell_completion

from dispatcher import app, factories
from dispatcher.cli import cancel as cancelling
from dispatcher.cli import check as checks
from dispatcher.cli import pod_check, portal_walk
from dispatcher.cli import status as statuses
from dispatcher.cli.explain import ask_portal, explain
from dispatcher.cli.following import logs, named, retry, to_the_end, wait
from dispatcher.cli.kubectl_yaml import yaml_for_kubectl
from dispatcher.cli.listing import list_
from dispatcher.cli.pause import drain, pause, resume
from dispatcher.cli.poison import poison
from dispatcher.cli.queues import queue_option, queue_to_send_to
from dispatcher.cli.results import CheckResult, Otherwise, Result
from dispatcher.cli.support import (
    EXIT_FAILED,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    Environment,
    container_of,
    examples,
    fail,
    log_to_stderr,
    outside_calls,
    read_environment,
    read_settings,
    read_text,
    settings_for_printing,
)
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterError
from dispatcher.config.settings import Settings
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.request import MalformedRequest, claimed_model, decode
from dispatcher.queue.messages import QueueError
from dispatcher.web.listen import CannotListen
from portal_client.model_ids import InvalidContainerName, extract_model_id

_EPILOG = """\b
Examples:
  dispatcher check
  dispatcher run
  dispatcher submit model-123 --dataset dataset-xyz
  dispatcher render '{"task": "train", "model_container_name": "model-123"}'
  dispatcher status model-123
  dispatcher explain model-123
  dispatcher list waiting
  dispatcher cancel model-123
  dispatcher pause --reason upgrade
  dispatcher poison list
  dispatcher COMMAND --help

\b
Settings come from the environment; what is missing there from config.env
(--config FILE or DISPATCHER_CONFIG=FILE for another). docs/configure.md lists them.

\b
Exit codes: 0 done, 1 a check failed or nothing was found, 2 settings, template
or arguments are wrong, 69 queue, portal or cluster out of reach, 70 a loop died,
75 the time to wait is over, 130 interrupted.
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="File of settings, NAME=value a line.")
@click.version_option(package_name="training-dispatcher")
@click.pass_context
def main(context: click.Context, config_file: Path | None) -> None:
    """Launch one GPU Kubernetes Job for each training request of a queue, and report its outcome."""
    context.obj = read_environment(config_file)


@main.command(
    epilog=examples(
        "dispatcher run",
        "dispatcher --config my.env run",
        "LOG_FORMAT=json LOG_LEVEL=debug dispatcher run",
    )
)
@click.pass_obj
def run(environ: Environment) -> None:
    """Run the dispatcher until SIGTERM."""
    settings = read_settings(environ)
    log_to_stderr(settings)
    try:
        dispatcher = app.App(settings)
    except (ValueError, ClusterError, QueueError) as error:
        fail(EXIT_USAGE, str(error))
    try:
        code = dispatcher.run()
    except CannotListen as error:
        fail(EXIT_USAGE, str(error))
    sys.stderr.flush()
    # Threads that still wait in a watch or for the portal are cut off: the Jobs are the record.
    os._exit(code)


_MARKS: Mapping[Result, tuple[str, str | None]] = {
    "ok": ("ok  ", "green"),
    "warning": ("WARN", "yellow"),
    "failed": ("FAIL", "red"),
    "skipped": ("--  ", None),
}


@main.command(
    epilog=examples(
        "dispatcher check",
        "dispatcher check --json",
        "dispatcher check --in-pod model-1 --dataset dataset-houses",
        "dispatcher check --portal model-0",
    )
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--in-pod",
    "model",
    metavar="MODEL",
    help="Also run a pod as a training of the container MODEL would have it, which reads storage, configuration and "
    "dataset, and a second one, which tries what it reaches in the network; with MAX_NODES two more, which look for "
    "each other. They train nothing.",
)
@click.option("--dataset", help="Container of the dataset for --in-pod; else the model's configuration names it.")
@click.option(
    "--wait", type=click.IntRange(10, 86400), default=900, show_default=True, help="Seconds that --in-pod may take."
)
@click.option(
    "--portal",
    "walked",
    metavar="MODEL",
    help="Instead walk MODEL, made for this in status Created or Reconfigure, through the statuses of a training, and "
    "say what the portal does otherwise than docs/portal.md expects. It changes the model's status.",
)
@click.pass_obj
def check(
    environ: Environment, as_json: bool, model: str | None, dataset: str | None, wait: int, walked: str | None
) -> None:
    """Check settings, template, queues, portal, cluster, permissions and clocks, one by one.

    WARN is worth fixing; only FAIL keeps the dispatcher from working, and makes the exit code 1.
    """
    settings = settings_for_printing(environ)
    if walked is not None and model is not None:
        fail(EXIT_USAGE, "--portal and --in-pod are two checks: give one of them")
    nothing = dict.fromkeys(("gpus", "nodes", "priority", "time_limit"))
    wishes: dict[str, Any] = {"extra": (), "dataset": dataset, **nothing}
    try:
        request = None if model is None else decode(_compose(model, wishes), factories.bounds_of(settings))
    except MalformedRequest as error:
        fail(EXIT_USAGE, f"{error.sentence} ({error.code})")
    results: list[CheckResult] = []

    def note(result: CheckResult) -> None:
        results.append(result)
        mark, colour = _MARKS[result.result]
        if not as_json:
            click.echo(f"{click.style(mark, fg=colour)} {result.name}: {result.sentence}")

    if walked is not None:
        _walk(settings, walked, note)
    else:
        for result in checks.run_checks(settings):
            if request is None or result.name != checks.BLOBS:
                note(result)
    if request is not None:
        if any(result.result == "failed" for result in results):
            note(CheckResult(pod_check.NAME, "skipped", "not begun: fix what failed first"))
        else:
            several = (pod_check.check_team,) if settings.max_nodes > 1 else ()
            for look in (pod_check.check_in_pod, pod_check.check_network, *several):
                with outside_calls():
                    note(look(settings, request, wait, lambda text: click.echo(f"     {text}", err=True)))
                if results[-1].result != "ok":
                    break
    passed = all(result.result != "failed" for result in results)
    if as_json:
        click.echo(json.dumps({"passed": passed, "checks": [asdict(result) for result in results]}, indent=2))
    sys.exit(0 if passed else EXIT_FAILED)


def _walk(settings: Settings, model: str, note: Callable[[CheckResult], None]) -> None:
    try:
        walk = portal_walk.open_walk(settings, container_of(model))
    except InvalidContainerName as error:
        fail(EXIT_USAGE, str(error))
    except Otherwise as error:
        note(CheckResult("portal", error.result, str(error)))
        return
    try:
        for result in walk.results():
            note(result)
    finally:
        if (left := walk.leave()) is not None:
            note(left)


@main.command(
    epilog=examples(
        """dispatcher render '{"task": "train", "model_container_name": "model-123"}'""",
        "dispatcher render @request.json",
        "JOB_TEMPLATE=new-template.yaml dispatcher render @request.json | kubectl create --dry-run=server -f -",
    )
)
@click.argument("message")
@click.pass_obj
def render(environ: Environment, message: str) -> None:
    """Print the Job that MESSAGE would create. MESSAGE is the text, @FILE or - for standard input."""
    # Nothing is called, so nothing but the template needs to be configured.
    anything = {
        "QUEUE_NAME": "" if environ.get("QUEUE_NAMES") else "unused",
        "AZURE_STORAGE_CONNECTION_STRING": "" if environ.get("AZURE_STORAGE_QUEUE_URL") else "unused",
        "API_BASE_URL": "http://localhost",
    }
    settings = read_settings({**anything, **environ})
    try:
        template = factories.read_template(settings)
        request = decode(read_text(message), factories.bounds_of(settings, template))
    except ValueError as error:
        fail(EXIT_USAGE, str(error))
    job = build_job(
        template,
        request,
        message_id="00000000-0000-0000-0000-000000000000",
        queued_at=0.0,
        defaults=factories.defaults_of(settings),
        kueue=bool(settings.kueue_queue),
    )
    click.echo(yaml_for_kubectl(job), nl=False)


@main.command(
    epilog=examples(
        "dispatcher submit model-123 --dataset dataset-houses",
        "dispatcher submit model-123 --gpus 2 --time-limit 7200 --field note=again",
        "dispatcher submit --message @request.json",
        "dispatcher submit model-123 --queue urgent",
    )
)
@click.argument("model", required=False)
@click.option("--message", help="The whole message, sent as it is; @FILE or - for standard input.")
@click.option("--dataset", help="Container of the dataset; else the model's configuration names it.")
@click.option("--gpus", type=int, help="GPUs to ask for, on each node, within MAX_GPUS.")
@click.option("--nodes", type=int, help="Nodes to ask for, within MAX_NODES.")
@click.option("--priority", help="One of PRIORITY_CLASSES.")
@click.option("--time-limit", type=int, help="Seconds, within MAX_TIME_LIMIT_SECONDS.")
@click.option("--fresh", is_flag=True, help="Go on from no checkpoint of an earlier training; they are removed.")
@click.option("--field", "extra", multiple=True, metavar="NAME=VALUE", help="Another field, passed to the trainer.")
@queue_option("Which of QUEUE_NAMES.")
@click.option("--unchecked", is_flag=True, help="Send the message even if it will go to the poison queue.")
@click.option(
    "--wait", "waits", is_flag=True, help="Wait for the end, as `wait` does: 0 completed, 1 failed or refused."
)
@click.option("--follow", is_flag=True, help="As --wait, and print what the trainer writes.")
@click.option("--timeout", type=click.IntRange(1), help="Seconds for --wait and --follow; then exit code 75.")
@click.pass_obj
def submit(
    environ: Environment,
    /,
    model: str | None,
    message: str | None,
    queue: str | None,
    unchecked: bool,
    waits: bool,
    follow: bool,
    timeout: int | None,
    **wishes: Any,
) -> None:
    """Put a training request for the container MODEL on the queue; prints the message's id."""
    if (model is None) == (message is None):
        fail(EXIT_USAGE, "Name a model container such as model-123, or give the whole --message")
    settings = settings_for_printing(environ)
    text = read_text(message) if message is not None else _compose(str(model), wishes)
    name = claimed_model(text) if waits or follow else ""
    if name:
        _require_may_start(settings, name)
    if not unchecked:
        try:
            decode(text, factories.bounds_of(settings))
        except MalformedRequest as error:
            fail(EXIT_USAGE, f"{error.sentence} ({error.code}). Nothing was sent")
    with outside_calls("Nothing was sent"):
        sent = queue_to_send_to(settings, queue).send(text)
        click.echo(sent)
    if name:
        sys.exit(to_the_end(settings, named(name), timeout, follow, sent))


def _require_may_start(settings: Settings, name: str) -> None:
    """Nobody waits for a request that will be rejected. What the portal does not tell is found out later."""
    portal = ask_portal(extract_model_id(named(name)), factories.open_portal(settings))
    if portal.status and not portal.may_start:
        sentence = f"{name} is {portal.status} at the portal: set it to Reconfigure there first. Nothing was sent"
        fail(EXIT_FAILED, sentence)


@main.command(epilog=examples("dispatcher status", "dispatcher status model-123", "dispatcher status 123 --json"))
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(environ: Environment, model: str | None, as_json: bool) -> None:
    """Print what queue, cluster and portal have on MODEL (its container's name or its id), or on all models."""
    settings = settings_for_printing(environ)
    try:
        with outside_calls():
            found = statuses.inspect(settings, model)
    except ValueError as error:
        fail(EXIT_USAGE, str(error))
    click.echo(json.dumps(found, indent=2) if as_json else statuses.as_text(found, model))
    if model is None:
        return
    if not found["models"]:
        sys.exit(EXIT_FAILED)
    only = found["models"][0]
    sys.exit(0 if only["job"] or only["messages"] or only["portal"]["answered"] else EXIT_UNAVAILABLE)


@main.command(epilog=examples("dispatcher cancel model-123"))
@click.argument("model")
@click.pass_obj
def cancel(environ: Environment, model: str) -> None:
    """Stop the training of MODEL (its container's name or its id); the portal shows that it was cancelled."""
    settings = settings_for_printing(environ)
    try:
        name = container_of(model)
        with outside_calls("Nothing was stopped"):
            click.echo(cancelling.cancel(KubernetesJobs(settings.namespace), name))
    except InvalidContainerName as error:
        fail(EXIT_USAGE, str(error))
    except cancelling.NothingToCancel as error:
        fail(EXIT_FAILED, str(error))


@main.command(
    epilog=examples(
        'eval "$(dispatcher completion bash)"    # in ~/.bashrc',
        'eval "$(dispatcher completion zsh)"     # in ~/.zshrc',
        "dispatcher completion fish > ~/.config/fish/completions/dispatcher.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script with which SHELL completes commands and options."""
    found = shell_completion.get_completion_class(shell)
    assert found is not None
    script = found(main, {}, "dispatcher", "_DISPATCHER_COMPLETE")
    # Not its source(): that of bash runs bash to learn its version, and the image need not have one.
    click.echo(script.source_template % script.source_vars())


for _command in (explain, list_, logs, wait, retry, pause, resume, drain, poison):
    main.add_command(_command)


def _compose(model: str, wishes: Mapping[str, Any]) -> str:
    body: dict[str, Any] = {"task": "train", "model_container_name": model}
    for entry in wishes["extra"]:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            fail(EXIT_USAGE, f"--field {entry!r} has no NAME=VALUE")
        if name in body:
            # It would name another model than the one that was typed, or lose one of two values.
            fail(EXIT_USAGE, f"--field {name} is given twice, or is not yours to set")
        body[name] = value
    resources = {name: wishes[name] for name in ("nodes", "gpus") if wishes[name] is not None}
    optional = {
        "dataset_container_name": wishes["dataset"],
        "resources": resources or None,
        "priority": wishes["priority"],
        "time_limit_seconds": wishes["time_limit"],
        "fresh": wishes.get("fresh") or None,
    }
    return json.dumps(body | {name: value for name, value in optional.items() if value is not None})
