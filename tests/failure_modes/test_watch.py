"""Failure modes of watching: gaps, silence, bad objects, deletions by others, events in floods."""

from __future__ import annotations

import dataclasses
import random
import threading
import urllib.error
from typing import Any

import pytest
from msgspec.structs import replace

from dispatcher.cluster import client as kubernetes_client
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterError, ClusterForbidden, ClusterUnavailable, WatchExpired
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.watcher import Watcher
from dispatcher.loops import Loops
from dispatcher.queue.azure import TrainingQueue
from dispatcher.telemetry.metrics import Metrics
from dispatcher.web.health import HealthServer, Heartbeats, Readiness
from local_stack.http_json import OPENER
from portal_client.reporting import PLAUSIBLE_LAG
from tests.dispatcher.controller.scripted_cluster import ScriptedCluster, Step, bookmark
from tests.failure_modes.bench import (
    Bench,
    S,
    a_world,
    calls,
    disturb,
    live,
    released,
    statuses,
    undisturbed,
)
from tests.world import json_objects as objects
from tests.world.api_servers import ApiServer, SilentServer
from tests.world.builders import a_condition, a_job, failed, job_json, pod_json, running
from tests.world.manifests.monitoring import ALERTS
from tests.world.repository import read
from tests.world.simulated.dispatcher import SETTINGS, Process
from tests.world.simulated.faults import Fail

