"""Failure modes of running Jobs: what a pod meets, what that becomes at the portal, and what stops whom first."""

from __future__ import annotations

import copy
import logging
from threading import Event
from typing import Any

import msgspec
import pytest

from dispatcher.cluster import names
from dispatcher.cluster.errors import QuotaExceeded
from dispatcher.cluster.objects import Event as JobEvent
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.job_gauges import JobGauges
from dispatcher.controller.summaries import Summaries, summarise
from dispatcher.decisions.verdicts import Going, Stop
from dispatcher.launch.job_spec import JobDefaults, build_job
from dispatcher.launch.request import Bounds, decode
from dispatcher.telemetry.metrics import Metrics
from portal_client.errors import PortalError
from tests.failure_modes.bench import Bench, S, a_world, calls, decided, disturb, live, released, statuses, templates
from tests.world import json_objects as objects
from tests.world.builders import (
    LIMITS,
    T0,
    TEMPLATE,
    a_condition,
    a_job,
    event_json,
    failed,
    failing,
    job_json,
    pod_json,
    running,
    terminated,
    waiting,
)
from tests.world.dispatcher_process import Stage
from tests.world.manifests.monitoring import ALERTS
from tests.world.simulated.dispatcher import SETTINGS, VISIBILITY, Process
from trainer_image.errors import GpuFault

DISRUPTED = a_condition("DisruptionTarget", reason="PreemptionByScheduler")


def built(template: dict[str, Any] | None = None) -> dict[str, Any]:
    request = decode('{"task": "train", "model_container_name": "model-1"}', Bounds(8, 600))
    return build_job(template or TEMPLATE, request, message_id="m", queued_at=T0, defaults=JobDefaults({}, 600))


def test_f19_an_image_that_cannot_be_pulled_stops_the_job_before_it_is_reported() -> None:
    bench = Bench(image_pull=600)
    pod = pod_json(state=waiting("ImagePullBackOff", "no such image"), scheduled_at=T0)
    bench.put(job_json(), pod)
    bench.look()
    bench.pass_time(500)
    bench.look()
    assert not objects.annotation(bench.job(), names.STOPPED), "it has its grace"
    bench.pass_time(200)
    looked = bench.look()
    assert "cluster.patch" in looked
    assert "portal.put" not in looked
    assert bench.job()["spec"]["activeDeadlineSeconds"] == 1
    assert bench.portal()[0] == "Processing", "nothing is said while it may still run"
    ended = job_json(*failed("DeadlineExceeded"), stopped=objects.annotation(bench.job(), names.STOPPED))
    bench.put(ended, pod_json(phase="Failed", scheduled_at=T0))
    bench.look()
    status, message = bench.portal()
    assert (status, "cannot be pulled: no such image" in message) == ("Failed", True)


def test_f20_no_gpu_is_waited_for_generously_and_told_in_the_schedulers_words() -> None:
    text = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    pod = pod_json(a_condition("PodScheduled", "False", "Unschedulable", text), node=None)
    assert isinstance(decided(pod, now=T0 + LIMITS.unschedulable - 1), Going)
    stop = decided(pod, now=T0 + LIMITS.unschedulable)
    assert isinstance(stop, Stop)
    assert text.rstrip(".") in stop.verdict.sentence
    assert SETTINGS.unschedulable_limit >= 15 * 60, "where the operator sets nothing"


def test_f21_a_lost_gpu_is_retried_and_a_users_mistake_is_not() -> None:
    (rule,) = [r for r in built()["spec"]["podFailurePolicy"]["rules"] if r["action"] == "FailJob"]
    assert GpuFault.exit_code not in rule["onExitCodes"]["values"]
    assert 65 in rule["onExitCodes"]["values"]


