"""`dispatcher poison list | show | requeue | purge`: the dead-letter queue of messages that cannot be launched.

A queue can only be read by receiving from it: a command hides the entries that it reads and makes them visible again at
its end; after a crash that happens by itself within a minute. Every command is idempotent: requeueing sends first and
deletes then, and a request that is on the queue twice is launched once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from dispatcher import factories
from dispatcher.cli.support import (
    EXIT_FAILED,
    EXIT_USAGE,
    Environment,
    examples,
    fail,
    outside_calls,
    settings_for_printing,
)
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import MAX_BATCH, QueueMessage
from dispatcher.queue.poison import PoisonEntry, parse_entry

# The visibility timeout of a received entry, in seconds.
_HIDDEN = 60.0

Chosen = Callable[[PoisonEntry], bool]
Entries = Iterator[tuple[QueueMessage, PoisonEntry]]


@click.group(
    epilog=examples(
        "dispatcher poison list",
        "dispatcher poison list --code ModelUnknown --json",
        "dispatcher poison requeue --code ModelUnknown",
        "dispatcher poison purge --code NotJson --yes",
    )
)
def poison() -> None:
    """List, requeue or purge the messages that could not be launched."""


@poison.command("list", epilog=examples("dispatcher poison list", "dispatcher poison list --code NotJson --json"))
@click.option("--code", help="Only entries with this code.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
@click.pass_obj
def list_(environ: Environment, code: str | None, as_json: bool) -> None:
    """List every entry: id, time, reason."""
    count = 0
    with _entries(environ, lambda entry: code in (None, entry.code)) as (queue, _, entries):
        for _, entry in entries:
            count += 1
            if as_json:
                click.echo(json.dumps(asdict(entry)))
            else:
                click.echo(f"{entry.message_id or '-'}  {entry.poisoned_at or '-'}  {entry.code}: {entry.sentence}")
        if not as_json:
            click.echo(f"{count} entr{'y' if count == 1 else 'ies'} in {queue.name}")


@poison.command(epilog=examples("dispatcher poison show 7f6c2f0e-0d6b-4a0c-9a52-1f0f3c9d2b11"))
@click.argument("message_id")
@click.pass_obj
def show(environ: Environment, message_id: str) -> None:
    """Print one entry in full, with the original message."""
    with _entries(environ, lambda entry: entry.message_id == message_id) as (queue, _, entries):
        found = next((entry for _, entry in entries), None)
    if found is None:
        fail(EXIT_FAILED, f"No entry {message_id} in {queue.name}; `dispatcher poison list` shows the ids")
    click.echo(json.dumps(asdict(found), indent=2))


@poison.command(
    epilog=examples(
        "dispatcher poison requeue 7f6c2f0e-0d6b-4a0c-9a52-1f0f3c9d2b11",
        "dispatcher poison requeue --code ModelUnknown",
        "dispatcher poison requeue --all",
    )
)
@click.argument("message_id", required=False)
@click.option("--code", help="Every entry with this code.")
@click.option("--all", "everything", is_flag=True, help="Every entry.")
@click.pass_obj
def requeue(environ: Environment, message_id: str | None, code: str | None, everything: bool) -> None:
    """Put the original messages back on the queue, once their cause is fixed."""
    chosen = _choice(message_id, code, everything)
    sent: set[str] = set()
    with _entries(environ, chosen) as (queue, requests, entries):
        for message, entry in entries:
            # A crash of the dispatcher may have left two entries of one message.
            if not entry.message_id or entry.message_id not in sent:
                requests.send(entry.original)
                sent.add(entry.message_id)
            # A crash here leaves the entry, and its request on the queue: requeued again, it is still launched once.
            queue.delete(message)
            click.echo(f"requeued {entry.message_id or 'an entry without an id'} ({entry.code})")
    _none_found(bool(sent), queue.name)


@poison.command(epilog=examples("dispatcher poison purge --code NotJson", "dispatcher poison purge --all --yes"))
@click.argument("message_id", required=False)
@click.option("--code", help="Every entry with this code.")
@click.option("--all", "everything", is_flag=True, help="Every entry.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(environ: Environment, message_id: str | None, code: str | None, everything: bool, yes: bool) -> None:
    """Delete entries for good."""
    chosen = _choice(message_id, code, everything)
    if not yes:
        click.confirm("Entries are deleted for good. Continue?", abort=True)
    count = 0
    with _entries(environ, chosen) as (queue, _, entries):
        for message, entry in entries:
            queue.delete(message)
            count += 1
            click.echo(f"purged {entry.message_id or 'an entry without an id'} ({entry.code})")
    _none_found(count > 0, queue.name)


def _choice(message_id: str | None, code: str | None, everything: bool) -> Chosen:
    if (message_id is not None) + (code is not None) + everything != 1:
        fail(EXIT_USAGE, "Say which entries: one message id, --code CODE, or --all")
    return lambda entry: everything or (entry.message_id == message_id if message_id else entry.code == code)


def _none_found(found: bool, name: str) -> None:
    if not found:
        fail(EXIT_FAILED, f"No such entry in {name}; `dispatcher poison list` shows what is there")


@contextmanager
def _entries(environ: Environment, chosen: Chosen) -> Iterator[tuple[TrainingQueue, TrainingQueue, Entries]]:
    """The poison queue, the queue of requests, and every chosen entry once.

    All that were not deleted are visible again afterwards.
    """
    settings = settings_for_printing(environ)
    held: list[QueueMessage] = []

    def each() -> Entries:
        while batch := queue.receive(MAX_BATCH, _HIDDEN):
            held.extend(batch)
            for message in batch:
                if chosen(entry := parse_entry(message.text)):
                    yield message, entry

    with outside_calls("What was not done is still in the poison queue"):
        queue = factories.open_queue(settings, settings.poison_queue_name)
        try:
            yield queue, factories.open_queue(settings, settings.queue_name), each()
        finally:
            for message in held:
                queue.requeue(message, 0.0)  # no effect on a deleted one
