"""Failure modes of the queue: what is counted, what is redelivered, what cannot be read, what expires."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from dispatcher.cluster.errors import ObjectInvalid
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.job_gauges import JobGauges
from dispatcher.controller.summaries import Summaries
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import QueueMessage, QueuePair
from dispatcher.queue.poison import parse_entry
from dispatcher.telemetry.metrics import Metrics
from local_stack.azurite import Azurite
from tests.failure_modes.bench import Bench, a_world, calls, disturb, live, statuses, templates, undisturbed
from tests.world import json_objects as objects
from tests.world.builders import FakeClock, a_condition, job_json, pod_json, terminated
from tests.world.manifests.monitoring import ALERTS
from tests.world.repository import MANIFESTS, read
from tests.world.simulated.dispatcher import VISIBILITY, Process
from tests.world.simulated.fakes import FakeQueue


@pytest.fixture
def queue(azurite: Azurite, queue_name: str) -> Iterator[TrainingQueue]:
    queue = TrainingQueue(queue_name, connection_string=azurite.connection_string)
    queue.create()
    yield queue
    queue.close()


def test_f04_one_message_is_one_pod_however_long_that_is_pending() -> None:
    world = a_world("hang")
    world.settle = lambda: None  # type: ignore[method-assign] # no controller, no pod: the Job is pending
    process = Process(world)
    for _ in range(20):
        process.tick()
        world.now += VISIBILITY
    assert calls(world).count("cluster.create") == 1
    assert list(world.jobs) == ["model-1"]


def test_f04_nothing_scales_on_the_length_of_the_queue() -> None:
    kinds = {
        document["kind"]
        for path in MANIFESTS.rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and "kind" in document
    }
    assert not kinds & {"ScaledJob", "ScaledObject", "HorizontalPodAutoscaler", "CronJob"}


@pytest.mark.parametrize("told", [0, -1, 10**9])
def test_f05_the_approximate_count_of_messages_decides_nothing(monkeypatch: pytest.MonkeyPatch, told: int) -> None:
    monkeypatch.setattr(FakeQueue, "depth", lambda self: told)
    world = a_world()
    live(world)
    world.check_end()
    assert statuses(world)[-1] == "Completed"


def test_f05_the_count_is_not_even_asked_for_while_all_is_well() -> None:
    world = a_world()
    live(world)
    assert "queue.depth" not in calls(world)


def test_f07_a_message_that_can_never_be_launched_is_given_up_after_its_deliveries() -> None:
    world = a_world()
    template = "dry-run"
    process = Process(world)

    def refused(job: object, *, dry_run: bool = False) -> object:
        if dry_run:
            return {}
        raise ObjectInvalid(f"Cannot create jobs: {template}")

    process.cluster.create_job = refused  # type: ignore[assignment, method-assign]
    for _ in range(40):
        process.tick()
        world.now += VISIBILITY
    (entry,) = [parse_entry(text) for text in world.poison]
    assert (entry.code, entry.delivery_count) == ("JobRefused", 5)
    assert not world.messages


def test_f07_a_trainer_that_crashes_is_given_up_after_its_attempts() -> None:
    world = a_world("killed")
    live(world)
    world.check_end()
    assert statuses(world)[-1] == "Failed"
    assert "after 2 attempts" in world.models["1"].message
    assert all(template["spec"]["backoffLimit"] <= 20 for _, template in templates())


def test_f07_disruptions_are_counted_on_the_job_and_end_it() -> None:
    bench = Bench(disruptions=2)
    bench.put(job_json())
    disrupted = a_condition("DisruptionTarget", reason="PreemptionByScheduler")
    for number in range(3):
        bench.world.pods.clear()  # a preempted pod does not stay
        pod = pod_json(disrupted, name=f"p{number}", uid=f"p{number}", phase="Failed", state=terminated(137))
        bench.put(bench.job(), pod)  # type: ignore[arg-type]
        assert not bench.job()["spec"].get("activeDeadlineSeconds"), f"stopped after {number}"
        bench.process.refresh()
        bench.look()
    assert bench.job()["spec"]["activeDeadlineSeconds"] == 1
    assert "disrupted 3 times; the limit is 2" in str(objects.meta(bench.job())["annotations"])


def test_f15_a_lost_pop_receipt_is_no_error_and_no_second_training() -> None:
    world = a_world("hang")
    first, second = Process(world), Process(world)
    slow = threading.Event()

    def director(process: str, call: str, side: str) -> None:
        if (process, call, side) == (first.name, "queue.delete", "before") and not slow.is_set():
            slow.set()
            world.now += VISIBILITY + 1
            second.take()  # has it now, and deletes it with the newer receipt

    world.director = director
    first.take()
    assert slow.is_set()
    assert calls(world).count("cluster.create") == 1
    assert calls(world).count("queue.delete") == 2
    assert not world.messages
    assert not world.poison


def test_f42_what_we_send_never_expires(queue: TrainingQueue) -> None:
    queue.send("x")
    (message,) = queue._client.peek_messages(1)
    assert message.expires_on is None or message.expires_on.year > 9000


def test_f42_a_message_is_never_parked_for_long() -> None:
    world = a_world()
    longest = 0.0
    requeued = FakeQueue.requeue

    def requeue(self: FakeQueue, message: QueueMessage, after: float) -> bool:
        nonlocal longest
        longest = max(longest, after)
        return requeued(self, message, after)

    disturb(world, "portal.get", "before", ValueError("a defect"), times=None)
    process = Process(world)
    process.intake.settings = replace(process.intake.settings, max_deliveries=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeQueue, "requeue", requeue)
        for _ in range(30):
            process.take()
            world.now += 400
    undisturbed(world)
    assert 0 < longest <= 300
    assert world.messages


def test_f42_the_age_of_the_oldest_message_is_told_and_raises_an_alarm(queue: TrainingQueue) -> None:
    metrics = Metrics()
    clock = FakeClock()
    gauges = JobGauges(
        ClusterCache(lambda name: None),
        Summaries(),
        EndedJobs(3600),
        metrics,
        stopping=threading.Event(),
        queues=[QueuePair(queue.name, queue, queue)],
        clock=clock,
    )

    gauge = "training_dispatcher_queue_oldest_message_seconds"

    def told() -> float | None:
        gauges.set_queue_gauges()
        return metrics.registry.get_sample_value(gauge, {"queue": queue.name})

    assert told() == 0
    queue.send("first")
    clock.now = (queue.oldest() or 0) + 90000
    queue.send("second")
    assert told() == 90000
    assert any(gauge in expression for expression in ALERTS.values())


def test_f42_senders_are_told_that_messages_expire() -> None:
    assert "time to live -1" in read("docs/configure.md")
