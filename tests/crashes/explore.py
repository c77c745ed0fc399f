"""Ways to break a scenario: each makes one run of it, and `check_end` judges the world that is left."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from tests.crashes.players import Table
from tests.crashes.scenarios import Scenario
from tests.world import json_objects as objects
from tests.world.simulated.dispatcher import VISIBILITY, Disturb, Parts, Process
from tests.world.simulated.faults import Crash, Fail, Late, Violation
from tests.world.simulated.world import World

T = TypeVar("T")
Trouble = Callable[[World, str, str], None]
"""(world, process, call): raises Crash, Fail or Late, or does something to the world."""

# How long a player stands still while the other goes on: not at all, beyond the message's visibility, beyond the report
# of its Job, beyond the TTL.
STALLS = {"moment": 0.0, "delivery": VISIBILITY + 10, "report": VISIBILITY + 200, "ever": 900.0}


class Same(BaseException):
    """What a trouble would do here makes a run that another trouble makes too, or none: this run is not gone on with.

    No Exception: the stages take those for defects of their own.
    """


class Finding(AssertionError):
    """A promise was broken; the text has the schedule."""


@dataclass
class Tally:
    """What was explored."""

    runs: int = 0
    calls: int = 0
    covered: int = 0  # outcomes that a late Processing covered, and that were repaired
    raced: int = 0  # a user moved the model between a GET and its PUT
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, world: World, kind: str) -> None:
        self.runs += 1
        self.calls += len(world.calls)
        self.covered += sum(model.covered for model in world.models.values())
        self.raced += sum(model.raced for model in world.models.values())
        self.kinds[kind] += 1


TALLY = Tally()


class Defects(logging.Handler):
    """A stage that catches a defect of its own only logs it: here it is a finding."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


DEFECTS = Defects()


def explored(kind: str, scenario: Scenario, what: str, run: Callable[[World], None]) -> World:
    """One run and its judgement. Raises Finding and Same."""
    world = scenario()
    DEFECTS.found.clear()
    random.seed(0)  # the stages' jitter
    try:
        run(world)
        world.check_end()
        if DEFECTS.found:
            raise Violation("; ".join(DEFECTS.found))
    except Violation as violation:
        calls = "\n".join(f"  {process}: {call}" for process, call in world.calls[-60:])
        raise Finding(f"{scenario.__name__}, {what}: {violation}\ncalls:\n{calls}") from violation
    TALLY.add(world, kind)
    return world


# One process after the other


def live(world: World, parts: Parts | None = None, disturb: Disturb | None = None, most: int = 150) -> None:
    """Processes one after the other: a crash ends one, Kubernetes starts the next."""
    process, quiet = Process(world, parts, disturb), 0
    for _ in range(most):
        try:
            process.tick()
        except Crash:
            world.advance(5)
            process = Process(world, parts, disturb)
            continue
        world.advance(world.pace)
        if process.name in world.dead:
            process = Process(world, parts, disturb)
        # What went last may still have to be noticed.
        quiet = quiet + 1 if world.settled and not process.known() else 0
        if quiet == 2:
            return


def length(scenario: Scenario, parts: Parts | None = None) -> int:
    """How many calls it makes when nothing happens."""
    return len(explored("calm", scenario, "calm", lambda world: live(world, parts)).calls)


def at(world: World, side: str, when: Iterable[int], trouble: Trouble, among: str = "") -> None:
    """Trouble before or after the calls of these numbers, of those whose name begins so."""
    count, numbers = itertools.count(), frozenset(when)

    def director(process: str, call: str, now: str) -> None:
        if now == side and call != "cluster.list" and call.startswith(among) and next(count) in numbers:
            trouble(world, process, call)

    world.director = director


def crash(world: World, process: str, call: str) -> None:
    raise Crash(call)


def fail(world: World, process: str, call: str) -> None:
    raise Fail(call)


def late(world: World, process: str, call: str) -> None:
    raise Fail(call) if is_read(call) else Late()


def late_crash(world: World, process: str, call: str) -> None:
    raise Crash(call) if is_read(call) else Late(crash=True)


def is_read(call: str) -> bool:
    reads = (
        "portal.get",
        "cluster.get",
        "cluster.list",
        "cluster.events",
        "cluster.dry-run",
        "queue.depth",
        "queue.try",
        "storage.sas",
    )
    return call in (*reads, "queue.receive")


def drip(world: World, process: str, call: str) -> None:
    """The answer comes a byte at a time, until the call's deadline."""
    world.advance(30.0)
    raise Fail(call)


def some(found: Iterable[T]) -> list[T]:
    """What a person's deed is done to. Raises Same where there is nothing."""
    if not (these := list(found)):
        raise Same
    return these


def deleted(world: World, process: str, call: str) -> None:
    """kubectl delete job"""
    for name in some(world.jobs):
        world.delete_job(name)


def deleted_and_crash(world: World, process: str, call: str) -> None:
    """kubectl delete job while no dispatcher runs"""
    deleted(world, process, call)
    raise Crash(call)


def forced(world: World, process: str, call: str) -> None:
    """Somebody takes the finalizer off a launched Job and deletes it, while a dispatcher watches."""
    for job in some(filter(objects.is_launched, world.jobs.values())):
        world.force(objects.model_id_of(job))


def pods_deleted(world: World, process: str, call: str) -> None:
    for pod in some(world.pods.values()):
        world.delete_pod(pod, by_hand=True)


def purged(world: World, process: str, call: str) -> None:
    """The messages expire: what has no Job yet was never accepted."""
    for message in some(world.messages.values()):
        del world.messages[message.id]
        if message.id not in world.launched:
            world.forget_request(message)


