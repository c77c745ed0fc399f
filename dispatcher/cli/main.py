"""The command line: `dispatcher run | check | render | submit | status | explain | cancel | pause | poison | ...`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
from click import shell_completion

from dispatcher import app, factories
from dispatcher.cli import cancel as cancelling
from dispatcher.cli import status as statuses
from dispatcher.cli.checks.command import check
from dispatcher.cli.explain import explain
from dispatcher.cli.following import logs, retry, wait
from dispatcher.cli.kubectl_yaml import yaml_for_kubectl
from dispatcher.cli.listing import list_
from dispatcher.cli.pause import drain, pause, resume
from dispatcher.cli.poison import poison
from dispatcher.cli.submit import submit
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
    settings_for_cluster,
    settings_for_printing,
    without_services,
)
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterError
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.request import decode
from dispatcher.queue.messages import QueueError
from dispatcher.web.listen import CannotListen
from portal_client.model_ids import InvalidContainerName

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
    settings = read_settings(without_services(environ))
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
    settings = settings_for_cluster(environ)
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


for _command in (check, submit, explain, list_, logs, wait, retry, pause, resume, drain, poison):
    main.add_command(_command)
