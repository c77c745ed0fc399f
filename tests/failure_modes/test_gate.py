"""Failure modes at the gate: policies that deny a Job, outages and how the intake waits for their end."""

from __future__ import annotations

import base64
import gzip
import html
import json
import random
import string
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from dispatcher.cli.main import main
from dispatcher.cluster.errors import ClusterError, ClusterForbidden, ClusterUnavailable, QuotaExceeded, RequestDenied
from dispatcher.config.settings import Settings
from dispatcher.intake.circuit_breaker import State
from dispatcher.launch.request import Bounds, MalformedRequest, decode
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import QueueForbidden, QueueMessage
from dispatcher.queue.poison import MAX_ENTRY_BYTES, PoisonEntry, make_entry, parse_entry
from portal_client.errors import PortalUnavailable
from portal_client.statuses import ProcessingStatus
from tests.failure_modes.bench import calls, live, statuses
from tests.world.dispatcher_process import Stage
from tests.world.simulated.dispatcher import SETTINGS, Process
from tests.world.simulated.faults import Fail
from tests.world.simulated.world import World

MINUTE = 60.0

POLICY = "jobs.batch is forbidden: ValidatingAdmissionPolicy 'names' with binding 'all' denied request: not this name"
WEBHOOK = 'admission webhook "validation.gatekeeper.sh" denied the request: every Job needs a cost centre'
DOWN = 'Internal error occurred: failed calling webhook "v.kyverno.svc": failed to call webhook: connection refused'


def requests(count: int) -> World:
    world = World({str(number): ["complete"] for number in range(count)})
    for number in range(count):
        world.set_status(str(number), ProcessingStatus.CREATED)
        world.enqueue(str(number))
    return world


def failing(action: Callable[..., Any], error: Exception, world: World, until: float) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if world.now < until:
            raise error
        return action(*arguments, **options)

    return call


def deliveries(world: World) -> list[int]:
    return [message.deliveries for message in world.messages.values()]


def intake_alone(process: Process, seconds: float) -> list[State]:
    """The intake's turns, one a second; returns the states of the cluster's breaker."""
    seen = []
    for _ in range(int(seconds)):
        process.take()
        process.world.now += 1
        seen.append(process.intake.breakers["cluster"].state)
    return seen


