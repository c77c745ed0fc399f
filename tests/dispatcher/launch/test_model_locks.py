"""dispatcher.launch.model_locks: one holder a model, and nothing kept of models that nobody works on."""

from __future__ import annotations

import threading

import pytest

from dispatcher.launch.model_locks import ModelLocks


def test_a_model_has_one_holder_at_a_time() -> None:
    locks = ModelLocks()
    inside = 0
    most = 0
    guard = threading.Lock()
    start = threading.Barrier(8)

    def work() -> None:
        nonlocal inside, most
        start.wait(10)
        for _ in range(200):
            with locks.hold("1"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, inside) == (1, 0)


def test_different_models_do_not_wait_for_each_other() -> None:
    locks = ModelLocks()
    reached = threading.Event()

    def other() -> None:
        with locks.hold("2"):
            reached.set()

    with locks.hold("1"):
        thread = threading.Thread(target=other)
        thread.start()
        assert reached.wait(10)
    thread.join(10)


def test_nothing_is_kept_when_nobody_holds_or_waits() -> None:
    locks = ModelLocks()
    for number in range(100):
        with locks.hold(str(number)):
            pass
    assert locks._locks == {}


def test_an_error_lets_the_model_go() -> None:
    locks = ModelLocks()
    with pytest.raises(RuntimeError), locks.hold("1"):
        raise RuntimeError("boom")
    with locks.hold("1"):
        assert list(locks._locks) == ["1"]
    assert locks._locks == {}


def test_a_waiter_keeps_the_lock_that_it_waits_for() -> None:
    """Were the lock dropped with its holder, a third could come in beside the waiter."""
    locks = ModelLocks()
    waiting, entered, leave = threading.Event(), threading.Event(), threading.Event()

    def second() -> None:
        waiting.set()
        with locks.hold("1"):
            entered.set()
            leave.wait(10)

    with locks.hold("1"):
        lock = locks._locks["1"][0]
        thread = threading.Thread(target=second)
        thread.start()
        waiting.wait(10)
        while locks._locks["1"][1] < 2:  # the second has not yet asked for it
            pass
    assert entered.wait(10)
    assert locks._locks["1"][0] is lock
    leave.set()
    thread.join(10)
