"""dispatcher.controller.cache: what is known of Jobs and pods, from lists and watch events."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.decisions import outcome
from dispatcher.decisions.verdicts import Ended, Going
from dispatcher.decisions.waiting import Limits
from tests.world.builders import T0, FakeClock, a_job, a_pod, complete, failed, running, terminated

LIMITS = Limits(image_pull=600, container_config=300, unschedulable=3600, pod_create=300, quota=3600)


@pytest.fixture
def touched() -> list[str]:
    """The names that `changed` was called with since they were last taken."""
    return []


@pytest.fixture
def cache(clock: FakeClock, touched: list[str]) -> ClusterCache:
    return ClusterCache(touched.append, clock)


@pytest.fixture
def take(touched: list[str]) -> Callable[[], set[str]]:
    def taken() -> set[str]:
        found = set(touched)
        touched.clear()
        return found

    return taken


def test_it_is_ready_when_jobs_and_pods_were_both_listed(cache: ClusterCache) -> None:
    assert not cache.ready
    cache.replace("jobs", [])
    assert not cache.ready
    assert not cache.wait_ready(0)
    cache.replace("pods", [])
    assert cache.ready
    assert cache.wait_ready(0)


def test_a_list_names_what_changed_and_only_that(cache: ClusterCache, take: Callable[[], set[str]]) -> None:
    cache.replace("jobs", [a_job(model_id="1"), a_job(model_id="2")])
    assert take() == {"model-1", "model-2"}
    cache.replace("jobs", [a_job(model_id="1"), a_job(model_id="2", version="2"), a_job(model_id="3")])
    assert take() == {"model-2", "model-3"}
    cache.replace("jobs", [a_job(model_id="1")])
    assert take() == {"model-2", "model-3"}


def test_a_list_of_pods_names_their_jobs(cache: ClusterCache, take: Callable[[], set[str]]) -> None:
    cache.replace("pods", [a_pod(name="x", model_id="7")])
    assert take() == {"model-7"}
    cache.replace("pods", [a_pod(name="x", model_id="7")])
    assert take() == set()
    cache.replace("pods", [])
    assert take() == {"model-7"}


def test_every_watch_event_names_its_job(cache: ClusterCache, take: Callable[[], set[str]]) -> None:
    cache.apply("ADDED", a_job(model_id="1"))
    cache.apply("ADDED", a_pod(model_id="1"))
    assert take() == {"model-1"}
    cache.apply("DELETED", a_pod(model_id="1"))
    assert take() == {"model-1"}
    # Its last word is still needed: an eviction deletes the pod before the Job's end is seen.
    assert [pod.is_over for pod in cache.pods_of(a_job())] == [True]


def test_a_pod_that_is_gone_is_remembered_no_longer_than_its_job(cache: ClusterCache) -> None:
    cache.apply("ADDED", a_job())
    cache.apply("ADDED", a_pod())
    cache.apply("DELETED", a_pod())
    cache.apply("DELETED", a_job(reported=True))
    assert cache.pods_of(a_job()) == []
    cache.apply("DELETED", a_pod(name="late"))
    assert cache.pods_of(a_job()) == []


def test_changes_are_called_without_the_lock(clock: FakeClock) -> None:
    """Whoever is called may look at the cache."""
    seen: list[object] = []
    cache = ClusterCache(lambda name: seen.append(cache.job(name)), clock)
    cache.replace("jobs", [a_job()])
    cache.apply("MODIFIED", a_job(version="2"))
    assert seen == [a_job(), a_job(version="2")]


def test_only_the_pods_of_this_very_job_are_its_pods(cache: ClusterCache) -> None:
    old, new = a_pod(name="a", job_uid="old"), a_pod(name="b", job_uid="new")
    cache.replace("pods", [old, new])
    assert cache.pods_of(a_job(uid="new")) == [new]


@pytest.mark.parametrize("how", ["list", "watch"])
def test_what_a_pod_last_said_is_known_as_long_as_its_job(cache: ClusterCache, how: str) -> None:
    """An eviction deletes the pod at once."""
    pod = a_pod(phase="Failed", state=terminated(137))
    cache.replace("jobs", [a_job()])
    cache.replace("pods", [pod])
    if how == "list":
        cache.replace("pods", [])
    else:
        cache.apply("DELETED", pod)
    assert cache.pods_of(a_job()) == [pod]
    cache.replace("jobs", [])
    assert cache.pods_of(a_job()) == []


def test_a_pod_that_was_deleted_while_it_ran_is_over(cache: ClusterCache) -> None:
    pod = a_pod(phase="Running", state=running())
    cache.replace("jobs", [a_job()])
    cache.apply("ADDED", pod)
    cache.apply("DELETED", pod)
    (last,) = cache.pods_of(a_job())
    assert last.is_over
    assert last.is_deleting
    assert pod.phase == "Running", "what was received is not changed"


def test_a_pod_of_a_job_that_is_not_known_leaves_nothing_behind(cache: ClusterCache) -> None:
    cache.apply("ADDED", a_pod())
    cache.apply("DELETED", a_pod())
    assert cache.pods_of(a_job()) == []


def test_a_job_that_disappears_unreported_is_remembered(cache: ClusterCache) -> None:
    cache.apply("ADDED", a_job())
    cache.apply("DELETED", a_job(version="2"))
    assert cache.job("model-1") is None
    assert cache.tombstone("model-1") == a_job(version="2")
    assert cache.tombstones() == 1
    cache.drop_tombstone("model-1")
    assert cache.tombstone("model-1") is None
    assert cache.tombstones() == 0


def test_a_job_that_disappears_between_two_lists_is_remembered(cache: ClusterCache) -> None:
    cache.replace("jobs", [a_job()])
    cache.replace("jobs", [])
    assert cache.tombstone("model-1") == a_job()


@pytest.mark.parametrize("how", ["list", "watch"])
def test_a_job_replaced_by_another_of_its_name_is_remembered(cache: ClusterCache, how: str) -> None:
    cache.replace("jobs", [a_job(uid="old")])
    if how == "list":
        cache.replace("jobs", [a_job(uid="new")])
    else:
        cache.apply("ADDED", a_job(uid="new"))
    assert cache.tombstone("model-1") == a_job(uid="old")
    assert cache.job("model-1") == a_job(uid="new")
    assert cache.tombstones() == 1


def test_a_reported_job_may_disappear(cache: ClusterCache) -> None:
    cache.replace("jobs", [a_job(*complete(), reported=True)])
    cache.apply("DELETED", a_job(*complete(), reported=True))
    assert cache.tombstone("model-1") is None


def test_a_job_whose_finalizer_was_taken_off_by_hand_is_missed_all_the_same(cache: ClusterCache) -> None:
    cache.replace("jobs", [a_job(finalizer=False)])
    cache.apply("DELETED", a_job(finalizer=False))
    assert cache.tombstone("model-1") is not None


def test_a_deleted_job_that_was_released_is_not_missed(cache: ClusterCache) -> None:
    """It arrives as DELETED in the state before the patch that released it."""
    job = a_job(*failed(), deleted_at=0.0)
    cache.replace("jobs", [job])
    cache.released(job)
    cache.apply("DELETED", job)
    assert cache.tombstone("model-1") is None


def test_a_release_that_comes_after_the_deletion_settles_it(cache: ClusterCache) -> None:
    job = a_job(*failed(), deleted_at=0.0)
    cache.replace("jobs", [job])
    cache.apply("DELETED", job)
    assert cache.tombstone("model-1") is not None
    cache.released(job)
    assert cache.tombstone("model-1") is None


def test_a_release_says_nothing_about_the_next_job_of_the_name(cache: ClusterCache) -> None:
    cache.replace("jobs", [a_job(uid="old")])
    cache.released(a_job(uid="old"))
    cache.apply("DELETED", a_job(uid="old"))
    cache.apply("ADDED", a_job(uid="new"))
    cache.apply("DELETED", a_job(uid="new"))
    assert cache.tombstone("model-1") == a_job(uid="new")


def test_releases_are_forgotten_with_their_jobs(cache: ClusterCache) -> None:
    cache.replace("jobs", [a_job()])
    cache.released(a_job())
    cache.replace("jobs", [])
    assert cache._released == set()
    cache.released(a_job(uid="never seen"))
    assert cache._released == set()


def test_unfinished_jobs_are_counted_from_the_list(cache: ClusterCache) -> None:
    cache.replace(
        "jobs",
        [
            a_job(model_id="1"),
            a_job(model_id="2", launched=False, acknowledged=None),
            a_job(*complete(), model_id="3"),
            a_job(*failed(), model_id="4", reported=True),
        ],
    )
    assert cache.unfinished() == 2
    assert len(cache.jobs()) == 4


def test_how_long_a_job_is_known_is_measured_by_our_own_clock(cache: ClusterCache, clock: FakeClock) -> None:
    assert cache.seconds_known(a_job()) == 0
    cache.apply("ADDED", a_job())
    clock.advance(5)
    cache.apply("MODIFIED", a_job(version="2"))
    cache.replace("jobs", [a_job(version="3")])
    assert cache.seconds_known(a_job()) == 5
    cache.apply("DELETED", a_job())
    cache.apply("ADDED", a_job(uid="another"))
    assert cache.seconds_known(a_job(uid="another")) == 0


def test_nothing_stays_of_a_job_whose_pods_go_after_it(cache: ClusterCache) -> None:
    # As the garbage collector does it; a dispatcher that runs for months would keep a little of each Job.
    job, pod = a_job(reported=True), a_pod()
    cache.apply("ADDED", job)
    cache.apply("ADDED", pod)
    cache.apply("DELETED", job)
    cache.apply("DELETED", pod)
    kept = {name for name, value in vars(cache).items() if isinstance(value, dict | set) and value}
    assert kept == {"_listed"}, "two events, whatever is known"


def test_of_jobs_that_nobody_knows_only_pods_that_run_are_kept(
    cache: ClusterCache, take: Callable[[], set[str]]
) -> None:
    """There are as many ended ones as there are reported Jobs, and no report needs them."""
    living, ended = a_pod(name="a", phase="Running", state=running()), a_pod(name="b", phase="Failed")
    cache.replace("pods", [living, ended])
    assert cache.pods_of(a_job()) == [living]
    cache.apply("ADDED", a_pod(name="c", phase="Succeeded"))
    assert cache.pods_of(a_job()) == [living]
    cache.apply("MODIFIED", a_pod(name="a", phase="Succeeded", version="2"))
    assert cache.pods_of(a_job()) == []
    cache.apply("ADDED", a_job())
    cache.apply("ADDED", ended)
    assert cache.pods_of(a_job()) == [ended]


def test_the_pods_that_have_ended_go_with_their_job_and_what_runs_stays_until_it_ends(cache: ClusterCache) -> None:
    living, ended = a_pod(name="a", phase="Running", state=running()), a_pod(name="b", phase="Failed")
    cache.replace("jobs", [a_job()])
    cache.replace("pods", [living, ended])
    cache.apply("DELETED", a_job(reported=True))
    assert cache.pods_of(a_job()) == [living]
    cache.apply("MODIFIED", a_pod(name="a", phase="Failed", version="2"))
    assert cache.pods_of(a_job()) == []


def test_what_a_list_of_metadata_has_otherwise_is_named(cache: ClusterCache) -> None:
    same, older, gone = (a_job(model_id=name, uid=name) for name in ("same", "older", "gone"))
    newer, new = a_job(model_id="older", uid="older", version="2"), a_job(model_id="new", uid="new")
    cache.replace("jobs", [same, older, gone])
    found = cache.differing("jobs", [KubeObject(job.metadata) for job in (same, newer, new)])
    assert {item.name: isinstance(item, Job) for item in found} == {
        "model-older": True,
        "model-gone": True,
        "model-new": False,
    }, "what is known of it can be dropped"


def test_a_pod_of_a_reported_job_is_nothing_that_a_watch_has_lost(cache: ClusterCache) -> None:
    mine, foreign = a_pod(name="a", job_uid="known"), a_pod(name="b", job_uid="reported", phase="Succeeded")
    cache.replace("jobs", [a_job(uid="known")])
    found = cache.differing("pods", [KubeObject(pod.metadata) for pod in (mine, foreign)])
    assert [item.name for item in found] == ["a"]


def orphaned(pod: Pod, pod_of: str | None = None) -> Pod:
    """As the garbage collector leaves it after `kubectl delete job --cascade=orphan`."""
    labels = replace(pod.labels, pod_of=pod_of)
    return replace(pod, metadata=replace(pod.metadata, owner_references=(), labels=labels, resource_version="99"))


def test_the_pods_of_a_job_that_was_deleted_without_them_are_still_its_own(cache: ClusterCache) -> None:
    job = a_job(deleted_at=T0)
    pod = a_pod(phase="Running", state=running())
    left = orphaned(pod, pod_of=job.uid)
    cache.replace("jobs", [job])
    cache.apply("ADDED", pod)
    cache.apply("MODIFIED", left)
    [known] = cache.pods_of(job)
    decided = outcome.decide(job, [known], (), T0, LIMITS)
    assert isinstance(decided, Going)
    assert decided.remove_pods

    cache.apply("DELETED", left)
    ended = outcome.decide(job, cache.pods_of(job), (), T0, LIMITS)
    assert isinstance(ended, Ended), "else the model stays Processing and the Job hangs in deletion"
    assert ended.verdict.code == "JobDeleted"


@pytest.mark.parametrize("how", ["watched", "listed"])
def test_an_old_state_of_a_pod_that_its_job_let_go_does_not_stay(how: str, cache: ClusterCache) -> None:
    job = a_job()
    pod = a_pod(phase="Running", state=running())
    cache.replace("jobs", [job])
    cache.replace("pods", [pod])
    if how == "watched":
        cache.apply("MODIFIED", orphaned(pod))
    else:
        cache.replace("pods", [orphaned(pod)])
    assert cache.pods_of(job) == []


def test_a_pod_names_its_job_whatever_somebody_made_of_its_label(
    cache: ClusterCache, take: Callable[[], set[str]]
) -> None:
    cache.replace("jobs", [a_job(model_id="1")])
    take()
    pod = a_pod(model_id="another", phase="Running")
    cache.replace("pods", [pod])
    assert take() == {"model-1"}
    cache.apply("MODIFIED", a_pod(model_id="another", phase="Failed", version="2"))
    assert take() == {"model-1"}
    cache.add([a_pod(model_id="another", phase="Failed", version="3")])
    assert take() == {"model-1"}
    cache.apply("DELETED", pod)
    assert take() == {"model-1"}


def test_pods_that_are_listed_later_are_taken_where_their_job_is_known(
    cache: ClusterCache, take: Callable[[], set[str]]
) -> None:
    cache.replace("jobs", [a_job()])
    cache.replace("pods", [a_pod(phase="Running")])
    take()
    ended, earlier = a_pod(phase="Failed", version="2"), a_pod(name="earlier", phase="Failed")
    cache.add([ended, earlier, a_pod(name="foreign", job_uid="reported", model_id="2", phase="Failed")])
    assert cache.pods_of(a_job()) == [ended, earlier]
    assert take() == {"model-1"}


def test_jobs_that_are_left_out_do_not_become_known(clock: FakeClock, touched: list[str]) -> None:
    cache = ClusterCache(touched.append, clock, lambda job: job.is_reported)
    known, old = a_job(model_id="1", uid="1"), a_job(model_id="2", uid="2", reported=True)
    ended = a_pod(name="a", job_uid="2", model_id="2", phase="Failed")
    cache.replace("jobs", [known, old])
    cache.replace("pods", [ended])
    cache.apply("ADDED", a_job(model_id="3", uid="3", reported=True))
    assert [job.name for job in cache.jobs()] == ["model-1"]
    assert cache._pods == {}
    assert cache.differing("jobs", [KubeObject(job.metadata) for job in (known, old)]) == []
    assert cache.tombstones() == 0
    cache.apply("MODIFIED", a_job(model_id="1", uid="1", reported=True, version="2"))
    assert cache.job("model-1") is not None, "what was known of it has to be forgotten everywhere"


@pytest.mark.parametrize(
    ("job", "pods", "ended"),
    [
        (a_job(), [a_pod(phase="Running")], False),
        (a_job(launched=False), [], False),
        (a_job(), [a_pod(phase="Failed")], True),
        (a_job(*complete()), [], True),
        (a_job(deleted_at=T0), [a_pod(phase="Running")], True),
    ],
    ids=["running", "launching", "a pod has ended", "complete", "deleted"],
)
def test_an_outcome_may_be_due_when_something_is_over(
    cache: ClusterCache, job: Job, pods: list[Pod], ended: bool
) -> None:
    cache.replace("jobs", [job])
    cache.replace("pods", pods)
    assert cache.may_have_ended("model-1") is ended
    assert not cache.may_have_ended("model-2")
    cache.replace("jobs", [])
    assert cache.may_have_ended("model-1"), "it was deleted unobserved"


def test_which_jobs_were_there_before_this_process_is_known(cache: ClusterCache) -> None:
    cache.replace("jobs", [a_job(model_id="1", uid="1")])
    cache.apply("ADDED", a_job(model_id="2", uid="2"))
    cache.replace("jobs", [a_job(model_id=name, uid=name) for name in "123"])
    assert [cache.is_adopted(a_job(uid=uid)) for uid in "1234"] == [True, False, False, False]


def test_what_was_asked_for_of_a_job_is_known_then_and_a_deleted_pod_stays_deleted(cache: ClusterCache) -> None:
    cache.replace("jobs", [a_job()])
    cache.apply("ADDED", a_pod(name="gone", phase="Running"))
    cache.apply("DELETED", a_pod(name="gone", phase="Running"))
    (gone,) = cache.pods_of(a_job())
    asked = a_pod(name="asked", phase="Succeeded")
    cache.complete(a_job(), [gone, asked])
    assert cache.pods_of(a_job()) == [gone, asked]
    assert list(cache._pods) == [asked.uid]
    assert not cache.is_adopted(a_job())
    cache.complete(a_job(uid="unknown"), [])
    assert not cache.is_adopted(a_job(uid="unknown"))
