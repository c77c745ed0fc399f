"""outcome against what a real cluster said: event by event, with events lost, doubled and out of step."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec
import pytest

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import outcome
from dispatcher.decisions.verdicts import Ended, Going, Outcome, Stop
from dispatcher.decisions.waiting import Limits, needs_events
from tests.world import json_objects as objects
from tests.world.builders import LIMITS
from tests.world.recordings import NAMES, Recorded, World, after, has_ended, recording


@dataclass(frozen=True)
class Expected:
    """The last word on a recording. limit: seconds from the Job's start after which it is to be stopped."""

    code: str
    words: str = ""
    limit: float | None = None


# Folder → what is to be said in the end; None: the recording ends while the training goes on.
EXPECTED: dict[str, Expected | None] = {
    "completed": Expected("Completed", "Model training completed successfully"),
    "suspended-then-resumed": Expected("Completed", "Model training completed successfully"),
    "ttl-after-report": Expected("Completed", "Model training completed successfully"),
    "indexed-completed": Expected("Completed", "Model training completed successfully"),
    "indexed-one-fails-for-good": Expected("DatasetMissing", "node 2 of 2 (lab-node): Failed to download dataset"),
    "permanent-exit": Expected("DatasetMissing", "Failed to download dataset from container: dataset-xyz"),
    "retries-exhausted": Expected("StorageUnavailable", "Storage unreachable (after 2 attempts)"),
    "log-tail-only": Expected("UserCodeFailed", "exit code 79: loading | RuntimeError: boom at step 7"),
    "out-of-memory": Expected("OutOfMemory", "more than its memory limit of "),
    "killed-137": Expected("Killed", "SIGKILL"),
    "deadline": Expected("Timeout", "time limit of "),
    "native-sidecar": Expected("Completed", "Model training completed successfully"),
    "missing-command": Expected("CommandNotFound", "/no/such/program: no such file or directory"),
    "job-deleted": Expected("JobDeleted", "was deleted at 2026-11-23T05:57:26Z"),
    "image-pull": Expected("ImagePull", "connection refused", 600),
    "image-never-pull": Expected("ImagePull", "not present with pull policy of Never", 600),
    "invalid-image-name": Expected("ImagePull", "UPPER//bad:1", 0),
    "missing-secret": Expected("ContainerConfig", 'secret "portal-api-key" not found', 300),
    "unschedulable": Expected("Unschedulable", "1 Insufficient nvidia.com/gpu", 3600),
    "init-image-pull": Expected("ImagePull", "image of the init container setup localhost:1/none:1 cannot be", 600),
    "sidecar-goes-on": Expected("Completed", "Model training completed successfully", 62),
    "quota": Expected("PodCreateDenied", "exceeded quota: gpus", 7200),
    "api-evicted": None,
    "preempted": None,
    "node-lost": None,
    "pod-deleted": None,
}
ENDING = [name for name, expected in EXPECTED.items() if expected and expected.limit is None]
STOPPED = [name for name, expected in EXPECTED.items() if expected and expected.limit is not None]
GOING_ON = [name for name, expected in EXPECTED.items() if expected is None]


def decided(world: World, later: float = 0.0, limits: Limits = LIMITS) -> Outcome:
    """As the reconciler asks, `later` seconds after the last event."""
    if world.job is None:
        return Going()
    now = world.now + later
    job = msgspec.convert(world.job, Job)
    pods = msgspec.convert(list(world.pods.values()), list[Pod])
    events = msgspec.convert(world.events, list[Event]) if needs_events(job, pods, now) else ()
    return outcome.decide(job, pods, events, now, limits)


def outcomes(events: Iterable[Recorded]) -> list[tuple[Recorded, Outcome]]:
    world = World()
    found = []
    for event in events:
        world.apply(event)
        found.append((event, decided(world)))
    return found


def before_the_deletion(events: Sequence[Recorded]) -> list[Recorded]:
    """Up to where the Job disappears: then there is nothing left to decide about."""
    return [event for event in events if not (event.kind == "jobs" and event.type == "DELETED")]


def check_never_early(name: str, events: Sequence[Recorded], what: str) -> None:
    """No end before the recording has one, of Job or pod; no stop that a limit does not call for; no wrong end ever."""
    expected = EXPECTED[name]
    over = False
    for event, result in outcomes(before_the_deletion(events)):
        over = over or has_ended(event) or (event.kind == "pods" and objects.pod_is_over(event.object))
        if isinstance(result, Ended):
            assert over, f"{what}: {result} at {event.kind} {event.version}, before any end"
            assert expected is not None
            assert result.verdict.code == expected.code, f"{what}: at {event.kind} {event.version}: {result}"
        if isinstance(result, Stop):
            assert expected is not None, f"{what}: {result}"
            assert expected.limit == 0, f"{what}: {result} within its limit"


def test_every_recording_has_its_expectation() -> None:
    assert sorted(EXPECTED) == NAMES
    assert len(NAMES) == 26