Watched = tuple[ClusterCache, ScriptedCluster, list[float]]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A cache, the cluster that is watched, and the pauses that were made, which take no time."""
    stopping = threading.Event()
    pauses: list[float] = []
    monkeypatch.setattr(stopping, "wait", lambda seconds=None: pauses.append(seconds or 0.0))
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return ClusterCache(lambda name: None), ScriptedCluster(stopping), pauses


def watch_jobs(cache: ClusterCache, cluster: ScriptedCluster, *watches: list[Step]) -> None:
    cluster.watches = list(watches)
    Watcher("jobs", cluster, cache, 600, cluster.stopping).run(lambda: None)  # type: ignore[arg-type]


def test_f12_an_expired_watch_is_a_list_a_difference_and_a_new_watch(watched: Watched) -> None:
    _, cluster, _ = watched
    changed: list[str] = []
    cache = ClusterCache(changed.append)
    one, two = a_job(), a_job(model_id="2", uid="job-2")
    cluster.have(one, two, version="5")
    gap: list[Step] = [lambda: cluster.have(two, version="9"), WatchExpired("too old resource version")]
    watch_jobs(cache, cluster, gap, [])
    assert cluster.versions == ["5", "9"], "watched from the version of the newest list"
    assert cache.job("model-1") is None
    assert cache.tombstone("model-1") is not None, "a deletion that nobody heard of is found"
    assert changed[-1] == "model-1"


def test_f12_a_cluster_that_fails_is_asked_with_growing_pauses(watched: Watched) -> None:
    cache, cluster, pauses = watched
    broken = ClusterUnavailable("The watch of jobs broke off")
    watch_jobs(cache, cluster, *[[broken]] * 5, [])
    assert pauses == [1, 2, 4, 8, 16]
    assert cluster.lists == ["list"] * 4, "two failures are no gap, each from the third on may be one"


def test_f47_a_history_that_never_lasts_is_listed_with_growing_pauses(watched: Watched) -> None:
    """An API server whose history is shorter than a list takes: a 410 after each list, and no list after the other."""
    cache, cluster, pauses = watched
    expired = WatchExpired("too old resource version")
    cluster.have(a_job())
    watch_jobs(cache, cluster, *[[expired]] * 7, [])
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert cluster.lists == ["list"] * 8
    assert cache.jobs() == [a_job()]


def test_f47_a_quiet_watch_is_renewed_from_its_bookmark_without_a_list(watched: Watched) -> None:
    """Jobs that nothing happens to grow no older than the history: a bookmark brings the version forward."""
    cache, cluster, pauses = watched
    cluster.have(a_job(), version="5")
    watch_jobs(cache, cluster, [bookmark("1000")], [bookmark("2000")], [])
    assert cluster.versions == ["5", "1000", "2000"]
    assert cluster.lists == ["list"]
    assert pauses == []


def test_f47_watches_that_are_cut_as_they_begin_are_asked_for_with_growing_pauses(watched: Watched) -> None:
    """A proxy that does not pass streams on: nothing is missed, so nothing is listed anew."""
    cache, cluster, pauses = watched
    cluster.have(a_job(), version="5")
    watch_jobs(cache, cluster, *[[]] * 6, [bookmark("6")], [])
    assert pauses == [1, 2, 4, 8, 16, 30]
    assert cluster.lists == ["list"]


def test_f13_a_half_open_watch_is_given_up_by_our_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_client, "_WATCH_SLACK", -0.7)
    with ApiServer(silent_watches=True) as server, server.client() as cluster:
        watch = cluster.watch("jobs", names.SELECTOR, "1", 1)
        with pytest.raises(ClusterUnavailable, match="broke off"):
            list(watch)
        assert "timeoutSeconds=1" in server.paths[-1], "the server is asked to end it, too"


def test_f13_a_server_that_accepts_and_never_answers_holds_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KubernetesJobs._request.__kwdefaults__, "read_seconds", 0.3)
    with SilentServer() as server, server.client() as cluster, pytest.raises(ClusterUnavailable):
        cluster.get_job("model-1")


def test_f13_alive_means_that_every_loop_makes_progress() -> None:
    beats = Heartbeats(silence=3600)
    server = HealthServer("127.0.0.1", 0, beats, Readiness, Metrics().registry)
    server.start()
    try:
        address = f"http://127.0.0.1:{server.port}/livez"
        beats.beat("watch-jobs")()
        assert OPENER.open(address, timeout=5).status == 200
        beats._silence = -1.0
        beats.beat("watch-jobs")  # its last, and too long ago
        with pytest.raises(urllib.error.HTTPError) as told:
            OPENER.open(address, timeout=5)
        assert (told.value.code, told.value.read()) == (503, b"loop watch-jobs is stuck\n")
    finally:
        server.stop()


def test_f14_one_bad_object_does_not_stop_the_others() -> None:
    world = a_world("invalid-unreported")
    process = Process(world)
    live(world, process, most=2, until_settled=False)
    # What cannot be decoded does not come here; what is decoded may still be more than the code was written for.
    bad = replace(a_job(model_id="bad", uid="bad"), spec="no spec at all")
    process.cache.apply("ADDED", bad)
    process.cache.apply("ADDED", Pod())
    defects: list[None] = []
    process.reconciler.on_defect = lambda: defects.append(None)
    for _ in range(3):
        process.work.add("model-bad")
        process.work.add("model-1")
        process.tick()
        process.cache.apply("ADDED", bad)
    assert statuses(world)[-1] == "Failed"
    assert defects, "it was looked at"


def test_f14_a_loop_that_dies_ends_the_process_and_kubernetes_starts_the_next() -> None:
    """The container's restart is the supervision: half a dispatcher would be worse than none."""
    from dispatcher.app import EXIT_LOOP_DIED

    loops = Loops(threading.Event(), Heartbeats(), Metrics())

    def broken(alive: Any) -> None:
        raise RuntimeError("a defect")

    loops.start("watch-jobs", broken).join(10)
    assert loops.stopping.is_set()
    assert loops.died == "watch-jobs"
    assert EXIT_LOOP_DIED != 0


def test_f14_repeated_restarts_raise_an_alarm() -> None:
    watched = " ".join(ALERTS.values())
    assert "kube_pod_container_status_restarts_total" in watched
    assert "training_dispatcher_watch_restarts_total" in watched


def test_f17_a_deleted_jobs_pods_are_stopped_before_it_is_reported() -> None:
    bench = Bench()
    job = job_json(deleted_at=0)
    bench.put(job, pod_json(phase="Running", state=running()))
    assert bench.look()[-1] == "cluster.delete-pod"
    assert bench.portal()[0] == "Processing"
    assert names.FINALIZER in job["metadata"]["finalizers"]


def test_f17_a_pod_deleted_by_hand_is_replaced_and_its_training_completes() -> None:
    world = a_world("hang", "complete")
    process = Process(world)
    live(world, process, most=3, until_settled=False)
    (pod,) = world.pods.values()
    world.delete_pod(pod)
    live(world, process)
    world.check_end()
    assert statuses(world)[-1] == "Completed"


