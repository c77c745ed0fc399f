"""intake.loop with several queues: in whose turn, how many, and what of one keeps the other from nothing."""

from __future__ import annotations

from collections import Counter
from threading import Event
from typing import Any, NoReturn
from unittest.mock import Mock, create_autospec

from dispatcher.cluster import names
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.job_gauges import JobGauges
from dispatcher.controller.summaries import Summaries
from dispatcher.decisions.fairness import Lane
from dispatcher.intake.circuit_breaker import CircuitBreakers
from dispatcher.intake.loop import Intake
from dispatcher.intake.queue_readers import QueueReaders
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.launch.request import Bounds
from dispatcher.ports import Queue
from dispatcher.queue.messages import QueueForbidden, QueueMessage, QueuePair, QueueUnavailable
from dispatcher.telemetry.metrics import Metrics
from tests.world import json_objects as objects
from tests.world.builders import FakeClock, job_json
from tests.world.simulated.dispatcher import SETTINGS
from tests.world.simulated.fakes import VirtualEvent
from tests.world.simulated.world import World

URGENT, NORMAL = Lane("urgent", 4), Lane("normal", 1)


class Bench:
    """An intake over two queues; each always has as many messages as are asked for, or none."""

    def __init__(self, *lanes: Lane, most: int = 1000) -> None:
        self.active: Counter[str] = Counter()
        self.empty: set[str] = set()
        self.received: Counter[str] = Counter()
        self.pairs = {
            lane: QueuePair(lane.name, *(create_autospec(Queue, instance=True) for _ in "rp")) for lane in lanes
        }
        for lane, pair in self.pairs.items():
            pair.requests.receive.side_effect = lambda number, _, lane=lane: self._receive(lane.name, number)
        self.clock = FakeClock()
        self.breakers = CircuitBreakers(30, self.clock, queues=[lane.name for lane in lanes])
        self.metrics = Metrics()
        settings = Mock(wraps=SETTINGS, launch_concurrency=8, max_active_jobs=most, visibility_timeout=100.0)
        self.intake = Intake(
            self.pairs,
            Mock(),
            ModelLocks(),
            self.breakers,
            self.metrics,
            settings,
            bounds=Bounds(8, 600),
            active=lambda: self.active,
            probe=lambda _: None,
            stopping=VirtualEvent(World()),
        )

    def _receive(self, name: str, number: int) -> list[QueueMessage]:
        found = 0 if name in self.empty else number
        self.received[name] += found
        return [QueueMessage(f"{name}-{n}", "no json", 1, 0.0, "receipt", 1e12) for n in range(found)]

    def take(self, times: int = 1) -> list[QueueMessage]:
        return [message for _ in range(times) for message in self.intake._receive(0)]


def test_while_both_have_messages_they_give_by_their_weights() -> None:
    bench = Bench(URGENT, NORMAL)
    bench.take(50)
    assert bench.received == {"urgent": 40 * 16, "normal": 10 * 16}
    count = bench.metrics.registry.get_sample_value
    assert count("training_dispatcher_queue_received_messages_total", {"queue": "normal"}) == 160


def test_an_empty_queue_costs_the_other_nothing_and_comes_first_when_it_has_a_message() -> None:
    bench = Bench(URGENT, NORMAL)
    bench.empty.add("urgent")
    assert {message.queue for message in bench.take(5)} == {"normal"}
    bench.empty.clear()
    assert {message.queue for message in bench.take()} == {"urgent"}


def test_a_queue_that_people_have_paused_gives_nothing_and_the_other_all_there_is_room_for() -> None:
    bench = Bench(URGENT, NORMAL)
    bench.intake._receiving.holds = lambda queue: queue == "urgent"
    bench.take(5)
    assert set(bench.received) == {"normal"}


