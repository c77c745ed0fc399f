"""outcome for a training on several nodes: whose failure came first, what completes it, how often it was tried."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from msgspec.structs import replace

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import outcome, teams
from dispatcher.decisions.verdicts import Ended, Going, Outcome, Stop, Verdict
from portal_client import messages
from tests.world.builders import (
    LIMITS,
    T0,
    a_condition,
    a_job,
    a_node,
    a_pod,
    a_team,
    complete,
    failed,
    failing,
    running,
    terminated,
    waiting,
)

NOW = T0 + 10_000
COMPLETED = Ended(True, Verdict("Completed", messages.COMPLETED))
PREEMPTED = a_condition("DisruptionTarget", reason="PreemptionByScheduler")
PUBLISHED = json.dumps({"code": "Completed", "message": "Model training completed successfully"})
PEER_LOST = json.dumps({"code": "PeerLost", "message": "The others of the training are out of reach: closed"})
NO_DATA = json.dumps({"code": "DatasetMissing", "message": "Failed to download dataset from container: dataset-xyz"})
NO_STORAGE = json.dumps({"code": "StorageUnavailable", "message": "Storage cannot be reached"})


def decided(job: Job, *pods: Pod, now: float = NOW) -> Outcome:
    return outcome.decide(job, pods, (), now, LIMITS)


def ended(exit_code: int, word: str | None = None, at: float = T0 + 60, **state: Any) -> dict[str, Any]:
    phase = "Succeeded" if exit_code == 0 else "Failed"
    return {"phase": phase, "state": terminated(exit_code, word, finished_at=at, **state)}


def runs(index: int, **fields: Any) -> Pod:
    return a_node(index, a_condition("PodScheduled"), phase="Running", state=running(), **fields)


def told(result: Outcome) -> str:
    assert isinstance(result, Ended), result
    assert not result.completed
    return result.verdict.sentence


def blamed(pod: Pod, exit_code: int) -> str:
    where = f"Container trainer for pod training/{pod.name}"
    return f"{where} failed with exit code {exit_code} matching FailJob rule at index 1"


# Success


@pytest.mark.parametrize("word", [None, PUBLISHED])
def test_a_followers_end_without_failure_alone_is_never_success(word: str | None) -> None:
    follower, leader = a_node(1, **ended(0, word)), a_node(0, **ended(201, NO_STORAGE))
    assert isinstance(decided(a_team(2), runs(0), follower), Going)
    assert isinstance(decided(a_team(2), leader, follower), Going)  # node 0 is tried again
    sentence = told(decided(a_team(2, *failed(), status={"failed": 1, "succeeded": 1}), leader, follower))
    assert sentence == "node 1 of 2 (gpu-1): Storage cannot be reached"
    assert "deleted" in told(decided(a_team(2, deleted_at=T0 + 90), follower))


@pytest.mark.parametrize("exit_code", [0, 202])
def test_what_node_0_says_that_it_has_published_is_success_whatever_becomes_of_the_others(exit_code: int) -> None:
    leader, follower = a_node(0, **ended(exit_code, PUBLISHED)), a_node(1, **ended(137, at=T0 + 70))
    for job in (a_team(2, *failed()), a_team(2, deleted_at=T0 + 90)):
        assert decided(job, leader, follower) == COMPLETED
    # The Job controller would make the follower anew, and it finds nothing to do.
    assert decided(a_team(2), leader, follower) == Stop(COMPLETED.verdict)


def test_a_follower_that_outlives_a_leader_that_has_published_has_a_minute() -> None:
    leader, follower = a_node(0, **ended(0, PUBLISHED)), runs(1)
    assert decided(a_team(2), leader, follower, now=T0 + 80) == Going(check_at=T0 + 120)
    assert decided(a_team(2), leader, follower, now=T0 + 120) == Stop(COMPLETED.verdict)
    assert decided(a_team(2), leader, a_node(1, **ended(0))) == COMPLETED


def test_a_program_without_a_word_is_complete_when_its_job_is_and_not_before() -> None:
    nodes = [a_node(0, **ended(0)), a_node(1, **ended(0))]
    assert isinstance(decided(a_team(2), *nodes), Going)
    done = a_team(2, *complete(), status={"succeeded": 2})
    assert decided(done, *nodes) == COMPLETED
    taken = [nodes[0], a_node(1, PREEMPTED, **ended(0))]
    assert "as if it had succeeded" in told(decided(done, *taken))
    word = [a_node(0, **ended(0, PUBLISHED)), taken[1]]
    assert decided(done, *word) == COMPLETED


# The first cause


def test_a_failure_for_good_is_told_with_its_node_and_the_pods_that_were_ended_with_it_are_not() -> None:
    first = a_node(1, **ended(66, NO_DATA))
    others = [a_node(index, **ended(143, at=T0 + 62), deleted_at=T0 + 61) for index in (0, 2, 3)]
    job = a_team(4, *failed("PodFailurePolicy", blamed(first, 66)), status={"failed": 4})
    words = "node 2 of 4 (gpu-2): Failed to download dataset from container: dataset-xyz"
    assert told(decided(job, first, *others)) == words
    assert told(decided(job, first)) == words, "the others are gone"
    # While the others still run, only the portal's own trainer may speak; once they have ended nothing can change.
    assert isinstance(decided(a_team(4), first, runs(0), runs(2), runs(3)), Going)


def test_where_the_pod_that_failed_the_job_is_not_known_nobody_else_is_blamed_for_it() -> None:
    gone, echo = a_node(2), a_node(0, **ended(143), deleted_at=T0 + 61)
    job = a_team(4, *failed("PodFailurePolicy", blamed(gone, 66)), status={"failed": 2})
    for known in ((echo,), (), (echo, runs(2))):
        result = decided(job, *known, now=NOW)
        assert isinstance(result, Ended)
        assert result.verdict.code == "DatasetMissing"
        assert result.verdict.sentence.startswith("node 3 of 4: kubernetes failed the training job (PodFailurePolicy)")


def test_who_says_that_it_lost_its_peer_is_an_echo_however_early_it_says_so() -> None:
    lost = [a_node(index, **ended(206, PEER_LOST, at=T0 + 50)) for index in (0, 2)]
    first = a_node(1, **ended(137, at=T0 + 60, reason="OOMKilled"))
    sentence = told(decided(a_team(3, *failed(), status={"failed": 3}), *lost, first))
    assert sentence.startswith("node 2 of 3 (gpu-2): out of memory: the training used more than")
    # Where nobody has another word it is told.
    alone = told(decided(a_team(2, *failed(), status={"failed": 1}), lost[0], runs(1, deleted_at=T0 + 55)))
    assert alone == "node 1 of 2 (gpu-1): The others of the training are out of reach: closed"


def test_of_programs_without_words_the_first_that_ended_is_told_though_the_job_names_another() -> None:
    oom = a_node(2, **ended(137, at=T0 + 58, reason="OOMKilled"))
    echo = a_node(0, **ended(79, "NCCL error: peer closed", at=T0 + 60))
    job = a_team(3, *failed("PodFailurePolicy", blamed(echo, 79)), status={"failed": 3})
    assert told(decided(job, oom, echo)).startswith("node 3 of 3 (gpu-3): out of memory")
    own = a_node(0, **ended(66, NO_DATA, at=T0 + 60))
    job = a_team(3, *failed("PodFailurePolicy", blamed(own, 66)), status={"failed": 3})
    assert told(decided(job, oom, own)).startswith("node 1 of 3 (gpu-1): Failed to download")


def test_a_node_that_was_taken_away_is_a_cause_and_one_that_was_told_to_end_is_none() -> None:
    stopped = json.dumps({"code": "Terminated", "message": "Training was stopped before it began"})
    echo = a_node(0, **ended(143, stopped, at=T0 + 50))
    away = a_node(1, PREEMPTED, **ended(143, stopped, at=T0 + 60))
    assert "higher priority" in told(decided(a_team(2, *failed()), echo, away))


# Attempts


def test_one_incident_is_one_attempt_however_many_pods_end_in_it() -> None:
    first = [a_node(0, **ended(201, NO_STORAGE, at=T0 + 60)), a_node(1, **ended(206, PEER_LOST, at=T0 + 61))]
    again = [
        a_node(index, name=f"model-1-{index}-bbbbb", created_at=T0 + 80, **ended(137, at=T0 + 200 + index))
        for index in (1, 0)
    ]
    job = a_team(2, *failed(), status={"failed": 4})
    assert teams.attempts([*first, *again]) == 2
    sentence = told(decided(job, *first, *again))
    assert sentence.startswith("node 1 of 2 (gpu-1): the training process was killed")
    assert "(after 2 attempts)" in sentence


def test_a_failure_that_was_made_good_is_not_told_once_more_though_its_replacement_is_gone() -> None:
    old = a_node(0, **ended(201, NO_STORAGE, at=T0 + 60))
    last = a_node(1, **ended(137, at=T0 + 600, reason="OOMKilled"))
    echo = a_node(2, **ended(143, at=T0 + 690), deleted_at=T0 + 601)
    job = a_team(3, *failed(), status={"failed": 4})
    sentence = told(decided(job, old, last, echo))
    assert sentence.startswith("node 2 of 3 (gpu-2): out of memory")
    assert "(after 2 attempts)" in sentence


def test_a_team_of_which_no_pod_is_left_is_told_before_the_job_controller_says_so() -> None:
    pods = [a_node(0, **ended(206, PEER_LOST)), a_node(1, **ended(137, at=T0 + 61))]
    job = a_team(2, spec={"backoffLimit": 1}, status={"failed": 1})
    assert told(decided(job, *pods)).startswith("node 2 of 2 (gpu-2): the training process was killed")
    assert isinstance(decided(job, pods[1]), Going), "nobody knows how node 1 ended"
    assert isinstance(decided(a_team(2), *pods), Going), "attempts are left"


def test_a_disruption_is_no_attempt_and_its_limit_is_for_each_node() -> None:
    away = [a_node(index, PREEMPTED, **ended(143)) for index in range(3)]
    assert teams.attempts(away) == 0
    limits = dataclasses.replace(LIMITS, disruptions=1)
    assert isinstance(outcome.decide(a_team(3), away, (), NOW, limits), Going)
    again = a_node(1, PREEMPTED, name="model-1-1-bbbbb", created_at=T0 + 100, **ended(143, at=T0 + 200))
    stop = outcome.decide(a_team(3), [*away, again], (), NOW, limits)
    assert isinstance(stop, Stop)
    assert stop.verdict.sentence.startswith("node 2 of 3 (gpu-2): the training pod was stopped on node gpu-2")
    assert "(4 of its pods were taken away; the limit is 1 for each node). " in stop.verdict.sentence


def test_what_no_attempt_can_mend_ends_the_team_though_the_others_run() -> None:
    text = 'exec: "train": executable file not found in $PATH'
    gone = a_node(1, **ended(128, f"failed to create containerd task: {text}", reason="StartError"))
    stop = decided(a_team(3), runs(0), gone, runs(2))
    assert isinstance(stop, Stop)
    assert stop.verdict.code == "CommandNotFound"
    assert stop.verdict.sentence.startswith("node 2 of 3 (gpu-2): the command of the trainer container cannot be run")


def test_why_a_team_is_tried_again_is_told_while_its_node_0_does_not_run() -> None:
    dead = a_node(0, **ended(137, reason="OOMKilled"))
    going = decided(a_team(2, status={"failed": 1}), dead, runs(1))
    assert isinstance(going, Going)
    words = "Attempt 1 of 3 failed: node 1 of 2 (gpu-1): out of memory: the training used more than"
    assert (going.progress or "").startswith(words)
    following = a_node(1, **ended(137, reason="OOMKilled"))
    going = decided(a_team(2, status={"failed": 1}), runs(0), following)
    assert isinstance(going, Going)
    assert going.progress is None, "node 0 reports itself"


# Sidecars


def kept(index: int, exit_code: int, word: str | None = None) -> Pod:
    pod = a_node(index, phase="Running", state=terminated(exit_code, word))
    side = replace(pod.trainer, name="istio-proxy")
    return replace(pod, spec=replace(pod.spec, containers=(pod.trainer, side)))


def test_of_a_team_only_the_pod_whose_trainer_has_failed_is_taken_from_its_sidecar() -> None:
    pod = kept(1, 201, NO_STORAGE)
    assert decided(a_team(2), runs(0), pod, now=T0 + 70) == Going(check_at=T0 + 120)
    assert decided(a_team(2), runs(0), pod) == Going(remove_pods=True, only=pod.uid)
    stop = decided(a_team(2), runs(0), kept(1, 66, NO_DATA))
    assert isinstance(stop, Stop)
    assert stop.verdict.sentence.startswith("node 2 of 2 (gpu-2): Failed to download")


def test_a_sidecar_keeps_a_follower_that_has_done_its_part_until_all_have() -> None:
    done = kept(1, 0)
    assert isinstance(decided(a_team(2), runs(0), done), Going)
    assert decided(a_team(2), runs(0), done).check_at is None  # type: ignore[union-attr]
    assert decided(a_team(2), kept(0, 0), done) == Stop(COMPLETED.verdict)
    assert decided(a_team(2), kept(0, 0, PUBLISHED), runs(1)) == Stop(COMPLETED.verdict)


def test_a_stopped_team_is_told_by_the_trainer_that_had_failed_before() -> None:
    deleted = replace(kept(1, 66, NO_DATA), metadata=runs(1, deleted_at=T0 + 100).metadata)
    job = a_team(2, *failed("DeadlineExceeded"), spec={"activeDeadlineSeconds": 100})
    assert told(decided(job, deleted, a_node(0, **ended(143, at=T0 + 105), deleted_at=T0 + 100))).startswith(
        "node 2 of 2"
    )
    late = a_team(
        2, a_condition("FailureTarget", reason="DeadlineExceeded", at=T0 + 100), *failed("DeadlineExceeded")[1:]
    )
    assert "time limit" in told(decided(late, a_node(1, **ended(206, PEER_LOST), deleted_at=T0 + 100)))


def test_a_team_that_is_failing_waits_for_all_its_pods_to_end() -> None:
    first = a_node(1, **ended(66, NO_DATA))
    leaving = runs(0, deleted_at=T0 + 61)
    job = a_team(2, failing("PodFailurePolicy", blamed(first, 66)), status={"failed": 2})
    assert decided(job, first, leaving, now=T0 + 70) == Going(check_at=T0 + 61 + 30 + 60)
    assert told(decided(job, first, leaving, now=T0 + 61 + 90)).startswith("node 2 of 2 (gpu-2)")


@pytest.mark.parametrize(("nodes", "names", "attempt"), [(1, "abc", 3), (2, "ab", 1), (2, "abc", 2), (2, "", 0)])
def test_the_number_of_an_attempt_is_that_of_the_node_that_had_the_most_pods(
    nodes: int, names: str, attempt: int
) -> None:
    pods = [a_pod(name=name, index=number % 2 if nodes > 1 else None) for number, name in enumerate(names)]
    assert teams.attempt(a_job() if nodes == 1 else a_team(nodes), pods) == attempt


def test_waiting_pods_of_a_team_do_not_hide_the_one_that_cannot_start() -> None:
    stuck = a_node(1, state=waiting("InvalidImageName", "bad"), image="UPPER//bad:1")
    stop = decided(a_team(3), a_node(0, node=None), stuck, a_node(2, node=None))
    assert isinstance(stop, Stop)
    assert stop.verdict.sentence.startswith("node 2 of 3 (gpu-2): the trainer image has an invalid name: UPPER//bad:1")