def test_f22_a_lost_nodes_pod_does_not_hold_its_training_for_ever() -> None:
    bench = Bench(lost_node=3600)
    # The taint manager has asked for its deletion; the kubelet never answers, and no replacement may start.
    bench.put(job_json(), pod_json(phase="Running", state=running(), deleted_at=T0, grace=120))
    bench.pass_time(120 + 3500)
    bench.look()
    assert not objects.annotation(bench.job(), names.STOPPED)
    bench.pass_time(200)
    assert "cluster.patch" in bench.look()
    assert bench.portal()[0] == "Processing", "stopped first"
    stopped = job_json(failing("DeadlineExceeded"), stopped=objects.annotation(bench.job(), names.STOPPED))
    bench.put(stopped)
    bench.look()
    status, message = bench.portal()
    assert (status, "node node-7 does not say that it has" in message) == ("Failed", True)
    assert released(stopped), "the quota is free as soon as its node is removed"


def test_f22_a_node_that_is_removed_is_replaced_behind_the_lease(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    (first,) = stage.pods(model)
    stage.cluster.remove_node()
    try:
        stage.wait(lambda: any(objects.uid_of(p) != objects.uid_of(first) for p in stage.pods(model)), 60)
        assert stage.status(model) == "Processing"
    finally:
        stage.cluster.return_node()


@pytest.mark.parametrize("key", ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"])
def test_f23_a_flapping_node_does_not_evict_a_training(key: str) -> None:
    for folder, template in templates():
        pod = built(template)["spec"]["template"]["spec"]
        (found,) = [t for t in pod["tolerations"] if t.get("key") == key]
        assert found["effect"] == "NoExecute"
        # On spot nodes one that stops answering has been taken away: there is nothing to wait for.
        assert found["tolerationSeconds"] == (60 if folder == "components/spot" else 1800), folder


def test_f23_what_the_template_tolerates_itself_is_left_to_it() -> None:
    template = copy.deepcopy(dict(TEMPLATE))
    everything = [{"operator": "Exists"}]
    template["spec"]["template"]["spec"]["tolerations"] = everything
    assert built(template)["spec"]["template"]["spec"]["tolerations"] == everything


def test_f24_a_preempted_pod_costs_no_attempt_and_its_training_goes_on() -> None:
    world = a_world("preempted", "preempted", "preempted", "complete")  # backoffLimit is 1
    live(world)
    world.check_end()
    assert statuses(world) == ["Created", "Processing", "Completed"]
    (rule,) = [r for r in built()["spec"]["podFailurePolicy"]["rules"] if r["action"] == "Ignore"]
    assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_f31_a_published_model_stays_completed_whatever_happens_afterwards() -> None:
    world = a_world("said-and-hangs")
    process = Process(world)
    live(world, process, most=3, until_settled=False)
    world.delete_job("model-1")
    live(world, process)
    world.check_end()
    assert statuses(world) == ["Created", "Processing", "Completed"]


def test_f31_a_report_is_for_this_very_job() -> None:
    """The portal takes no attempt's id; the Job's uid stands in for it: read again between the GET and the PUT."""
    bench = Bench()
    bench.put(job_json(*failed()), pod_json(phase="Failed", state=terminated(65)))
    bench.process.refresh()
    bench.put(job_json(uid="of-the-next-training"))
    bench.process.reconciler.reconcile("model-1")
    assert bench.portal()[0] == "Processing"


def test_f33_an_outcome_that_is_refused_for_a_day_goes_where_the_portal_takes_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.put(job_json(*failed()), pod_json(phase="Failed", state=terminated(65)), status=None)
    with pytest.raises(PortalError):
        bench.look()
    assert objects.annotation(bench.job(), names.REFUSED_AT) is not None
    bench.process = Process(bench.world)  # it remembers across a restart
    for _ in range(25):
        bench.pass_time(3600)
        with pytest.raises(PortalError) as caught:
            bench.look()
        assert not released(bench.job()), "no other model shows that the portal works"
    assert caught.value.retry_after == 300, "asked ever less often"

    bench.put(job_json(*failed(), model_id="2", uid="job-2"), status=S.COMPLETED)
    bench.look("2")
    with caplog.at_level(logging.ERROR):
        bench.look()
    assert released(bench.job())
    assert '"portal": "refused"' in (objects.annotation(bench.job(), names.REPORTED) or "")
    assert len([r for r in caplog.records if "refuses its outcome" in r.getMessage()]) == 1
    for _ in range(5):
        bench.pass_time(600)
        assert "portal.put" not in bench.look()


def test_f34_a_full_quota_is_waited_for_without_haste_and_without_poison() -> None:
    world = a_world()
    full = QuotaExceeded("exceeded quota: jobs")
    disturb(world, "cluster.create", "before", full, times=None)
    process = Process(world)
    for _ in range(360):  # an hour
        process.take()
        world.now += 10
    tries = calls(world).count("cluster.create")
    assert 30 < tries < 200, "again and again, with pauses of up to half a minute"
    assert not world.poison
    assert statuses(world) == ["Created"]
    world.director = lambda process, call, side: None
    live(world, process)
    world.check_end()
    assert statuses(world)[-1] == "Completed"


def test_f36_under_kueue_the_label_is_added_last_and_suspend_is_never_touched() -> None:
    world = a_world("slow")
    process = Process(world)
    process.launcher.creation.kueue_queue = "gpus"
    process.tick()
    assert calls(world, "cluster.create", "portal.put", "cluster.patch") == [
        "cluster.create",
        "portal.put",
        "cluster.patch",
    ]
    (job,) = world.jobs.values()
    assert objects.label(job, names.KUEUE_QUEUE_LABEL) == "gpus"
    assert objects.is_suspended(job)
    for _ in range(20):
        world.now += VISIBILITY
        process.tick()
    assert objects.is_suspended(job), "Kueue alone resumes it"


def test_f36_a_job_that_nobody_resumes_raises_an_alarm() -> None:
    metrics, summaries = Metrics(), Summaries()
    job = a_job(suspended=True, labels={names.KUEUE_QUEUE_LABEL: "gpus"})
    for known in (job, a_job(model_id="2", uid="2"), a_job(model_id="3", uid="3", launched=False)):
        summaries.note(known.name, summarise(known, []))
    cache, ended = ClusterCache(lambda name: None), EndedJobs(3600)
    JobGauges(cache, summaries, ended, metrics, stopping=Event(), clock=lambda: T0 + 7200).set_job_gauges()
    longest = "training_dispatcher_longest_in_phase_seconds"
    assert metrics.registry.get_sample_value(longest, {"phase": "queued"}) == 7200
    assert any(f'{longest}{{phase="queued"}}' in expression for expression in ALERTS.values())


def test_f36_a_name_is_taken_by_one_workload_at_a_time() -> None:
    """A next training of the model waits until the Job before is gone, and its Workload with it."""
    world = a_world("hang")
    process = Process(world)
    process.launcher.creation.kueue_queue = "gpus"
    process.tick()
    uid = objects.uid_of(world.jobs["model-1"])
    world.reconfigure("1")
    process.take()
    assert objects.uid_of(world.jobs["model-1"]) == uid
    assert objects.is_deleting(world.jobs["model-1"])


WEBHOOK_DOWN = (
    'Error creating: Internal error occurred: failed calling webhook "m.kb.io": failed to call webhook: '
    'Post "https://m": no endpoints available for service "m"'
)


def test_f59_pods_that_wait_for_a_webhook_are_waited_for_like_a_quota() -> None:
    down = [msgspec.convert(event_json(WEBHOOK_DOWN, T0 + 20), JobEvent)]
    going = decided(now=T0 + 3600, events=down)
    assert isinstance(going, Going)
    assert (going.progress or "").startswith("Waiting for an admission webhook of the cluster: Error creating")
    stop = decided(now=T0 + LIMITS.quota, events=down)
    assert isinstance(stop, Stop)
    assert stop.verdict.code == "WebhookUnavailable"
    assert "operator" not in stop.verdict.sentence


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ('pods "model-1-x" is forbidden: not yet ready to handle request', "WebhookUnavailable", "the cluster: Error"),
        ("Internal error occurred: resource quota evaluation timed out", "WebhookUnavailable", "the cluster: Error"),
        ('pods "model-1-x" is forbidden: status unknown for quota: gpus', "PodCreateDenied", "quota: Error creating"),
    ],
)
def test_f59_what_nobody_has_refused_is_waited_for_like_a_quota(text: str, code: str, words: str) -> None:
    told = [msgspec.convert(event_json(f"Error creating: {text}", T0 + 20), JobEvent)]
    going = decided(now=T0 + 3600, events=told)
    assert isinstance(going, Going)
    assert (going.progress or "").startswith(f"Waiting for {words}")
    stop = decided(now=T0 + LIMITS.quota, events=told)
    assert isinstance(stop, Stop)
    assert stop.verdict.code == code


