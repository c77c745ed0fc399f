"""`dispatcher check` where Kueue resumes the Jobs: its queue as the API has it, and whether it lives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dispatcher.cli.checks import check, kueue_check
from dispatcher.cli.checks.results import Otherwise
from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from tests.world.dispatcher_process import Stage
from tests.world.simulated.dispatcher import SETTINGS, TEMPLATE

WITH_KUEUE = replace(SETTINGS, kueue_queue="gpus")


def put_queue(stage: Stage, **status: Any) -> None:
    path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{stage.namespace}/localqueues"
    made = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "gpus"}}
    stage.cluster.api("POST", path, {**made, "spec": {"clusterQueue": "shared"}})
    if status:
        stage.cluster.api("PATCH", f"{path}/gpus/status", {"status": status})


def said(stage: Stage) -> str:
    out = stage.cli("check", KUEUE_QUEUE="gpus")[1]
    return next(line for line in out.splitlines() if "queue of Kueue:" in line)


def test_a_queue_that_is_not_there_or_not_active_fails_and_names_whose_turn_it_is(stage: Stage) -> None:
    assert said(stage).startswith("FAIL queue of Kueue: there is no LocalQueue gpus")
    put_queue(stage)
    assert said(stage).startswith("FAIL queue of Kueue: Kueue has said nothing about LocalQueue gpus")
    stage.cluster.deny({"verb": "get", "resource": "localqueues", "namespace": stage.namespace})
    assert said(stage).startswith("WARN queue of Kueue: not known: the Role lacks get on localqueues")


@pytest.mark.parametrize(
    ("active", "reason", "expected"),
    [
        ("True", "Ready", "ok   queue of Kueue: LocalQueue gpus in namespace {}, which leads to ClusterQueue shared"),
        ("False", "ClusterQueueDoesNotExist", "FAIL queue of Kueue: LocalQueue gpus in namespace {}"),
    ],
)
def test_kueues_own_word_of_the_cluster_queue_counts(stage: Stage, active: str, reason: str, expected: str) -> None:
    condition = {"type": "Active", "status": active, "reason": reason, "message": "Can't submit new workloads"}
    put_queue(stage, conditions=[condition], pendingWorkloads=2, admittedWorkloads=1)
    line = said(stage)
    assert line.startswith(expected.format(stage.namespace))
    assert ("2 wait, 1 are admitted" if active == "True" else "Can't submit new workloads") in line


class Behind:
    """An API server that may have Kueue's webhook."""

    def __init__(self, webhook: Callable[[dict[str, Any]], object]) -> None:
        self.webhook = webhook

    def create_job(self, job: dict[str, Any], *, dry_run: bool = False) -> Job:
        assert dry_run
        assert job["metadata"]["labels"][names.KUEUE_QUEUE_LABEL] == "gpus"
        self.webhook(job)
        return msgspec.convert(job, Job)


def test_kueue_lives_where_it_suspends_a_job_of_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kueue_check.factories, "read_template", lambda settings: TEMPLATE)
    alive: Any = Behind(lambda job: job["spec"].update(suspend=True))
    assert kueue_check.lives(WITH_KUEUE, alive).startswith("it answers")
    dead: Any = Behind(lambda job: None)
    with pytest.raises(Otherwise, match="it does not look at Jobs of its queue") as caught:
        kueue_check.lives(WITH_KUEUE, dead)
    assert caught.value.result == "failed"


def test_check_says_which_pod_it_ran_in_and_how_to_ask_the_newest(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("training-system\n")
    sentence = check.where_it_runs(tmp_path / "namespace")
    assert 'kubectl -n training-system exec "$(kubectl -n training-system get pods' in sentence
    assert sentence.endswith('| tail -n 1)" -- dispatcher check')
    assert check.where_it_runs(tmp_path / "none") == ""
