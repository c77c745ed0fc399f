"""Laws of the intake from several queues: no cap is exceeded, none starves, and weights hold over time."""

from __future__ import annotations

from collections import Counter

from hypothesis import assume, given
from hypothesis import strategies as st

from dispatcher.decisions.fairness import Lane, Turns, own, reserve, rooms

MOST = st.integers(1, 60)
LANES = st.lists(
    st.tuples(st.integers(1, 20), st.none() | st.integers(1, 30)),
    min_size=1,
    max_size=5,
).map(lambda found: [Lane(f"queue-{n}", weight, cap) for n, (weight, cap) in enumerate(found)])


@given(LANES, MOST, st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), max_size=120))
def test_law_no_cap_is_ever_exceeded_whatever_is_asked_for(
    lanes: list[Lane], most: int, steps: list[tuple[int, int]]
) -> None:
    """Each step: a queue takes as many as it has room for and wants, or as many of its Jobs end."""
    active: Counter[str] = Counter()
    for number, (who, wanted) in enumerate(steps):
        lane = lanes[who % len(lanes)]
        if number % 3 == 2:
            active[lane.name] -= min(active[lane.name], wanted)
            continue
        active[lane.name] += min(wanted, rooms(lanes, active, most)[lane.name])
        assert sum(active.values()) <= most
        assert all(each.cap is None or active[each.name] <= each.cap for each in lanes)


@given(LANES, MOST, st.integers(0, 4), st.lists(st.integers(0, 4), max_size=200))
def test_law_no_flood_of_the_others_takes_the_last_room_of_a_queue(
    lanes: list[Lane], most: int, last: int, order: list[int]
) -> None:
    assume(len(lanes) > 1 and most >= len(lanes))
    quiet = lanes[last % len(lanes)]
    active: Counter[str] = Counter()
    for who in order:
        lane = lanes[who % len(lanes)]
        if lane is not quiet:
            active[lane.name] += rooms(lanes, active, most)[lane.name]
    assert rooms(lanes, active, most)[quiet.name] >= min(reserve(lanes, most), quiet.cap or most) >= 1


@given(LANES, MOST)
def test_law_whoever_is_alone_uses_all_but_the_reserve(lanes: list[Lane], most: int) -> None:
    kept = reserve(lanes, most)
    for lane in lanes:
        for_others = sum(min(kept, other.cap or most) for other in lanes if other is not lane)
        assert rooms(lanes, {}, most)[lane.name] == min(most - for_others, lane.cap or most)


@given(MOST, st.dictionaries(st.sampled_from(["", "only", "no-more-read"]), st.integers(0, 20)))
def test_law_one_queue_has_what_max_active_jobs_leaves(most: int, active: dict[str, int]) -> None:
    """Jobs from before, and of a queue that was read before, count too."""
    assert rooms([Lane("only")], active, most) == {"only": max(0, most - sum(active.values()))}


def test_jobs_that_name_no_queue_are_of_the_first() -> None:
    lanes = [Lane("urgent", cap=5), Lane("normal")]
    assert own(lanes, {"": 3, "urgent": 1, "gone": 2}) == {"urgent": 4, "normal": 0}
    assert rooms(lanes, {"": 3, "urgent": 1, "gone": 2}, 100)["urgent"] == 1


@given(LANES, st.lists(st.integers(1, 32), min_size=1, max_size=300))
def test_law_weights_hold_over_time_while_all_have_messages(lanes: list[Lane], batches: list[int]) -> None:
    turns, given_ = Turns(), Counter[str]()
    for batch in batches:
        lane = turns.order(lanes)[0]
        turns = turns.took(lane, batch)
        given_[lane.name] += batch
    # Start-time fair queuing: in rounds, two queues are never further apart than the largest batch of each.
    rounds = {lane: given_[lane.name] / lane.weight for lane in lanes}
    for one in lanes:
        for other in lanes:
            assert abs(rounds[one] - rounds[other]) <= 32 / one.weight + 32 / other.weight + 1e-9


@given(LANES, st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=1, max_size=300), st.integers(0, 4))
def test_law_a_queue_with_messages_waits_for_no_more_than_a_round_of_the_others(
    lanes: list[Lane], steps: list[tuple[int, bool]], who: int
) -> None:
    """Whatever the others do: they come and go. Steps: a batch, and whether the first of the others has messages."""
    assume(len(lanes) > 1)
    waiting = lanes[who % len(lanes)]
    others = [lane for lane in lanes if lane is not waiting]
    turns, passed = Turns(), Counter[str]()
    for batch, comes in steps:
        candidates = [lane for lane in lanes if lane is waiting or comes or lane is not others[0]]
        lane = turns.order(candidates)[0]
        turns = turns.took(lane, batch)
        if lane is waiting:
            passed.clear()
            continue
        passed[lane.name] += batch
        # It gave 8 at most before: so long is its own round.
        assert passed[lane.name] / lane.weight <= 8 / waiting.weight + 2 * 8 / lane.weight + 1e-9


@given(LANES, st.integers(1, 100))
def test_law_who_was_quiet_makes_up_for_nothing(lanes: list[Lane], before: int) -> None:
    """However long a queue had no messages, it does not shut the others out afterwards."""
    assume(len(lanes) > 1)
    quiet, busy = lanes[0], lanes[1]
    turns = Turns()
    for _ in range(before):
        turns = turns.took(busy, 1)
    in_a_row = 0
    while turns.order([quiet, busy])[0] is quiet:
        turns = turns.took(quiet, 1)
        in_a_row += 1
    assert in_a_row <= quiet.weight / busy.weight + 1


def test_of_equals_the_one_that_is_named_first_comes_first() -> None:
    lanes = [Lane("b"), Lane("a")]
    assert [lane.name for lane in Turns().order(lanes)] == ["b", "a"]
    assert [lane.name for lane in Turns().took(lanes[0], 1).order(lanes)] == ["a", "b"]


@given(LANES, MOST, st.integers(0, 4), st.integers(0, 200))
def test_law_the_reserve_is_there_also_where_others_have_too_many(
    lanes: list[Lane], most: int, who: int, too_many: int
) -> None:
    """As several replicas have that receive at the same moment, or after MAX_ACTIVE_JOBS was lowered."""
    assume(len(lanes) > 1 and most >= len(lanes))
    lane = lanes[who % len(lanes)]
    active = {other.name: too_many for other in lanes if other is not lane}
    assert rooms(lanes, active, most)[lane.name] >= 1
    assert rooms(lanes, {**active, lane.name: too_many + most}, most)[lane.name] == 0
