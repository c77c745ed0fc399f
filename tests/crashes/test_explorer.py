"""Crashes and failures before and after every single outside call of a launch and a report."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from portal_client.statuses import ProcessingStatus
from tests.crashes.process import Process, run_until_settled
from tests.crashes.world import Crash, Fail, World

S = ProcessingStatus
Scenario = tuple[str, Callable[[], tuple[World, dict[str, ProcessingStatus]]]]


def _world(scripts: dict[str, list[str]], statuses: dict[str, ProcessingStatus]) -> World:
    world = World(scripts)
    for model, status in statuses.items():
        world.set_status(model, status)
    return world


def completes() -> tuple[World, dict[str, ProcessingStatus]]:
    world = _world({"1": ["complete"]}, {"1": S.CREATED})
    world.enqueue("1")
    return world, {"1": S.COMPLETED}


def unheard() -> tuple[World, dict[str, ProcessingStatus]]:
    world = _world({"1": ["killed", "complete-unheard"]}, {"1": S.RECONFIGURE})
    world.enqueue("1")
    return world, {"1": S.COMPLETED}


def fails() -> tuple[World, dict[str, ProcessingStatus]]:
    world = _world({"1": ["killed"]}, {"1": S.CREATED})
    world.enqueue("1")
    return world, {"1": S.FAILED}


def twice() -> tuple[World, dict[str, ProcessingStatus]]:
    world = _world({"1": ["complete"]}, {"1": S.CREATED})
    world.enqueue("1")
    world.enqueue("1")
    return world, {"1": S.COMPLETED}


def mixed() -> tuple[World, dict[str, ProcessingStatus]]:
    world = _world({"1": ["complete"], "2": ["invalid"]}, {"1": S.CREATED, "2": S.CREATED, "3": S.COMPLETED})
    for model in ("1", "2", "3", "-bad-"):
        world.enqueue(model)
    return world, {"1": S.COMPLETED, "2": S.FAILED, "3": S.COMPLETED}


SCENARIOS = [completes, unheard, fails, twice, mixed]


def _check(world: World, expected: dict[str, ProcessingStatus]) -> None:
    for model, status in expected.items():
        assert world.models[model].status is status, world.models[model].history
    assert not world.messages
    assert not world.jobs
    assert not world.pods


def _calls(scenario: Callable[[], tuple[World, dict[str, ProcessingStatus]]]) -> int:
    world, expected = scenario()
    run_until_settled(world, Process(world))
    _check(world, expected)
    return len(world.calls)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_without_faults_every_request_reaches_its_status(scenario: Callable[..., object]) -> None:
    assert _calls(scenario) > 5  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_a_crash_at_any_call_loses_and_doubles_nothing(
    scenario: Callable[[], tuple[World, dict[str, ProcessingStatus]]], side: str
) -> None:
    for at in range(_calls(scenario)):
        world, expected = scenario()
        _crash_at(world, side, {at})
        _live(world)
        _check(world, expected)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_a_call_that_fails_anywhere_loses_and_doubles_nothing(
    scenario: Callable[[], tuple[World, dict[str, ProcessingStatus]]], side: str
) -> None:
    for at in range(_calls(scenario)):
        world, expected = scenario()
        _fail_at(world, side, {at})
        _live(world)
        _check(world, expected)


@pytest.mark.parametrize("scenario", [completes, twice, fails], ids=lambda s: s.__name__)
def test_two_crashes_at_any_two_calls_lose_and_double_nothing(
    scenario: Callable[[], tuple[World, dict[str, ProcessingStatus]]],
) -> None:
    calls = _calls(scenario)
    for pair in itertools.combinations(range(calls + 4), 2):
        for side in ("before", "after"):
            world, expected = scenario()
            _crash_at(world, side, set(pair))
            _live(world)
            _check(world, expected)


def _crash_at(world: World, side: str, at: set[int]) -> None:
    count = itertools.count()

    def director(process: str, call: str, now: str) -> None:
        if now == side and call != "cluster.list" and next(count) in at:
            raise Crash(call)

    world.director = director


def _fail_at(world: World, side: str, at: set[int]) -> None:
    count = itertools.count()

    def director(process: str, call: str, now: str) -> None:
        if now == side and call != "cluster.list" and next(count) in at:
            raise Fail(call)

    world.director = director


def _live(world: World) -> None:
    """Processes one after the other: a crash ends one, Kubernetes starts the next."""
    for _ in range(10):
        process = Process(world)
        try:
            run_until_settled(world, process)
        except Crash:
            world.advance(5)
            continue
        return
    raise AssertionError("more crashes than were ordered")
