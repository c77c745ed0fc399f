"""Laws of the work queue and the model locks: nothing twice at the same time, nothing lost."""

from __future__ import annotations

import threading
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatcher.controller.workqueue import WorkQueue
from dispatcher.launch.model_locks import ModelLocks
from tests.world.builders import FakeClock

KEYS = st.sampled_from("abc")


class QueueMachine(RuleBasedStateMachine):
    """One step after the other, against what is owed to every key."""

    @initialize()
    def start(self) -> None:
        self.clock = FakeClock()
        self.queue = WorkQueue(clock=self.clock)
        self.owed: set[str] = set()  # to be handed out, now or after the work in hand
        self.timers: dict[str, float] = {}
        self.working: set[str] = set()
        self.failing: set[str] = set()

    def pass_timers(self) -> None:
        for key, due in list(self.timers.items()):
            if due <= self.clock():
                del self.timers[key]
                self.owed.add(key)

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        if key not in self.failing or key not in self.timers:
            self.owed.add(key)

    @rule(key=KEYS, seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 100.0]))
    def add_after(self, key: str, seconds: float) -> None:
        self.queue.add_after(key, seconds)
        self.timers[key] = min(self.timers.get(key, float("inf")), self.clock() + seconds)

    @rule(key=KEYS)
    def fail(self, key: str) -> None:
        wait = self.queue.failed(key)
        self.failing.add(key)
        self.timers[key] = min(self.timers.get(key, float("inf")), self.clock() + wait)

    @rule(key=KEYS)
    def succeed(self, key: str) -> None:
        self.queue.succeeded(key)
        self.failing.discard(key)

    @rule(seconds=st.sampled_from([0.1, 1.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def get(self) -> None:
        key = self.queue.get(timeout=0)
        self.pass_timers()
        ready = self.owed - self.working
        if key is None:
            assert not ready, "what is due is handed out"
            return
        assert key not in self.working, "never twice at the same time"
        assert key in ready, "nothing that nobody asked for"
        self.owed.discard(key)
        self.working.add(key)

    @rule(key=KEYS)
    def done(self, key: str) -> None:
        if key in self.working:
            self.queue.done(key)
            self.working.discard(key)

    @invariant()
    def timers_do_not_pile_up(self) -> None:
        assert len(self.queue._timers) <= 2 * 3 + 64 + 1

    def teardown(self) -> None:
        """Nothing is lost: with time and free workers everything owed is handed out."""
        if not hasattr(self, "queue"):
            return
        self.clock.advance(1000)
        for key in list(self.working):
            self.queue.done(key)
        self.working.clear()
        self.pass_timers()
        found = set()
        while (key := self.queue.get(timeout=0)) is not None:
            found.add(key)
            self.queue.done(key)
        assert found == self.owed


QueueMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestTheQueueOwesNothing = QueueMachine.TestCase


@settings(max_examples=10)
@given(st.lists(KEYS, min_size=1, max_size=300), st.integers(1, 6))
def test_workers_never_share_a_key_and_miss_no_change(adds: list[str], workers: int) -> None:
    """Level-triggered: after the last add of a key it is looked at once more, whoever works on it meanwhile."""
    queue = WorkQueue()
    guard = threading.Lock()
    inside: Counter[str] = Counter()
    state: Counter[str] = Counter()  # how many adds there were
    seen: dict[str, int] = {}  # what the last work on a key saw of it
    faults: list[str] = []

    def work() -> None:
        while (key := queue.get(timeout=10)) is not None:
            with guard:
                inside[key] += 1
                if inside[key] > 1:
                    faults.append(key)
                seen[key] = state[key]
            with guard:
                inside[key] -= 1
            queue.done(key)
            with guard:
                if seen == dict(state) and sum(state.values()) == len(adds):
                    queue.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for key in adds:
        with guard:
            state[key] += 1
        queue.add(key)
    for thread in threads:
        thread.join(20)
    assert faults == []
    assert seen == dict(state)


@settings(max_examples=10)
@given(st.lists(st.lists(KEYS, min_size=1, max_size=40), min_size=1, max_size=6))
def test_locks_exclude_and_leave_nothing_behind(plans: list[list[str]]) -> None:
    locks = ModelLocks()
    count = dict.fromkeys("abc", 0)

    def work(plan: list[str]) -> None:
        for key in plan:
            with locks.hold(key):
                before = count[key]
                threading.Event().wait(0)  # gives others a chance to come between
                count[key] = before + 1

    threads = [threading.Thread(target=work, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert count == {key: sum(plan.count(key) for plan in plans) for key in "abc"}
    assert locks._locks == {}
