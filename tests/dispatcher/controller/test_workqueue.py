"""workqueue: one worker a key, coalesced adds, timers and back-off, by a clock of the test's own."""

from __future__ import annotations

import threading

import pytest

from dispatcher.controller.workqueue import WorkQueue
from tests.world.builders import FakeClock


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue:
    return WorkQueue(back_off_max=60.0, clock=clock)


def got(queue: WorkQueue) -> str | None:
    return queue.get(timeout=0)


def test_keys_come_in_the_order_they_were_added(queue: WorkQueue) -> None:
    for key in "cab":
        queue.add(key)
    assert [got(queue) for _ in range(4)] == ["c", "a", "b", None]


def test_adds_before_the_work_are_one_piece_of_work(queue: WorkQueue) -> None:
    queue.add("a")
    queue.add("a")
    assert (got(queue), got(queue)) == ("a", None)


def test_an_add_during_the_work_leads_to_more_work_afterwards(queue: WorkQueue) -> None:
    queue.add("a")
    assert got(queue) == "a"
    queue.add("a")
    queue.add("a")
    assert got(queue) is None, "never twice at the same time"
    queue.done("a")
    assert got(queue) == "a"
    queue.done("a")
    assert got(queue) is None


def test_a_timer_is_due_when_its_time_has_come(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add_after("a", 10)
    clock.advance(9.9)
    assert got(queue) is None
    clock.advance(0.1)
    assert got(queue) == "a"


def test_of_two_timers_of_a_key_the_earlier_counts(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("a", 20)
    clock.advance(5)
    assert got(queue) == "a"
    queue.done("a")
    clock.advance(100)
    assert got(queue) is None, "the others are void"


def test_a_timer_that_passes_during_the_work_is_not_lost(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add("a")
    assert got(queue) == "a"
    queue.add_after("a", 1)
    clock.advance(1)
    assert got(queue) is None
    queue.done("a")
    assert got(queue) == "a"


def test_a_timer_in_the_past_is_due_at_once(queue: WorkQueue) -> None:
    queue.add_after("a", -5)
    assert got(queue) == "a"


def test_failures_back_off_and_success_forgets_them(queue: WorkQueue) -> None:
    waits = [queue.failed("a") for _ in range(10)]
    assert 0.5 <= waits[0] <= 1.0
    assert 1.0 <= waits[1] <= 2.0
    assert all(wait <= 60 for wait in waits)
    assert waits[9] >= 30
    queue.succeeded("a")
    assert queue.failed("a") <= 1.0


def test_a_failed_key_waits_at_least_as_long_as_it_was_asked_to(queue: WorkQueue, clock: FakeClock) -> None:
    assert queue.failed("a", at_least=90) == 90
    clock.advance(89)
    assert got(queue) is None
    clock.advance(1)
    assert got(queue) == "a"


def test_an_add_does_not_shorten_a_back_off_and_an_event_does(queue: WorkQueue) -> None:
    queue.failed("a")
    queue.add("a")
    assert got(queue) is None
    queue.add_after("a", 0)
    assert got(queue) == "a"


def test_an_add_is_work_for_a_key_that_does_not_fail(queue: WorkQueue) -> None:
    queue.add_after("a", 1000)
    queue.add("a")
    assert got(queue) == "a"


def test_an_add_is_work_for_a_failing_key_without_a_timer(queue: WorkQueue, clock: FakeClock) -> None:
    queue.failed("a")
    clock.advance(60)
    assert got(queue) == "a"
    queue.done("a")
    queue.add("a")
    assert got(queue) == "a"


def test_timers_that_do_not_count_any_more_do_not_pile_up(queue: WorkQueue) -> None:
    for seconds in range(100_000, 0, -10):
        queue.add_after("a", float(seconds))
    assert len(queue._timers) < 200


def test_rebuilding_the_timers_loses_none(queue: WorkQueue, clock: FakeClock) -> None:
    for number in range(100):
        queue.add_after(f"k{number}", 1000 + number)
    for seconds in range(900, 0, -1):
        queue.add_after("a", float(seconds))
    clock.advance(2000)
    found = {got(queue) for _ in range(101)}
    assert found == {"a", *(f"k{number}" for number in range(100))}


def test_the_length_counts_what_waits_and_what_is_worked_on(queue: WorkQueue) -> None:
    queue.add("a")
    queue.add("b")
    got(queue)
    assert len(queue) == 2
    queue.done("a")
    assert len(queue) == 1


def test_done_without_work_changes_nothing(queue: WorkQueue) -> None:
    queue.done("a")
    assert got(queue) is None


def test_a_closed_queue_gives_nothing_and_lets_its_workers_go() -> None:
    queue = WorkQueue()
    found: list[str | None] = []
    workers = [threading.Thread(target=lambda: found.append(queue.get())) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert not queue.closed
    queue.close()
    for worker in workers:
        worker.join(10)
    assert found == [None] * 3
    queue.add("a")
    assert queue.get() is None
    assert queue.closed


def test_two_timers_that_pass_together_wake_two_workers() -> None:
    """The first worker to wake takes both timers off; the second must hear of it."""
    clock = FakeClock()
    queue = WorkQueue(clock=clock)
    both = threading.Barrier(3)

    def work() -> None:
        assert queue.get() is not None
        both.wait(10)  # holds its key: the other worker has to take the other key

    workers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    queue.add_after("a", 5)
    queue.add_after("b", 5)
    clock.advance(5)
    with queue._condition:
        queue._condition.notify()
    both.wait(10)
    for worker in workers:
        worker.join(10)


def test_a_waiting_worker_is_woken_by_an_add() -> None:
    queue = WorkQueue()
    found: list[str | None] = []
    worker = threading.Thread(target=lambda: found.append(queue.get(timeout=10)))
    worker.start()
    queue.add("a")
    worker.join(10)
    assert found == ["a"]


def test_what_is_urgent_comes_before_ten_thousand_others_and_leaves_them_a_share(clock: FakeClock) -> None:
    ended: set[str] = set()
    queue = WorkQueue(clock=clock, urgent=ended.__contains__)
    for number in range(10_000):
        queue.add(f"first look {number}")
    queue.add("ends meanwhile")
    ended |= {"ends meanwhile", *(f"outcome {number}" for number in range(100))}
    queue.add("ends meanwhile")
    for number in range(100):
        queue.add(f"outcome {number}")
    assert len(queue) == 10_000 + 101
    found = [got(queue) or "" for _ in range(135)]
    assert [key for key in found if key in ended] == ["ends meanwhile", *(f"outcome {number}" for number in range(100))]
    others = [key for key in found if key not in ended]
    assert others[:33] == [f"first look {number}" for number in range(33)]
    assert len({*found}) == 135, "each once"


def test_who_is_urgent_no_longer_keeps_its_place(clock: FakeClock) -> None:
    ended = {"a"}
    queue = WorkQueue(clock=clock, urgent=ended.__contains__)
    queue.add("a")
    ended.clear()
    queue.add("a")
    assert (got(queue), got(queue)) == ("a", None)
