"""What others do to a training's Job meanwhile: Kueue, and an operator's hands."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.cluster import names
from tests.world import json_objects as objects
from tests.world.builders import a_condition
from tests.world.dispatcher_process import Stage

QUOTA = "insufficient unused quota for nvidia.com/gpu in flavor a100, 1 more needed"


class Kueue:
    """Writes the Workloads that a Kueue in the namespace would write."""

    def __init__(self, stage: Stage, queue: str) -> None:
        self._stage, self._queue = stage, queue
        self._path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{stage.namespace}/workloads"

    def queues(self, owner: str, priority: int = 0) -> str:
        """A Workload of the Job with this uid; returns its name."""
        name = f"job-{owner[:8]}"
        workload = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "Workload",
            "metadata": {"name": name, "ownerReferences": [_owner(owner)]},
            "spec": {"queueName": self._queue, "priority": priority},
        }
        self._stage.cluster.api("POST", self._path, workload)
        self.says(name, a_condition("QuotaReserved", "False", "Pending", QUOTA))
        return name

    def says(self, name: str, *conditions: dict[str, Any]) -> None:
        self._stage.cluster.api("PATCH", f"{self._path}/{name}/status", {"status": {"conditions": list(conditions)}})

    def removes(self, name: str) -> None:
        self._stage.cluster.api("DELETE", f"{self._path}/{name}")


def _owner(uid: str) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": "Job", "name": "any", "uid": uid, "controller": True}


def _patch(stage: Stage, model: str, patch: dict[str, Any]) -> None:
    stage.cluster.api("PATCH", f"/apis/batch/v1/namespaces/{stage.namespace}/jobs/model-{model}", patch)


def _launched(stage: Stage, model: str) -> Any:
    return stage.wait(lambda: (job := stage.job(model)) and objects.is_launched(job) and job)


def test_a_user_reads_how_many_are_ahead_in_kueues_queue_and_why(stage: Stage) -> None:
    kueue = Kueue(stage, "gpus")
    first, second = kueue.queues("before-1", priority=10), kueue.queues("before-2", priority=10)
    model = stage.submit("runs")
    stage.start(KUEUE_QUEUE="gpus")
    own = kueue.queues(objects.uid_of(_launched(stage, model)))
    stage.wait(lambda: stage.message(model) == f"Queued by Kueue: 2 ahead ({QUOTA})")
    kueue.removes(first)
    stage.wait(lambda: stage.message(model) == f"Queued by Kueue: 1 ahead ({QUOTA})")
    kueue.says(second, a_condition("QuotaReserved"))
    kueue.says(own, a_condition("QuotaReserved"), a_condition("Admitted", at=4e9))
    stage.wait(lambda: stage.message(model) == "Admitted by Kueue, about to start")
    _patch(stage, model, {"spec": {"suspend": False}})
    stage.wait(lambda: stage.running(model))
    # This trainer says nothing itself.
    stage.wait(lambda: stage.message(model) == "Model training started")


def test_without_the_right_to_see_workloads_the_queues_name_is_told(stage: Stage) -> None:
    stage.cluster.deny({"verb": "list", "resource": "workloads", "namespace": stage.namespace})
    model = stage.submit("done")
    stage.start(KUEUE_QUEUE="gpus")
    stage.wait(lambda: stage.message(model) == "Queued by Kueue in gpus")
    assert 'The Role must allow the verb "list" on "workloads"' in stage.log()


@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_a_job_without_our_labels_or_annotations_is_reported_all_the_same(stage: Stage, kind: str) -> None:
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    job = stage.job(model)
    assert job is not None
    _patch(stage, model, {"metadata": {kind: dict.fromkeys(job["metadata"][kind])}})
    stage.wait(lambda: (now := stage.job(model)) and objects.is_managed(now) and objects.is_launched(now))
    assert "they are put back" in stage.log()
    stage.delete_job(model)
    stage.wait_status(model, "Failed")
    stage.wait(lambda: stage.job(model) is None)


def test_a_dispatcher_that_starts_finds_a_job_that_lost_its_label_meanwhile(stage: Stage) -> None:
    model = stage.submit("runs")
    service = stage.start()
    stage.wait(lambda: stage.running(model))
    service.stop()
    _patch(stage, model, {"metadata": {"labels": {names.MANAGED_BY: None}}})
    stage.start()
    stage.wait(lambda: (now := stage.job(model)) and objects.is_managed(now))
    stage.delete_job(model)
    stage.wait_status(model, "Failed")
