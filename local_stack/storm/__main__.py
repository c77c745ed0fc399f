"""`make storm`: many requests, several dispatchers, and faults everywhere; nothing may be lost or trained twice.

    python -m local_stack.storm --requests 2000 --dispatchers 3 --kills 50 --seconds 540 --seed 1

Real processes: dispatchers that are SIGKILLed at random, Azurite, the stand-in portal and cluster. plan.py decides
the right outcome of each request when it is made; judge.py compares it with what portal, queues and cluster hold at
the end. Exits 1 unless nothing was lost, doubled or wrong. A seed repeats the requests and the order of the faults,
but not the timing of the processes.
"""

from __future__ import annotations

import argparse
import heapq
import random
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from azure.storage.queue import QueueClient

from local_stack.azurite import AzuriteMissing
from local_stack.processes import ServiceFailed, WaitedTooLong, interrupted_once, wait_until
from local_stack.stack import ROOT
from local_stack.storm.actors import Actors
from local_stack.storm.baseline import baseline_calls, compare
from local_stack.storm.fleet import SETTINGS, VISIBILITY, Fleet, World, poison_entries
from local_stack.storm.judge import Evidence, Verdicts, judge
from local_stack.storm.plan import MODEL_PREFIX, Request, make_plan, second_message
from local_stack.storm.record import Record
from local_stack.storm.report import Figures, report
from local_stack.storm.weather import Weather

FOLDER = ROOT / ".local" / "storm"
QUEUE = "storm"
EXIT_OK, EXIT_DEVIATION, EXIT_NOT_STARTED, EXIT_INTERRUPTED = 0, 1, 2, 130
# The share of the time in which things fail; in the rest everything has to come to rest.
_STORMY = 0.6


@dataclass(frozen=True)
class Options:
    """The command line. seconds: for everything; calm: requests of each baseline without faults, 0 for none.

    credentials: CREDENTIALS of the dispatchers.
    stormy: seconds in which requests are sent and things fail; 0: three fifths of what the baselines leave.
    """

    requests: int = 2000
    dispatchers: int = 3
    kills: int = 50
    seconds: float = 540.0
    stormy: float = 0.0
    calm: int = 200
    credentials: str = "shared"
    seed: int = field(default_factory=lambda: secrets.randbelow(1_000_000))
    folder: Path = FOLDER


def run(options: Options, say: Callable[[str], None] = print) -> Verdicts:
    """The whole storm; reports its figures line by line. Raises ServiceFailed or AzuriteMissing."""
    end = time.monotonic() + options.seconds
    shutil.rmtree(options.folder, ignore_errors=True)
    say(f"storm of seed {options.seed}; logs in {options.folder}")
    with World(options.folder) as world:
        comparison: list[str] = []
        if options.calm:
            calls = [baseline_calls(world, count, options.calm, options.seed) for count in (1, 2)]
            comparison = compare(calls[0], calls[1], options.calm)
            world.portal.clear_calls()
            world.cluster.clear_calls()
        return _storm(world, options, end, comparison, say)