def test_f18_nothing_is_cleaned_up_before_the_portal_has_acknowledged() -> None:
    world = a_world("invalid-unreported")
    process = Process(world)
    live(world, process, most=1, until_settled=False)
    disturb(world, "portal.put", "before", Fail("503"), times=None)
    live(world, process, most=240, until_settled=False)  # two hours
    (job,) = world.jobs.values()
    assert objects.is_finished(job)
    assert not released(job)
    assert "ttlSecondsAfterFinished" not in job["spec"]
    undisturbed(world)
    live(world, process)
    world.check_end()
    # After hours of 5xx it may be its words: each try begins with the next of the texts, the last the code alone.
    said = ("Invalid dataset: train.csv: empty. To train it again, set the model to", "DatasetInvalid")
    assert world.models["1"].message.startswith(said)


def test_f18_the_reason_outlives_a_pod_that_was_collected_early() -> None:
    world = a_world("invalid-unreported")
    process = Process(world, disturb=lambda: "now")
    live(world, process, most=1, until_settled=False)
    disturb(world, "portal.put", "before", Fail("503"), times=None)
    live(world, process, most=3, until_settled=False)
    for pod in list(world.pods.values()):
        world._remove_pod(pod)
    undisturbed(world)
    live(world, process)
    # After hours of 5xx it may be its words: each try begins with the next of the texts, the last the code alone.
    said = ("Invalid dataset: train.csv: empty. To train it again, set the model to", "DatasetInvalid")
    assert world.models["1"].message.startswith(said)


def test_f18_a_finished_job_that_is_gone_is_not_made_again() -> None:
    world = a_world()
    live(world)
    world.check_end()
    live(world, Process(world), most=5, until_settled=False)
    assert calls(world).count("cluster.create") == 1


def test_f30_an_api_server_that_cannot_be_asked_proves_nothing() -> None:
    world = a_world("hang")
    process = Process(world, disturb=lambda: "now")
    live(world, process, most=3, until_settled=False)
    for call in ("cluster.list", "cluster.get", "cluster.patch"):
        disturb(world, call, "before", Fail("the API server is away"), times=None)
        live(world, process, most=4, until_settled=False)
    assert statuses(world) == ["Created", "Processing"]


def test_f30_absence_is_believed_when_it_was_seen_twice() -> None:
    bench = Bench()
    bench.put(job_json(), pod_json(phase="Running", state=running()))
    bench.look()
    del bench.world.jobs["model-1"]  # not in the list
    disturb(bench.world, "cluster.get", "before", Fail("the API server is away"))
    with pytest.raises(ClusterError):
        bench.look()
    assert bench.portal()[0] == "Processing", "not in one list, and nobody else to ask"
    undisturbed(bench.world)
    assert bench.look() == ["cluster.get"]
    bench.pass_time(PLAUSIBLE_LAG)
    assert bench.look()[0] == "cluster.get"
    assert bench.portal()[0] == "Failed"


def test_f32_free_slots_are_derived_from_the_jobs_that_exist() -> None:
    world = a_world(model="0")
    process = Process(world, settings=dataclasses.replace(SETTINGS, max_active_jobs=3))
    disturb(world, "cluster.create", "before", Fail("the API server is away"), times=25)
    live(world, process, most=60, until_settled=False)
    for number in range(1, 12):
        world.set_status(str(number), S.CREATED)
        world.enqueue(str(number))
    live(world, process)
    world.check_end()
    assert all(model.status is S.COMPLETED for model in world.models.values()), "no failed launch has kept its slot"


def test_f40_a_flood_of_events_is_one_look_and_no_call_each() -> None:
    bench = Bench()
    job, pod = job_json(), pod_json(phase="Running", state=running())
    bench.put(job, pod)
    bench.process.refresh()
    before = len(bench.world.calls)
    for number in range(4000):
        pod["metadata"]["resourceVersion"] = str(number)
        bench.process.cache.apply("MODIFIED", objects.pod(pod))
        bench.process.cache.apply("MODIFIED", objects.job(job))
    bench.pass_time(1)
    looked: list[str] = []
    really = bench.process.reconciler.reconcile

    def look(name: str) -> None:
        looked.append(name)
        really(name)

    bench.process.reconciler.reconcile = look  # type: ignore[method-assign]
    bench.process.tick()
    assert looked == ["model-1"]
    assert not [call for _, call in bench.world.calls[before:] if call.startswith("portal.")]