def test_a_cap_and_the_others_reserve_bound_what_is_received() -> None:
    bench = Bench(Lane("urgent", 4, cap=3), NORMAL, most=20)
    bench.active.update(urgent=2, normal=13)
    bench.take()
    assert bench.received == {"urgent": 1}, "the fourth would be one too many"
    bench.active.update(urgent=1)
    bench.take()
    assert bench.received == {"urgent": 1, "normal": 4}, "of 20 all but those 16: urgent has had its reserve of 2"


def test_what_is_in_hand_counts_for_its_queue() -> None:
    bench = Bench(Lane("urgent", 4, cap=3), NORMAL)
    for message in bench.take():
        bench.intake._in_flight[Mock()] = message
    bench.take()
    assert bench.received["urgent"] == 3


def test_a_refused_message_goes_to_its_own_poison_queue_and_is_deleted_from_its_own_queue() -> None:
    bench = Bench(URGENT, NORMAL)
    bench.empty.add("urgent")
    bench.intake.handle(bench.take()[0])
    used = {lane.name: (pair.requests.delete.called, pair.poison.send.called) for lane, pair in bench.pairs.items()}
    assert used == {"urgent": (False, False), "normal": (True, True)}
    assert [refusal.queue for refusal in bench.intake.refusals.latest()] == ["normal"]


def test_a_poison_queue_that_is_missing_holds_back_its_own_queue_alone() -> None:
    bench = Bench(URGENT, NORMAL)
    bench.pairs[URGENT].poison.send.side_effect = QueueForbidden("it does not exist")
    bench.intake.handle(bench.take()[0])
    assert {message.queue for message in bench.take(3)} == {"normal"}


def test_a_job_counts_for_the_queue_of_its_label_from_its_creation_on() -> None:
    clock = FakeClock()
    cache = ClusterCache(lambda name: None, clock)
    labelled = job_json(model_id="a", uid="uid-a")
    labelled["metadata"]["labels"][names.QUEUE] = "normal"
    cache.expect("model-a", "normal")
    assert cache.unfinished_by_queue() == {"normal": 1}, "the watch has not told of it yet"
    cache.apply("ADDED", objects.job(labelled))
    cache.apply("ADDED", objects.job(job_json(model_id="old", uid="uid-old")))
    assert cache.unfinished_by_queue() == {"normal": 1, "": 1}
    cache.apply("DELETED", objects.job(labelled))
    assert cache.unfinished_by_queue() == {"": 1}
    cache.expect("model-never-seen", "urgent")
    clock.advance(6)
    assert cache.unfinished_by_queue() == {"": 1}, "nothing keeps a place for ever"


def test_no_loop_is_called_stuck_where_a_silent_storage_account_lets_every_call_of_many_queues_run_out() -> None:
    """A minute for each call; /livez takes three without a sign of life for the end of the process."""
    bench = Bench(*(Lane(f"queue-{number}") for number in range(16)))
    since_alive, most = 0, 0

    def silent(*_: object) -> NoReturn:
        nonlocal since_alive, most
        since_alive += 1
        most = max(most, since_alive)
        raise QueueUnavailable("no answer")

    def alive() -> None:
        nonlocal since_alive
        since_alive = 0

    for pair in bench.pairs.values():
        for queue in (pair.requests, pair.poison):
            for name in ("receive", "depth"):
                getattr(queue, name).side_effect = silent
            queue.oldest, queue.metadata = silent, silent
    pairs: list[Any] = [*bench.pairs.values()]
    bench.intake._receive(0, alive)
    bench.clock.advance(31)
    bench.intake._receive(0, alive)
    alive()
    readers = QueueReaders([pair.requests for pair in pairs], "here", "training", stopping=Event(), clock=bench.clock)
    readers.look(alive)
    alive()
    JobGauges(
        ClusterCache(lambda name: None), Summaries(), EndedJobs(3600), bench.metrics, stopping=Event(), queues=pairs
    ).set_queue_gauges(alive)
    assert 1 <= most <= 2