def _storm(world: World, options: Options, end: float, comparison: list[str], say: Callable[[str], None]) -> Verdicts:
    began = time.monotonic()
    world.create(QUEUE, QUEUE)
    queue = world.queue(QUEUE)
    requests = make_plan(options.seed, options.requests)
    by_model = {request.model_id: request for request in requests if request.model_id}
    actors = Actors(
        by_model,
        world.cluster,
        world.portal,
        QUEUE,
        lambda request: _send(queue, request, second_message(request)),
        visibility=VISIBILITY,
        seed=options.seed,
    )
    record = actors.record = Record(world.cluster, QUEUE, actors.on_running)
    weather = Weather(world.portal, world.cluster, options.seed)
    fleet = Fleet(world, QUEUE, options.dispatchers, SETTINGS | {"CREDENTIALS": options.credentials}, options.seed)
    actors.relays = fleet.relays
    record.start()
    try:
        stormy = options.stormy or (end - time.monotonic()) * _STORMY
        weather.start()
        fleet.begin_killing(options.kills, stormy)
        _send_all(queue, world, requests, stormy, random.Random(options.seed))
        with suppress(WaitedTooLong):
            wait_until(lambda: not fleet.killing, 2 * stormy)
        weather.stop()
        fleet.spare()
        fleet.start_missing()
        say(f"{time.monotonic() - began:.0f} s: all requests are sent and no more faults are caused")
        rested = _come_to_rest(world, queue, requests, record, actors, end)
        took = time.monotonic() - began
        record.refresh()
    finally:
        fleet.spare()
        actors.stop()
        record.stop()
        weather.stop()
    if failures := actors.failures():
        raise failures[0]
    evidence = Evidence(
        world.portal.models(),
        dict(record.jobs),
        dict(record.started),
        # "model-ID-abcde" is a pod of the model ID.
        record.disrupted | {pod.removeprefix(MODEL_PREFIX).rpartition("-")[0] for pod in weather.taken},
        poison_entries(world.queue(f"{QUEUE}-poison")),
        queue.get_queue_properties().approximate_message_count or 0,
    )
    verdicts = judge(requests, evidence)
    own = Counter({f"portal {method}": count for method, count in actors.portal_calls.items()})
    figures = Figures(options.seed, took, rested, requests, fleet, weather, actors, evidence, verdicts, comparison)
    calls = Counter(f"portal {call.method}" for call in world.portal.calls()) - own + Counter(world.cluster.calls())
    report(figures, calls, world.cluster.suffered(), say)
    return verdicts


def _send(queue: QueueClient, request: Request, text: str) -> None:
    request.ids.append(str(queue.send_message(text, time_to_live=-1).id))


def _send_all(queue: QueueClient, world: World, requests: list[Request], seconds: float, chance: random.Random) -> None:
    """In bursts over `seconds`; copies at their time after the first."""
    began = time.monotonic()
    due: list[tuple[float, int, Request]] = []
    at = 0.0
    for request in requests:
        # Exponential pauses, many of them none at all: bursts.
        at += chance.choice((0.0, 0.0, chance.expovariate(1 / 3))) * seconds / len(requests)
        for delay in (0.0, *request.copies):
            heapq.heappush(due, (at + delay, request.number, request))
    while due:
        moment, _, request = heapq.heappop(due)
        time.sleep(max(0.0, began + moment - time.monotonic()))
        if not request.ids and request.initial is not None:
            world.portal.set_model(request.model_id, request.initial, "as it was")
        _send(queue, request, request.text)


def _come_to_rest(
    world: World, queue: QueueClient, requests: list[Request], record: Record, actors: Actors, end: float
) -> bool:
    """Wait until nothing is left to do. False: the time was up; the verdicts say what is missing."""
    wanted = [request.model_id for request in requests if request.kind.is_told]

    def at_rest() -> bool:
        if actors.pending() or record.unsettled() or queue.get_queue_properties().approximate_message_count:
            return False
        models = world.portal.models()
        return all(models[model_id].status in ("Completed", "Failed") for model_id in wanted)

    with suppress(WaitedTooLong):
        wait_until(at_rest, end - time.monotonic(), interval=0.25)
        # For what might still be done wrongly afterwards.
        time.sleep(min(5.0, max(0.0, end - time.monotonic())))
        return True
    return False


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    usual = Options()
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--requests", type=int, default=usual.requests)
    parser.add_argument("--dispatchers", type=int, default=usual.dispatchers)
    parser.add_argument("--kills", type=int, default=usual.kills)
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="for everything")
    parser.add_argument("--stormy", type=float, default=usual.stormy, help="of them with faults; 0: three fifths")
    parser.add_argument("--calm", type=int, default=usual.calm, help="requests of each faultless baseline; 0: none")
    parser.add_argument("--credentials", choices=["shared", "scoped"], default=usual.credentials)
    parser.add_argument("--seed", type=int, default=usual.seed, help="default: random")
    options = Options(**vars(parser.parse_args(arguments)))
    with interrupted_once():
        try:
            verdicts = run(options, lambda line: print(line, flush=True))
        except KeyboardInterrupt:
            print("interrupted; everything that was started has been stopped", file=sys.stderr)
            return EXIT_INTERRUPTED
        except (ServiceFailed, AzuriteMissing) as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_NOT_STARTED
    return EXIT_DEVIATION if verdicts.findings else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
