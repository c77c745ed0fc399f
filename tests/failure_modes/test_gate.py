"""Failure modes at the gate: policies that deny a Job, outages and how the intake waits for their end."""

from __future__ import annotations

import pytest

from tests.world.dispatcher_process import Stage

POLICY = "jobs.batch is forbidden: ValidatingAdmissionPolicy 'names' with binding 'all' denied request: not this name"
WEBHOOK = 'admission webhook "validation.gatekeeper.sh" denied the request: every Job needs a cost centre'
DOWN = 'Internal error occurred: failed calling webhook "v.kyverno.svc": failed to call webhook: connection refused'


@pytest.mark.parametrize("code", [400, 403, 422])
def test_f44_a_job_that_a_policy_denies_is_told_to_its_user_in_the_policys_words(stage: Stage, code: int) -> None:
    denied = stage.submit("done")
    stage.cluster.refuse_jobs(POLICY, name=f"model-{denied}", code=code)
    other = stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    (entry,) = stage.wait(stage.poison)
    assert entry.code == "JobRefused"
    assert POLICY in entry.sentence
    assert "Role" not in entry.sentence
    assert stage.status(denied) == "Failed"
    assert POLICY in stage.message(denied)
    stage.wait_status(other, "Completed")
    assert "Intake pauses" not in stage.log()


def test_f44_a_policy_that_denies_every_job_pauses_and_poisons_nobody(stage: Stage) -> None:
    stage.cluster.refuse_jobs(WEBHOOK)
    model = stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: "It denies every Job of this template" in stage.log())
    assert WEBHOOK in stage.log()
    assert "The Role must allow" not in stage.log()
    assert not stage.poison()
    assert stage.status(model) == "Created"
    stage.cluster.refuse_jobs()
    stage.wait_status(model, "Completed")


def test_f59_a_webhook_that_is_down_is_the_clusters_outage_and_no_requests_fault(stage: Stage) -> None:
    stage.cluster.refuse_jobs(DOWN, code=500)
    model = stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: "admission webhook does not answer" in stage.log())
    assert not stage.poison()
    assert stage.status(model) == "Created"
    stage.cluster.refuse_jobs()
    stage.wait_status(model, "Completed")
