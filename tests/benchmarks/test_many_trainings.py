"""`python -m benchmarks.many_trainings`, small: the same world, the same accidents, the same promises."""

from __future__ import annotations

import pytest

from benchmarks.many_trainings import HOUR, Outcome, Plan, prepare, rows, run
from tests.world.simulated.faults import Violation
from tests.world.simulated.many import ManyWorld

# A few hours of a small installation, with fewer GPUs than trainings that want one.
PLAN = Plan(trainings=3000, hours=2, lasts=0.5, at_once=200, gpus=50)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run(PLAN)


def test_every_request_is_trained_and_reported_through_outage_restart_and_waiting(outcome: Outcome) -> None:
    world = outcome.world
    assert world.settled
    assert len(world.launch_waits) == len(world.report_waits) == PLAN.total
    assert outcome.restarted_with > PLAN.gpus
    assert outcome.missed == 0


def test_no_more_trainings_are_there_than_allowed(outcome: Outcome) -> None:
    world = outcome.world
    assert PLAN.gpus < world.most_unfinished <= PLAN.at_once
    assert 0 < world.most_waiting <= PLAN.at_once - PLAN.gpus + 1


def test_progress_keeps_its_pace_and_delays_no_outcome(outcome: Outcome) -> None:
    world, rate = outcome.world, PLAN.settings.progress_rate
    assert world.puts["progress"] > 20
    for second in world.progress:
        assert sum(world.progress[second + more] for more in range(10)) <= 11 * rate
    begin, end = outcome.outage
    calm = [wait for at, wait in world.report_waits if not begin - 60 <= at <= end + 60]
    assert max(calm) < 60


def test_outcomes_of_an_outage_are_reported_soon_after_it(outcome: Outcome) -> None:
    begin, end = outcome.outage
    after = [at + wait - end for at, wait in outcome.world.report_waits if begin <= at < end]
    assert after
    assert max(after) < 120


def test_what_is_printed_names_every_figure(outcome: Outcome) -> None:
    printed = dict(rows(PLAN, outcome))
    assert printed["differences that a comparison found"] == "0"
    assert all(printed.values())


def test_the_same_seed_brings_the_same_requests() -> None:
    one, other = ([when for when, _ in prepare(PLAN).arrivals] for _ in range(2))
    assert one == other
    assert len(one) >= PLAN.total


def test_a_broken_promise_is_found_at_this_size_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody overwrites an outcome at the portal."""
    plan = Plan(trainings=240, hours=1, lasts=0.05, at_once=20, gpus=20)
    settled = ManyWorld.settled.fget  # type: ignore[attr-defined]

    def spoiled(world: ManyWorld) -> bool:
        if settled(world) and world.now > HOUR:
            world.models["1"].write("somebody", type(world.models["1"].status).PROCESSING, "", world.now)
        return bool(settled(world))

    monkeypatch.setattr(ManyWorld, "settled", property(spoiled))
    with pytest.raises(Violation, match="model 1 ends as Processing"):
        run(plan)
