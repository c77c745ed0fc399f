"""Requests that have no Job, as rows of the status page: those on the queue, and those that were refused. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dispatcher.cluster import objects
from dispatcher.intake.refusals import Refusal
from dispatcher.launch.request import Bounds, MalformedRequest, claimed_model, decode
from dispatcher.queue.messages import PeekedMessage, QueuePair
from dispatcher.queue.poison import PoisonEntry, parse_entry
from training_common.redaction import redact
from training_common.times import rfc3339

Row = dict[str, Any]

# The phase of a request that is still a message on the queue.
ON_THE_QUEUE = "on the queue"
REFUSED = "refused"
# Characters shown of a name that may be no valid one.
NAME_LIMIT = 100


class PeekedQueue(Protocol):
    """What is used here of `queue.azure.TrainingQueue`. Every method raises QueueError."""

    def peek(self) -> list[PeekedMessage]: ...
    def depth(self) -> int: ...


@dataclass(frozen=True)
class QueueFacts:
    """A queue and its poison queue as last seen, or several together.

    depth, poison_depth: the approximate number of messages, None while not known. waiting, poison: of each queue the
    first 32 at most. problem: why they could not be read, "" where they could. each: of several, by priority.
    """

    depth: int | None = None
    poison_depth: int | None = None
    waiting: tuple[PeekedMessage, ...] = ()
    poison: tuple[PoisonEntry, ...] = ()
    problem: str = ""
    name: str = ""
    each: tuple[QueueFacts, ...] = ()


def look_at(pair: QueuePair[PeekedQueue]) -> QueueFacts:
    """Four calls. Raises QueueError."""
    waiting = tuple(pair.requests.peek())
    poison = tuple(parse_entry(message.text, queue=pair.name) for message in pair.poison.peek())
    return QueueFacts(pair.requests.depth(), pair.poison.depth(), waiting, poison, name=pair.name)


def together(found: Sequence[QueueFacts]) -> QueueFacts:
    """What cannot be read of one is not known of all."""
    depths = [facts.depth for facts in found if facts.depth is not None]
    poison_depths = [facts.poison_depth for facts in found if facts.poison_depth is not None]
    return QueueFacts(
        sum(depths) if len(depths) == len(found) else None,
        sum(poison_depths) if len(poison_depths) == len(found) else None,
        tuple(message for facts in found for message in facts.waiting),
        tuple(entry for facts in found for entry in facts.poison),
        "; ".join(facts.problem for facts in found if facts.problem),
        each=tuple(found),
    )


def message_row(message: PeekedMessage, bounds: Bounds) -> Row:
    """A request that is still a message; if it will be rejected, the row says so already."""
    row: Row = {
        "model": claimed_model(message.text)[:NAME_LIMIT],
        "phase": ON_THE_QUEUE,
        "code": None,
        "sentence": "Not taken from the queue yet",
        "since": epoch(message.queued_at),
        "queued_at": epoch(message.queued_at),
        "gpus": None,
        "nodes": None,
        "dataset": None,
        "message_id": message.id,
        "queue": message.queue or None,
    }
    if message.delivery_count:
        times = "1 delivery" if message.delivery_count == 1 else f"{message.delivery_count} deliveries"
        row["sentence"] = f"It is redelivered after {times}"
    try:
        request = decode(message.text, bounds)
    except MalformedRequest as error:
        return {**row, "code": error.code, "sentence": redact(f"It will be refused: {error.sentence}")}
    nodes = request.nodes or 1
    gpus = None if request.gpus is None else request.gpus * nodes
    return {**row, "gpus": gpus, "nodes": nodes, "dataset": request.dataset_container}


def refused_rows(refusals: Sequence[Refusal], poison: Sequence[PoisonEntry]) -> list[Row]:
    """The newest first. A request that this process refused and the poison queue has, too, is one row."""
    rows: dict[str, Row] = {}
    for refusal in refusals:
        row = _refused_row(refusal, refusal.model, epoch(refusal.at), poison=False)
        rows[f"{refusal.message_id} {refusal.code}"] = row
    for number, entry in enumerate(poison):
        row = _refused_row(entry, claimed_model(entry.original), time_in(entry.poisoned_at), poison=True)
        rows[f"{entry.message_id or number} {entry.code}"] = row
    return sorted(rows.values(), key=lambda row: row["since"] or "", reverse=True)


def _refused_row(refused: Refusal | PoisonEntry, model: str, at: str | None, *, poison: bool) -> Row:
    """poison: whether the poison queue has it, from which it can be requeued."""
    return {
        "model": model[:NAME_LIMIT],
        "phase": REFUSED,
        "code": refused.code,
        "sentence": redact(refused.sentence),
        "since": at,
        "message_id": refused.message_id,
        "queue": refused.queue or None,
        "poison": poison,
    }


def epoch(seconds: float) -> str | None:
    return rfc3339(seconds) if seconds else None


def time_in(text: object) -> str | None:
    """A time as Kubernetes writes it, in one form; None for anything else (anybody may write an annotation)."""
    seconds = objects.timestamp(text) if isinstance(text, str) else None
    return None if seconds is None else rfc3339(seconds)