@pytest.mark.parametrize("name", NAMES)
def test_no_event_of_a_recording_leads_to_an_end_before_the_recording_has_one(name: str) -> None:
    check_never_early(name, recording(name), "all events")


@pytest.mark.parametrize(
    ("name", "early"),
    [
        ("completed", True),
        ("killed-137", True),
        ("permanent-exit", True),
        ("retries-exhausted", True),
        ("quota", False),
    ],
)
def test_an_end_that_no_retry_can_change_is_told_before_the_job_controller_says_so(name: str, early: bool) -> None:
    events = before_the_deletion(recording(name))
    until = next((number for number, event in enumerate(events) if has_ended(event)), len(events))
    found = [result for _, result in outcomes(events[:until]) if isinstance(result, Ended)]
    assert bool(found) == early
    expected = EXPECTED[name]
    assert {result.verdict.code for result in found} <= {expected.code if expected else ""}


@pytest.mark.parametrize("name", ENDING)
def test_the_end_of_a_recording_is_told_as_expected(name: str) -> None:
    expected = EXPECTED[name]
    assert expected is not None
    result = decided(after(before_the_deletion(recording(name))))
    if isinstance(result, Going):  # news of the pods is waited for
        assert result.check_at is not None
        result = decided(after(before_the_deletion(recording(name))), later=60)
    assert isinstance(result, Ended)
    assert result.completed == (expected.code == "Completed")
    assert result.verdict.code == expected.code
    assert expected.words in result.verdict.sentence


@pytest.mark.parametrize("name", GOING_ON)
def test_a_training_that_goes_on_elsewhere_is_not_reported(name: str) -> None:
    """Evicted, preempted, its node lost, its pod deleted: the Job starts another pod."""
    for later in (0.0, 5.0, 60.0):
        assert isinstance(decided(after(recording(name)), later), Going)


@pytest.mark.parametrize("name", STOPPED)
def test_a_job_that_would_wait_for_ever_is_stopped_after_its_limit_and_not_before(name: str) -> None:
    expected = EXPECTED[name]
    assert expected is not None
    assert expected.limit is not None
    world = after(recording(name))
    passed = world.now - min(event.at for event in recording(name))
    early = decided(world, later=expected.limit - passed - 2)
    if expected.limit:
        assert isinstance(early, Going)
        # Of a training that has ended only its outcome is told.
        assert early.progress or name == "sidecar-goes-on", "a user reads what is waited for"
        assert early.check_at is not None
        assert early.check_at >= world.now + expected.limit - passed - 2
    late = decided(world, later=expected.limit + 2)
    assert isinstance(late, Stop)
    assert late.verdict.code == expected.code
    assert expected.words in late.verdict.sentence


@pytest.mark.parametrize("name", ["unschedulable", "quota"])
def test_a_limit_of_zero_waits_for_ever(name: str) -> None:
    world = after(recording(name))
    assert world.job is not None
    result = decided(world, 1e7, replace(LIMITS, unschedulable=0, quota=0))
    assert isinstance(result, Going)
    assert result.check_at is None


@pytest.mark.parametrize("name", NAMES)
def test_a_lost_event_never_leads_to_a_wrong_or_early_end(name: str) -> None:
    events = recording(name)
    for lost in range(len(events)):
        kept = [event for number, event in enumerate(events) if number != lost]
        check_never_early(name, kept, f"without {events[lost].kind} {events[lost].version}")


@pytest.mark.parametrize("name", NAMES)
def test_doubled_events_change_nothing(name: str) -> None:
    events = recording(name)
    doubled = outcomes([event for event in events for _ in (1, 2)])
    assert [result for _, result in doubled[1::2]] == [result for _, result in outcomes(events)]


@pytest.mark.parametrize("name", NAMES)
def test_two_watches_out_of_step_never_lead_to_a_wrong_or_early_end(name: str) -> None:
    """Jobs and pods are watched one beside the other: any of the two may be ahead."""
    shuffle = random.Random(name)
    for _ in range(30):
        streams = {
            kind: [event for event in recording(name) if event.kind == kind] for kind in ("jobs", "pods", "events")
        }
        events: list[Recorded] = []
        while any(streams.values()):
            # Runs of one kind: a watch that hangs is behind by many events, not by one.
            kind = shuffle.choice([kind for kind, left in streams.items() if left])
            run = shuffle.randint(1, len(streams[kind]))
            events += streams[kind][:run]
            del streams[kind][:run]
        check_never_early(name, events, "out of step")


def test_a_suspended_job_has_no_clock() -> None:
    suspended = [event for event in recording("suspended-then-resumed") if event.kind == "jobs"][:2]
    assert decided(after(suspended), later=1e7) == Going()


def test_the_clocks_of_a_resumed_job_start_with_its_pod() -> None:
    """Four seconds suspended, then a pod: what the pod waits for counts from the pod."""
    events = recording("suspended-then-resumed")
    first_pod = next(number for number, event in enumerate(events) if event.kind == "pods")
    world = after(events[: first_pod + 1])
    assert world.job is not None
    assert isinstance(decided(world), Going)
