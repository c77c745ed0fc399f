"""The phase of a Job: for metrics and for people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatcher import names
from dispatcher.phases import Phase, phase
from tests.builders import T0, a_job, a_pod, complete, failed, failing

RUNNING = a_pod(phase="Running", state={"running": {}})
PENDING = a_pod(state={"waiting": {"reason": "ImagePullBackOff"}})
OVER = a_pod(phase="Failed", state={"terminated": {"exitCode": 130}})
TOLD_FAILED = {"status": "Failed", "code": "Interrupted", "sentence": "It was stopped", "portal": "reported"}


def a_reported(told: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    job = a_job(*conditions, reported=True)
    job["metadata"]["annotations"][names.REPORTED] = told
    return job


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
        (a_job(deleted_at=T0), [RUNNING], Phase.STOPPING),
        (a_job(deleted_at=T0, launched=False), [], Phase.STOPPING),
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
def test_a_job_is_in_the_phase_that_its_last_step_left_it_in(
    job: dict[str, Any], pods: list[dict[str, Any]], wanted: Phase
) -> None:
    assert phase(job, pods) is wanted
