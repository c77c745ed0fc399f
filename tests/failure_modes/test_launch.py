"""Failure modes of the launch: crashes and ambiguous answers between the message and the running Job."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dispatcher import factories
from dispatcher.cli.checks import check
from dispatcher.cli.main import main
from dispatcher.cluster import names
from dispatcher.cluster.errors import ObjectInvalid
from tests.failure_modes.bench import Bench, S, a_world, calls, disturb, live, statuses, undisturbed
from tests.world import json_objects as objects
from tests.world.builders import T0, TEMPLATE, job_json
from tests.world.dispatcher_process import Stage
from tests.world.repository import ROOT, read
from tests.world.simulated import dispatcher as explored
from tests.world.simulated.dispatcher import SETTINGS, VISIBILITY, Process
from tests.world.simulated.faults import Crash, Fail
from tests.world.simulated.world import World
from training_common.times import rfc3339


def test_f01_a_crash_between_mark_and_resume_leaves_nothing_stuck() -> None:
    world = a_world()
    disturb(world, "portal.put", "after", Crash("marked"))
    with pytest.raises(Crash):
        Process(world).tick()
    (job,) = world.jobs.values()
    assert world.models["1"].status is S.PROCESSING
    assert not objects.is_launched(job)
    world.messages.clear()  # expired, or purged: only the suspended Job knows of the request
    live(world)
    world.check_end()
    assert statuses(world) == ["Created", "Processing", "Completed"]


def test_f01_a_model_whose_job_vanished_is_told_so() -> None:
    world = a_world("hang")
    process = Process(world, disturb=lambda: "now")
    live(world, process, most=3, until_settled=False)
    world.force("1")
    live(world, process, most=1)
    assert statuses(world)[-1] == "Processing", "another replica may have told its end, which the portal does not show"
    live(world, process, most=3, until_settled=False)
    assert statuses(world) == ["Created", "Processing", "Failed"]
    assert "was removed before it ended" in world.models["1"].message


def test_f02_a_put_that_timed_out_but_was_applied_is_taken_as_done() -> None:
    world = a_world("slow")
    disturb(world, "portal.put", "after", Fail("timed out"))
    Process(world).tick()
    (job,) = world.jobs.values()
    assert objects.is_acknowledged(job)
    assert calls(world, "portal.get", "portal.put") == ["portal.get", "portal.put", "portal.get"]
    assert statuses(world) == ["Created", "Processing"]
    assert not world.messages


def test_f02_an_outcome_that_timed_out_but_was_applied_is_not_contradicted() -> None:
    world = a_world("invalid-unreported")
    process = Process(world)
    live(world, process, most=2, until_settled=False)
    disturb(world, "portal.put", "after", Fail("timed out"))
    live(world, process)
    world.check_end()
    assert statuses(world) == ["Created", "Processing", "Failed"]


def test_f03_a_create_that_timed_out_but_succeeded_is_found_by_its_name() -> None:
    world = a_world("slow")
    disturb(world, "cluster.create", "after", Fail("timed out"))
    Process(world).tick()
    assert calls(world, "cluster.create", "cluster.get") == ["cluster.create", "cluster.get"]
    (job,) = world.jobs.values()
    assert objects.is_launched(job)
    assert not world.messages


def test_f03_a_taken_name_is_adopted_only_for_the_very_message() -> None:
    world = a_world("slow")
    disturb(world, "cluster.create", "after", Crash("created"))
    with pytest.raises(Crash):
        Process(world).tick()
    (uid,) = {objects.uid_of(job) for job in world.jobs.values()}
    other = world.enqueue("1")
    undisturbed(world)
    world.now += VISIBILITY + 1
    Process(world).tick()
    (job,) = world.jobs.values()
    assert (objects.uid_of(job), objects.is_launched(job)) == (uid, True)
    assert objects.annotation(job, names.MESSAGE_ID) != other
    assert not world.messages, "the other message was the duplicate"


def test_f06_a_message_that_comes_again_while_its_job_runs_is_neither_a_second_job_nor_poison() -> None:
    world = a_world("hang")
    disturb(world, "queue.delete", "before", Fail("the queue is away"), times=9)
    process = Process(world)
    live(world, process, most=45, until_settled=False)
    assert calls(world, "queue.delete").count("queue.delete") >= 9, "far more deliveries than MAX_DELIVERIES"
    assert calls(world).count("cluster.create") == 1
    assert not world.poison
    assert not world.messages


def test_f08_no_job_depends_on_the_dispatcher_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world("hang")
    live(world, Process(world), most=3, until_settled=False)
    before = copy.deepcopy(world.jobs["model-1"]), set(world.pods)
    assert "ownerReferences" not in before[0]["metadata"]
    changed = copy.deepcopy(dict(explored.TEMPLATE))
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "trainer:2"
    monkeypatch.setattr(explored, "TEMPLATE", changed)
    world.set_status("2", S.CREATED)
    world.enqueue("2")
    live(world, Process(world), most=3, until_settled=False)
    images = {name: job["spec"]["template"]["spec"]["containers"][0]["image"] for name, job in world.jobs.items()}
    assert images["model-1"] == "trainer:1", "a new configuration is for new Jobs"
    assert set(world.pods) & before[1] == before[1], "its pod was not touched"
    assert world.models["2"].status is not S.CREATED


def test_f09_nothing_is_received_before_jobs_and_pods_were_listed(stage: Stage) -> None:
    model = stage.submit("done")
    stage.cluster.fail("list", "pods", status=500, count=None)
    stage.start()
    stage.wait(lambda: stage.log().count("Running Jobs go on") >= 2)
    assert stage.queue.peek(), "the message is visible: nobody holds it"
    assert stage.cluster.jobs(stage.namespace) == []
    stage.cluster.clear_faults()
    stage.wait_status(model, "Completed")


def test_f09_a_restart_adopts_what_runs_and_launches_nothing_again() -> None:
    world = a_world("hang")
    live(world, Process(world), most=3, until_settled=False)
    uid, pods = objects.uid_of(world.jobs["model-1"]), set(world.pods)
    seen = len(world.calls)
    live(world, Process(world), most=5, until_settled=False)
    assert (objects.uid_of(world.jobs["model-1"]), set(world.pods)) == (uid, pods)
    assert "cluster.create" not in [call for _, call in world.calls[seen:]]


def test_f10_a_second_replica_neither_resets_nor_doubles_the_firsts_work() -> None:
    world = a_world("invalid-unreported")
    first, second = Process(world), Process(world)
    first.tick()
    world.now += VISIBILITY + 1
    live(world, second, first)
    world.check_end()
    assert calls(world).count("cluster.create") == 1
    assert statuses(world) == ["Created", "Processing", "Failed"]


def test_f10_a_report_that_another_replica_has_made_is_not_made_again() -> None:
    world = a_world("invalid-unreported")
    first, second = Process(world), Process(world)
    live(world, first, most=2, until_settled=False)
    second.refresh()  # it knows the ended Job, and then stands still
    first.tick()
    assert statuses(world)[-1] == "Failed"
    puts = calls(world).count("portal.put")
    second.reconciler.reconcile("model-1")
    assert calls(world).count("portal.put") == puts


def test_f11_no_clock_of_another_machine_decides_who_may_launch() -> None:
    bench = Bench()
    # Created a day ago by the API server's clock, which is wrong.
    job = job_json(launched=False)
    job["metadata"]["creationTimestamp"] = rfc3339(T0 - 86400)
    job["metadata"]["annotations"][names.REQUEST] = '{"task": "train", "model_container_name": "model-1"}'
    bench.put(job, status=S.CREATED)
    bench.look()
    assert not objects.is_launched(bench.job()), "its message may be in somebody's hand just now"
    bench.pass_time(VISIBILITY * 1.5 + 1)
    bench.look()
    assert objects.is_launched(bench.job()), "for so long no message came for it, by our own clock"


def test_f11_no_leader_is_elected() -> None:
    role = yaml.safe_load(read("manifests/base/role.yaml"))
    assert "coordination.k8s.io" not in {group for rule in role["rules"] for group in rule["apiGroups"]}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dispatcher").rglob("*.py"))
    assert "leaderelection" not in sources


class KueueCluster:
    """A world's cluster behind Kueue's webhook and controller. default: the LocalQueue that it labels Jobs with, or "".

    As measured: a Job without the label gets the default one at its creation; the label cannot be changed on a Job that
    is not suspended, nor by the patch that resumes it; only a queue that exists resumes Jobs.
    """

    def __init__(self, world: World, behind: Any, default: str = "default", at_once: bool = False) -> None:
        self.world, self.behind, self.default, self.at_once = world, behind, default, at_once

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)

    def create_job(self, job: dict[str, Any], **more: Any) -> Any:
        if self.default:
            job["metadata"]["labels"].setdefault(names.KUEUE_QUEUE_LABEL, self.default)
        created = self.behind.create_job(job, **more)
        if self.at_once:
            self.acts()
        return created

    def patch_job(self, name: str, patch: dict[str, Any]) -> Any:
        job = self.world.jobs[name]
        labels = patch.get("metadata", {}).get("labels") or {}
        new = labels.get(names.KUEUE_QUEUE_LABEL, objects.label(job, names.KUEUE_QUEUE_LABEL))
        suspended = (patch.get("spec") or {}).get("suspend", objects.is_suspended(job))
        if new != objects.label(job, names.KUEUE_QUEUE_LABEL) and not suspended:
            raise ObjectInvalid("metadata.labels[kueue.x-k8s.io/queue-name]: Invalid value: field is immutable")
        return self.behind.patch_job(name, patch)

    def acts(self) -> None:
        for job in self.world.jobs.values():
            if objects.label(job, names.KUEUE_QUEUE_LABEL) in ("default", "gpus"):
                job["spec"]["suspend"] = False


def put_behind(process: Process, kueue: KueueCluster, queue: str) -> None:
    creation = process.launcher.creation
    process.launcher.cluster = creation.cluster = kueue
    creation.kueue_queue = queue


def behind_kueue(queue: str, **more: Any) -> tuple[World, Process, KueueCluster]:
    world = a_world("slow")
    process = Process(world)
    kueue = KueueCluster(world, process.launcher.cluster, **more)
    put_behind(process, kueue, queue)
    return world, process, kueue


def test_f51_kueue_does_not_resume_a_job_before_the_portal_was_told() -> None:
    world, process, kueue = behind_kueue("gpus", at_once=True)
    disturb(world, "portal.put", "before", Crash())
    with pytest.raises(Crash):
        process.take()
    (job,) = world.jobs.values()
    kueue.acts()
    assert objects.is_suspended(job), "its label names a queue that does not exist"
    assert not objects.is_launched(job)
    undisturbed(world)
    world.dead.clear()  # Kueue's cluster is that of the first process
    world.now += VISIBILITY
    process = Process(world)
    put_behind(process, kueue, "gpus")
    process.take()
    assert objects.is_launched(job)
    assert objects.label(job, names.KUEUE_QUEUE_LABEL) == "gpus"
    kueue.acts()
    assert not objects.is_suspended(job), "Kueue admits it as usual"


@pytest.mark.parametrize("asked", [True, False], ids=["by a dry run at the start", "by its creation"])
def test_f51_without_a_queues_name_a_job_that_kueue_takes_is_held_back_as_well(asked: bool) -> None:
    world, process, kueue = behind_kueue("")
    if asked:
        process.launcher.creation.look_for_kueue()
    disturb(world, "portal.put", "before", Crash())
    with pytest.raises(Crash):
        process.take()
    (job,) = world.jobs.values()
    assert calls(world).count("cluster.patch") == (0 if asked else 1)
    kueue.acts()
    assert objects.is_suspended(job), "its label names a queue that does not exist"
    undisturbed(world)
    world.dead.clear()  # Kueue's cluster is that of the first process
    world.now += VISIBILITY
    process = Process(world)
    put_behind(process, kueue, "")
    process.take()
    assert objects.is_launched(job)
    assert objects.label(job, names.KUEUE_QUEUE_LABEL) == "default"
    assert objects.is_suspended(job), "Kueue alone resumes it"


def test_f51_of_two_launches_at_once_both_are_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world, process, kueue = behind_kueue("")

    def create_job(job: dict[str, Any]) -> Any:
        made = KueueCluster.create_job(kueue, job)
        process.launcher.creation._found_queue = "default"  # by the other launch, while this one was on its way
        return made

    monkeypatch.setattr(kueue, "create_job", create_job)
    disturb(world, "portal.put", "before", Crash())
    with pytest.raises(Crash):
        process.take()
    assert [objects.label(job, names.KUEUE_QUEUE_LABEL) for job in world.jobs.values()] == [names.KUEUE_HOLD]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("queue", ["", "gpus"])
def test_f51_what_kueue_has_queued_by_itself_is_adopted(queue: str, resumed: bool) -> None:
    """A half-launched Job of an older version, or no KUEUE_QUEUE, beside a LocalQueue named default."""
    world, process, kueue = behind_kueue("", at_once=resumed)
    # Either Kueue was faster than we, or we died before we could hold it back.
    disturb(world, "portal.put" if resumed else "cluster.create", "after", Crash())
    with pytest.raises(Crash):
        process.take()
    undisturbed(world)
    world.dead.clear()  # Kueue's cluster is that of the first process
    (job,) = world.jobs.values()
    assert objects.label(job, names.KUEUE_QUEUE_LABEL) == "default"
    world.now += VISIBILITY
    process = Process(world)
    put_behind(process, kueue, queue)
    process.take()
    assert objects.is_launched(job)
    assert objects.is_suspended(job) is not resumed, "Kueue alone resumes it"
    moved = bool(queue) and not resumed
    assert objects.label(job, names.KUEUE_QUEUE_LABEL) == ("gpus" if moved else "default")
    assert len(world.jobs) == 1


def test_f51_a_job_that_kueue_resumes_under_our_hands_is_launched_where_it_is() -> None:
    world, process, kueue = behind_kueue("")
    disturb(world, "cluster.create", "after", Crash())
    with pytest.raises(Crash):
        process.take()
    undisturbed(world)
    world.dead.clear()  # Kueue's cluster is that of the first process
    (job,) = world.jobs.values()
    stale = objects.job(job)
    kueue.acts()
    process.launcher.creation.kueue_queue = "gpus"
    process.launcher._resume(stale, acknowledged=True, notes={})
    assert objects.is_launched(job)
    assert objects.label(job, names.KUEUE_QUEUE_LABEL) == "default"


def test_f51_check_says_that_kueue_would_queue_jobs_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without KUEUE_QUEUE nothing holds them back: the API server's answer to a dry run has Kueue's label."""
    monkeypatch.setattr(factories, "read_template", lambda settings: TEMPLATE)

    def checked(default: str, **settings: str) -> check.CheckResult:
        _, _, kueue = behind_kueue("", default=default)
        return check._try("dry run", check._dry_run, replace(SETTINGS, **settings), kueue)

    warned = checked("default")
    assert (warned.result, "set KUEUE_QUEUE=default" in warned.sentence) == ("warning", True)
    assert checked("").result == checked("default", kueue_queue="gpus").result == "ok"


