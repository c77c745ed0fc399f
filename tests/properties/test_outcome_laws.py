"""Laws of the outcome: it never raises on what an API server may leave out, and never ends what has no end."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import convert

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import admission, outcome, waiting
from dispatcher.decisions.verdicts import Ended, Going, Stop
from portal_client.statuses import ProcessingStatus
from tests.world.builders import LIMITS
from tests.world.recordings import NAMES, World, recording


@cache
def worlds() -> tuple[World, ...]:
    """Every state of every recording that has a Job."""
    found = []
    for name in NAMES:
        world = World()
        for event in recording(name):
            world.apply(event)
            if world.job is not None:
                found.append(World(world.job, dict(world.pods), list(world.events), world.now))
    return tuple(found)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every key and item in `value`."""
    found: list[tuple[Any, ...]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found.append((*here, key))
        found += paths(item, (*here, key))
    return found


def without(value: Any, way: tuple[Any, ...]) -> None:
    for key in way[:-1]:
        try:
            value = value[key]
        except (KeyError, IndexError):
            return
    try:
        del value[way[-1]]
    except (KeyError, IndexError):
        return


@st.composite
def damaged(draw: st.DrawFn) -> World:
    """A recorded state of which some fields are missing."""
    whole = draw(st.sampled_from(worlds()))
    world = World(*copy.deepcopy((whole.job, whole.pods, whole.events, whole.now)))
    for item in (world.job, *world.pods.values(), *world.events[:2]):
        ways = paths(item)
        for way in draw(st.lists(st.sampled_from(ways), max_size=4)) if ways else ():
            without(item, way)
    return world


def seen(world: World) -> tuple[Job, list[Pod], list[Event]]:
    """As the dispatcher's client decodes them."""
    return convert((world.job, list(world.pods.values()), world.events), tuple[Job, list[Pod], list[Event]])


@settings(max_examples=150)
@given(damaged(), st.sampled_from([-1e6, 0.0, 30.0, 1e6]))
def test_missing_fields_never_stop_the_reconciler(world: World, later: float) -> None:
    job, pods, events = seen(world)
    result = outcome.decide(job, pods, events, world.now + later, LIMITS)
    assert isinstance(result, Going | Stop | Ended)
    if isinstance(result, Stop | Ended):
        verdict = result.verdict
        assert verdict.code.isalnum()
        assert verdict.sentence.strip()
        assert len(verdict.sentence.encode()) < 8192
    if isinstance(result, Ended):
        conditions = [job.condition(kind) for kind in ("Complete", "Failed", "FailureTarget")]
        last_pod_over = bool(pods) and all(pod.is_over for pod in pods)
        assert job.is_deleting or any(conditions) or last_pod_over, "only positive evidence ends a Job"
    waiting.needs_events(job, pods, world.now + later)


@given(damaged(), st.sampled_from(ProcessingStatus), st.sampled_from(["message-1", "another"]))
def test_missing_fields_never_stop_the_intake(world: World, status: ProcessingStatus, message_id: str) -> None:
    decision = admission.decide(status, seen(world)[0], message_id, world.now)
    assert decision.sentence
    if decision.action is admission.Action.LAUNCH:
        assert status.may_start, "nothing is launched that may not start"


@given(damaged())
def test_a_suspended_job_has_no_clock(world: World) -> None:
    assert world.job is not None
    job = dict(world.job)
    job["spec"] = {**(job.get("spec") or {}), "suspend": True}
    job["status"] = {}
    job["metadata"] = {k: v for k, v in (job.get("metadata") or {}).items() if k != "deletionTimestamp"}
    _, pods, events = seen(world)
    result = outcome.decide(convert(job, Job), pods, events, 1e12, LIMITS)
    assert isinstance(result, Going)


@given(st.text(st.characters(), max_size=200))
@example('{"message":"\\ud800","code":"UserCodeFailed"}')
@example('{"message":"\\u0000","code":"UserCodeFailed"}')
@example("[" * 4096)
def test_no_termination_message_stops_the_reconciler(text: str) -> None:
    state = {"terminated": {"exitCode": 79, "message": text}}
    pod = {"status": {"phase": "Failed", "containerStatuses": [{"name": names.TRAINER_CONTAINER, "state": state}]}}
    job = {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}}
    result = outcome.decide(convert(job, Job), [convert(pod, Pod)], (), 1e10, LIMITS)
    assert isinstance(result, Ended)
    assert result.verdict.code == "UserCodeFailed"
    result.verdict.sentence.encode()  # fit for every log and every portal
