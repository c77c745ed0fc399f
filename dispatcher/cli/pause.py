"""`dispatcher pause`, `resume` and `drain`: the intake of all dispatchers of a namespace, by one ConfigMap.

Nothing here speaks to a dispatcher: each looks at the ConfigMap every other second, and says there what it has in hand.
"""

from __future__ import annotations

import contextlib
import getpass
import secrets
import socket
import time
from collections.abc import Callable
from typing import NoReturn

import click

from dispatcher.cli.queues import named_queue, queue_option
from dispatcher.cli.support import EXIT_FAILED, Environment, examples, fail, outside_calls, settings_for_cluster
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.decisions.pauses import Pause, answers, pause_of, pauses_of_queues, switched_off, switched_on
from training_common.times import rfc3339

# Seconds within which every dispatcher has looked several times; and without a change after which one that had messages
# in hand has died with them: the queue delivers them again.
_ALL_HAVE_LOOKED = 8.0
_DEAD = 30.0
# Seconds between two looks at the dispatchers' answers, and at the Jobs.
_LOOK_EVERY, _LIST_EVERY = 1.0, 5.0


@click.command(
    epilog=examples(
        "dispatcher pause",
        "dispatcher pause --reason 'storage moves, until 14:00, ask Ada'",
        "dispatcher pause --queue normal",
    ),
)
@click.option("--reason", default="", help="For people: shown wherever the pause is.")
@queue_option("Of QUEUE_NAMES this one alone; the others go on.")
@click.pass_obj
def pause(environ: Environment, reason: str, queue: str | None) -> None:
    """Have every dispatcher of the namespace receive no more messages; it lasts until `resume`, whatever restarts.

    What runs, waits and is reported goes on. It needs `get` and `patch` on the ConfigMap training-dispatcher-pause.
    """
    with outside_calls():
        name = named_queue(environ, queue)
        cluster = KubernetesJobs(settings_for_cluster(environ).namespace)
        found, before = _pause(cluster, reason, name)
    if before:
        click.echo(f"{_what(cluster, name)} was paused already: {found.sentence}")
        return
    click.echo(
        f"{_what(cluster, name)} is {found.sentence}. Every dispatcher sees it within seconds;"
        " what it has received is still launched (`dispatcher drain` waits for that), and what runs goes on"
    )


@click.command(epilog=examples("dispatcher resume", "dispatcher resume --queue normal"))
@queue_option("End the pause of this queue alone. Without it that of all queues ends; those of single ones stay.")
@click.pass_obj
def resume(environ: Environment, queue: str | None) -> None:
    """End a pause: every dispatcher of the namespace receives messages again. Idempotent."""
    with outside_calls():
        name = named_queue(environ, queue)
        cluster = KubernetesJobs(settings_for_cluster(environ).namespace)
        data = _switch(cluster, "Nothing was changed")
        cluster.patch_config_map(names.PAUSE, switched_off(data, name))
    found = pause_of(data, name)
    was = f"; it was {found.sentence.partition(';')[0]}" if found else ", and was not paused"
    click.echo(f"{_what(cluster, name)} goes on{was}")
    others = pauses_of_queues(data) if not name else {"": found_all} if (found_all := pause_of(data)) else {}
    for stays in others.values():
        click.echo(f"{_what(cluster, stays.queue)} stays {stays.sentence}")


@click.command(
    epilog=examples(
        "dispatcher drain", "dispatcher drain --reason upgrade", "dispatcher drain --trainings --wait 86400"
    )
)
@click.option("--reason", default="", help="For people: shown wherever the pause is.")
@click.option("--trainings", is_flag=True, help="Also wait until every training has ended and is reported.")
@click.option("--wait", type=click.IntRange(1, 30 * 86400), default=300, show_default=True, help="Seconds, at most.")
@click.pass_obj
def drain(environ: Environment, reason: str, trainings: bool, wait: int) -> None:
    """Pause, and wait until no dispatcher has a message in hand and no Job is being launched. The pause stays."""
    with outside_calls("The pause stays"):
        cluster = KubernetesJobs(settings_for_cluster(environ).namespace)
        found, _ = _pause(cluster, reason)
        click.echo(f"{_what(cluster)} is {found.sentence}")
        click.echo(_drained(cluster, found, trainings, wait, lambda text: click.echo(f"  {text}", err=True)))