def test_f59_a_refusal_after_the_outage_has_its_own_grace() -> None:
    denied = 'Error creating: pods "model-1-x" is forbidden: error looking up service account training/trainer'
    told = [event_json(WEBHOOK_DOWN, T0 + 900), event_json(denied, T0 + 960)]
    events = msgspec.convert(told, list[JobEvent])
    assert isinstance(decided(now=T0 + 1000, events=events), Going)
    stop = decided(now=T0 + 900 + LIMITS.pod_create, events=events)
    assert isinstance(stop, Stop)
    assert stop.verdict.code == "PodCreateDenied"


UNREACHABLE = '{"code": "StorageUnavailable", "message": "Failed to download dataset (storage cannot be reached). x"}'


def test_f70_a_retry_on_its_way_is_told_in_place_of_the_dead_attempts_progress() -> None:
    bench = Bench()
    dead = pod_json(phase="Failed", state=terminated(201, UNREACHABLE), scheduled_at=T0)
    bench.put(job_json(status={"failed": 1}, spec={"backoffLimit": 3}), dead)
    bench.world.models["1"].message = "Downloading the dataset: 1 GB of 4 GB"
    for _ in range(3):
        bench.look()
        bench.pass_time(20)
    failed_at_first = (
        "Attempt 1 of 4 failed: Failed to download dataset (storage cannot be reached); the next one starts"
    )
    assert bench.portal() == ("Processing", failed_at_first)


