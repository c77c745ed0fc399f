"""waiting for a training on several nodes: which pod waits for what, and how long the others may hold their GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import outcome, waiting
from dispatcher.decisions.verdicts import Going, Outcome, Stop
from tests.world.builders import (
    LIMITS,
    T0,
    a_condition,
    a_node,
    a_team,
    an_event,
    running,
    terminated,
)
from tests.world.builders import waiting as waits_for

WITH_LIMIT = replace(LIMITS, team=900)
TEXT = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
UNSCHEDULABLE = a_condition("PodScheduled", "False", "Unschedulable", TEXT)


def decided(
    now: float, *pods: Pod, job: Job | None = None, events: Sequence[Event] = (), limits: waiting.Limits = WITH_LIMIT
) -> Outcome:
    return outcome.decide(job or a_team(4), pods, events, now, limits)


def runs(index: int, at: float = T0 + 10, **fields: Any) -> Pod:
    return a_node(index, a_condition("PodScheduled", at=at), phase="Running", state=running(at), **fields)


def unplaced(index: int, **fields: Any) -> Pod:
    return a_node(index, UNSCHEDULABLE, node=None, **fields)


def lost(index: int, at: float, **fields: Any) -> Pod:
    return a_node(index, phase="Failed", state=terminated(137, finished_at=at), **fields)


def progress(result: Outcome) -> str | None:
    assert isinstance(result, Going), result
    return result.progress


def limit(result: Outcome) -> float | None:
    assert isinstance(result, Going), result
    return result.check_at


def test_a_team_whose_pods_all_run_waits_for_nothing() -> None:
    assert decided(T0 + 1e6, *map(runs, range(4))) == Going()


def test_which_pod_waits_for_what_is_told_though_the_others_run() -> None:
    found = progress(decided(T0 + 60, runs(0), runs(1), runs(2), unplaced(3)))
    assert found == f"3 of 4 pods run; node 4 of 4: waiting for a GPU: {TEXT}"
    pulling = a_node(1, a_condition("PodScheduled"), state=waits_for("ContainerCreating"))
    assert progress(decided(T0 + 5, runs(0), pulling, runs(2), runs(3))) == (
        "3 of 4 pods run; node 2 of 4: pulling the trainer image"
    )
    # Node 0 may still report itself while it ends.
    assert progress(decided(T0 + 60, runs(0, deleted_at=T0 + 50), unplaced(3), runs(1), runs(2))) is None


def test_a_team_of_which_a_pod_has_no_node_is_stopped_after_its_limit_and_told_which() -> None:
    pods = [runs(0, T0 + 10), runs(1, T0 + 40), runs(2, T0 + 20), unplaced(3)]
    assert limit(decided(T0 + 909, *pods)) == T0 + 910  # since the first has had a node
    stop = decided(T0 + 910, *pods)
    assert isinstance(stop, Stop)
    assert stop.verdict.code == "TeamIncomplete"
    assert stop.verdict.sentence.startswith(
        f"3 of 4 pods held a node for 900 seconds while the team was not whole; node 4 of 4: waiting for a GPU: {TEXT}."
    )
    assert limit(decided(T0 + 910, *pods, limits=replace(WITH_LIMIT, team=0))) == T0 + LIMITS.unschedulable


def test_while_no_pod_has_a_node_the_teams_limit_does_not_run() -> None:
    pods = [unplaced(index) for index in range(4)]
    assert limit(decided(T0 + 3599, *pods)) == T0 + 3600
    stop = decided(T0 + 3600, *pods)
    assert isinstance(stop, Stop)
    assert stop.verdict.sentence.startswith("node 1 of 4: no node could take the training for 3600 seconds")
    # Once one has a node, it runs from then on.
    assert limit(decided(T0 + 3100, *pods[1:], runs(0, T0 + 3000))) == T0 + 3600
    assert limit(decided(T0 + 1000, *pods[1:], runs(0, T0 + 1000))) == T0 + 1900


def test_a_team_that_was_whole_has_its_limit_from_when_it_lost_a_node() -> None:
    pods = [*map(runs, (0, 2, 3)), lost(1, T0 + 5000)]
    waits = unplaced(1, name="model-1-1-bbbbb", created_at=T0 + 5010)
    assert limit(decided(T0 + 5020, *pods, waits)) == T0 + 5900
    stop = decided(T0 + 5900, *pods, waits)
    assert isinstance(stop, Stop)
    assert "node 2 of 4: waiting for a GPU" in stop.verdict.sentence
    # The pod that is not yet made anew is none, either.
    stop = decided(T0 + 5900, *pods)
    assert isinstance(stop, Stop)
    assert "node 2 of 4: no pod yet" in stop.verdict.sentence
    # It has come back.
    assert decided(T0 + 9000, *pods, runs(1, T0 + 5600, name="model-1-1-bbbbb", created_at=T0 + 5010)) == Going()


def test_of_several_losses_the_first_that_lasts_counts() -> None:
    pods = [*map(runs, (0, 3)), lost(1, T0 + 5000), lost(2, T0 + 5300)]
    assert limit(decided(T0 + 5301, *pods, job=a_team(4, spec={"backoffLimit": 5}))) is not None
    stop = decided(T0 + 5900, *pods, job=a_team(4, spec={"backoffLimit": 5}))
    assert isinstance(stop, Stop)
    assert "2 of 4 pods held a node" in stop.verdict.sentence


def test_a_loss_that_nobody_watched_is_none_of_long_ago() -> None:
    # The dispatcher has been restarted: of the evicted pod nothing is left, and the team was whole for 5000 seconds.
    pods = [*map(runs, (0, 1, 2)), unplaced(3, created_at=T0 + 5000)]
    assert limit(decided(T0 + 5030, *pods)) == T0 + 5900
    # One that is made anew while it waits begins no new limit.
    again = unplaced(3, name="model-1-3-bbbbb", created_at=T0 + 5500)
    gone = unplaced(3, phase="Failed", created_at=T0 + 5000, deleted_at=T0 + 5490)
    assert limit(decided(T0 + 5530, *pods[:3], gone, again)) == T0 + 5900


def test_a_pod_that_a_lost_node_does_not_let_go_holds_the_others_no_longer_than_the_teams_limit() -> None:
    leaving = runs(1, deleted_at=T0 + 5000)  # with a grace of 30 s
    others = [*map(runs, (0, 2, 3))]
    limits = replace(WITH_LIMIT, lost_node=3600)
    assert limit(decided(T0 + 5929, leaving, *others, limits=limits)) == T0 + 5930
    stop = decided(T0 + 5930, leaving, *others, limits=limits)
    assert isinstance(stop, Stop)
    assert "node 2 of 4: its pod is being stopped on gpu-2" in stop.verdict.sentence
    early = decided(T0 + 5930, leaving, *others, limits=replace(limits, lost_node=60))
    assert isinstance(early, Stop)
    assert early.verdict.code == "NodeLost"
    assert early.verdict.sentence.startswith("node 2 of 4 (gpu-2): the training pod should have stopped 60 seconds ago")


def test_a_node_that_falls_silent_is_missing_from_then_on_though_its_pod_is_said_to_run() -> None:
    silent = a_node(
        1,
        a_condition("PodScheduled", at=T0 + 10),
        a_condition("Ready", "False", at=T0 + 5000),  # the node controller gives no reason
        phase="Running",
        state=running(T0 + 10),
    )
    others = [*map(runs, (0, 2, 3))]
    result = decided(T0 + 5100, silent, *others)
    assert progress(result) == "3 of 4 pods run; node 2 of 4: its node gpu-2 does not answer"
    assert limit(result) == T0 + 5900
    stop = decided(T0 + 5900, silent, *others)
    assert isinstance(stop, Stop)
    assert stop.verdict.sentence.startswith(
        "3 of 4 pods held a node for 900 seconds while the team was not whole; node 2"
    )
    # The taint manager deletes it at last: it was missing before.
    deleted = a_node(
        1,
        a_condition("Ready", "False", at=T0 + 5000),
        phase="Running",
        state=running(T0 + 10),
        deleted_at=T0 + 5300,
    )
    assert limit(decided(T0 + 5400, deleted, *others)) == T0 + 5900
    # A pod that is not ready for a reason of its own has its node.
    probing = a_node(1, a_condition("Ready", "False", "ContainersNotReady"), phase="Running", state=running(T0 + 10))
    assert decided(T0 + 1e6, probing, *others) == Going()


def test_a_node_that_has_done_its_part_is_not_missing() -> None:
    done = a_node(1, phase="Succeeded", state=terminated(0))
    assert decided(T0 + 1e6, runs(0), done, runs(2), runs(3)) == Going()
    # Its pod may be gone with its node: the Job knows.
    job = a_team(4, status={"completedIndexes": "1", "succeeded": 1})
    assert decided(T0 + 1e6, runs(0), runs(2), runs(3), job=job) == Going()
    assert waiting.needs_events(job, [runs(0), runs(2), runs(3)], T0 + 60) is None
    assert decided(T0 + 1e6, runs(0), lost(1, T0 + 60), runs(2), runs(3), job=job) == Going()


def test_each_pod_has_its_own_limits_with_its_name() -> None:
    bad = a_node(2, a_condition("PodScheduled", at=T0), state=waits_for("ErrImagePull", "no such tag"))
    pods = [runs(0), runs(1), bad, runs(3)]
    assert limit(decided(T0 + 100, *pods)) == T0 + 600
    stop = decided(T0 + 600, *pods)
    assert isinstance(stop, Stop)
    assert stop.verdict.code == "ImagePull"
    assert stop.verdict.sentence.startswith("node 3 of 4 (gpu-3): the trainer image registry.example/trainer:1 cannot")


def test_a_pod_that_the_quota_forbids_is_told_though_the_others_are_there() -> None:
    job, pods = a_team(4), [runs(0), runs(1), runs(2)]
    assert waiting.needs_events(job, pods, T0 + 60) == job.uid
    refused = an_event("Error creating: exceeded quota: gpus", T0 + 30)
    result = decided(T0 + 60, *pods, events=[refused])
    assert progress(result) == "3 of 4 pods run; node 4 of 4: waiting for quota: Error creating: exceeded quota: gpus"
    assert limit(result) == T0 + 910


def test_the_events_of_a_pod_that_does_not_get_to_its_image_are_asked_for_beside_pods_that_run() -> None:
    creating = a_node(1, a_condition("PodScheduled", at=T0), state=waits_for("ContainerCreating"))
    job, pods = a_team(3), [runs(0), creating, runs(2)]
    assert waiting.needs_events(job, pods, T0 + 59) is None
    assert waiting.needs_events(job, pods, T0 + 60) == creating.uid
    mount = an_event('MountVolume.SetUp failed for volume "data"', T0 + 50, "FailedMount")
    found = progress(decided(T0 + 61, *pods, job=job, events=[mount]))
    assert found is not None
    assert found.startswith("2 of 3 pods run; node 2 of 3: waiting for the pod's volumes and network: MountVolume")


@pytest.mark.parametrize("missing", [1, 5])
def test_a_long_list_of_what_is_missing_is_cut(missing: int) -> None:
    pods = [runs(0), *(unplaced(index) for index in range(1, missing + 1))]
    stop = decided(T0 + 1e4, *pods, job=a_team(missing + 1), limits=replace(WITH_LIMIT, unschedulable=0))
    assert isinstance(stop, Stop)
    assert stop.verdict.sentence.count("waiting for a GPU") == min(missing, 3)
    assert ("; and 2 more. " in stop.verdict.sentence) == (missing == 5)
