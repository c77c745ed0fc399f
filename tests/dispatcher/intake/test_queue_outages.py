"""A queue that is throttled, or whose credentials expired: the real Intake and CircuitBreaker on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.queue.messages import QueueForbidden, QueueMessage, QueueUnavailable
from portal_client.statuses import ProcessingStatus
from tests.world.simulated.dispatcher import Process
from tests.world.simulated.world import World

S = ProcessingStatus
HOUR = 3600.0


def requests(count: int) -> World:
    """Models with one request each."""
    world = World({str(number): ["complete"] for number in range(count)})
    for number in range(count):
        world.set_status(str(number), S.CREATED)
        world.enqueue(str(number))
    return world


def settle(process: Process) -> None:
    for _ in range(200):
        process.tick()
        process.world.advance(15)
        if process.world.settled:
            break
    process.world.check_end()


@pytest.mark.parametrize(
    "error", [QueueUnavailable("503 ServerBusy"), QueueForbidden("credentials expired")], ids=["busy", "expired"]
)
def test_an_hour_without_the_queue_costs_few_calls_and_loses_no_message(error: Exception) -> None:
    world = requests(50)
    began, back = world.now, world.now + HOUR
    tried: list[float] = []
    process = Process(world)
    receive, depth = process.queue.receive, process.queue.depth

    def guarded(action: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if world.now < back:
                tried.append(world.now)
                raise error
            return action(*arguments)

        return call

    process.queue.receive = guarded(receive)  # type: ignore[method-assign]
    process.queue.depth = guarded(depth)  # type: ignore[method-assign]
    while world.now < back:
        process.tick()
        world.advance(1)
    # The breaker's pause doubles to its maximum of 30 seconds: one probe each, whatever the polling interval.
    assert 10 < len(tried) <= (back - began) / 15
    settle(process)
    assert {model.status for model in world.models.values()} == {S.COMPLETED}


def test_credentials_that_expire_while_messages_are_handled_train_nothing_twice() -> None:
    """Every call to the queue after the first batch fails for ten minutes: deletions and requeues, too."""
    world = requests(8)
    process = Process(world)
    back = world.now + 600

    def expire(name: str) -> None:
        action = getattr(process.queue, name)

        def call(*arguments: Any) -> Any:
            if world.now < back:
                raise QueueForbidden("credentials expired")
            return action(*arguments)

        setattr(process.queue, name, call)

    for name in ("delete", "requeue", "depth"):
        expire(name)
    first: list[QueueMessage] = []
    receive = process.queue.receive

    def once(limit: int, visibility_timeout: float) -> list[QueueMessage]:
        if first and world.now < back:
            raise QueueForbidden("credentials expired")
        received = receive(limit, visibility_timeout)
        first.extend(received)
        return received

    process.queue.receive = once  # type: ignore[method-assign]
    settle(process)
    assert all(len(uids) == 1 for uids in world.trained.values())
