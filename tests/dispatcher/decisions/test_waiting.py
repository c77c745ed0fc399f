"""dispatcher.decisions.waiting: what a Job waits for, in a user's words, and until when that is tolerated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod
from dispatcher.decisions.waiting import Waiting, look, needs_events, of_pod
from tests.world.builders import (
    LIMITS,
    T0,
    a_condition,
    a_job,
    a_pod,
    an_event,
    complete,
    event_json,
    running,
    terminated,
    waiting,
)

FOREVER = replace(LIMITS, unschedulable=0, quota=0)
UNSCHEDULABLE = a_condition(
    "PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
)
QUOTA = 'Error creating: pods "model-1-x" is forbidden: exceeded quota: gpus, requested: 1, used: 2, limited: 2'
WEBHOOK = 'Error creating: admission webhook "policy" denied the request: no'


def looked(*pods: Pod, now: float = T0 + 20, **arguments: Any) -> Waiting:
    return look(arguments.get("job", a_job()), pods, arguments.get("events", ()), now, arguments.get("limits", LIMITS))


@pytest.mark.parametrize(
    "reason",
    [
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    ],
)
def test_an_image_that_cannot_be_pulled_has_its_grace_from_the_node_on(reason: str) -> None:
    pod = a_pod(state=waiting(reason, "dial tcp: connection refused."), scheduled_at=T0 + 100)
    result = looked(pod, now=T0 + 110)
    assert result.limit_at == T0 + 100 + 600
    assert result.progress == "Pulling the trainer image: dial tcp: connection refused"
    assert result.verdict is not None
    assert result.verdict.code == "ImagePull"
    assert "registry.example/trainer:1" in result.verdict.sentence
    assert "connection refused" in result.verdict.sentence


@pytest.mark.parametrize(
    "text",
    [
        "toomanyrequests: You have reached your pull rate limit",
        "unexpected status from HEAD request to https://r/v2/x: 429 Too Many Requests",
        "Rate exceeded",
    ],
)
def test_a_registrys_rate_limit_is_waited_out(text: str) -> None:
    assert looked(a_pod(state=waiting("ErrImagePull", text), scheduled_at=T0)).limit_at is None


@pytest.mark.parametrize("text", ["trainer:build-429: not found", "sha256:e429f0 not found", "exit status 1429"])
def test_a_429_in_the_images_name_is_no_rate_limit(text: str) -> None:
    assert looked(a_pod(state=waiting("ErrImagePull", text), scheduled_at=T0)).limit_at == T0 + 600


def test_a_name_that_is_no_image_is_not_waited_for() -> None:
    pod = a_pod(state=waiting("InvalidImageName", "couldn't parse"), scheduled_at=T0, image="UPPER//x")
    result = looked(pod)
    assert result.limit_at == T0 + 20
    assert result.verdict is not None
    assert result.verdict.code == "ImagePull"
    assert "UPPER//x" in result.verdict.sentence


@pytest.mark.parametrize(
    "reason",
    [
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PreCreateHookError",
        "PostStartHookError",
        "WhatTheNextVersionCallsIt",
    ],
)
def test_a_missing_secret_is_named_and_has_its_grace(reason: str) -> None:
    result = looked(a_pod(state=waiting(reason, 'secret "portal" not found'), scheduled_at=T0 + 5))
    assert result.limit_at == T0 + 5 + 300
    assert result.verdict is not None
    assert result.verdict.code == "ContainerConfig"
    for said in (result.progress, result.verdict.sentence):
        assert said is not None
        assert 'secret "portal" not found' in said


def test_an_unschedulable_pod_says_the_schedulers_words_and_has_its_limit() -> None:
    result = looked(a_pod(UNSCHEDULABLE, node=None))
    assert result.progress == "Waiting for a GPU: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
    assert result.limit_at == T0 + 3600
    assert result.verdict is not None
    assert result.verdict.code == "Unschedulable"
    assert "3 Insufficient nvidia.com/gpu" in result.verdict.sentence


def test_an_unschedulable_pod_may_wait_for_ever() -> None:
    assert looked(a_pod(UNSCHEDULABLE, node=None), limits=FOREVER).limit_at is None


@pytest.mark.parametrize(
    ("pod", "progress", "again"),
    [
        (a_pod(node=None), "Waiting to be scheduled", None),
        (
            a_pod(a_condition("PodScheduled", "False", "SchedulingGated", "gated"), node=None),
            "Waiting to be scheduled: gated",
            None,
        ),
        (a_pod(scheduled_at=T0), "Pulling the trainer image", 60),
        (a_pod(scheduled_at=T0, state=waiting("ContainerCreating")), "Pulling the trainer image", 60),
        (a_pod(scheduled_at=T0, state=waiting("PodInitializing")), "Pulling the trainer image", 60),
    ],
)
def test_a_pod_on_its_way_has_no_limit(pod: Pod, progress: str, again: float | None) -> None:
    """again: seconds after which its Events are worth a look, and after each further while."""
    assert looked(pod) == Waiting(progress, again and T0 + again)
    assert looked(pod, now=T0 + 90) == Waiting(progress, again and T0 + 90 + again)


@pytest.mark.parametrize(
    "pod",
    [
        a_pod(phase="Running", state=running()),
        a_pod(phase="Running", state=terminated(0)),
        a_pod(UNSCHEDULABLE, deleted_at=T0),
        a_pod(phase="Running", state=waiting("ErrImagePull"), deleted_at=T0),
    ],
    ids=["running", "terminated", "unschedulable, being deleted", "image, being deleted"],
)
def test_while_the_trainer_runs_or_its_pod_goes_nobody_else_speaks(pod: Pod) -> None:
    assert looked(pod) == Waiting()


def test_the_newest_pod_counts() -> None:
    over = a_pod(phase="Failed", state=terminated(201), name="a")
    assert looked(over, a_pod(UNSCHEDULABLE, name="b", node=None, created_at=T0 + 10)).limit_at == T0 + 10 + 3600


# No pod


def test_a_job_that_has_just_started_is_looked_at_again_soon() -> None:
    result = looked(now=T0 + 1)
    assert result.progress is None
    assert result.verdict is None
    assert result.limit_at == T0 + 11


def test_between_two_pods_nothing_is_said() -> None:
    over = a_pod(phase="Failed", state=terminated(201, finished_at=T0 + 60))
    assert looked(over, now=T0 + 61).verdict is None


def test_a_quota_is_waited_for_up_to_its_own_limit() -> None:
    result = looked(events=[an_event(QUOTA, T0 + 1), an_event(QUOTA, T0 + 5)])
    assert result.limit_at == T0 + 7200
    assert result.progress is not None
    assert result.progress.startswith("Waiting for quota: ")
    assert result.verdict is not None
    assert result.verdict.code == "PodCreateDenied"
    assert "exceeded quota: gpus" in result.verdict.sentence
    assert looked(events=[an_event(QUOTA, T0 + 1)], limits=FOREVER).limit_at is None


def test_a_refused_pod_is_told_in_the_api_servers_words() -> None:
    result = looked(events=[an_event(QUOTA, T0 + 1), an_event(WEBHOOK, T0 + 5)])
    assert result.limit_at == T0 + 240
    assert result.verdict is not None
    assert result.verdict.code == "PodCreateDenied"
    assert 'admission webhook "policy" denied the request' in result.verdict.sentence


@pytest.mark.parametrize(
    "events",
    [
        [an_event(QUOTA, T0 - 60)],
        [an_event("Created pod: model-1-x", T0 + 1, reason="SuccessfulCreate")],
    ],
    ids=["from before the resume", "another reason"],
)
def test_other_events_prove_nothing(events: list[Event]) -> None:
    assert looked(events=events).verdict is None


def test_the_clock_of_a_refused_pod_starts_with_the_end_of_the_one_before() -> None:
    over = a_pod(phase="Failed", state=terminated(201, finished_at=T0 + 5000))
    result = looked(over, now=T0 + 5020, events=[an_event(QUOTA, T0 + 5001)])
    assert result.limit_at == T0 + 5000 + 7200


def test_the_clock_of_a_refused_pod_starts_with_the_last_resume() -> None:
    resumed = a_condition("Suspended", "False", "JobResumed", at=T0 + 900)
    result = looked(job=a_job(resumed), now=T0 + 920, events=[an_event(WEBHOOK, T0 + 901)])
    assert result.limit_at == T0 + 900 + 240


def test_an_event_repeated_in_a_series_counts_by_its_last_time() -> None:
    event = event_json(QUOTA, T0 - 60)
    event["series"] = {"count": 5, "lastObservedTime": "2026-11-23T08:00:05.123456Z"}
    assert looked(events=[msgspec.convert(event, Event)]).verdict is not None


def test_an_event_of_the_new_api_has_its_time_elsewhere() -> None:
    event = event_json(QUOTA, T0 + 5)
    del event["firstTimestamp"], event["lastTimestamp"]
    event["eventTime"] = "2026-11-23T08:00:05.123456Z"
    assert looked(events=[msgspec.convert(event, Event)]).verdict is not None


def test_secrets_in_anybodys_text_are_not_passed_on() -> None:
    text = "cannot pull https://robot:hunter2secret@registry.example/x"
    result = looked(a_pod(state=waiting("ErrImagePull", text), scheduled_at=T0))
    assert "hunter2secret" not in repr(result)


def test_a_long_text_is_cut() -> None:
    result = looked(a_pod(state=waiting("ErrImagePull", "x" * 10_000), scheduled_at=T0))
    assert len(result.progress or "") < 600


@pytest.mark.parametrize(
    ("job", "pods", "now", "expected"),
    [
        (a_job(), (), T0 + 9, False),
        (a_job(), (), T0 + 10, True),
        (a_job(), (a_pod(),), T0 + 100, False),
        (a_job(), (a_pod(phase="Failed", state=terminated(1, finished_at=T0 + 60)),), T0 + 69, False),
        (a_job(), (a_pod(phase="Failed", state=terminated(1, finished_at=T0 + 60)),), T0 + 70, True),
        (a_job(suspended=True), (), T0 + 100, False),
        (a_job(*complete()), (), T0 + 100, False),
        (a_job(started_at=None), (), T0 + 100, False),
    ],
    ids=["at once", "later", "with a pod", "soon after one", "later after one", "suspended", "ended", "not started"],
)
def test_events_cost_a_call_only_where_a_pod_is_missing(
    job: Job, pods: tuple[Pod, ...], now: float, expected: bool
) -> None:
    assert needs_events(job, pods, now) == (job.uid if expected else None)


def test_a_pod_that_does_not_get_to_its_image_is_asked_about_after_a_minute() -> None:
    pod = a_pod(state=waiting("ContainerCreating"), scheduled_at=T0)
    assert needs_events(a_job(), [pod], T0 + 59) is None
    assert needs_events(a_job(), [pod], T0 + 60) == pod.uid
    assert needs_events(a_job(), [a_pod(state=running(), scheduled_at=T0)], T0 + 600) is None


@pytest.mark.parametrize("reason", ["FailedMount", "FailedPrepareDynamicResources", "FailedCreatePodContainer"])
def test_a_volume_or_claim_that_a_node_cannot_give_is_told_and_ends_at_its_limit(reason: str) -> None:
    pod = a_pod(state=waiting("ContainerCreating"), scheduled_at=T0)
    mount = an_event('MountVolume.SetUp failed: configmap "ca" not found', T0 + 5, reason)
    result = looked(pod, events=[mount], now=T0 + 60)
    assert result.limit_at == T0 + LIMITS.container_config
    assert 'configmap "ca" not found' in (result.progress or "")
    assert result.verdict is not None
    assert result.verdict.code == "ContainerConfig"
    pulling = an_event("Pulling image", T0 + 50, "Pulling")
    assert looked(pod, events=[mount, pulling], now=T0 + 60).progress == "Pulling the trainer image"


def test_a_slow_pull_that_fails_once_at_its_end_has_its_whole_grace_before_it() -> None:
    pod = a_pod(state=waiting("ErrImagePull", "connection reset"), scheduled_at=T0)
    now = T0 + 10_000
    assert look(a_job(), [pod], (), now, LIMITS).limit_at == T0 + LIMITS.image_pull
    assert look(a_job(), [pod], (), now, LIMITS, failing_since=now).limit_at == now + LIMITS.image_pull


def test_a_request_for_more_than_the_largest_node_has_says_so_where_nodes_may_be_listed() -> None:
    words = (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 Preemption is "
        "not helpful for scheduling."
    )
    pod = a_pod(a_condition("PodScheduled", "False", "Unschedulable", words))
    said = "Waiting for a GPU: it asks for 9 of nvidia.com/gpu, and "
    for largest, more in (
        ({"nvidia.com/gpu": 8, "cpu": 64}, "the largest node has 8 (0/1 nodes"),
        ({"nvidia.com/gpu": 0}, "the largest node has 0 (0/1 nodes"),
        ({"nvidia.com/gpu": 16}, "no node that it may use has so many (0/1 nodes"),  # by a selector or a taint
        ({"cpu": 64}, "no node that it may use has so many (0/1 nodes"),
    ):
        progress = of_pod(pod, (), T0, LIMITS, gpus=9, largest=largest).progress or ""
        assert progress.startswith(said + more), largest


@pytest.mark.parametrize(
    ("words", "gpus", "said"),
    [
        (
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1 "
            "nodes are available: 1 Preemption is not helpful for scheduling.",
            9,
            "Waiting for a GPU: it asks for 9 of nvidia.com/gpu, and no node that it may use has so many "
            "(0/1 nodes are available: 1 Insufficient nvidia.com/gpu)",
        ),
        (
            "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 No "
            "preemption victims found for incoming pod.",
            2,
            "Waiting for a GPU: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu",
        ),
        (
            "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes "
            "are available: 2 Preemption is not helpful for scheduling.",
            2,
            "Waiting for a GPU: 0/2 nodes are available: 1 Insufficient memory, 2 Insufficient nvidia.com/gpu",
        ),
    ],
)
def test_the_search_for_pods_to_preempt_is_left_out_and_told_where_it_proves_something(
    words: str, gpus: int, said: str
) -> None:
    pod = a_pod(a_condition("PodScheduled", "False", "Unschedulable", words))
    assert of_pod(pod, (), T0, LIMITS, gpus=gpus).progress == said