def test_f40_jobs_and_pods_are_one_watch_each_whatever_their_number() -> None:
    source = read("dispatcher/app.py")
    assert source.count("Watcher(") == 1
    assert 'for kind in ("jobs", "pods")' in source


def test_f39_a_rotated_token_is_read_anew_once() -> None:
    with ApiServer() as server, server.client() as cluster:
        assert cluster.get_job("model-1")
        server.rotate()
        assert cluster.get_job("model-1"), "401, the new token, and the call once more"
        assert cluster.get_job("model-1")
        assert server.refused == 1


def test_f39_a_token_that_stays_wrong_is_asked_once_and_told() -> None:
    with ApiServer() as server, server.client() as cluster:
        server.token = "of somebody else"
        with pytest.raises(ClusterForbidden, match="does not accept our credentials"):
            cluster.get_job("model-1")
        assert server.refused == 2


def test_f39_azures_tokens_are_the_sdks_to_refresh() -> None:
    """azure-identity's credential is handed to the client as it is: it asks for a new token before one expires."""
    queue = TrainingQueue("requests", account_url="https://account.queue.core.windows.net")
    policies = [type(policy).__name__ for policy in queue._client._pipeline._impl_policies]
    assert any("BearerToken" in name or "Credential" in name for name in policies), policies
    queue.close()


def test_f17_two_jobs_of_a_name_that_went_unheard_are_both_missed() -> None:
    cache = ClusterCache(lambda name: None)
    cache.apply("ADDED", a_job(uid="one"))
    # Events were lost: that "one" is gone, and that "two" has come.
    cache.apply("DELETED", a_job(uid="two", reported=True))
    gone = cache.tombstone("model-1")
    assert gone is not None
    assert gone.uid == "one"


def waiting_jobs(bench: Bench, count: int) -> None:
    """Trainings that wait for a GPU, with nothing of that told to the portal yet."""
    unscheduled = a_condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")
    for number in range(1, count + 1):
        job = job_json(model_id=str(number), uid=f"job-{number}")
        pod = pod_json(unscheduled, name=f"pod-{number}", model_id=str(number), job_uid=f"job-{number}", node=None)
        bench.put(job, pod)


def ticks(bench: Bench, seconds: int) -> list[str]:
    """The portal's calls while the dispatcher has its turns every second."""
    before = len(bench.world.calls)
    for _ in range(seconds):
        bench.process.tick()
        bench.pass_time(1)
    return [call for _, call in bench.world.calls[before:] if call.startswith("portal.")]


def test_f72_what_many_trainings_wait_for_is_told_at_a_bounded_pace() -> None:
    bench = Bench()
    waiting_jobs(bench, 100)
    ticks(bench, 12)
    assert ticks(bench, 10).count("portal.put") <= 50, "five a second"
    ticks(bench, 20)
    told = [bench.portal(str(number))[1] for number in range(1, 101)]
    assert set(told) == {"Waiting for a GPU: 0/3 nodes are available"}, "each in its turn"


def test_f72_an_outcome_waits_for_no_progress_of_others() -> None:
    bench = Bench()
    waiting_jobs(bench, 100)
    ticks(bench, 12)
    bench.put(job_json(*failed(), model_id="7", uid="job-7"), pod_json(name="pod-7", model_id="7", job_uid="job-7"))
    bench.pass_time(30)  # the news of its pod is not waited for any longer
    ticks(bench, 1)
    assert bench.portal("7")[0] == "Failed"


def test_f72_a_restart_tells_nothing_again() -> None:
    bench = Bench()
    waiting_jobs(bench, 50)
    ticks(bench, 40)
    assert {bench.portal(str(number))[1] for number in range(1, 51)} == {"Waiting for a GPU: 0/3 nodes are available"}
    bench.process = Process(bench.world)
    assert ticks(bench, 60) == []
