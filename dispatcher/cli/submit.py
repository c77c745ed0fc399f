"""`dispatcher submit MODEL`: put a training request on the queue."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from dispatcher import factories
from dispatcher.cli.explain import ask_portal
from dispatcher.cli.following import named, to_the_end
from dispatcher.cli.queues import queue_option, queue_to_send_to
from dispatcher.cli.support import (
    EXIT_FAILED,
    EXIT_USAGE,
    Environment,
    examples,
    fail,
    outside_calls,
    read_text,
    settings_for_printing,
)
from dispatcher.config.settings import Settings
from dispatcher.launch.request import MalformedRequest, claimed_model, decode
from portal_client.model_ids import extract_model_id


@click.command(
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
    text = read_text(message) if message is not None else compose(str(model), wishes)
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


def compose(model: str, wishes: Mapping[str, Any]) -> str:
    """The message's text, from the command's options. Ends the process where --field is wrong."""
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
