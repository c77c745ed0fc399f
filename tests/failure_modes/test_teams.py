"""Failure modes of trainings on several nodes: a node is lost or never comes, and whose end is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatcher.cluster import names
from tests.failure_modes.bench import Bench, a_world, live, statuses
from tests.world import json_objects as objects
from tests.world.builders import T0, a_condition, failed, job_json, pod_json, running, terminated
from tests.world.simulated.dispatcher import SETTINGS

PUBLISHED = json.dumps({"code": "Completed", "message": "Model training completed successfully"})
PEER_LOST = json.dumps({"code": "PeerLost", "message": "The others of the training are out of reach: closed"})
NO_DATA = json.dumps({"code": "DatasetMissing", "message": "Failed to download dataset from container: dataset-xyz"})
TEXT = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
UNSCHEDULABLE = a_condition("PodScheduled", "False", "Unschedulable", TEXT)


def a_team(*conditions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    spec = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
    return job_json(*conditions, spec=spec | fields.pop("spec", {}), **fields)


def a_node(index: int, *conditions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    named = {"name": f"model-1-{index}-aaaaa", "node": f"gpu-{index + 1}"}
    return pod_json(*conditions, index=index, **{**named, **fields})


def runs(index: int, **fields: Any) -> dict[str, Any]:
    return a_node(index, phase="Running", state=running(), scheduled_at=T0, **fields)


def ended(index: int, exit_code: int, word: str | None = None, **fields: Any) -> dict[str, Any]:
    phase = "Succeeded" if exit_code == 0 else "Failed"
    return a_node(index, phase=phase, state=terminated(exit_code, word, **fields.pop("state", {})), **fields)


def verdict(bench: Bench) -> dict[str, str]:
    """That the Job was stopped with."""
    said: dict[str, str] = json.loads(objects.annotation(bench.job(), names.STOPPED) or "{}")
    return said


def stopped(bench: Bench, *pods: dict[str, Any]) -> tuple[str, str]:
    """What the portal is told once Kubernetes has ended the Job that was stopped."""
    assert bench.job()["spec"]["activeDeadlineSeconds"] == 1
    bench.put(a_team(*failed("DeadlineExceeded"), stopped=objects.annotation(bench.job(), names.STOPPED)), *pods)
    bench.look()
    return bench.portal()


@pytest.mark.parametrize("moment", ["", "@whole", "@training", "@published"])
@pytest.mark.parametrize("lost", [0, 1])
def test_f87_a_node_that_is_lost_is_replaced_alone_and_costs_no_attempt(lost: int, moment: str) -> None:
    acts = ["part", "part", "part"]
    acts[lost] = f"preempted{moment}" if (lost, moment) != (0, "@published") else "vanish"
    world = a_world(*acts)
    world.nodes["1"] = 2
    live(world)
    assert statuses(world)[-1] == "Completed"
    (note,) = world.notes.values()
    assert (len(world.acts), note.failed) == (3, 0)


def test_f87_a_node_that_does_not_let_its_pod_go_holds_the_others_no_longer_than_a_team_waits() -> None:
    bench = Bench(team=900, lost_node=86400)
    away = a_condition("DisruptionTarget", reason="DeletionByTaintManager")
    bench.put(a_team(), runs(0), runs(1, deleted_at=T0 + 60))
    bench.world.pods["uid-of-model-1-1-aaaaa"]["status"]["conditions"].append(away)
    bench.pass_time(60 + 30 + 899)
    bench.look()
    assert not verdict(bench)
    bench.pass_time(1)
    bench.look()
    assert verdict(bench)["code"] == "TeamIncomplete"
    assert "node 2 of 2: its pod is being stopped on gpu-2" in verdict(bench)["sentence"]


def test_f88_a_team_that_never_becomes_whole_says_which_pod_waits_for_what_and_is_stopped() -> None:
    bench = Bench(team=900)
    waits = a_node(1, UNSCHEDULABLE, node=None)
    bench.put(a_team(), runs(0), waits)
    bench.look()
    bench.pass_time(60)
    bench.look()
    line = f"1 of 2 pods run; node 2 of 2: waiting for a GPU: {TEXT.rstrip('.')}"
    assert bench.portal() == ("Processing", line)
    bench.pass_time(839)
    bench.look()
    assert not verdict(bench)
    bench.pass_time(1)
    assert "portal.put" not in bench.look(), "nothing is said while node 1 may still run"
    status, message = stopped(bench, ended(0, 143), waits)
    assert status == "Failed"
    assert message.startswith("1 of 2 pods held a node for 900 seconds while the team was not whole; node 2 of 2: ")
    assert 0 < SETTINGS.team_wait < SETTINGS.unschedulable_limit


def test_f88_a_team_of_which_no_pod_has_a_node_waits_as_any_training_does() -> None:
    bench = Bench(team=900, unschedulable=3600)
    bench.put(a_team(), a_node(0, UNSCHEDULABLE, node=None), a_node(1, UNSCHEDULABLE, node=None))
    bench.pass_time(3599)
    bench.look()
    assert not verdict(bench)
    bench.pass_time(1)
    bench.look()
    assert verdict(bench)["code"] == "Unschedulable"


def test_f89_the_first_failure_is_told_with_its_node_and_no_echo_of_it() -> None:
    bench = Bench()
    first = ended(1, 137, state={"reason": "OOMKilled", "finished_at": T0 + 61})
    echo = ended(0, 206, PEER_LOST, state={"finished_at": T0 + 60})
    bench.put(a_team(*failed(), status={"failed": 2}), echo, first)
    bench.look()
    status, message = bench.portal()
    assert status == "Failed"
    assert message.startswith("node 2 of 2 (gpu-2): out of memory: the training used more than")
    assert "attempts" not in message, "one incident is one attempt"


def test_f89_a_pod_that_the_job_controller_has_ended_is_not_told_for_the_one_that_failed_the_job() -> None:
    first = ended(0, 66, NO_DATA)
    where = f"Container trainer for pod training/{objects.name_of(first)}"
    why = failed("PodFailurePolicy", f"{where} failed with exit code 66 matching FailJob rule at index 1")
    told = ended(1, 143, deleted_at=T0 + 61, state={"finished_at": T0 + 62})
    for pods, words in (
        ([first, told], "node 1 of 2 (gpu-1): Failed to download dataset from container: dataset-xyz"),
        ([told], "node 1 of 2: kubernetes failed the training job (PodFailurePolicy): Container trainer for pod"),
    ):
        bench = Bench()
        bench.put(a_team(*why, status={"failed": 2}), *pods)
        bench.pass_time(600)
        bench.look()
        assert bench.portal()[1].startswith(words)


def test_f90_a_follower_that_outlives_a_leader_that_has_published_is_ended_and_the_model_is_completed() -> None:
    bench = Bench()
    leader = ended(0, 0, PUBLISHED, state={"finished_at": T0 + 60})
    bench.put(a_team(), leader, runs(1))
    bench.pass_time(119)
    bench.look()
    assert not verdict(bench), "it has a minute to hear of it"
    bench.pass_time(1)
    bench.look()
    assert verdict(bench)["code"] == "Completed"
    assert stopped(bench, leader, ended(1, 143))[0] == "Completed"


@pytest.mark.parametrize("word", [None, PUBLISHED])
def test_f90_that_a_follower_has_ended_well_says_nothing_of_the_model(word: str | None) -> None:
    bench = Bench()
    bench.put(a_team(), runs(0), ended(1, 0, word))
    bench.pass_time(3600)
    bench.look()
    assert bench.portal()[0] == "Processing"
    lost = ended(0, 137, state={"reason": "OOMKilled"})
    bench.put(a_team(*failed(), status={"failed": 1, "succeeded": 1}), lost, ended(1, 0, word))
    bench.look()
    status, message = bench.portal()
    assert (status, message.startswith("node 1 of 2 (gpu-1): out of memory")) == ("Failed", True)
