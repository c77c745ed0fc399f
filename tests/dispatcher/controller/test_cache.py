"""dispatcher.controller.cache: what is known of Jobs and pods, from lists and watch events."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dispatcher.cluster import objects
from dispatcher.controller.cache import ClusterView
from tests.world.builders import FakeClock, a_job, a_pod, complete, failed, running, terminated


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def touched() -> list[str]:
    """The names that `changed` was called with since they were last taken."""
    return []


@pytest.fixture
def view(clock: FakeClock, touched: list[str]) -> ClusterView:
    return ClusterView(touched.append, clock)


@pytest.fixture
def take(touched: list[str]) -> Callable[[], set[str]]:
    def taken() -> set[str]:
        found = set(touched)
        touched.clear()
        return found

    return taken


def test_it_is_ready_when_jobs_and_pods_were_both_listed(view: ClusterView) -> None:
    assert not view.ready
    view.replace("jobs", [])
    assert not view.ready
    assert not view.wait_ready(0)
    view.replace("pods", [])
    assert view.ready
    assert view.wait_ready(0)


def test_a_list_names_what_changed_and_only_that(view: ClusterView, take: Callable[[], set[str]]) -> None:
    view.replace("jobs", [a_job(model_id="1"), a_job(model_id="2")])
    assert take() == {"model-1", "model-2"}
    view.replace("jobs", [a_job(model_id="1"), a_job(model_id="2", version="2"), a_job(model_id="3")])
    assert take() == {"model-2", "model-3"}
    view.replace("jobs", [a_job(model_id="1")])
    assert take() == {"model-2", "model-3"}


def test_a_list_of_pods_names_their_jobs(view: ClusterView, take: Callable[[], set[str]]) -> None:
    view.replace("pods", [a_pod(name="x", model_id="7")])
    assert take() == {"model-7"}
    view.replace("pods", [a_pod(name="x", model_id="7")])
    assert take() == set()
    view.replace("pods", [])
    assert take() == {"model-7"}


def test_every_watch_event_names_its_job(view: ClusterView, take: Callable[[], set[str]]) -> None:
    view.apply("jobs", "ADDED", a_job(model_id="1"))
    view.apply("pods", "ADDED", a_pod(model_id="1"))
    assert take() == {"model-1"}
    view.apply("pods", "DELETED", a_pod(model_id="1"))
    assert take() == {"model-1"}
    # Its last word is still needed: an eviction deletes the pod before the Job's end is seen.
    assert [objects.pod_is_over(pod) for pod in view.pods_of(a_job())] == [True]


def test_a_pod_that_is_gone_is_remembered_no_longer_than_its_job(view: ClusterView) -> None:
    view.apply("jobs", "ADDED", a_job())
    view.apply("pods", "ADDED", a_pod())
    view.apply("pods", "DELETED", a_pod())
    view.apply("jobs", "DELETED", a_job(reported=True))
    assert view.pods_of(a_job()) == []
    view.apply("pods", "DELETED", a_pod(name="late"))
    assert view.pods_of(a_job()) == []


def test_changes_are_called_without_the_lock(clock: FakeClock) -> None:
    """Whoever is called may look at the view."""
    seen: list[object] = []
    view = ClusterView(lambda name: seen.append(view.job(name)), clock)
    view.replace("jobs", [a_job()])
    view.apply("jobs", "MODIFIED", a_job(version="2"))
    assert seen == [a_job(), a_job(version="2")]


def test_only_the_pods_of_this_very_job_are_its_pods(view: ClusterView) -> None:
    old, new = a_pod(name="a", job_uid="old"), a_pod(name="b", job_uid="new")
    view.replace("pods", [old, new])
    assert view.pods_of(a_job(uid="new")) == [new]


@pytest.mark.parametrize("how", ["list", "watch"])
def test_what_a_pod_last_said_is_known_as_long_as_its_job(view: ClusterView, how: str) -> None:
    """An eviction deletes the pod at once."""
    pod = a_pod(phase="Failed", state=terminated(137))
    view.replace("jobs", [a_job()])
    view.replace("pods", [pod])
    if how == "list":
        view.replace("pods", [])
    else:
        view.apply("pods", "DELETED", pod)
    assert view.pods_of(a_job()) == [pod]
    view.replace("jobs", [])
    assert view.pods_of(a_job()) == []


def test_a_pod_that_was_deleted_while_it_ran_is_over(view: ClusterView) -> None:
    pod = a_pod(phase="Running", state=running())
    view.replace("jobs", [a_job()])
    view.apply("pods", "ADDED", pod)
    view.apply("pods", "DELETED", pod)
    (last,) = view.pods_of(a_job())
    assert objects.pod_is_over(last)
    assert objects.is_deleting(last)
    assert pod["status"]["phase"] == "Running", "what was received is not changed"


def test_a_pod_of_a_job_that_is_not_known_leaves_nothing_behind(view: ClusterView) -> None:
    view.apply("pods", "ADDED", a_pod())
    view.apply("pods", "DELETED", a_pod())
    assert view.pods_of(a_job()) == []


def test_a_job_that_disappears_unreported_is_remembered(view: ClusterView) -> None:
    view.apply("jobs", "ADDED", a_job())
    view.apply("jobs", "DELETED", a_job(version="2"))
    assert view.job("model-1") is None
    assert view.vanished("model-1") == a_job(version="2")
    assert view.names() == ["model-1"]
    view.settle_vanished("model-1")
    assert view.vanished("model-1") is None
    assert view.names() == []


def test_a_job_that_disappears_between_two_lists_is_remembered(view: ClusterView) -> None:
    view.replace("jobs", [a_job()])
    view.replace("jobs", [])
    assert view.vanished("model-1") == a_job()


@pytest.mark.parametrize("how", ["list", "watch"])
def test_a_job_replaced_by_another_of_its_name_is_remembered(view: ClusterView, how: str) -> None:
    view.replace("jobs", [a_job(uid="old")])
    if how == "list":
        view.replace("jobs", [a_job(uid="new")])
    else:
        view.apply("jobs", "ADDED", a_job(uid="new"))
    assert view.vanished("model-1") == a_job(uid="old")
    assert view.job("model-1") == a_job(uid="new")
    assert view.names() == ["model-1"]


def test_a_reported_job_may_disappear(view: ClusterView) -> None:
    view.replace("jobs", [a_job(*complete(), reported=True)])
    view.apply("jobs", "DELETED", a_job(*complete(), reported=True))
    assert view.vanished("model-1") is None


def test_a_job_whose_finalizer_was_taken_off_by_hand_is_missed_all_the_same(view: ClusterView) -> None:
    view.replace("jobs", [a_job(finalizer=False)])
    view.apply("jobs", "DELETED", a_job(finalizer=False))
    assert view.vanished("model-1") is not None


def test_a_deleted_job_that_was_released_is_not_missed(view: ClusterView) -> None:
    """It arrives as DELETED in the state before the patch that released it."""
    job = a_job(*failed(), deleted_at=0.0)
    view.replace("jobs", [job])
    view.released(job)
    view.apply("jobs", "DELETED", job)
    assert view.vanished("model-1") is None


def test_a_release_that_comes_after_the_deletion_settles_it(view: ClusterView) -> None:
    job = a_job(*failed(), deleted_at=0.0)
    view.replace("jobs", [job])
    view.apply("jobs", "DELETED", job)
    assert view.vanished("model-1") is not None
    view.released(job)
    assert view.vanished("model-1") is None


def test_a_release_says_nothing_about_the_next_job_of_the_name(view: ClusterView) -> None:
    view.replace("jobs", [a_job(uid="old")])
    view.released(a_job(uid="old"))
    view.apply("jobs", "DELETED", a_job(uid="old"))
    view.apply("jobs", "ADDED", a_job(uid="new"))
    view.apply("jobs", "DELETED", a_job(uid="new"))
    assert view.vanished("model-1") == a_job(uid="new")


def test_releases_are_forgotten_with_their_jobs(view: ClusterView) -> None:
    view.replace("jobs", [a_job()])
    view.released(a_job())
    view.replace("jobs", [])
    assert view._released == set()
    view.released(a_job(uid="never seen"))
    assert view._released == set()


def test_unfinished_jobs_are_counted_from_the_list(view: ClusterView) -> None:
    view.replace(
        "jobs",
        [
            a_job(model_id="1"),
            a_job(model_id="2", launched=False, acknowledged=None),
            a_job(*complete(), model_id="3"),
            a_job(*failed(), model_id="4", reported=True),
        ],
    )
    assert view.unfinished() == 2
    assert len(view.jobs()) == 4


def test_how_long_a_job_is_known_is_measured_by_our_own_clock(view: ClusterView, clock: FakeClock) -> None:
    assert view.seconds_known(a_job()) == 0
    view.apply("jobs", "ADDED", a_job())
    clock.advance(5)
    view.apply("jobs", "MODIFIED", a_job(version="2"))
    view.replace("jobs", [a_job(version="3")])
    assert view.seconds_known(a_job()) == 5
    view.apply("jobs", "DELETED", a_job())
    view.apply("jobs", "ADDED", a_job(uid="another"))
    assert view.seconds_known(a_job(uid="another")) == 0


def test_nothing_stays_of_a_job_whose_pods_go_after_it(view: ClusterView) -> None:
    # As the garbage collector does it; a dispatcher that runs for months would keep a little of each Job.
    job, pod = a_job(reported=True), a_pod()
    view.apply("jobs", "ADDED", job)
    view.apply("pods", "ADDED", pod)
    view.apply("jobs", "DELETED", job)
    view.apply("pods", "DELETED", pod)
    assert [name for name, kept in vars(view).items() if isinstance(kept, dict | set) and kept] == []