def purged_and_crash(world: World, process: str, call: str) -> None:
    """They expire before the next dispatcher comes."""
    purged(world, process, call)
    raise Crash(call)


def asked_again(world: World, process: str, call: str) -> None:
    """Nobody asks anew for what was not begun."""
    over = (name for name, model in world.models.items() if not model.status.may_start and model.asked == 1)
    for model_id in some(over if not world.in_flight else ()):
        world.reconfigure(model_id)


# What leaves no trace is only seen by who watches.
SEEN_BY_WATCH = (forced, pods_deleted)


def singles(
    scenario: Scenario, troubles: Iterable[tuple[str, Trouble]], parts: Parts | None = None, every: int = 1
) -> Iterator[World]:
    """Each trouble at each call; every: 2 and more: at that part of the calls, the next trouble at others."""
    calls = length(scenario)
    for turn, (side, trouble) in enumerate(troubles):
        for number in range(turn % every, calls, every):

            def run(world: World, side: str = side, number: int = number, trouble: Trouble = trouble) -> None:
                def meet(world: World, process: str, call: str) -> None:
                    # A late read is one that fails, and whether one is answered makes no difference to the world.
                    answered = side == "after" and call != "queue.receive"
                    if is_read(call) and (answered or trouble in (late, late_crash)):
                        raise Same
                    trouble(world, process, call)

                at(world, side, [number], meet)
                live(world, parts, (lambda: "now") if trouble in SEEN_BY_WATCH else None)

            with suppress(Same):
                yield explored("one fault", scenario, f"{trouble.__name__} {side} call {number}", run)


def drips(scenario: Scenario, parts: Parts | None = None) -> Iterator[World]:
    """At each call of the portal, which has taken it or not."""
    calm = explored("calm", scenario, "calm", lambda world: live(world, parts))
    for side in ("before", "after"):
        for number in range(sum(call.startswith("portal.") for _, call in calm.calls)):

            def run(world: World, side: str = side, number: int = number) -> None:
                at(world, side, [number], drip, "portal.")
                live(world, parts)

            yield explored("a drip", scenario, f"a drip {side} the portal's call {number}", run)


def pairs(
    scenario: Scenario, first: tuple[str, Trouble], second: tuple[str, Trouble], parts: Parts | None = None
) -> Iterator[World]:
    """Two troubles, each pair of calls."""
    calls = length(scenario)
    for one, two in itertools.combinations(range(calls + 4), 2):

        def run(world: World, one: int = one, two: int = two) -> None:
            at(world, first[0], [one], first[1])
            inner = world.director
            at(world, second[0], [two], second[1])
            outer = world.director

            def both(process: str, call: str, side: str) -> None:
                try:
                    inner(process, call, side)
                finally:
                    outer(process, call, side)

            world.director = both
            live(world, parts)

        what = f"{first[1].__name__} {first[0]} call {one}, {second[1].__name__} {second[0]} call {two}"
        with suppress(Same):
            yield explored("two faults", scenario, what, run)


# Two dispatchers


def one_switch(scenario: Scenario, parts: Parts | None = None, every: int = 1) -> Iterator[World]:
    """One stands still at a call, the other goes on for a moment, a delivery, or to the very end.

    every: 2 and more: that part of the stalls at each call, in turn.
    """
    calls = length(scenario)
    for number in range(calls):
        for stall, seconds in list(STALLS.items())[number % every :: every]:

            def run(world: World, number: int = number, seconds: float = seconds) -> None:
                with Table(world, lambda: Process(world, parts)) as table:
                    first, second = table.sit(), table.sit()
                    table.rounds(first, 60, lambda call: call == number)
                    stand(table, second, seconds)
                    table.finish()

            yield explored("one switch", scenario, f"A stands at its call {number} ({stall})", run)


def silent_watch(scenario: Scenario, parts: Parts | None = None, every: int = 1) -> Iterator[World]:
    """The watch of one falls silent at any call of the other: it goes on with what it knew. every: of the calls."""
    calls = length(scenario)
    for number in range(0, calls, every):

        def run(world: World, number: int = number) -> None:
            with Table(world, lambda: Process(world, parts, lambda: "now")) as table:
                first, second = table.sit(), table.sit()
                table.rounds(first, 60, lambda call: call == number)
                second.process.refresh()
                second.process.watch_silent_until = world.now + 300
                table.finish()

        yield explored("silent watch", scenario, f"B hears nothing from A's call {number} on", run)


def two_switches(
    scenario: Scenario,
    parts: Parts | None = None,
    stalls: Iterable[tuple[str, str]] = (("delivery", "moment"), ("delivery", "ever"), ("moment", "moment")),
) -> Iterator[World]:
    """A stands at a call, then B at one of its own while A goes on, then both."""
    calls = length(scenario)
    for one_stall, two_stall in stalls:
        for one, two in itertools.product(range(calls), range(calls)):

            def run(
                world: World, one: int = one, two: int = two, first: str = one_stall, second: str = two_stall
            ) -> None:
                with Table(world, lambda: Process(world, parts)) as table:
                    a, b = table.sit(), table.sit()
                    table.rounds(a, 60, lambda call: call == one)
                    world.advance(STALLS[first])
                    if table.rounds(b, 60, lambda call: call == two) == "call":
                        stand(table, a, STALLS[second])
                    table.finish()

            what = f"A stands at its call {one} ({one_stall}), B at its call {two} ({two_stall})"
            yield explored("two switches", scenario, what, run)


def stand(table: Table, other: object, seconds: float) -> None:
    """The other one ticks while so much time passes."""
    world = table.world
    end = world.now + seconds
    other.run()  # type: ignore[attr-defined]
    while world.now < end:
        world.advance(30)
        other.run()  # type: ignore[attr-defined]