def test_f51_render_shows_the_queue_that_holds_a_job_back(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(TEMPLATE))
    message = '{"task": "train", "model_container_name": "model-1"}'

    def label(**settings: str) -> str | None:
        done = CliRunner().invoke(main, ["render", message], env={"JOB_TEMPLATE": str(tmp_path / "t.yaml"), **settings})
        assert done.exit_code == 0, done.output
        return yaml.safe_load(done.output)["metadata"]["labels"].get(names.KUEUE_QUEUE_LABEL)

    assert (label(), label(KUEUE_QUEUE="gpus")) == (None, names.KUEUE_HOLD)


def test_f51_a_job_that_was_held_back_is_resumed_where_kueue_is_no_longer_used() -> None:
    world, process, kueue = behind_kueue("gpus", default="")
    disturb(world, "portal.put", "before", Crash())
    with pytest.raises(Crash):
        process.take()
    undisturbed(world)
    world.dead.clear()  # Kueue's cluster is that of the first process
    world.now += VISIBILITY
    process = Process(world)
    put_behind(process, kueue, "")
    process.take()
    (job,) = world.jobs.values()
    assert objects.is_launched(job)
    assert not objects.is_suspended(job)
    assert objects.label(job, names.KUEUE_QUEUE_LABEL) is None
