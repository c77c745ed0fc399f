"""`dispatcher poison list | show | requeue | purge`: the dead-letter queue of messages that cannot be launched.

Whoever may send to the queue may put anything there: what is printed of it is made printable, and only entries that
prove to be the dispatcher's own are requeued by code or all together.

A queue can only be read by receiving from it: a command hides the entries that it reads and makes them visible again at
its end; after a crash that happens by itself within a minute. Every command is idempotent: requeueing sends first and
deletes then, and a request that is on the queue twice is launched once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from email.utils import parsedate_to_datetime

import click

from dispatcher.cli.queues import pairs_of, queue_option
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
from dispatcher.queue.messages import MAX_BATCH, QueueMessage, QueuePair
from dispatcher.queue.poison import PoisonEntry, parse_entry
from training_common.text import one_line

# The visibility timeout of a received entry, in seconds.
_HIDDEN = 60.0
# Characters shown of what an entry says.
_SHOWN = 500
_ONE = "Of QUEUE_NAMES: only what this queue has refused; by default all."

Chosen = Callable[[PoisonEntry], bool]
Found = tuple[QueuePair[TrainingQueue], QueueMessage, PoisonEntry]


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
@queue_option(_ONE)
@click.pass_obj
def list_(environ: Environment, code: str | None, as_json: bool, queue: str | None) -> None:
    """List every entry: id, time, reason."""
    count = 0
    with _entries(environ, queue, lambda entry: code in (None, entry.code)) as (where, entries):
        for pair, _, entry in entries:
            count += 1
            if as_json:
                click.echo(json.dumps(asdict(entry)))
            else:
                of = f"{pair.name}  " if where.several else ""
                click.echo(f"{of}{_shown(entry.message_id)}  {_shown(entry.poisoned_at)}  {_reason(entry)}")
        if not as_json:
            click.echo(f"{count} entr{'y' if count == 1 else 'ies'} in {where}")


@poison.command(epilog=examples("dispatcher poison show 7f6c2f0e-0d6b-4a0c-9a52-1f0f3c9d2b11"))
@click.argument("message_id")
@queue_option(_ONE)
@click.pass_obj
def show(environ: Environment, message_id: str, queue: str | None) -> None:
    """Print one entry in full, with the original message; where several have the id, the proven ones first."""
    with _entries(environ, queue, lambda entry: entry.message_id == message_id) as (where, entries):
        found = [entry for _, _, entry in entries]
    if not found:
        fail(EXIT_FAILED, f"No entry {message_id} in {where}; `dispatcher poison list` shows the ids")
    for entry in sorted(found, key=_proven_first):
        click.echo(json.dumps(asdict(entry), indent=2))


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
@click.option("--unproven", is_flag=True, help="With --code or --all: also entries that do not prove to be our own.")
@queue_option(_ONE)
@click.pass_obj
def requeue(
    environ: Environment, message_id: str | None, code: str | None, everything: bool, unproven: bool, queue: str | None
) -> None:
    """Put the original messages back on the queue that each came from, once their cause is fixed.

    Entries that do not prove to be the dispatcher's own stay, unless one is named by its id: anybody who may send to
    the poison queue could have written them. Those from before a change of API_KEY are among them.
    """
    chosen = _choice(message_id, code, everything)
    sent: set[str] = set()
    left = 0
    with _entries(environ, queue, chosen) as (where, entries):
        # By its id there are few, and a forged one must not stand for ours.
        ordered = sorted(entries, key=lambda found: _proven_first(found[2])) if message_id else entries
        for pair, message, entry in ordered:
            if not (entry.proven or unproven or message_id):
                left += 1
                continue
            # A crash of the dispatcher may have left two entries of one message.
            if not entry.message_id or entry.message_id not in sent:
                pair.requests.send(entry.original)
                sent.add(entry.message_id)
            # A crash here leaves the entry, and its request on the queue: requeued again, it is still launched once.
            pair.poison.delete(message)
            click.echo(f"requeued {_shown(entry.message_id, 'an entry without an id')} ({_shown(entry.code)})")
    if left:
        sentence = f"{left} left: not proven to be the dispatcher's; look at them, then name one, or use --unproven"
        click.echo(sentence) if sent else fail(EXIT_FAILED, sentence)
    _none_found(bool(sent), where)


@poison.command(epilog=examples("dispatcher poison purge --code NotJson", "dispatcher poison purge --all --yes"))
@click.argument("message_id", required=False)
@click.option("--code", help="Every entry with this code.")
@click.option("--all", "everything", is_flag=True, help="Every entry.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@queue_option(_ONE)
@click.pass_obj
def purge(
    environ: Environment, message_id: str | None, code: str | None, everything: bool, yes: bool, queue: str | None
) -> None:
    """Delete entries for good."""
    chosen = _choice(message_id, code, everything)
    if not yes:
        click.confirm("Entries are deleted for good. Continue?", abort=True)
    count = 0
    with _entries(environ, queue, chosen) as (where, entries):
        for pair, message, entry in entries:
            pair.poison.delete(message)
            count += 1
            click.echo(f"purged {_shown(entry.message_id, 'an entry without an id')} ({_shown(entry.code)})")
    _none_found(count > 0, where)


def _choice(message_id: str | None, code: str | None, everything: bool) -> Chosen:
    if (message_id is not None) + (code is not None) + everything != 1:
        fail(EXIT_USAGE, "Say which entries: one message id, --code CODE, or --all")
    return lambda entry: everything or (entry.message_id == message_id if message_id else entry.code == code)


def _none_found(found: bool, where: Where) -> None:
    if not found:
        fail(EXIT_FAILED, f"No such entry in {where}; `dispatcher poison list` shows what is there")


def _proven_first(entry: PoisonEntry) -> bool:
    return not entry.proven


def _reason(entry: PoisonEntry) -> str:
    doubt = "" if entry.proven or entry.code == "Unknown" else " (not proven)"
    return f"{_shown(entry.code)}{doubt}: {_shown(entry.sentence)}"


def _shown(text: str, empty: str = "-") -> str:
    """For a terminal."""
    return one_line(text)[:_SHOWN] or empty


@contextmanager
def _entries(environ: Environment, queue: str | None, chosen: Chosen) -> Iterator[tuple[Where, Iterator[Found]]]:
    """Every chosen entry of the poison queues once, or of the one of `queue`.

    All that were not deleted are visible again afterwards.
    """
    settings = settings_for_printing(environ)
    with outside_calls("What was not done is still in the poison queue"):
        walks = [_Walk(pair) for pair in pairs_of(settings, queue)]
        try:
            where = Where(tuple(walk.pair.poison.name for walk in walks))
            yield where, itertools.chain.from_iterable(walk.each(chosen) for walk in walks)
        finally:
            for walk in walks:
                walk.end()


@dataclass(frozen=True)
class Where:
    """The poison queues that were looked through."""

    names: tuple[str, ...]

    @property
    def several(self) -> bool:
        return len(self.names) > 1

    def __str__(self) -> str:
        return " and ".join(self.names)


@dataclass
class _Walk:
    """Through one poison queue. held: what was received, by id, with the newest receipt and without the text."""

    pair: QueuePair[TrainingQueue]
    held: dict[str, QueueMessage] = field(default_factory=dict)

    def each(self, chosen: Chosen) -> Iterator[Found]:
        # Entries become visible again while a long queue is read, and others are added. What has come before, or came
        # only after the walk began, is no news; as many of those in a row as there are entries, and all have been seen.
        held, queue = self.held, self.pair.poison
        began: float | None = None
        old = 0
        while old <= len(held) and (batch := queue.receive(MAX_BATCH, _HIDDEN)):
            began = began or _time(queue.server_date)
            for message in batch:
                is_new = message.id not in held and not (began and message.queued_at > began)
                kept = held.setdefault(message.id, replace(message, text=""))
                kept.pop_receipt, kept.hidden_until = message.pop_receipt, message.hidden_until
                old = 0 if is_new else old + 1
                if is_new and chosen(entry := self._read(message.text)):
                    yield self.pair, kept, entry

    def _read(self, text: str) -> PoisonEntry:
        entry = parse_entry(text, self.pair.secret, self.pair.name)
        if self.pair.secret:
            return entry
        return replace(entry, proven=entry.code != "Unknown")  # there is nothing to prove it by

    def end(self) -> None:
        for message in self.held.values():
            if message.remaining() > 0:  # else it is visible already
                self.pair.poison.requeue(message, 0.0)  # no effect on a deleted one


def _time(date: str | None) -> float | None:
    """Epoch seconds of a Date header, by the clock that also dates the messages."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
