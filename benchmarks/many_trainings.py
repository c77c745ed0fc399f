"""One dispatcher beside a hundred thousand trainings a day: its real stages in a world with a virtual clock.

Requests come over the day, most in its middle and some in bursts. Trainings take hours; some fail, some are retried,
some run into their time limit, some messages come twice or are none. Where more want a GPU than there are, they wait.
In the afternoon the portal is away for 20 minutes, and near the day's peak the dispatcher dies in the midst of a call.
When all has ended, every promise of the crash explorer is held against what is left: exit code 1 if one was broken.

What a call takes of its thread is assumed (tests/world/simulated/many.py has the figures); HTTP, TLS and JSON are left
out: `make bench` and `make scale` measure them.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import random
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from dispatcher.config.settings import Settings
from portal_client.statuses import ProcessingStatus
from tests.world.simulated.faults import Crash, Violation
from tests.world.simulated.many import LATENCY, ManyProcess, ManyWorld, percentile

HOUR = 3600.0
DAY = 24 * HOUR
# What the pods of a training do, one after the other, and how many of a thousand are such.
KINDS: dict[tuple[str, ...], int] = {
    ("complete",): 850,
    ("complete-unreported",): 20,
    ("retry", "complete"): 40,
    ("preempted", "complete"): 30,
    ("invalid",): 30,
    ("invalid-unreported",): 10,
    ("killed",): 18,
    ("hang",): 2,
}
# Pods that end as these do so early.
_EARLY = ("invalid", "invalid-unreported")
_TWICE, _BROKEN = 0.01, 0.001  # messages that come twice, or are none
_BURSTS, _IN_BURSTS = 12, 0.2  # so many bursts have this share of a day's requests
_RESTART_AT = 0.85  # of the hours for which requests come
_RESTART_SECONDS = 10.0
_OUTAGE_SECONDS = 1200.0
_OUTAGE_AT = 15 * HOUR


@dataclass(frozen=True)
class Plan:
    """trainings: a day; hours: for which requests come; lasts: mean hours of one; at_once: MAX_ACTIVE_JOBS."""

    trainings: int = 100_000
    hours: float = 24.0
    lasts: float = 6.0
    at_once: int = 50_000
    gpus: int = 21_000
    seed: int = 1

    @property
    def total(self) -> int:
        return round(self.trainings * self.hours / 24)

    @property
    def settings(self) -> Settings:
        return Settings.read(
            {
                "QUEUE_NAME": "requests",
                "AZURE_STORAGE_QUEUE_URL": "https://account.queue.core.windows.net",
                "JOB_TEMPLATE": __file__,  # must exist; the simulated world has its own
                "STATUS_TRACKING": "off",
                "MAX_ACTIVE_JOBS": str(self.at_once),
                "TTL_AFTER_REPORT_SECONDS": "3600",
            }
        )


@dataclass
class Outcome:
    """What one run showed. Seconds are virtual unless they say CPU."""

    world: ManyWorld
    process: ManyProcess
    restarted_with: int = 0  # unfinished Jobs at the restart
    restart_cpu: float = 0.0
    outage: tuple[float, float] = (0.0, 0.0)
    cpu: dict[str, float] = field(default_factory=dict)
    most_ready: int = 0
    missed: int = 0
    cpu_of_gauges: list[float] = field(default_factory=list)
    wall: float = 0.0
    ended: float = 0.0

    def close(self, process: ManyProcess) -> None:
        """Take what a process that is at its end has measured."""
        self.most_ready = max(self.most_ready, process.most_ready)
        self.missed += process.missed
        self.cpu_of_gauges += process.cpu_of_gauges


def prepare(plan: Plan) -> ManyWorld:
    """A world with all that will come."""
    rng = random.Random(plan.seed)
    mean = plan.lasts * HOUR

    def lasts(act: str) -> float:
        seconds = mean * rng.uniform(0.25, 1.75)
        return seconds * (0.02 if act in _EARLY else 1.0)

    world = ManyWorld(plan.gpus, lasts)
    begin = world.now
    times = _times(plan, rng)
    kinds = rng.choices(list(KINDS), list(KINDS.values()), k=len(times))
    for number, (when, kind) in enumerate(zip(times, kinds, strict=True), 1):
        model, fields = str(number), {"time_limit_seconds": 2 * int(HOUR)} if kind == ("hang",) else {}

        def come(model: str = model, kind: tuple[str, ...] = kind, fields: dict[str, int] = fields) -> None:
            world.trainers[model] = list(kind)
            world.set_status(model, ProcessingStatus.CREATED)
            world.enqueue(model, **fields)

        world.arrivals.append((begin + when, come))
        if rng.random() < _TWICE:
            world.arrivals.append((begin + when + rng.uniform(0, 60), lambda model=model: world.enqueue(model)))
        if rng.random() < _BROKEN:
            world.arrivals.append((begin + when, lambda: world.enqueue("-bad-")))
    world.arrivals.sort(key=lambda arrival: -arrival[0])
    return world


def _times(plan: Plan, rng: random.Random) -> list[float]:
    """Seconds from the beginning: a day's wave, at 14 h five times what it is at 2 h, and bursts of one minute."""
    length = plan.hours * HOUR
    bursts = [rng.uniform(0, length) for _ in range(_BURSTS)]
    times: list[float] = []
    while len(times) < plan.total:
        if rng.random() < _IN_BURSTS:
            times.append(rng.choice(bursts) + rng.uniform(0, 60))
            continue
        when = rng.uniform(0, length)
        if rng.random() < (3 - 2 * math.cos((when - 2 * HOUR) / DAY * 2 * math.pi)) / 5:
            times.append(when)
    return sorted(times)


