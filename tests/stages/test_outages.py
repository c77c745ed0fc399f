"""Portal, cluster and queue out of order: nothing is lost, nothing is poisoned, and somebody is told."""

from __future__ import annotations

import signal
import urllib.error

import pytest

from dispatcher.cluster import names
from local_stack.http_json import OPENER
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage

pytestmark = pytest.mark.long


@pytest.mark.parametrize("kind", ["status", "html", "empty", "cut", "garbage"])
def test_a_portal_that_fails_pauses_the_intake_and_loses_nothing(stage: Stage, kind: str) -> None:
    stage.portal.add_fault(kind, method="GET", status=500, count=None)
    models = [stage.submit("done") for _ in range(3)]
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: "Intake pauses" in stage.log())
    assert not stage.poison()
    assert stage.cluster.jobs(stage.namespace) == []
    stage.portal.clear_faults()
    for model in models:
        stage.wait_status(model, "Completed")
    assert not stage.poison()
    assert "Intake continues" in stage.log()


def test_a_wrong_key_pauses_the_intake_and_names_the_setting(stage: Stage) -> None:
    model = stage.submit("done")
    stage.start(API_KEY="wrong-key-0123456789", MAX_DELIVERIES="1")
    stage.wait(lambda: "Intake pauses" in stage.log())
    assert "API_KEY" in stage.log()
    assert "wrong-key-0123456789" not in stage.log()
    assert stage.status(model) == "Created"
    assert not stage.poison()


def test_without_a_key_it_stays_up_unready_and_takes_no_message(stage: Stage) -> None:
    stage.submit("done")
    service = stage.start(API_KEY="")
    stage.wait(lambda: "API_KEY not configured" in stage.log())

    answers: list[tuple[int, str]] = []

    def answered() -> bool:
        try:
            OPENER.open(f"http://127.0.0.1:{stage.port}/readyz", timeout=5).close()
        except urllib.error.HTTPError as refused:
            answers.append((refused.code, refused.read().decode()))
        except urllib.error.URLError:  # it says so before it listens
            return False
        return True

    stage.wait(answered)
    [(code, said)] = answers
    assert code == 503
    assert "API_KEY not configured" in said
    assert stage.queue.peek(), "the message is visible, nobody holds it"
    assert service.stop() == 0


def test_a_processing_that_the_portal_does_not_take_is_sent_later(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.portal.add_fault("status", method="PUT", status=503, count=4)
    stage.start()
    stage.wait(lambda: stage.running(model))
    stage.wait_status(model, "Processing")
    stage.wait(lambda: objects.is_acknowledged(stage.job(model) or {}))


def test_a_processing_that_was_applied_although_it_failed_is_not_repeated(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.portal.add_fault("cut", method="PUT", count=1, after=True)
    stage.start()
    stage.wait(lambda: stage.running(model))
    assert len([c for c in stage.portal.calls("PUT") if c.model == model]) == 1
    assert objects.is_acknowledged(stage.job(model) or {})


def test_an_outcome_waits_for_the_portal_across_a_restart(stage: Stage) -> None:
    model = stage.submit("invalid")
    stage.portal.add_fault("status", method="PUT", status=500, count=None)
    first = stage.start()
    stage.wait(lambda: (job := stage.job(model)) and objects.is_finished(job), 60)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    stage.portal.clear_faults()
    stage.start()
    stage.wait_status(model, "Failed")
    assert stage.message(model).startswith(
        "Invalid dataset: train.csv: it is empty. To train it again, set the model to"
    )


def test_an_api_server_that_created_the_job_but_answered_500_is_believed_after_a_look(stage: Stage) -> None:
    model = stage.submit("done")
    stage.cluster.fail("create", "jobs", status=500, after=True, count=2)  # the first is the dry run at the start
    stage.start()
    stage.wait_status(model, "Completed")
    assert not stage.poison()


@pytest.mark.parametrize(("verb", "status"), [("create", 500), ("create", 429), ("patch", 500), ("patch", 409)])
def test_an_api_server_that_fails_for_a_while_costs_nothing(stage: Stage, verb: str, status: int) -> None:
    stage.cluster.fail(verb, "jobs", status=status, count=3 if verb == "create" else 2)  # a dry run at the start
    model = stage.submit("done")
    stage.start(MAX_DELIVERIES="1", VISIBILITY_TIMEOUT_SECONDS="10")
    stage.wait_status(model, "Completed", 60)
    assert not stage.poison()


def test_a_403_names_the_verb_and_resource_that_the_role_lacks(stage: Stage) -> None:
    stage.cluster.deny({"verb": "create", "resource": "jobs", "namespace": stage.namespace})
    model = stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: 'must allow the verb "create" on "jobs"' in stage.log())
    assert not stage.poison()
    stage.cluster.deny()
    stage.wait_status(model, "Completed")


def test_a_quota_on_jobs_pauses_the_intake_until_there_is_room(stage: Stage) -> None:
    stage.cluster.set_quota(stage.namespace, {"count/jobs.batch": "0"}, name="jobs")
    model = stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: "exceeded quota" in stage.log())
    assert not stage.poison()
    stage.cluster.set_quota(stage.namespace, None, name="jobs")
    stage.wait_status(model, "Completed")