def _what(cluster: KubernetesJobs, queue: str = "") -> str:
    return f"The intake {f'from queue {queue} ' if queue else ''}in namespace {cluster.namespace}"


def _pause(cluster: KubernetesJobs, reason: str, queue: str = "") -> tuple[Pause, bool]:
    """The pause that there is now, and whether there was one before. queue: "" for all. Raises ClusterError."""
    data = _switch(cluster, "Nothing was paused")
    before = pause_of(data, queue)
    if before is not None and before.id and not reason:
        return before, True
    since = before.since if before else rfc3339(time.time())
    key = (before.id if before else "") or secrets.token_hex(4)
    wanted = Pause(since, key, reason or (before.reason if before else ""), _who(), queue)
    cluster.patch_config_map(names.PAUSE, switched_on(data if before is None else {}, wanted))
    return wanted, before is not None


def _switch(cluster: KubernetesJobs, hint: str) -> dict[str, str]:
    data = cluster.get_config_map(names.PAUSE)
    if data is None:
        fail(
            EXIT_FAILED,
            f"There is no ConfigMap {names.PAUSE} in namespace {cluster.namespace}: is that the namespace of the Jobs "
            f"(NAMESPACE)? Apply manifests/base/pause.yaml there. {hint}",
        )
    return dict(data)


def _who() -> str:
    with contextlib.suppress(KeyError, OSError, ImportError):  # a user without a name, as in the image
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return socket.gethostname()


def _drained(cluster: KubernetesJobs, pause: Pause, trainings: bool, wait: float, say: Callable[[str], None]) -> str:
    """What to say once nothing is left. Raises ClusterError; ends the process where the time is over."""
    began = time.monotonic()
    seen: dict[str, tuple[str, float]] = {}  # dispatcher → its answer, and since when it stands there
    listed, launching, unreported, said = float("-inf"), 0, 0, ""
    while True:
        now = time.monotonic()
        data = _switch(cluster, "Nobody knows whether the intake is paused")
        if (current := pause_of(data)) is None or current.id != pause.id:
            fail(
                EXIT_FAILED, "Somebody has ended the pause meanwhile (`dispatcher resume`): messages are received again"
            )
        in_hand = answers(data, pause)
        for dispatcher, (_, text) in in_hand.items():
            if seen.get(dispatcher, ("", 0.0))[0] != text:
                seen[dispatcher] = text, now
        busy = {name: n for name, (n, _) in in_hand.items() if n and now - seen[name][1] < _DEAD}
        if now - listed >= _LIST_EVERY:
            jobs = list(cluster.list_metadata("jobs", names.UNREPORTED_JOBS))
            launching = sum(job.annotations.launched_at is None for job in jobs if job.is_managed)
            listed, unreported = now, len(jobs)
        left = [f"{n} messages in hand at dispatcher {name}" for name, n in sorted(busy.items())]
        left += [f"{launching} Jobs being launched"] if launching else []
        left += [f"{unreported} trainings not ended or not reported"] if trainings and unreported else []
        looked = now - began >= _ALL_HAVE_LOOKED
        if looked and not in_hand:
            _nobody(cluster)
        if looked and not left:
            many = f"{len(in_hand)} dispatcher{'s have' if len(in_hand) > 1 else ' has'}"
            return f"Nothing is in hand: {many} answered. The pause stays until `dispatcher resume`"
        if now - began >= wait:
            fail(
                EXIT_FAILED,
                f"After {wait:.0f} s there are still {', '.join(left or ['answers to come'])}. The pause stays",
            )
        if left and (text := ", ".join(left)) != said:
            said = text
            say(text)
        time.sleep(_LOOK_EVERY)


def _nobody(cluster: KubernetesJobs) -> NoReturn:
    fail(
        EXIT_FAILED,
        f"No dispatcher of namespace {cluster.namespace} has answered: none runs, or those that run are of a version"
        f" before this switch, or their Role lacks get or patch on the ConfigMap {names.PAUSE} (`dispatcher check`)."
        " The pause stays",
    )