def run(plan: Plan, tell: bool = False) -> Outcome:
    """The whole of it. Raises Violation where a promise is broken."""
    random.seed(plan.seed)  # the stages' jitter
    world, settings, began = prepare(plan), plan.settings, time.monotonic()
    world.director = world.trouble
    process = ManyProcess(world, settings)
    start, last_arrival = world.now, world.arrivals[0][0]
    outcome = Outcome(world, process)
    away_at = start + min(_OUTAGE_AT, plan.hours * HOUR * 0.6)
    outcome.outage = (away_at, away_at + _OUTAGE_SECONDS)
    restart_at = start + plan.hours * HOUR * _RESTART_AT
    following = Counter({"compare": start + settings.resync, "hour": start + HOUR})
    while world.now < last_arrival or not world.settled:
        world.advance(1.0)
        world.portal_away = outcome.outage[0] <= world.now < outcome.outage[1]
        if world.now >= restart_at:
            restart_at, world.crash_next = math.inf, True
        try:
            process.tick()
        except Crash:
            outcome.restarted_with = world.unfinished
            outcome.close(process)
            world.advance(_RESTART_SECONDS)
            process = ManyProcess(world, settings)
            outcome.restart_cpu = process.cpu_of_start
        if world.now >= following["compare"]:
            following["compare"] = world.now + settings.resync
            process.refresh()
            process.compare()
        if world.now >= following["hour"]:
            following["hour"] = world.now + HOUR
            process.measure_gauges()
            if tell:
                hours = (world.now - start) / HOUR
                print(
                    f"  {hours:3.0f} h: {world.unfinished} unfinished, {len(world.messages)} messages,"
                    f" {time.monotonic() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    outcome.close(process)
    outcome.process = process
    outcome.ended, outcome.wall = world.now - start, time.monotonic() - began
    outcome.cpu = world.stopwatch.cpu()
    world.check_end()
    return outcome


def rows(plan: Plan, outcome: Outcome) -> list[tuple[str, str]]:
    """What is printed: name and figure."""
    world = outcome.world
    trainings = len(world.launch_waits)
    calls = world.calls.kinds  # type: ignore[attr-defined]
    puts = world.puts
    after = [at + wait - outcome.outage[1] for at, wait in world.report_waits if at <= outcome.outage[1] < at + wait]
    ends = Counter(model.status.title for model in world.models.values())
    per = {what: 1000 * cpu / trainings for what, cpu in outcome.cpu.items()}
    verbs = ("create", "get", "patch", "delete", "delete-pod", "list", "events", "event")
    return [
        ("trainings launched, Completed, Failed", f"{trainings:,}, {ends['Completed']:,}, {ends['Failed']:,}"),
        ("virtual time", f"{outcome.ended / HOUR:.1f} h"),
        ("most unfinished at once; of these without a GPU", f"{world.most_unfinished:,}; {world.most_waiting:,}"),
        ("launches a second: mean of the busiest minute, busiest second", _rate(world.launches)),
        ("reports a second: mean of the busiest minute, busiest second", _rate(world.reports)),
        ("message sent until its Job is resumed: p50, p99, longest", _waits(world.launch_waits)),
        ("the same without what came while the portal was away", _waits(_calm(world.launch_waits, outcome))),
        ("last pod ended until it is reported: p50, p99, longest", _waits(world.report_waits)),
        ("the same without what ended while the portal was away", _waits(_calm(world.report_waits, outcome))),
        ("outcomes of the outage; all reported after its end within", f"{len(after):,}; {max(after, default=0):.0f} s"),
        ("portal, GET; PUT of Processing, progress, outcome", _puts(calls, puts)),
        ("portal calls in the busiest second; of these progress at most", _busiest(world)),
        ("API server: " + ", ".join(verbs), ", ".join(f"{calls['cluster.' + verb]:,}" for verb in verbs)),
        (
            "queue: receive, delete, requeue",
            ", ".join(f"{calls['queue.' + v]:,}" for v in ("receive", "delete", "requeue")),
        ),
        ("poison entries", f"{len(world.poison):,}"),
        ("work queue: most keys that were ready", f"{outcome.most_ready:,}"),
        ("differences that a comparison found", str(outcome.missed)),
        (
            "restart: unfinished Jobs, CPU until all is known",
            f"{outcome.restarted_with:,}, {outcome.restart_cpu:.1f} s",
        ),
        (
            "CPU a training: launching, watching and reporting, Events",
            ", ".join(f"{per.get(what, 0.0):.2f} ms" for what in ("launch", "report", "events")),
        ),
        ("CPU of the gauges, once: longest", f"{1000 * max(outcome.cpu_of_gauges, default=0.0):.0f} ms"),
        ("CPU of the dispatcher's part, of the world", f"{_ours(outcome):.0f} s, {outcome.cpu['world']:.0f} s"),
        ("wall time", f"{outcome.wall:.0f} s"),
        (
            "memory of dispatcher and world together, peak",
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB",
        ),
    ]


def _calm(waits: list[tuple[float, float]], outcome: Outcome) -> list[tuple[float, float]]:
    begin, end = outcome.outage
    return [(at, wait) for at, wait in waits if not begin - 60 <= at <= end + 60]


def _rate(seconds: Counter[int]) -> str:
    minutes: Counter[int] = Counter()
    for second, count in seconds.items():
        minutes[second // 60] += count
    return f"{max(minutes.values(), default=0) / 60:.1f}, {max(seconds.values(), default=0)}"


def _waits(found: list[tuple[float, float]]) -> str:
    waits = [wait for _, wait in found]
    figures = percentile(waits, 0.5), percentile(waits, 0.99), max(waits, default=0.0)
    return ", ".join(f"{seconds:.0f} s" for seconds in figures)


def _puts(calls: Counter[str], puts: Counter[str]) -> str:
    return f"{calls['portal.get']:,}; {puts['Processing']:,}, {puts['progress']:,}, {puts['outcome']:,}"


def _ours(outcome: Outcome) -> float:
    return sum(outcome.cpu.get(what, 0.0) for what in ("start", "launch", "report", "events"))


def _busiest(world: ManyWorld) -> str:
    return f"{max(world.portal_calls.values())}; {max(world.progress.values(), default=0)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_trainings", description=__doc__)
    plan = Plan()
    parser.add_argument("--trainings", type=int, default=plan.trainings, help=f"requests a day ({plan.trainings})")
    parser.add_argument("--hours", type=float, default=plan.hours, help=f"for which requests come ({plan.hours:g})")
    parser.add_argument("--lasts", type=float, default=plan.lasts, help=f"mean hours of a training ({plan.lasts:g})")
    parser.add_argument("--at-once", type=int, default=plan.at_once, help=f"MAX_ACTIVE_JOBS ({plan.at_once})")
    parser.add_argument("--gpus", type=int, default=plan.gpus, help=f"trainings that run at once ({plan.gpus})")
    parser.add_argument("--seed", type=int, default=plan.seed, help=f"({plan.seed})")
    plan = Plan(**vars(parser.parse_args()))
    logging.disable(logging.CRITICAL)  # lines of a hundred thousand launches
    # Millions of objects of the world stay; looking at all of them is rarely worth it.
    gc.set_threshold(100_000, 50, 1000)
    spent = ", ".join(f"{kind} {1000 * seconds:.0f} ms" for kind, seconds in LATENCY.items())
    print(f"{plan.total:,} requests in {plan.hours:g} h, seed {plan.seed}; a call takes: {spent}", flush=True)
    try:
        outcome = run(plan, tell=True)
    except Violation as violation:
        sys.exit(f"error: a promise was broken: {violation}")
    width = max(len(name) for name, _ in rows(plan, outcome))
    for name, figure in rows(plan, outcome):
        print(f"{name:{width}}  {figure}")
    print("Every promise held.")


if __name__ == "__main__":
    main()