@pytest.mark.parametrize(
    "error",
    [
        QuotaExceeded("Cannot create jobs: exceeded quota: jobs"),
        ClusterForbidden("Cannot create jobs: The Role must allow the verb"),
        ClusterUnavailable("Cannot create jobs: HTTP 503"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("count", [1, 1000])
def test_f43_an_outage_costs_each_message_one_delivery_however_few_there_are(error: ClusterError, count: int) -> None:
    world = requests(count)
    process = Process(world)
    process.cluster.create_job = failing(process.cluster.create_job, error, world, world.now + 10 * MINUTE)  # type: ignore[method-assign]
    states = intake_alone(process, 10 * MINUTE - 1)
    assert set(states) == {State.OPEN}, "no pause ends before a Job can be created"
    assert max(deliveries(world)) == 1
    assert process.intake.breakers["cluster"].wait_hint() <= 30
    assert not world.poison
    if count == 1:
        live(world, process)
        world.check_end()
        assert statuses(world, "0")[-1] == "Completed"


def test_f43_a_step_that_no_probe_can_try_is_tried_with_growing_pauses() -> None:
    world = requests(1)
    process = Process(world)
    denied = ClusterForbidden('Cannot patch jobs: The Role must allow the verb "patch"')
    process.cluster.patch_job = failing(process.cluster.patch_job, denied, world, world.now + 10 * MINUTE)  # type: ignore[method-assign]
    states = intake_alone(process, 10 * MINUTE - 1)
    assert State.CLOSED not in states[1:]
    assert deliveries(world)[0] <= 10 * MINUTE / 22 + 8, "one for each pause, which grow to half a minute"
    live(world, process)
    assert statuses(world, "0")[-1] == "Completed"


def test_f43_an_empty_queue_closes_nothing() -> None:
    world = requests(1)
    process = Process(world)
    error = QuotaExceeded("Cannot create jobs: exceeded quota")
    process.cluster.create_job = failing(process.cluster.create_job, error, world, world.now + 10 * MINUTE)  # type: ignore[method-assign]
    process.take()
    world.messages.clear()
    assert set(intake_alone(process, 9 * MINUTE)) == {State.OPEN}
    assert State.CLOSED in intake_alone(process, 3 * MINUTE), "Jobs can be created again, and no message has to come"


def test_f43_several_outages_at_once_are_waited_for_each_by_itself() -> None:
    world = requests(20)
    process = Process(world)
    began = world.now
    process.queue.receive = failing(process.queue.receive, QueueForbidden("expired"), world, began + MINUTE)  # type: ignore[method-assign]
    process.queue.depth = failing(process.queue.depth, QueueForbidden("expired"), world, began + MINUTE)  # type: ignore[method-assign]
    portal = process.launcher.portal
    assert portal is not None
    away = PortalUnavailable("away")
    portal.get_model_status = failing(portal.get_model_status, away, world, began + 3 * MINUTE)  # type: ignore[method-assign]
    process.intake.probe = portal.get_model_status
    full = QuotaExceeded("exceeded quota")
    process.cluster.create_job = failing(process.cluster.create_job, full, world, began + 5 * MINUTE)  # type: ignore[method-assign]
    intake_alone(process, 2 * MINUTE)
    breakers = process.intake.breakers
    assert [breakers[name].state for name in ("queue", "portal", "cluster")] == [State.CLOSED, State.OPEN, State.CLOSED]
    intake_alone(process, 2 * MINUTE)
    assert breakers["cluster"].state is State.OPEN
    assert breakers["portal"].state is not State.OPEN
    live(world, process)
    world.check_end()
    assert all(model.status is ProcessingStatus.COMPLETED for model in world.models.values())


def test_f43_a_poison_queue_that_takes_no_message_is_no_success_of_the_other_queue() -> None:
    world = requests(1)
    next(iter(world.messages.values())).text = "no JSON"
    process = Process(world)
    refused = QueueForbidden("Cannot send to queue requests-poison")
    poison = process.poison_queue
    poison.send = failing(poison.send, refused, world, world.now + 10 * MINUTE)  # type: ignore[method-assign]
    poison.try_rights = failing(poison.try_rights, refused, world, world.now + 10 * MINUTE)  # type: ignore[method-assign]
    intake_alone(process, 10 * MINUTE - 1)
    assert process.intake.breakers["queue"].state is State.OPEN
    assert deliveries(world) == [1]
    intake_alone(process, 5 * MINUTE)
    assert process.intake.breakers["queue"].state is State.CLOSED
    assert len(world.poison) == 1


@pytest.mark.parametrize("fault", ["before", "after"])
def test_f44_a_refusal_that_the_portal_does_not_take_is_told_when_it_does(fault: str) -> None:
    world = requests(1)
    process = Process(world)
    denied = RequestDenied("Cannot create jobs model-0: admission webhook denied the request: no")
    create = process.cluster.create_job
    process.cluster.create_job = lambda job, dry_run=False: create(job, dry_run=True) if dry_run else _raise(denied)  # type: ignore[method-assign,assignment]
    cut = iter(range(3))

    def director(name: str, call: str, side: str) -> None:
        if (call, side) == ("portal.put", fault) and next(cut, None) is not None:
            raise Fail("away")

    world.director = director
    for _ in range(60):
        process.take()
        world.now += 15
    assert not world.messages
    assert statuses(world, "0") == ["Created", "Failed"]
    assert "denied the request: no" in world.models["0"].message
    assert len(world.poison) == (1 if fault == "before" else 0), "after it the status rejects the message"


def test_f44_a_policy_that_denies_the_start_of_a_job_that_it_took_costs_no_message() -> None:
    world = requests(2)
    process = Process(world)
    denied = RequestDenied("Cannot patch jobs: admission webhook denied the request: no updates")
    process.cluster.patch_job = failing(process.cluster.patch_job, denied, world, world.now + 10 * MINUTE)  # type: ignore[method-assign]
    process.intake.settings = replace(SETTINGS, max_deliveries=1)
    states = intake_alone(process, 10 * MINUTE - 1)
    assert State.CLOSED not in states[1:]
    assert not world.poison
    live(world, process)
    world.check_end()
    assert {model.status for model in world.models.values()} == {ProcessingStatus.COMPLETED}


def test_f44_a_model_that_somebody_else_has_begun_is_not_called_failed() -> None:
    world = requests(1)
    process = Process(world)
    denied = RequestDenied("Cannot create jobs model-0: admission webhook denied the request: no")
    create = process.cluster.create_job

    def refused(job: dict[str, Any], *, dry_run: bool = False) -> Any:
        if not dry_run:
            world.set_status("0", ProcessingStatus.PROCESSING)
            raise denied
        return create(job, dry_run=True)

    process.cluster.create_job = refused  # type: ignore[method-assign,assignment]
    process.intake.settings = replace(SETTINGS, max_deliveries=1)
    process.take()
    assert statuses(world, "0")[-1] == "Processing"
    assert "portal.put" not in calls(world)


JSON = '{"task": "train", "model_container_name": "model-1", "x": "é???>>>"}'
UTF8 = JSON.encode()


def packed(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (JSON.encode("utf-16-le").decode("utf-8", "replace"), "UTF-16 that was read as UTF-8"),
        (JSON.encode("utf-16").decode("utf-8", "replace"), "UTF-16 that was read as UTF-8"),
        (packed(JSON.encode("utf-16")), "base64 of JSON in UTF-16"),
        (packed(JSON.encode("utf-16-le")), "base64 of JSON in UTF-16"),
        (packed(JSON.encode("utf-16-be")), "base64 of JSON in UTF-16"),
        (packed(JSON.encode("utf-32")), "base64 of JSON in UTF-32"),
        (packed(JSON.encode("utf-32-le")), "base64 of JSON in UTF-32"),
        (packed(packed(UTF8).encode()), "base64 of base64"),
        (packed(packed(packed(UTF8).encode()).encode()), "base64 of base64"),
        (packed(packed(UTF8 + b" ").rstrip("=").encode()).rstrip("="), "base64 of base64"),
        (packed(UTF8 + b" " * ((1 - len(UTF8)) % 3)).rstrip("="), "wrong padding"),
        (base64.urlsafe_b64encode(UTF8).decode(), "the kind for URLs"),
        (packed(UTF8)[:-9], "cut off"),
        (packed(JSON.encode("latin-1")), "not in UTF-8"),
        (packed(gzip.compress(UTF8, mtime=0)), "gzip"),
        (packed(json.dumps(JSON).encode()), "encoded twice"),
        (json.dumps(JSON), "encoded twice"),
        (json.dumps(packed(UTF8)), "encoded twice"),
        (str(json.loads(JSON)), "single quotes"),
        (html.escape(JSON), "escaped for HTML"),
        (json.dumps(JSON)[1:-1], "escaped as a text"),
        (quote(JSON), "encoded for a URL"),
        (UTF8.hex(), "hexadecimal digits"),
    ],
)
def test_f57_a_message_that_was_encoded_in_another_way_is_told_which(text: str, words: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode(text, Bounds(1, 60))
    assert words in caught.value.sentence
    assert caught.value.code in ("NotJson", "NotAnObject")


@pytest.mark.parametrize("text", ["hello", "abcd", '{"task": "tr\x00ain"}', "<QueueMessage/>", packed(b"a picture")])
def test_f57_what_looks_like_nothing_known_is_not_guessed_at(text: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode(text, Bounds(1, 60))
    assert "looks like" not in caught.value.sentence


def an_envelope(original: str, **fields: Any) -> str:
    entry = {"code": "ModelUnknown", "sentence": "The portal has no such model", "message_id": "m-1"}
    times = {"queued_at": "2026-01-01T00:00:00Z", "poisoned_at": "2026-01-01T00:00:01Z"}
    return json.dumps({**entry, "delivery_count": 5, **times, "original": original, **fields})


def command(stage: Stage, *words: str) -> tuple[int, str]:
    """(exit code, stdout) of `dispatcher` in this process: a new one costs a second."""
    stage.write_template()
    done = CliRunner().invoke(main, words, env=stage.settings)
    return done.exit_code, done.stdout


def test_f65_a_walk_ends_although_entries_become_visible_again_and_others_come(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(70):
        stage.poison_queue.send(an_envelope(f"text {number}", message_id=f"m-{number}"))
    receive = TrainingQueue.receive
    receives: list[int] = []

    def slow(queue: TrainingQueue, limit: int, visibility_timeout: float) -> list[QueueMessage]:
        batch = receive(queue, limit, visibility_timeout)
        for message in batch:
            queue.requeue(message, 0)  # as if the walk took longer than they are hidden
        receives.append(len(batch))
        if len(receives) > 3:
            queue.send(an_envelope("new", message_id=f"new-{len(receives)}"))
        assert len(receives) < 60, "the walk does not end"
        return batch

    monkeypatch.setattr(TrainingQueue, "receive", slow)
    code, out = command(stage, "poison", "list", "--json")
    assert code == 0, out
    listed = [json.loads(line)["message_id"] for line in out.splitlines()]
    assert len(listed) == len(set(listed))
    assert {f"m-{number}" for number in range(70)} <= set(listed)
    monkeypatch.undo()
    assert len(stage.poison_queue.receive(32, 30)) == 32, "they are visible again"


def test_f65_nothing_that_an_entry_says_reaches_the_terminal_as_it_is(stage: Stage) -> None:
    hostile = "\x1b]0;title\x07\x1b[2J\u202eevil\u2028line\nline\r"
    names = ("code", "sentence", "message_id", "poisoned_at", "queued_at")
    stage.poison_queue.send(an_envelope("x", **dict.fromkeys(names, hostile)))
    outputs = [command(stage, *words)[1] for words in (("poison", "list"), ("poison", "list", "--json"), ("status",))]
    outputs += [command(stage, "poison", "show", hostile)[1], command(stage, "poison", "purge", "--all", "--yes")[1]]
    for out in outputs:
        assert "evil" in out
        assert not [c for c in out if c != "\n" and not c.isprintable()]
    assert all("evil" in line or "entr" in line for line in outputs[0].splitlines()), "a line for each entry"


def test_f65_an_entry_that_is_not_the_dispatchers_own_is_not_launched_with_the_others(stage: Stage) -> None:
    stage.queue.send("no json")
    stage.start()
    stage.wait(stage.poison)
    stage.stop()
    forged = json.dumps({"task": "train", "model_container_name": "model-1"})
    ours = json.loads(stage.poison_queue.peek()[0].text)
    stage.poison_queue.send(an_envelope(forged))
    stage.poison_queue.send(json.dumps({**ours, "original": forged}))
    stage.poison_queue.send(forged)
    code, out = command(stage, "poison", "requeue", "--all")
    assert code == 0
    assert "3 left: not proven" in out
    assert [message.text for message in stage.queue.peek()] == ["no json"]
    assert command(stage, "poison", "requeue", "--code", "ModelUnknown")[0] == 1
    assert len(stage.queue.peek()) == 1
    assert "ModelUnknown (not proven)" in command(stage, "poison", "list")[1]
    assert command(stage, "poison", "requeue", "--all", "--unproven")[0] == 0
    assert len(stage.queue.peek()) == 4


def test_f65_a_forged_entry_does_not_stand_for_the_dispatchers_of_the_same_id(stage: Stage) -> None:
    stage.write_template()
    secret = Settings.read(stage.settings).envelope_secret(stage.name)
    entry = PoisonEntry("ModelUnknown", "no such model", "m-1", 1, "", "", "ours")
    stage.poison_queue.send(an_envelope("forged"))
    stage.poison_queue.send(make_entry(entry, secret))
    assert command(stage, "poison", "requeue", "m-1")[0] == 0
    assert [message.text for message in stage.queue.peek()] == ["ours"]
    assert stage.poison() == []


def test_f65_a_message_that_looks_like_an_entry_is_not_read_as_one() -> None:
    """Too large to be wrapped, it is kept bare: what it says of itself must not be believed."""
    letters = string.ascii_letters + string.digits + "!#$%&()*+,-./:;<=>?@[]^_{|}~"
    filling = "".join(random.Random(1).choices(letters, k=64_000))
    lookalike = an_envelope('{"task": "train", "model_container_name": "model-1"}', filling=filling)
    lookalike = lookalike[:-2] + "x" * (65_530 - len(lookalike)) + '"}'
    stored = make_entry(PoisonEntry("MissingField", "no task", "m-2", 1, "", "", lookalike), "secret")
    assert len(lookalike) == 65_530
    assert len(stored) <= MAX_ENTRY_BYTES
    found = parse_entry(stored, "secret")
    assert (found.code, found.proven) == ("Unknown", False)
    assert found.original in lookalike


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize("code", [400, 403, 422])
def test_f44_a_job_that_a_policy_denies_is_told_to_its_user_in_the_policys_words(stage: Stage, code: int) -> None:
    denied = stage.submit("done")
    stage.cluster.refuse_jobs(POLICY, name=f"model-{denied}", code=code)
    other = stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    (entry,) = stage.wait(stage.poison)
    assert entry.code == "JobRefused"
    assert POLICY in entry.sentence
    assert "Role" not in entry.sentence
    assert stage.status(denied) == "Failed"
    assert POLICY in stage.message(denied)
    stage.wait_status(other, "Completed")
    assert "Intake pauses" not in stage.log()


def test_f44_a_policy_that_denies_every_job_pauses_and_poisons_nobody(stage: Stage) -> None:
    stage.cluster.refuse_jobs(WEBHOOK)
    model = stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: "It denies every Job of this template" in stage.log())
    assert WEBHOOK in stage.log()
    assert "The Role must allow" not in stage.log()
    assert not stage.poison()
    assert stage.status(model) == "Created"
    stage.cluster.refuse_jobs()
    stage.wait_status(model, "Completed")


def test_f59_a_webhook_that_is_down_is_the_clusters_outage_and_no_requests_fault(stage: Stage) -> None:
    stage.cluster.refuse_jobs(DOWN, code=500)
    model = stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: "admission webhook does not answer" in stage.log())
    assert not stage.poison()
    assert stage.status(model) == "Created"
    stage.cluster.refuse_jobs()
    stage.wait_status(model, "Completed")
