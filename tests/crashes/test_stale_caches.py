"""What one dispatcher still believes must not cost what another one, or the cluster, knows better."""

from __future__ import annotations

from dispatcher.cluster import names
from portal_client.statuses import ProcessingStatus
from tests.crashes import scenarios
from tests.world import json_objects as objects
from tests.world.simulated.dispatcher import Process
from tests.world.simulated.records import copied
from tests.world.simulated.world import World

S = ProcessingStatus


def _running() -> tuple[World, Process]:
    world = scenarios.hangs()
    process = Process(world)
    for _ in range(3):
        process.tick()
        world.advance(30)
    assert any("running" in objects.trainer_state(pod) for pod in world.pods.values())
    return world, process


def test_a_training_that_runs_is_not_stopped_for_what_its_pod_waited_for_once() -> None:
    world, process = _running()
    limit = world.jobs["model-1"]["spec"]["activeDeadlineSeconds"]
    stale = copied(next(iter(world.pods.values())))
    waits = {"reason": "InvalidImageName", "message": "no"}
    stale["status"] = {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": {"waiting": waits}}]}
    process.cache.apply("MODIFIED", objects.pod(stale))
    process.reconciler.reconcile("model-1")
    assert world.jobs["model-1"]["spec"]["activeDeadlineSeconds"] == limit
    assert objects.annotation(world.jobs["model-1"], names.STOPPED) is None


def test_an_old_job_reports_nothing_about_the_next_training_of_its_model() -> None:
    """A knows that J1 failed and not that B reported it; its user asked anew, and J2 runs under Processing."""
    world = scenarios.again()
    world.trainers["1"] = ["invalid-unreported", "hang"]
    slow, quick = Process(world), Process(world)
    slow.refresh()
    while not any(objects.is_finished(job) for job in world.jobs.values()):
        quick.tick()
        world.advance(15)
    slow.refresh()
    first = next(iter(world.jobs.values()))["metadata"]["uid"]
    while "model-1" not in world.jobs or world.jobs["model-1"]["metadata"]["uid"] == first:
        quick.tick()
        world.advance(15)
    quick.tick()
    assert world.models["1"].status is S.PROCESSING
    for _ in range(2):
        slow.reconciler.reconcile("model-1")
        world.advance(15)
    assert world.models["1"].status is S.PROCESSING


def test_processing_is_not_sent_for_a_job_that_another_one_has_reported() -> None:
    """A believes J1 to run unacknowledged; B acknowledged and reported it, and its user asks anew."""
    world = scenarios.invalid_unreported()
    world.denied = 3
    quick, slow = Process(world), Process(world)
    quick.take()
    slow.refresh()
    while world.models["1"].status is not S.FAILED:
        quick.tick()
        world.advance(15)
    world.set_status("1", S.RECONFIGURE)
    slow.reconciler.reconcile("model-1")
    assert world.models["1"].status is S.RECONFIGURE