def test_a_template_that_the_api_server_refuses_poisons_nobody(stage: Stage) -> None:
    stage.template["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "0.5"
    stage.submit("done")
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: "Fix the Job template" in stage.log())
    assert not stage.poison()


def test_watches_that_are_cut_expired_or_silent_do_not_hide_an_outcome(stage: Stage) -> None:
    stage.start(RESYNC_SECONDS="1")
    stage.wait(lambda: len(stage.cluster.open_watches()) >= 2)
    stage.cluster.silence_watches()
    first = stage.submit("done")
    # A watch lasts a minute, and is cut soon after; then names and versions are compared.
    stage.wait_status(first, "Completed", 120)
    stage.cluster.compact()
    stage.cluster.cut_watches()
    second = stage.submit("invalid")
    stage.wait_status(second, "Failed", 60)


def test_the_most_active_jobs_wait_on_the_queue_not_in_the_cluster(stage: Stage) -> None:
    stage.start(MAX_ACTIVE_JOBS="1")
    first = stage.submit("runs")
    stage.wait(lambda: stage.running(first))
    second = stage.submit("done")
    stage.wait(lambda: "Intake waits: MAX_ACTIVE_JOBS" in stage.log())
    assert stage.job(second) is None
    assert stage.status(second) == "Created"
    stage.delete_job(first)
    stage.wait_status(second, "Completed", 60)


def test_a_half_launched_job_whose_message_is_gone_is_taken_on(stage: Stage) -> None:
    stage.cluster.fail("patch", "jobs", status=500, count=None)
    model = stage.submit("done")
    first = stage.start()
    stage.wait(lambda: stage.job(model))
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    assert not objects.is_launched(stage.job(model) or {})
    purge(stage)
    stage.cluster.clear_faults()
    stage.start(VISIBILITY_TIMEOUT_SECONDS="10")
    stage.wait_status(model, "Completed", 60)


def purge(stage: Stage) -> None:
    """What `az storage message clear` does."""
    stage.queue._client.clear_messages()


def test_a_job_of_that_name_which_is_not_ours_is_left_alone_and_the_message_told(stage: Stage) -> None:
    model = stage.submit("done")
    foreign = stage.template | {"metadata": {"name": f"model-{model}"}}
    foreign["spec"] = {**foreign["spec"], "suspend": True}
    stage.cluster.api("POST", f"/apis/batch/v1/namespaces/{stage.namespace}/jobs", foreign)
    stage.start(MAX_DELIVERIES="1")
    entries = stage.wait(stage.poison)
    assert [entry.code for entry in entries] == ["NameTaken"]
    job = stage.job(model) or {}
    assert not objects.label(job, names.MANAGED_BY)
    assert stage.status(model) == "Created"


def test_a_silent_watch_of_pods_does_not_cost_the_trainer_its_last_words(stage: Stage) -> None:
    stage.start(RESYNC_SECONDS="60")
    stage.wait(lambda: sorted(stage.cluster.open_watches()) == ["jobs", "pods"])
    assert stage.cluster.silence_watches("pods") == 1
    model = stage.submit("invalid")
    stage.wait_status(model, "Failed")
    assert stage.message(model).startswith(
        "Invalid dataset: train.csv: it is empty. To train it again, set the model to"
    )
