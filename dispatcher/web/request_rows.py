"""Requests that have no Job, as rows of the status page: those on the queue, and those that were refused. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher.cluster import objects
from dispatcher.intake.refusals import Refusal
from dispatcher.launch.request import Bounds, MalformedRequest, claimed_model, decode
from dispatcher.queue.messages import PeekedMessage
from dispatcher.queue.poison import PoisonEntry
from training_common.redaction import redact
from training_common.times import rfc3339

Row = dict[str, Any]

# The phase of a request that is still a message on the queue.
ON_THE_QUEUE = "on the queue"
REFUSED = "refused"
# Characters shown of a name that may be no valid one.
NAME_LIMIT = 100


@dataclass(frozen=True)
class QueueFacts:
    """Both queues as last seen. depth, poison_depth: the approximate number of messages, None while not known.

    waiting, poison: the first 32 at most. problem: why the queues could not be read, "" where they could.
    """

    depth: int | None = None
    poison_depth: int | None = None
    waiting: tuple[PeekedMessage, ...] = ()
    poison: tuple[PoisonEntry, ...] = ()
    problem: str = ""


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
        "poison": poison,
    }


def epoch(seconds: float) -> str | None:
    return rfc3339(seconds) if seconds else None


def time_in(text: object) -> str | None:
    """A time as Kubernetes writes it, in one form; None for anything else (anybody may write an annotation)."""
    seconds = objects.timestamp(text) if isinstance(text, str) else None
    return None if seconds is None else rfc3339(seconds)
