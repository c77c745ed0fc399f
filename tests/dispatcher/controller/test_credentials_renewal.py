"""When the Secrets of Jobs are renewed, and what that must not disturb, in the simulated world."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.simulated.dispatcher import Process
from tests.world.simulated.faults import Fail
from tests.world.simulated.kubernetes import owner_of
from tests.world.simulated.world import World

S = ProcessingStatus
DAY = 86400.0


def a_world(*models: str, signed_for: float = 300.0) -> World:
    world = World({model: ["hang"] for model in models})
    world.scoped, world.signed_for = True, signed_for
    for model in models:
        world.set_status(model, S.CREATED)
        world.enqueue(model)
    return world


def running(*models: str, signed_for: float = 300.0) -> tuple[World, Process]:
    """Their trainings run."""
    world = a_world(*models, signed_for=signed_for)
    process = Process(world)
    while len(world.pods) < len(models):
        process.tick()
        world.advance(5)
    return world, process


def url(world: World, model: str = "1") -> list[str]:
    """Container, whether it may be written, until when, by which key."""
    return base64.b64decode(world.secrets[f"model-{model}"]["data"]["MODEL_URL"]).decode().split()


def renewals(world: World) -> int:
    return sum(call == "cluster.secret" for _, call in world.calls)


def pass_time(world: World, seconds: float, *processes: Process, step: float = 10.0) -> None:
    end = world.now + seconds
    while world.now < end:
        for process in processes:
            process.tick()
        world.advance(step)


def test_a_rotated_key_is_in_every_secret_before_a_training_loses_its_patience() -> None:
    world, _ = running("1", "2", "3", signed_for=3000.0)
    world.signing_key = "key-2"
    pass_time(world, 120, Process(world))
    assert [url(world, model)[3] for model in ("1", "2", "3")] == ["key-2"] * 3


def test_two_dispatchers_with_two_keys_do_not_take_turns_faster_than_once_a_minute() -> None:
    world, old = running("1", signed_for=3000.0)
    world.signing_key = "key-2"
    new = Process(world)
    before = renewals(world)
    pass_time(world, 300, old, new, step=5.0)
    assert renewals(world) - before <= 6
    # The old one goes, as at the end of every roll-out.
    pass_time(world, 120, new)
    assert url(world)[3] == "key-2"


def test_what_ran_out_while_no_dispatcher_ran_is_renewed_at_once() -> None:
    world, _ = running("1", signed_for=3000.0)
    world.scoped = False  # nobody is held to it while all dispatchers are away
    world.signed_for = 300.0
    world.jobs["model-1"]["spec"]["activeDeadlineSeconds"] = 30 * 86400
    world.advance(3 * DAY)
    world.scoped = True
    process = Process(world)
    process.tick()
    assert float(url(world)[2]) > world.epoch()


def test_a_job_that_is_held_for_days_keeps_a_good_secret() -> None:
    """As Kueue holds those that it has not admitted yet, or has preempted."""
    world, process = running("1", signed_for=2 * DAY)
    job = world.jobs["model-1"]
    job["spec"]["suspend"] = True
    world.touch("jobs", job)
    for _ in range(20):
        world.advance(DAY / 4)
        process.tick()
        assert float(url(world)[2]) > world.epoch() + DAY / 2
    assert 4 <= renewals(world) <= 8, "at half of its validity, not at every look"


def failing(world: World, call: str, until: Callable[[], bool]) -> None:
    def director(process: str, name: str, side: str) -> None:
        if name == call and side == "before" and not until():
            raise Fail("not now")

    world.director = director


def test_no_signature_for_an_hour_holds_up_no_outcome_and_is_made_up_for() -> None:
    world, process = running("1", "2", signed_for=4 * 3600.0)
    for model in ("1", "2"):
        world.jobs[f"model-{model}"]["spec"]["activeDeadlineSeconds"] = 30 * 86400
    began = world.now
    failing(world, "storage.sas", lambda: world.now > began + 3 * 3600)
    pass_time(world, 2.5 * 3600, process, step=60.0)
    world.set_status("1", S.FAILED)  # cancelled
    pass_time(world, 600, process, step=30.0)
    assert "model-1" not in world.jobs, "it was reported, and its time is over"
    pass_time(world, 1800, process, step=30.0)
    assert float(url(world, "2")[2]) > world.epoch() + 3600


def test_when_all_are_due_at_once_they_are_renewed_one_after_the_other() -> None:
    models = [str(number) for number in range(1, 41)]
    world, _ = running(*models, signed_for=3000.0)
    world.signing_key = "key-2"
    world.advance(60)
    process = Process(world)
    before = renewals(world)
    process.tick()
    assert renewals(world) - before < 10
    for _ in range(20):
        world.advance(1)
        process.reconcile()
    assert {url(world, model)[3] for model in models} == {"key-2"}


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_secret_whose_renewal_was_cut_off_is_renewed_again(side: str) -> None:
    world, process = running("1")
    failures = iter([True])

    def director(name: str, call: str, now: str) -> None:
        if call == "cluster.secret" and now == side and next(failures, False):
            raise Fail("cut off")

    world.advance(160)
    world.director = director
    pass_time(world, 120, process)
    assert float(url(world)[2]) > world.epoch() + 100


def test_after_signatures_were_revoked_the_next_pod_has_others() -> None:
    """As user-delegation keys are revoked: for the whole account, and a dispatcher hears nothing of it."""
    world = World({"1": ["retry", "hang"]})
    world.scoped, world.signed_for = True, 3000.0
    world.set_status("1", S.CREATED)
    world.enqueue("1")
    process = Process(world)
    process.tick()
    world.signing_key = "key-2"
    pass_time(world, 200, process)
    assert url(world)[3] == "key-2"


# The launch


def test_the_secret_of_a_former_job_is_waited_for_to_be_collected() -> None:
    world = a_world("1")
    left = {"metadata": {"name": "model-1", "ownerReferences": [{"uid": "job-before"}]}, "data": {}}
    world.secrets["model-1"] = left
    process = Process(world)
    process.tick()
    assert objects.is_launched(world.jobs["model-1"])
    assert owner_of(world.secrets["model-1"]) == objects.uid_of(world.jobs["model-1"])
    assert not world.messages


def test_a_secret_that_somebody_has_made_holds_up_its_own_model_alone() -> None:
    world = a_world("1", "2")
    theirs = {"metadata": {"name": "model-1", "ownerReferences": [{"uid": "theirs"}]}, "data": {}}
    world.secrets["model-1"] = theirs
    world._collect_belongings = lambda: None  # type: ignore[method-assign]  # none takes care of it
    process = Process(world)
    pass_time(world, 60, process)
    assert objects.is_launched(world.jobs["model-2"])
    assert not objects.is_launched(world.jobs["model-1"])
    assert not world.poison
    del world._collect_belongings  # type: ignore[method-assign]
    pass_time(world, 60, process)
    assert objects.is_launched(world.jobs["model-1"])


def test_without_signatures_no_training_starts_and_no_message_is_lost() -> None:
    world = a_world("1", "2", "3")
    began = world.now
    failing(world, "storage.sas", lambda: world.now > began + 1200)
    process = Process(world)
    pass_time(world, 1000, process)
    assert not world.pods
    assert len(world.messages) == 3
    assert max(message.deliveries for message in world.messages.values()) < 30
    pass_time(world, 600, process)
    assert not world.poison
    assert all(objects.is_launched(world.jobs[f"model-{model}"]) for model in ("1", "2", "3"))


@pytest.mark.parametrize("purged", [False, True])
def test_what_was_begun_with_credentials_of_its_own_is_not_started_by_a_dispatcher_that_makes_none(
    purged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = a_world("1")
    failing(world, "storage.sas", lambda: False)
    Process(world).tick()
    assert not objects.is_launched(world.jobs["model-1"]), "half-launched"
    failing(world, "storage.sas", lambda: True)
    if purged:
        world.messages.clear()
    world.scoped = False
    told = len(world.models["1"].history)
    pass_time(world, 900, Process(world), step=30.0)
    assert not world.pods
    assert not world.poison
    assert len(world.models["1"].history) == told, "nothing of it is told as if it began"
    assert "Set CREDENTIALS=scoped again, or delete the Job and send" in caplog.text
    world.scoped = True
    pass_time(world, 300, Process(world))
    assert objects.is_launched(world.jobs["model-1"])
    assert owner_of(world.secrets["model-1"]) == objects.uid_of(world.jobs["model-1"])


def test_what_was_begun_with_shared_credentials_is_started_by_a_dispatcher_that_makes_secrets() -> None:
    world = a_world("1")
    world.scoped = False
    failing(world, "cluster.patch", lambda: False)
    Process(world).tick()
    assert not objects.is_launched(world.jobs["model-1"]), "half-launched"
    failing(world, "storage.sas", lambda: True)
    world.scoped = True
    process = Process(world)
    world.scoped = False  # no promise is made to a Job without a Secret
    pass_time(world, 300, process)
    assert objects.is_launched(world.jobs["model-1"])
    assert world.pods
    assert not world.secrets