def test_f70_what_the_next_attempt_waits_for_is_told_with_it_and_nothing_once_it_runs() -> None:
    dead = pod_json(phase="Failed", state=terminated(201, UNREACHABLE))
    text = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unscheduled = a_condition("PodScheduled", "False", "Unschedulable", text)
    waits = pod_json(unscheduled, name="model-1-b", created_at=T0 + 90, node=None)
    pulls = pod_json(name="model-1-b", created_at=T0 + 90, scheduled_at=T0 + 91)
    runs = pod_json(name="model-1-b", created_at=T0 + 90, phase="Running", state=running())
    job = job_json(status={"failed": 2}, spec={"backoffLimit": 3})
    said = [decided(dead, pod, job=job, now=T0 + 100) for pod in (waits, pulls, runs)]
    told = [going.progress for going in said if isinstance(going, Going)]
    assert told[0] is not None
    assert told[0].startswith("Attempt 2 of 4 failed: Failed to download dataset")
    assert told[0].endswith("; the next one starts. Waiting for a GPU: " + text.rstrip("."))
    assert told[1] is not None
    assert told[1].endswith("; the next one starts")
    assert told[2] is None


def test_f70_an_interruption_is_no_failed_attempt() -> None:
    taken = pod_json(DISRUPTED, phase="Failed", state=terminated(143))
    going = decided(taken, now=T0 + 100)
    assert isinstance(going, Going)
    assert (going.progress or "").startswith("Interrupted, which costs no attempt: The training pod was stopped on")
