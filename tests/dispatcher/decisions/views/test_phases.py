"""The phase of a Job: for metrics and for people."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions.views.phases import Phase, description, overdue_since, phase, since
from tests.world.builders import (
    T0,
    a_condition,
    a_job,
    a_node,
    a_pod,
    a_team,
    complete,
    failed,
    failing,
    job_json,
    running,
    terminated,
)

RUNNING = a_pod(phase="Running", state={"running": {}})
NODES = [a_node(index, phase="Running", state=running(T0 + index)) for index in (0, 1)]
PENDING = a_pod(state={"waiting": {"reason": "ImagePullBackOff"}})
OVER = a_pod(phase="Failed", state={"terminated": {"exitCode": 130}})
TOLD_FAILED = {"status": "Failed", "code": "Interrupted", "sentence": "It was stopped", "portal": "reported"}


def a_reported(told: str, *conditions: dict[str, Any]) -> Job:
    job = job_json(*conditions, reported=True)
    job["metadata"]["annotations"][names.REPORTED] = told
    return msgspec.convert(job, Job)


@pytest.mark.parametrize(
    ("job", "pods", "wanted"),
    [
        (a_job(launched=False), [], Phase.LAUNCHING),
        (a_job(suspended=True), [], Phase.QUEUED),
        # Suspended by a person while its pod still ends.
        (a_job(suspended=True), [RUNNING], Phase.QUEUED),
        (a_job(), [], Phase.WAITING),
        (a_job(), [PENDING], Phase.WAITING),
        # Between two attempts.
        (a_job(), [OVER], Phase.WAITING),
        (a_job(), [OVER, RUNNING], Phase.RUNNING),
        (a_job(), [RUNNING], Phase.RUNNING),
        (a_job(acknowledged=False), [RUNNING], Phase.RUNNING),
        # Several nodes: each has to run, or to have done its part.
        (a_team(2), [], Phase.WAITING),
        (a_team(2), [NODES[0]], Phase.WAITING),
        (a_team(2), NODES, Phase.RUNNING),
        (a_team(2), [NODES[0], a_node(1, state={"waiting": {"reason": "ImagePullBackOff"}})], Phase.WAITING),
        (a_team(2), [NODES[0], a_node(1, phase="Failed", state=terminated(206))], Phase.WAITING),
        (a_team(2), [NODES[0], a_node(1, phase="Succeeded", state=terminated(0))], Phase.RUNNING),
        (a_team(2), [NODES[0], a_node(1, phase="Running", state=terminated(0))], Phase.RUNNING),
        (a_team(2), [a_node(k, phase="Succeeded", state=terminated(0)) for k in (0, 1)], Phase.WAITING),
        (a_team(2, status={"completedIndexes": "1"}), [NODES[0]], Phase.RUNNING),
        # A pod of a node that runs twice is no other node.
        (a_team(2), [NODES[0], a_node(0, uid="again", phase="Running", state=running())], Phase.WAITING),
        (a_team(2, failing()), NODES, Phase.STOPPING),
        (a_job(deleted_at=T0), [RUNNING], Phase.STOPPING),
        # Its finalizer holds it until that was told.
        (a_job(deleted_at=T0), [OVER], Phase.REPORTING),
        (a_job(deleted_at=T0, launched=False), [], Phase.REPORTING),
        (a_job(stopped="{}"), [PENDING], Phase.STOPPING),
        (a_job(failing()), [RUNNING], Phase.STOPPING),
        (a_job(*complete()), [], Phase.REPORTING),
        (a_job(*failed()), [OVER], Phase.REPORTING),
        (a_job(*failed(), deleted_at=T0), [], Phase.REPORTING),
        (a_reported("{}", *complete()), [], Phase.COMPLETED),
        (a_reported("{}", *failed()), [], Phase.FAILED),
        (a_reported("no JSON", *failed()), [], Phase.FAILED),
        # What the portal was told counts, not how Kubernetes saw it.
        (a_reported(json.dumps(TOLD_FAILED), *complete()), [], Phase.FAILED),
        (a_reported(json.dumps({"status": "Completed"})), [], Phase.COMPLETED),
    ],
)
def test_a_job_is_in_the_phase_that_its_last_step_left_it_in(job: Job, pods: list[Pod], wanted: Phase) -> None:
    assert phase(job, pods) is wanted


T1 = T0 + 600


@pytest.mark.parametrize(
    ("job", "pods", "wanted"),
    [
        (a_job(launched=False), [], T0),
        (a_job(suspended=True), [], T0),
        # Suspended by a person later on.
        (a_job(a_condition("Suspended", at=T1), suspended=True), [], T1),
        (a_job(), [], T0),
        (a_job(started_at=T1), [PENDING], T1),
        # Between two attempts: since the last one's end.
        (a_job(), [a_pod(phase="Failed", state=terminated(130, finished_at=T1))], T1),
        (a_job(), [a_pod(phase="Running", state=running(T1))], T1),
        (a_job(deleted_at=T1), [RUNNING], T1),
        (a_job(failing()), [RUNNING], T0),
        # A stop that the Job controller has not seen yet.
        (a_job(stopped="{}"), [RUNNING], None),
        (a_job(a_condition("Failed", at=T1)), [], T1),
        (a_job(a_condition("Complete", at=T1), deleted_at=T1 + 60), [], T1),
        (a_job(deleted_at=T1), [], T1),
    ],
)
def test_the_age_of_a_phase_begins_with_it(job: Job, pods: list[Pod], wanted: float | None) -> None:
    assert since(phase(job, pods), job, pods) == wanted


@pytest.mark.parametrize(
    ("job", "pods", "wanted"),
    [
        (a_job(spec={"activeDeadlineSeconds": 600}), [RUNNING], T1),
        (a_job(spec={"activeDeadlineSeconds": 600}), [], T1),
        (a_job(), [RUNNING], None),
        # No deadline runs.
        (a_job(suspended=True, spec={"activeDeadlineSeconds": 600}), [], None),
        # A deadline in the past is how a Job is stopped.
        (a_job(stopped="{}", spec={"activeDeadlineSeconds": 1}), [RUNNING], None),
        (a_job(*complete(), spec={"activeDeadlineSeconds": 600}), [], None),
    ],
)
def test_a_job_is_overdue_from_its_own_deadline_on(job: Job, pods: list[Pod], wanted: float | None) -> None:
    assert overdue_since(phase(job, pods), job) == wanted


def test_several_nodes_train_since_the_last_of_them_runs() -> None:
    assert since(Phase.RUNNING, a_team(2), NODES) == T0 + 1


@pytest.mark.parametrize(
    ("is_in", "job", "pods", "words"),
    [
        (Phase.RUNNING, a_job(), [RUNNING], "The trainer runs"),
        (Phase.WAITING, a_job(), [], "No pod yet"),
        (Phase.RUNNING, a_team(2), NODES, "The trainer runs on 2 nodes"),
        (Phase.WAITING, a_team(2), [], "No pod yet"),
        (Phase.WAITING, a_team(3), NODES, "2 of 3 pods run"),
        (Phase.STOPPING, a_team(2), NODES[:1], "1 of 2 pods run"),
        (Phase.STOPPING, a_team(2), [], "Its pods are being stopped"),
    ],
)
def test_people_are_told_of_how_many_nodes_a_training_has(is_in: Phase, job: Job, pods: list[Pod], words: str) -> None:
    assert description(is_in, job, pods) == words
