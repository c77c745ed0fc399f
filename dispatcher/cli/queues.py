"""Which of several queues a command is about, and who else reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import click

from dispatcher import factories
from dispatcher.cli.support import EXIT_USAGE, Environment, fail, settings_for_printing
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.config.settings import Settings
from dispatcher.decisions.readers import Reader, others
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import QueuePair

Command = TypeVar("Command", bound=Callable[..., object])


def queue_option(help_: str) -> Callable[[Command], Command]:
    return click.option("--queue", "queue", metavar="NAME", help=help_)


def named_queue(environ: Environment, queue: str | None) -> str:
    """The queue that is named, "" for none. Ends the process for one that the settings do not have."""
    if queue is not None:
        _require(settings_for_printing(environ), queue)
    return queue or ""


def pairs_of(settings: Settings, queue: str | None) -> list[QueuePair[TrainingQueue]]:
    """The one that is named, or all. Raises ConnectionStringInvalid; ends the process for a name that is not known."""
    if queue is not None:
        _require(settings, queue)
    return [pair for pair in factories.open_queues(settings) if queue in (None, pair.name)]


def _require(settings: Settings, queue: str) -> None:
    if queue not in settings.queues:
        fail(EXIT_USAGE, f"--queue {queue} is none of the queues here: {', '.join(settings.queues)}")


def queue_to_send_to(settings: Settings, queue: str | None) -> TrainingQueue:
    """The one that is named, or the only one: which of several is urgent enough nobody guesses."""
    pairs = pairs_of(settings, queue)
    if len(pairs) > 1:
        fail(EXIT_USAGE, f"Say which queue, with --queue: {' or '.join(settings.queues)}. Nothing was sent")
    return pairs[0].requests


def other_readers(pairs: Iterable[QueuePair[TrainingQueue]], cluster: KubernetesJobs) -> Sequence[Reader]:
    """The namespaces beside the cluster's whose dispatchers read one of the queues, too. Raises QueueError."""
    now = time.time()
    found = {r.namespace: r for pair in pairs for r in others(pair.requests.metadata(), cluster.place, now)}
    return sorted(found.values(), key=lambda reader: not reader.is_alive)
